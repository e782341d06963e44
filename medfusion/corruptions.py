"""How pictures differ between sites, in five severities each, and how much of its AUROC a model keeps.

After ImageNet-C (Hendrycks & Dietterich 2019), with what happens to medical pictures: viewers' gamma, tilted
patients, crops, borders and burned-in text. Severity 3 is what a reader notices and still reads without complaint.
ImageNet-C goes on to where people fail, and medical signs are fainter than the shape of a dog, so all five
corruptions shared with it are milder here. Levels are for pictures of about 224 px, as most models see them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np

from medfusion import inference, metrics
from medfusion.labelled import LabelledSet, read_pictures
from medfusion.library import Model

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_SEVERITY = 3
BATCH = 64

Corrupt = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


class Corruption(NamedTuple):
    """Call it with an (h, w, 3) uint8 RGB picture, a severity of 1 to 5 and a source of chance."""

    apply: Corrupt  # takes a level in the place of the severity
    levels: tuple[float, float, float, float, float]  # by severity

    def __call__(self, picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
        return self.apply(picture, self.levels[severity - 1], rng)


def noise(picture: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """sigma: at 224 px, more in finer pixels, as quantum noise: each of them catches less."""
    return as_bytes(picture + rng.normal(0, sigma * fineness(picture), (*picture.shape[:2], 1)))


def blur(picture: np.ndarray, sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    """sigma_px: at 224 px, more in finer pixels: it is the scene that loses detail."""
    return cv2.GaussianBlur(picture, (0, 0), sigma_px * fineness(picture))


def fineness(picture: np.ndarray) -> float:
    """Pixels along the longer side, of the 224 that levels are given for: larger inputs are not to look sturdier."""
    return max(picture.shape[:2]) / 224


def contrast(picture: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    mean = picture.mean()
    return as_bytes(mean + factor * (picture - mean))


def gamma(picture: np.ndarray, power: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(255 * (picture / 255) ** (power if rng.random() < 0.5 else 1 / power))


def brightness(picture: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(picture + 255 * (shift if rng.random() < 0.5 else -shift))


def jpeg(picture: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    bgr = picture[..., ::-1]  # OpenCV's order: JPEG keeps less of blue than of red
    _, stored = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))
    return np.ascontiguousarray(np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))[..., ::-1])


def rotation(picture: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    angle = degrees if rng.random() < 0.5 else -degrees
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR)


def cropping(picture: np.ndarray, kept: float, rng: np.random.Generator) -> np.ndarray:
    """A part of both sides, anywhere, at the old size."""
    height, width = picture.shape[:2]
    rows, columns = round(height * kept), round(width * kept)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    return cv2.resize(picture[top : top + rows, left : left + columns], (width, height), interpolation=cv2.INTER_LINEAR)


def border(picture: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Black on all sides, at the old size."""
    height, width = picture.shape[:2]
    rows, columns = round(height * share), round(width * share)
    framed = cv2.copyMakeBorder(picture, rows, rows, columns, columns, cv2.BORDER_CONSTANT)
    return cv2.resize(framed, (width, height), interpolation=cv2.INTER_AREA)


def text(picture: np.ndarray, lines: float, rng: np.random.Generator) -> np.ndarray:
    """Burned-in words in white near the corners, as scanners write them."""
    height, width = picture.shape[:2]
    written = picture.copy()
    for line in range(int(lines)):
        words = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUWXYZ0123456789 :"), 10))
        x = int(width * (0.02 if line % 2 else 0.55))
        y = int(height * (0.07 * (1 + line // 2) if line % 4 < 2 else 1 - 0.05 * (1 + line // 2)))
        cv2.putText(written, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, height / 560, (255, 255, 255), 1, cv2.LINE_AA)
    return written


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption(noise, (5, 10, 15, 22, 30)),  # standard deviation at 224 px, of 255; ImageNet-C 20 to 97
    "blur": Corruption(blur, (0.5, 0.8, 1.2, 1.7, 2.3)),  # sigma in px of 224; ImageNet-C 1 to 6
    "contrast": Corruption(contrast, (0.85, 0.7, 0.55, 0.4, 0.3)),  # of the old; ImageNet-C 0.4 to 0.05
    "gamma": Corruption(gamma, (1.15, 1.3, 1.5, 1.8, 2.2)),  # or its inverse
    "brightness": Corruption(
        brightness, (0.06, 0.12, 0.18, 0.25, 0.32)
    ),  # up or down, of the range; ImageNet-C 0.1 to 0.5, up only
    "jpeg": Corruption(jpeg, (70, 50, 30, 20, 10)),  # quality; ImageNet-C 25 to 7
    "rotation": Corruption(rotation, (3, 6, 10, 15, 20)),  # degrees, either way
    "cropping": Corruption(cropping, (0.95, 0.9, 0.85, 0.78, 0.7)),  # of each side kept
    "border": Corruption(border, (0.03, 0.06, 0.1, 0.15, 0.2)),  # of each side added, twice
    "text": Corruption(text, (1, 2, 4, 6, 8)),  # lines
}


def corrupt(picture: np.ndarray, name: str, severity: int, case: int, seed: int = 0) -> np.ndarray:
    """The corrupted (h, w, 3) uint8 picture; the same for the same name, severity, case number and seed.

    A case goes the same way at all severities, up or down, left or right: only the level differs.
    """
    return CORRUPTIONS[name](picture, severity, np.random.default_rng((seed, zlib.crc32(name.encode()), case)))


def robustness(
    model: Model,
    data: LabelledSet,
    severities: Sequence[int] = (REFERENCE_SEVERITY,),
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, object]:
    """AUROC of the cases as they are, and how far it drops, by corruption and severity. Decodes each picture once.

    mean_drop is over all corruptions at severity 3, where that was asked for. Drops may be negative, and are NaN where
    a class is absent. progress is called with the part done, 0..1.
    """
    labels = data.labels(model.card.classes)
    changes = [(name, severity) for name in CORRUPTIONS for severity in severities]
    clean: list[np.ndarray] = []
    changed: dict[tuple[str, int], list[np.ndarray]] = {change: [] for change in changes}
    pictures = enumerate(read_pictures(data, model.card.input))
    while batch := list(islice(pictures, BATCH)):
        clean.append(inference.score(model, np.stack([picture for _, picture in batch])))
        for name, severity in changes:
            worse = np.stack([corrupt(picture, name, severity, case, seed) for case, picture in batch])
            changed[name, severity].append(inference.score(model, worse))
        if progress:
            progress((batch[-1][0] + 1) / len(labels))
    auroc = metrics.auroc(np.concatenate(clean), labels)
    drops: dict[str, dict[str, float]] = {name: {} for name in CORRUPTIONS}
    for (name, severity), rows in changed.items():
        drops[name][str(severity)] = auroc - metrics.auroc(np.concatenate(rows), labels)
    found: dict[str, object] = {"n": len(labels), "auroc": auroc, "drops": drops}
    if REFERENCE_SEVERITY in severities:
        found["mean_drop"] = float(np.mean([drop[str(REFERENCE_SEVERITY)] for drop in drops.values()]))
    return found


def as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
