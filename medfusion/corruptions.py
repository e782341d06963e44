"""How pictures differ between sites, in five severities each, and how much of its AUROC a model keeps.

After ImageNet-C (Hendrycks & Dietterich 2019), with what happens to medical pictures: viewers' contrast and gamma,
crops, borders and burned-in text. Severity 3 is what a reader notices and still reads without complaint, so noise and
blur are milder than there. Levels are for pictures of about 224 px, the size that models see.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
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
    """apply takes an (h, w, 3) uint8 picture, a level and its source of chance. levels: by severity."""

    apply: Corrupt
    levels: tuple[float, float, float, float, float]


def noise(picture: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(picture + rng.normal(0, sigma, (*picture.shape[:2], 1)))


def blur(picture: np.ndarray, sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma_px)


def contrast(picture: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    mean = picture.mean()
    return as_bytes(mean + factor * (picture - mean))


def gamma(picture: np.ndarray, power: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(255 * (picture / 255) ** (power if rng.random() < 0.5 else 1 / power))


def brightness(picture: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(picture + 255 * (shift if rng.random() < 0.5 else -shift))


def jpeg(picture: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    _, stored = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))


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
    "noise": Corruption(noise, (5, 10, 15, 22, 30)),  # standard deviation, of 255
    "blur": Corruption(blur, (0.5, 0.8, 1.2, 1.7, 2.3)),  # sigma in px
    "contrast": Corruption(contrast, (0.85, 0.7, 0.55, 0.4, 0.3)),  # of the old
    "gamma": Corruption(gamma, (1.15, 1.3, 1.5, 1.8, 2.2)),  # or its inverse
    "brightness": Corruption(brightness, (0.06, 0.12, 0.18, 0.25, 0.32)),  # up or down, of the range
    "jpeg": Corruption(jpeg, (70, 50, 30, 20, 10)),  # quality
    "rotation": Corruption(rotation, (3, 6, 10, 15, 20)),  # degrees, either way
    "cropping": Corruption(cropping, (0.95, 0.9, 0.85, 0.78, 0.7)),  # of each side kept
    "border": Corruption(border, (0.03, 0.06, 0.1, 0.15, 0.2)),  # of each side added, twice
    "text": Corruption(text, (1, 2, 4, 6, 8)),  # lines
}


def corrupt(picture: np.ndarray, name: str, severity: int, case: int, seed: int = 0) -> np.ndarray:
    """The corrupted (h, w, 3) uint8 picture; the same for the same name, severity, case number and seed."""
    chance = np.random.default_rng((seed, zlib.crc32(name.encode()), severity, case))
    corruption = CORRUPTIONS[name]
    return corruption.apply(picture, corruption.levels[severity - 1], chance)


def robustness(
    model: Model, data: LabelledSet, severities: Sequence[int] = (REFERENCE_SEVERITY,), seed: int = 0
) -> dict[str, object]:
    """AUROC of the cases as they are, and how far it drops, by corruption and severity.

    mean_drop is over all corruptions at severity 3, where that was asked for. Drops may be negative.
    """
    labels = data.labels(model.card.classes)
    pictures = list(read_pictures(data, model.card.input))
    model.backend.get()
    clean = auroc_of(model, pictures, labels)
    drops = {
        name: {
            str(severity): clean
            - auroc_of(model, [corrupt(p, name, severity, case, seed) for case, p in enumerate(pictures)], labels)
            for severity in severities
        }
        for name in CORRUPTIONS
    }
    found: dict[str, object] = {"n": len(labels), "auroc": clean, "drops": drops}
    if REFERENCE_SEVERITY in severities:
        found["mean_drop"] = float(np.mean([drop[str(REFERENCE_SEVERITY)] for drop in drops.values()]))
    return found


def auroc_of(model: Model, pictures: list[np.ndarray], labels: np.ndarray) -> float:
    parts = (np.stack(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH))
    return metrics.auroc(np.concatenate([inference.score(model, part) for part in parts]), labels)


def as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
