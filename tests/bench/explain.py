"""Explanations on the tiny network at 224 px: LIME against the package's defaults, Grad-CAM against a forward pass."""

import numpy as np
from lime.lime_image import LimeImageExplainer

from medfusion.explain import explain
from medfusion.imaging import display
from medfusion.inference import score
from medfusion.library import Model
from medfusion.network import build
from medfusion.preprocess import squash
from medfusion.samples import read_sample
from tests.bench.table import Row, compare_s, median_s
from tests.core.toy_networks import model_of


def explanations() -> list[Row]:
    model = model_of(build("tiny", 2), ("no", "yes"), height_px=224, width_px=224)
    scan = read_sample("synthetic-chest")
    picture = squash(display(scan), model.card.input)
    return [
        Row(
            "LIME, 1000 samples, against the package's defaults",
            *compare_s(lambda: explain(model, scan, 1, "lime"), lambda: packaged_lime(model, picture)),
        ),
        Row(
            "Grad-CAM, against one forward pass",
            median_s(lambda: explain(model, scan, 1, "gradcam"), repeats=15),
            median_s(lambda: score(model, picture), repeats=15),
        ),
    ]


def packaged_lime(model: Model, picture: np.ndarray) -> None:
    """As the package is used without a thought: quickshift, 1000 samples, batches of 10."""
    LimeImageExplainer(random_state=0).explain_instance(picture, lambda pictures: score(model, pictures), labels=(1,))
