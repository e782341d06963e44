"""Which model a scan is for, or none: how far it lies from each model's own pictures.

Distances are taken in the feature space of the foundation model, one pass for all models: Mahalanobis distance
(Lee et al. 2018, section 2.1) with a shrunk covariance (Ledoit & Wolf 2004). Each model's folder holds the mean and
spread of its training pictures in reference.safetensors; no picture can be made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as format_safetensors

from medfusion import inference, library
from medfusion.errors import ModelDamaged
from medfusion.imaging import display
from medfusion.library import Model
from medfusion.preprocess import squash, to_batch
from medfusion.types import Prediction, Route, Scan

FOUNDATION = "foundation"
REFERENCE = "reference.safetensors"
CLOSE = 1.5  # two models whose distances differ by less than this factor are both offered


@dataclass(frozen=True, eq=False)
class Reference:
    """Where a model's own pictures lie. Distances are squared Mahalanobis distances over the limit: 1 is the limit."""

    mean: np.ndarray  # (D,) float32
    whiten: np.ndarray  # (D, D) float32: (x - mean) @ whiten has unit covariance
    limit: float
    foundation_sha256: str  # of the weights whose features these are

    def distance(self, features: np.ndarray) -> np.ndarray:
        """(n, D) features to (n,) distances; at most 1 belongs to the model."""
        return np.square((features - self.mean) @ self.whiten).sum(axis=1) / self.limit


def save(folder: Path, reference: Reference) -> None:
    """Write reference.safetensors beside the weights, the matrix in half precision."""
    tensors = {"mean": reference.mean, "whiten": reference.whiten.astype(np.float16)}
    described = {"limit": repr(reference.limit), "foundation_sha256": reference.foundation_sha256}
    (folder / REFERENCE).write_bytes(format_safetensors(tensors, described))


def read(folder: Path) -> Reference | None:
    """The reference of a model, None where it has none. Raises ModelDamaged when it cannot be read."""
    path = folder / REFERENCE
    if not path.exists():
        return None
    try:
        if path.stat().st_size > library.MAX_CARD_BYTES:
            raise ValueError("larger than a reference can be")
        with safe_open(path, "numpy") as file:
            described = file.metadata()
            return Reference(
                file.get_tensor("mean"),
                file.get_tensor("whiten").astype(np.float32),
                float(described["limit"]),
                described["foundation_sha256"],
            )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ModelDamaged(f"The reference of {folder.name!r} cannot be read. Install the model again.") from error


@dataclass(frozen=True, eq=False)
class Router:
    """The foundation model with the references made in its feature space, by model id."""

    foundation: Model
    known: Mapping[str, Reference]

    def route(self, picture: np.ndarray) -> Route:
        """The model that a display picture (H, W[, 3]) uint8 is for, or the reason why none of those known is."""
        return self.routes(squash(picture, self.foundation.card.input)[None])[0]

    def routes(self, pictures: np.ndarray) -> list[Route]:
        """The same of many, (B, h, w, 3) uint8 as the foundation takes them: one pass for all."""
        seen = features(self.foundation, pictures)
        far = {model_id: reference.distance(seen) for model_id, reference in self.known.items()}
        return [
            judge({model_id: float(distances[row]) for model_id, distances in far.items()})
            for row in range(len(pictures))
        ]


def judge(distances: dict[str, float]) -> Route:
    """The nearest model, unless it is too far, or another one nearly as near."""
    nearest, *others = sorted(distances, key=distances.__getitem__)
    if distances[nearest] > 1:
        reason = "This picture looks like none of those that the models were trained on. Check what it is."
        return Route(None, reason, distances)
    rivals = [name for name in others if distances[name] <= min(1, CLOSE * distances[nearest])]
    if rivals:
        names = ", ".join([nearest, *rivals])
        return Route(None, f"This picture may be for several models: {names}. Choose one.", distances)
    return Route(nearest, f"This picture looks like those that {nearest} was trained on.", distances)


def load() -> Router | None:
    """The router of this installation; None without a foundation model or without references made with it."""
    cards = library.list_cards()
    if not any(card.id == FOUNDATION for card in cards):
        return None
    foundation = library.load(FOUNDATION)
    known = {}
    for card in cards:
        reference = read(library.find(card.id))
        if reference and reference.foundation_sha256 == foundation.card.weights_sha256:
            known[card.id] = reference
    return Router(foundation, known) if known else None


def features(foundation: Model, pictures: np.ndarray) -> np.ndarray:
    """(n, D) float32 of display pictures: (H, W[, 3]) or (B, H, W, 3), uint8."""
    batch = to_batch(pictures, foundation.card.input).to(foundation.device)
    return foundation.fused(batch).cpu().numpy()


def predict(model: Model, scan: Scan, frame: int = 0) -> Prediction:
    """As `inference.predict`, with a warning where the router of this installation would not choose the model."""
    known = load()
    return inference.predict(model, scan, frame, known.route(display(scan, frame)) if known else None)
