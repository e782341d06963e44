"""Does the answer rest on what shows no anatomy? Borders, background, and text or markers burned into the picture.

Such parts tell hospitals and cameras apart (Zech 2018; DeGrave 2021), and with them classes. Each is painted over by
interpolation from its rim, and the picture is scored again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from medfusion.explain.faithfulness import chances, fill, neighbours
from medfusion.imaging import display
from medfusion.library import Model
from medfusion.preprocess import squash, to_batch
from medfusion.types import Explanation, Scan

BORDER = 0.05  # of each side
BLACK = 16  # of 255: what no sensor saw
STANDS_OUT = 90  # of 255: a stroke of text over its surroundings
STROKE = 1 / 16  # of the longer side: strokes are narrower
MUCH = 0.1  # a change of the probability that a reader should know
MOST = 0.5  # of the evidence
OVERDONE = 1.5  # evidence on a part, against its share of the picture
LETTER = 1 / 8  # of the longer side: no letter or marker is larger


@dataclass(frozen=True)
class Part:
    """What one part of the picture without anatomy does to the answer."""

    name: str
    area: float  # share of the picture, 0..1
    evidence: float  # share of the map's positive evidence, 0..1; NaN where there is none
    probability: float  # of the target, with the part painted over

    def leans(self, probability: float) -> bool:
        """Whether the answer rests on this part. probability: of the target, with nothing painted over."""
        return probability - self.probability > MUCH or self.evidence > max(MOST, OVERDONE * self.area)


@dataclass(frozen=True)
class Shortcuts:
    target_name: str
    probability: float  # of the target, as the picture is
    parts: tuple[Part, ...]  # those that the picture has

    def in_words(self) -> str:
        """One sentence for the reader."""
        target = self.target_name.replace("_", " ")
        leaning = [part for part in self.parts if part.leans(self.probability)]
        if not self.parts:
            return "The picture has no borders, background or markers to speak of."
        if not leaning:
            names = [part.name for part in self.parts]
            little = "they change little" if len(names) > 1 else "it changes little"
            return f"The answer does not rest on {joined(names)}: painted over, {little}."
        worst = min(leaning, key=lambda part: part.probability)
        where = f"{worst.name}, which is {100 * worst.area:.0f} % of the picture"
        held = f"{100 * worst.evidence:.0f} % of the evidence for {target} lies on {where}; with that painted over"
        if np.isnan(worst.evidence):
            held = f"with {where}, painted over"
        change = f"from {100 * self.probability:.0f} % to {100 * worst.probability:.0f} %"
        return f"Beware of a shortcut: {held}, the probability of {target} goes {change}."


def shortcuts(
    model: Model, scan: Scan, explanation: Explanation, progress: Callable[[float], None] | None = None
) -> Shortcuts:
    """Probe one map of a frame of a scan. progress may raise Cancelled."""
    spec = model.card.input
    picture = squash(display(scan, explanation.frame), spec)
    found = parts_of(picture)
    size = picture.shape[:2]
    heat = F.interpolate(torch.from_numpy(explanation.heatmap)[None, None], size=size, mode="area")[0, 0].numpy()
    views = [picture, *(painted_over(picture, mask) for mask in found.values())]
    if progress:
        progress(0.5)
    probabilities = chances(model, to_batch(np.stack(views), spec), explanation.target_index)
    if progress:
        progress(1.0)
    total = float(heat.sum())
    parts = tuple(
        Part(name, float(mask.mean()), float(heat[mask].sum()) / total if total else float("nan"), float(probability))
        for (name, mask), probability in zip(found.items(), probabilities[1:], strict=True)
    )
    return Shortcuts(explanation.target_name, float(probabilities[0]), parts)


def parts_of(picture: np.ndarray) -> Mapping[str, np.ndarray]:
    """Masks (h, w), by name, of what shows no anatomy in an (h, w, 3) uint8 picture; empty ones are left out."""
    height, width = picture.shape[:2]
    inside = np.zeros((height, width), bool)
    margin = round(BORDER * height), round(BORDER * width)
    inside[margin[0] : height - margin[0], margin[1] : width - margin[1]] = True
    found = {"the border": ~inside, "the black background": background(picture), "text or markers": writing(picture)}
    return {name: mask for name, mask in found.items() if 0.001 < mask.mean() < 0.9}


def background(picture: np.ndarray) -> np.ndarray:
    """Black that reaches the edge of the picture: outside the field of view, or beside the patient."""
    black = (picture.max(axis=2) <= BLACK).astype(np.uint8)
    _, labels = cv2.connectedComponents(cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.setdiff1d(edge, 0)).astype(np.uint8)
    return cv2.dilate(outside, np.ones((5, 5), np.uint8)) > 0  # with the dim rim


def writing(picture: np.ndarray) -> np.ndarray:
    """Bright narrow strokes on black, as letters and side markers are; widened to hold their blurred edges."""
    grey = picture.max(axis=2)
    side = max(3, round(STROKE * max(grey.shape)) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))
    strokes = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel) > STANDS_OUT
    on_black = cv2.erode(grey, kernel) <= 2 * BLACK
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((strokes & on_black).astype(np.uint8))
    longest = boxes[:, (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT)].max(axis=1)
    letters = np.flatnonzero(longest <= LETTER * max(grey.shape))
    small = np.isin(labels, letters[letters > 0]).astype(np.uint8)
    return cv2.dilate(small, np.ones((5, 5), np.uint8)) > 0


def painted_over(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the masked part interpolated from its rim, without noise."""
    size = picture.shape[1::-1]
    half = (size[0] // 2, size[1] // 2)
    small = cv2.resize(picture, half, interpolation=cv2.INTER_AREA).transpose(2, 0, 1).astype(np.float32)
    gone = cv2.resize(mask.astype(np.uint8), half, interpolation=cv2.INTER_AREA) > 0
    if gone.all():
        return picture
    filled = fill(small, gone, neighbours(*gone.shape)).transpose(1, 2, 0)
    large = cv2.resize(np.clip(filled, 0, 255), size, interpolation=cv2.INTER_LINEAR).round().astype(np.uint8)
    return np.where(mask[..., None], large, picture)


def joined(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
