"""Model folders from anywhere: what is not safetensors with a card that belongs to it is refused before it is used."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medfusion import library
from medfusion.errors import MedFusionError, ModelDamaged
from medfusion.network import build
from medfusion.types import InputSpec, ModelCard, OperatingPoint

CARD = ModelCard(
    id="lungs", title="Lungs", version="1.0.0", size="tiny", task="multiclass", classes=("clear", "nodule"),
    modality="CT slice", dicom_modalities=("CT",), colour=False, input=InputSpec(64, 64), temperature=1.0,
    operating_point=OperatingPoint((1.0, 1.0), "The most probable."), weights_sha256="",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDFUSION_MODELS", str(tmp_path))
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "nothing-shipped")
    library.save(tmp_path / "lungs", CARD, build("tiny", 2, seed=1))
    return tmp_path / "lungs"


def vouch_for(folder: Path, weights: bytes) -> None:
    (folder / library.WEIGHTS).write_bytes(weights)
    change(folder, weights_sha256=hashlib.sha256(weights).hexdigest())


def change(folder: Path, **changes: object) -> None:
    path = folder / library.CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path) -> str:
    with pytest.raises(ModelDamaged, match=r"Install the model again\.$") as caught:
        library.load("lungs", "cpu")
    return str(caught.value)


class Bomb:
    def __reduce__(self):
        return (Path("/nowhere/it-ran").write_text, ("",))


@pytest.mark.parametrize(
    "weights",
    [
        pickle.dumps(Bomb()),
        b"PK\x03\x04" + pickle.dumps(Bomb()),  # how PyTorch saves
        struct.pack("<Q", 2**60) + b"{}",  # a header of an exabyte
        struct.pack("<Q", 99_000_000) + b"{" * 1000,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 30) + b'{"a":{"dtype":"F32","shape":[',
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}  ' + bytes(4),
        b"",
    ],
    ids=["pickle", "archive", "huge header", "header beyond the file", "empty", "cut off", "lying shape", "nothing"],
)
def test_what_is_not_safetensors_is_refused_although_the_card_vouches_for_it(folder, weights):
    vouch_for(folder, weights)
    assert "do not fit" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, tmp_path, value):
    state = load_file(folder / library.WEIGHTS)
    state["head.weight"][0, 0] = torch.tensor(value)
    save_file(state, tmp_path / "other.safetensors")
    vouch_for(folder, (tmp_path / "other.safetensors").read_bytes())
    assert "no numbers" in refused(folder)


@pytest.mark.parametrize("name", [library.WEIGHTS, library.CARD])
def test_a_file_larger_than_the_memory_is_not_read(folder, name):
    with (folder / name).open("r+b") as file:
        file.truncate(2**40)  # takes no room on the disk
    assert "too large" in refused(folder)


@pytest.mark.parametrize("id", ["../../etc", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "", "a\nb", 7, None, ["a"]])
def test_an_id_that_is_no_plain_name_is_refused(folder, id):
    change(folder, id=id)
    refused(folder)
    assert library.list_cards() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "1"},
        {"operating_point": {"thresholds": [float("nan"), 1], "rule": "x"}},
        {"operating_point": {"thresholds": ["a", "b"], "rule": "x"}},
        {"input": {"height_px": 3_200_000, "width_px": 3_200_000}},
        {"input": {"height_px": -64, "width_px": 64}},
        {"input": {"height_px": 64.5, "width_px": "64"}},
        {"classes": [1, 2]},
        {"classes": [], "operating_point": {"thresholds": [], "rule": "x"}},
        {"classes": [str(n) for n in range(5000)], "operating_point": {"thresholds": [1] * 5000, "rule": "x"}},
        {"title": {"a": 1}},
        {"metrics": [1]},
        {"temperature": 10**400},
        {"data": {"splits": {"train": {"ill": "many"}}}},
        {"input": {"height_px": 64.0, "width_px": 64.0}},
        {"weights_sha256": None},
    ],
    ids=str,
)
def test_a_card_of_values_that_no_card_has_is_refused_in_a_sentence(folder, changes):
    change(folder, **changes)
    refused(folder)


@pytest.mark.parametrize(
    ("metrics", "place"),
    [
        ({"test": [0.9]}, "metrics.test"),
        ({"test": {"accuracy": "high"}}, "metrics.test.accuracy"),
        ({"val": {"accuracy": {"value": "high"}}}, "metrics.val.accuracy.value"),
        ({"val": {"per_class": {"ill": 0.9}}}, "metrics.val.per_class.ill"),
        ({"val": {"prediction_sets": {"coverage": 0.9}}}, "metrics.val.prediction_sets"),
        ({"seeds": {"0": {"val": {"accuracy": 0.9}}}}, "metrics.seeds.0.val"),
        ({"cross_validation": {"pooled": {}}}, "metrics.cross_validation"),
        ({"robustness": {"n": 9, "mean_drop": 0.1, "drops": {"blur": {"1": 0.1}}}}, "metrics.robustness.drops.blur"),
        ({"sanity": {"scans": 8, "weights": {"gradcam": {}}}}, "metrics.sanity.weights.gradcam"),
        ({"val_by_set": {"lungs": {"accuracy": 0.9}}}, "metrics.val_by_set.lungs"),
    ],
    ids=str,
)
def test_figures_that_no_page_could_show_are_refused_with_their_place(folder, metrics, place):
    change(folder, metrics=metrics)
    assert f"({place}: " in refused(folder)


def test_a_card_nested_without_end_is_refused(folder):
    (folder / library.CARD).write_text("[" * 200_000)
    refused(folder)


def test_a_wrong_model_leaves_the_others_usable_and_is_told(folder, tmp_path):
    library.save(tmp_path / "other", CARD, build("tiny", 2, seed=1))
    change(tmp_path / "other", id="other")
    change(folder, temperature="hot")
    assert [card.id for card in library.list_cards()] == ["other"]
    (problem,) = library.problems()
    assert "lungs" in problem
    with pytest.raises(MedFusionError):
        library.load("lungs")
