"""Occlusion and integrated gradients: answers worked by hand on networks that count dots."""

import numpy as np
import pytest

from medfusion.errors import ExplanationError
from medfusion.explain import explain
from medfusion.inference import class_logits
from medfusion.preprocess import to_batch
from tests.core.toy_networks import ToyNet, dotted, model_of, scan_of


def test_integrated_gradients_add_up_to_the_score_less_that_of_black():
    model = model_of(ToyNet([[0.3, 0, 0, -0.2]]), ("no", "yes"), task="binary")
    picture = dotted(0, 3)
    found = explain(model, scan_of(picture), 1, "integrated_gradients", settings={"steps": 200})
    batch = to_batch(np.repeat(picture[..., None], 3, 2), model.card.input)
    scores = [class_logits(model.network(x), "binary")[0, 1].item() for x in (batch, batch * 0)]
    assert found.raw.sum() == pytest.approx(scores[0] - scores[1], rel=0.03)


def test_occlusion_is_the_fall_of_the_log_odds_when_a_square_is_covered():
    """Squares of one quadrant, side by side: covering the only one with dots takes all 16 of them."""
    model = model_of(ToyNet([[0.3, 0, 0, 0]]), ("no", "yes"), task="binary")
    settings = {"square_px": 32, "stride_px": 32}
    found = explain(model, scan_of(dotted(0)), 1, "occlusion", settings=settings)
    assert found.raw[:32, :32] == pytest.approx(np.full((32, 32), 16 * 0.3), rel=1e-4)
    assert found.raw[32:].any() == np.False_


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("occlusion", {"square_px": 8, "stride_px": 9}),
        ("occlusion", {"stride_px": 0}),
        ("integrated_gradients", {"steps": 1}),
    ],
)
def test_settings_that_cannot_work_are_told(method, settings):
    model = model_of(ToyNet([[1, 0, 0, 0]]), ("no", "yes"), task="binary")
    with pytest.raises(ExplanationError, match="Choose"):
        explain(model, scan_of(dotted(0)), 1, method, settings=settings)
