"""Routing by distance, on a stand-in for the foundation whose features are the mean colours of the picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medfusion import library, router
from medfusion.errors import ModelDamaged
from medfusion.inference import predict
from medfusion.library import Model
from medfusion.network import Features, build
from medfusion.types import InputSpec, ModelCard, OperatingPoint, Route
from tests.core.toy_networks import dotted, model_of, scan_of
from training import reference


class MeanColour(nn.Module):
    def extract(self, x):
        return x

    def maps(self, cnn_map):
        return Features(cnn_map, cnn_map, cnn_map)

    def fused(self, features):
        return features.deep_map.mean((2, 3))


@pytest.fixture
def foundation() -> Model:
    return Model(toy_card(), MeanColour(), torch.device("cpu"))


def toy_card() -> ModelCard:
    point = OperatingPoint((0.5, 0.5), "")
    return ModelCard(
        "foundation", "", "1", "tiny", "multiclass", ("a", "b"), "", (), True, InputSpec(32, 32), 1.0, point, "sha"
    )


def tinted(colour, count, seed):
    rng = np.random.default_rng(seed)
    shade = np.array(colour) + rng.normal(0, 8, (count, 1, 1, 3))
    return np.clip(shade + rng.normal(0, 5, (count, 32, 32, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def known(foundation):
    found = {}
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200)), ("navy", (40, 40, 175))):
        train, val = (router.features(foundation, tinted(colour, 200, seed)) for seed in (0, 1))
        found[name] = reference.fit(train, val, "sha")
    return found


def test_a_picture_goes_to_the_model_that_knows_its_like(foundation, known):
    for picture in tinted((200, 40, 40), 20, seed=2):
        assert router.Router(foundation, known).route(picture).model_id == "red"


def test_a_picture_like_none_is_refused_with_the_reason(foundation, known):
    found = router.Router(foundation, known).route(tinted((40, 200, 40), 1, seed=3)[0])
    assert found.model_id is None
    assert "none of those" in found.reason
    assert min(found.distances.values()) > 1


def test_between_two_models_the_reader_chooses(foundation, known):
    found = router.Router(foundation, known).route(np.full((32, 32, 3), (40, 40, 186), np.uint8))
    assert found.model_id is None
    assert "blue" in found.reason
    assert "navy" in found.reason
    assert "red" not in found.reason


def test_distance_is_mahalanobis_over_the_limit():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(5000, 2)) * (1, 10) + (3, 4)
    fitted = reference.fit(train, train, "sha")
    at = fitted.distance(np.array([[3, 4], [5, 4], [3, 24], [5, 24]]))
    assert at[0] == pytest.approx(0, abs=0.01)
    assert at[1] == pytest.approx(at[2], rel=0.1)  # two standard deviations either way
    assert at[3] == pytest.approx(at[1] + at[2], rel=0.05)
    assert np.mean(fitted.distance(train) <= 1 / reference.MARGIN) == pytest.approx(reference.USUAL, abs=0.005)


def test_a_reference_survives_the_file(tmp_path, known):
    router.save(tmp_path, known["red"])
    back = router.read(tmp_path)
    points = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert back.distance(points) == pytest.approx(known["red"].distance(points), rel=1e-6)
    assert back.foundation_sha256 == "sha"


def test_a_model_without_reference_and_a_damaged_one(tmp_path):
    assert router.read(tmp_path) is None
    (tmp_path / router.REFERENCE).write_bytes(b"no tensors")
    with pytest.raises(ModelDamaged, match="Install the model again"):
        router.read(tmp_path)
    router.save(tmp_path, router.Reference(np.zeros(2, np.float32), np.eye(2, dtype=np.float32), 1.0, "sha"))
    assert router.read(tmp_path).limit == 1.0


def test_without_a_foundation_there_is_no_router(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    monkeypatch.delenv("MEDFUSION_MODELS", raising=False)
    assert router.load() is None


def test_only_references_made_with_the_installed_foundation_count(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    monkeypatch.delenv("MEDFUSION_MODELS", raising=False)
    card = replace(toy_card(), role="foundation")
    sha = library.save(tmp_path / "foundation", card, build("tiny", 2)).weights_sha256
    assert router.load() is None
    flat = (np.zeros(384, np.float32), np.eye(384, dtype=np.float32), 1e9)
    for name, made_with in (("new", sha), ("old", "another")):
        library.save(tmp_path / name, replace(card, id=name, role="diagnosis"), build("tiny", 2))
        router.save(tmp_path / name, router.Reference(*flat, made_with))
    found = router.load()
    assert list(found.known) == ["new"]
    assert found.route(np.zeros((40, 30, 3), np.uint8)).model_id == "new"


def test_a_picture_far_from_those_of_the_model_is_answered_with_a_warning():
    model = model_of(build("tiny", 4), height_px=64, width_px=64)
    scan = scan_of(dotted(0))
    far, near = (Route(None, "", {"toy": distance}) for distance in (3.0, 0.5))
    assert any("does not look like" in warning for warning in predict(model, scan, route=far).warnings)
    assert not any("does not look like" in warning for warning in predict(model, scan, route=near).warnings)


@pytest.mark.parametrize(
    ("distances", "reason"),
    [
        ({"toy": 0.9, "other": 0.1}, "those that other was trained on"),  # near enough, but for another
        ({"toy": 0.5, "other": 0.6}, "several models: toy, other"),
        ({"toy": 7.0, "other": 9.0}, "none of those"),
    ],
)
def test_an_answer_against_the_route_is_marked_with_the_reason(distances, reason):
    model = model_of(build("tiny", 4), height_px=64, width_px=64)
    model = replace(model, card=replace(model.card, dicom_modalities=("DX",)))
    said = predict(model, replace(scan_of(dotted(0)), modality="CT"), route=router.judge(distances))
    assert "says that it is CT" in " ".join(said.warnings)
    assert said.override
    assert reason in said.override
    assert said.warnings.count(said.override) == 1


@pytest.mark.parametrize("route", [None, router.judge({"toy": 0.1, "other": 0.9}), router.judge({"other": 0.1})])
def test_an_answer_with_the_route_or_where_there_is_none_is_not_marked(route):
    said = predict(model_of(build("tiny", 4), height_px=64, width_px=64), scan_of(dotted(0)), route=route)
    assert said.override is None
    assert not any("would not choose" in warning for warning in said.warnings)
