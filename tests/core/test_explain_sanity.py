"""Sanity of maps: what randomising weights does to them, and what is refused for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medfusion import explain as package
from medfusion import network
from medfusion.errors import ExplanationError
from medfusion.explain import EXPLAINERS, explain, refusal
from medfusion.explain.contract import Attribution, Explainer
from medfusion.explain.occlusion import OcclusionSettings
from medfusion.explain.sanity import PARTS, lessened, likeness, likenesses, randomised
from tests.core.test_words import explanation, spot
from tests.core.toy_networks import dotted, model_of, scan_of

SEED = 16


@pytest.fixture
def model():
    """Untrained: its maps are as unlike those of others as a seed has it, for all of them see the one dot."""
    return model_of(network.build("tiny", 2, SEED), ("no", "yes"), height_px=128, width_px=128)


@pytest.fixture
def pictures():
    return [np.repeat(dotted(quadrant)[..., None], 3, axis=2) for quadrant in range(3)]


@pytest.fixture
def edge_detector(monkeypatch):
    """A method that shows the picture, whatever the model."""

    def attribute(model, picture, target_index, seed, settings, progress):
        return Attribution(picture.mean(axis=2).astype(np.float32) / 255, "bilinear")

    made = Explainer("Edge detector", "", "", attribute, OcclusionSettings)
    monkeypatch.setitem(package.EXPLAINERS, "edges", made)
    return "edges"


def test_only_the_named_parts_are_randomised(model):
    after = randomised(model, ("head", "norm"), seed=1).network.state_dict()
    changed = {name.split(".")[0] for name, value in model.network.state_dict().items() if not value.equal(after[name])}
    assert changed == {"head"}  # a layer norm begins as ones and zeros, as it does here
    deeper = randomised(model, PARTS, seed=1).network.state_dict()
    fresh = network.build("tiny", 2, seed=1).state_dict()
    assert all(value.equal(fresh[name]) for name, value in deeper.items())
    assert model.network.state_dict()["head.weight"].equal(network.build("tiny", 2, SEED).head.weight)


def test_all_of_the_network_is_named(model):
    assert {name for name, _ in model.network.named_children() if list(getattr(model.network, name).parameters())} == {
        *PARTS
    }


def test_likeness_by_hand():
    assert likeness(explanation(spot(0, 0)), explanation(2 * spot(0, 0))) == pytest.approx(1)
    assert likeness(explanation(spot(0, 0)), explanation(-spot(0, 0))) == pytest.approx(1)  # turned round is not new
    assert likeness(explanation(spot(0, 0)), explanation(np.ones((90, 120)))) == 0
    assert likeness(explanation(spot(0, 0)), explanation(spot(2, 2))) < 0.2


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_maps_of_an_untrained_network_change_with_its_weights(model, pictures, method):
    found = likenesses(model, lessened(model), pictures, method)
    assert list(found) == (["stem"] if EXPLAINERS[method].is_slow else [*PARTS])
    assert all(0 <= value < package.ALIKE or part != "stem" for part, value in found.items())


def test_a_method_that_shows_the_picture_is_found_and_refused(model, pictures, edge_detector):
    found = likenesses(model, lessened(model), pictures, edge_detector)
    assert found["stem"] == pytest.approx(1)
    judged = replace(model, card=replace(model.card, metrics={"sanity": {"weights": {edge_detector: found}}}))
    assert refusal(judged.card, "gradcam") is None
    assert "Edge detector shows the picture, not this model" in refusal(judged.card, edge_detector)
    with pytest.raises(ExplanationError, match=r"rank correlation 1\.00"):
        explain(judged, scan_of(dotted(0)), 1, edge_detector)
    assert likenesses(judged, lessened(judged), pictures, edge_detector) == found  # a refused method can be tried again


def test_a_card_without_figures_refuses_nothing(model):
    assert all(refusal(model.card, method) is None for method in EXPLAINERS)


def test_randomising_leaves_no_trace(model, pictures):
    before = explain(model, scan_of(dotted(1)), 1, "gradcam").raw
    likenesses(model, lessened(model), pictures[:1], "gradcam")
    assert np.array_equal(explain(model, scan_of(dotted(1)), 1, "gradcam").raw, before)
    assert torch.is_grad_enabled()
