"""Explanations on the tiny network at 224 px: LIME against the package's defaults, Grad-CAM against a forward pass."""

from collections.abc import Callable

import numpy as np
import torch
from lime.lime_image import LimeImageExplainer

from medfusion.explain import explain
from medfusion.imaging import display
from medfusion.inference import score
from medfusion.library import Model
from medfusion.network import build
from medfusion.preprocess import squash, to_batch
from medfusion.samples import read_sample
from tests.bench.table import Row, compare_s, median_s
from tests.core.toy_networks import model_of


def explanations() -> list[Row]:
    model = model_of(build("tiny", 2), ("no", "yes"), height_px=224, width_px=224)
    scan = read_sample("synthetic-chest")
    picture = squash(display(scan), model.card.input)
    eager = eager_score(model)
    explain(model, scan, 1, "lime", settings={"samples": 24})  # imports and first-time set-up are no part of it
    score(model, picture)
    rows = [
        Row(
            "LIME, 1000 samples, against the package's defaults",
            *compare_s(lambda: explain(model, scan, 1, "lime"), lambda: packaged_lime(eager, picture)),
        ),
        Row(
            "Grad-CAM, against one forward pass",
            median_s(lambda: explain(model, scan, 1, "gradcam"), repeats=15),
            median_s(lambda: eager(picture), repeats=15),
        ),
    ]
    for batch in (1, 32):
        pictures = np.stack([picture] * batch)
        ours = median_s(lambda pictures=pictures: score(model, pictures), repeats=9)
        theirs = median_s(lambda pictures=pictures: eager(pictures), repeats=9)
        rows.append(Row(f"answers to {batch}, against PyTorch", ours, theirs))
    return rows


def eager_score(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """The same answers by PyTorch alone."""

    @torch.inference_mode()
    def scores(pictures: np.ndarray) -> np.ndarray:
        return model.network(to_batch(pictures, model.card.input)).softmax(1).numpy()

    return scores


def packaged_lime(eager: Callable[[np.ndarray], np.ndarray], picture: np.ndarray) -> None:
    """As the package is used without a thought: quickshift, 1000 samples, batches of 10."""
    LimeImageExplainer(random_state=0).explain_instance(picture, eager, labels=(1,))
