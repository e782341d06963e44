"""`python -m training reference`: say which pictures a model knows, so that others are refused (see router.py)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.covariance import LedoitWolf

from medfusion import library, router
from medfusion.corruptions import CORRUPTIONS, corrupt
from medfusion.errors import ModelNotFound
from medfusion.library import Model
from training.augment import RECIPES, augment
from training.datasets import Pictures, parts_of

MOST = 600  # training pictures looked at, each in three ways
BATCH = 32
USUAL = 0.95  # share of validation pictures within the usual distance
MARGIN = 1.75  # a picture is refused beyond so many usual distances: 1 of the 1814 validation pictures of ours is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the model, by id or folder")
    parser.add_argument("--data", type=Path, required=True, help="the zip or folder that it was trained on")
    parser.add_argument("--margin", type=float, default=MARGIN, help=f"see MARGIN; default: {MARGIN}")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the decoded pictures")


def run(options: argparse.Namespace) -> str:
    """Write reference.safetensors into the model's folder."""
    folder = library.find(options.model)
    card = library.read_card(folder)
    config = dict(card.training.get("config", {}))  # type: ignore[call-overload]
    train, val = parts_of(card, options.data, options.runs)
    write(
        folder, library.load(router.FOUNDATION), train, val, str(config.get("augmentation", "general")), options.margin
    )
    return f"{folder / router.REFERENCE} written"


def write_if_possible(folder: Path, train: Pictures, val: Pictures, recipe: str) -> None:
    """The reference of a new model; none where the foundation model is not installed."""
    try:
        foundation = library.load(router.FOUNDATION)
    except ModelNotFound:
        return
    write(folder, foundation, train, val, recipe)


def write(folder: Path, foundation: Model, train: Pictures, val: Pictures, recipe: str, margin: float = MARGIN) -> None:
    """Fit and save. Training pictures are seen as they are, varied as in training and made worse as elsewhere.

    So pictures of other sites, or with text burned in, are not refused for what does not hide them.
    """
    rng = np.random.default_rng(0)
    chosen = rng.choice(train.rows, min(MOST, len(train.rows)), replace=False)
    plain = [np.asarray(train.pictures[row]) for row in chosen]
    varied = [augment(picture, RECIPES[recipe], foundation.card.input.height_px, rng) for picture in plain]
    worse = [
        corrupt(picture, list(CORRUPTIONS)[rng.integers(len(CORRUPTIONS))], int(rng.integers(1, 6)), row, 0)
        for picture, row in zip(plain, chosen, strict=True)
    ]
    seen = np.concatenate([features(foundation, part) for part in (plain, varied, worse)])
    own = features(foundation, [np.asarray(val.pictures[row]) for row in val.rows])
    router.save(folder, fit(seen, own, foundation.card.weights_sha256, margin))


def fit(train: np.ndarray, val: np.ndarray, foundation_sha256: str, margin: float = MARGIN) -> router.Reference:
    """The reference of one model from foundation features (n, D) of its training and validation pictures."""
    covariance = LedoitWolf().fit(train).covariance_
    values, vectors = np.linalg.eigh(covariance)
    whiten = (vectors / np.sqrt(values)).astype(np.float16).astype(np.float32)
    mean = train.mean(axis=0).astype(np.float32)
    plain = router.Reference(mean, whiten, 1.0, foundation_sha256)
    usual = float(np.quantile(plain.distance(val), USUAL))
    return router.Reference(mean, whiten, margin * usual, foundation_sha256)


def features(foundation: Model, pictures: list[np.ndarray]) -> np.ndarray:
    batches = (np.stack(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH))
    return np.concatenate([router.features(foundation, batch) for batch in batches])
