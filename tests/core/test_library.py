"""Models on disk: what is saved is what is loaded, and what does not belong together is refused."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medfusion import library
from medfusion.errors import ModelDamaged, ModelNotFound
from medfusion.network import MedFusionNet, build
from medfusion.types import InputSpec, ModelCard, OperatingPoint

CARD = ModelCard(
    id="lungs",
    title="Lungs",
    version="1.2.3",
    size="tiny",
    task="multiclass",
    classes=("clear", "nodule", "größer"),
    modality="CT slice",
    dicom_modalities=("CT",),
    colour=False,
    input=InputSpec(64, 96),
    temperature=1.5,
    operating_point=OperatingPoint((1.0, 0.5, 1.0), "Half for nodules."),
    weights_sha256="",
    limits=("Adults only.",),
    data={"source": "made up", "splits": {"train": {"clear": 3}}},
    metrics={"test": {"n": 10}},
)


@pytest.fixture(scope="module")
def network() -> MedFusionNet:
    return build("tiny", 3, seed=4).eval()


@pytest.fixture
def folder(tmp_path: Path, network: MedFusionNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a saved model, in a site's own collection."""
    monkeypatch.setenv("MEDFUSION_MODELS", str(tmp_path))
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "nothing-shipped")
    library.save(tmp_path / "lungs", CARD, network)
    return tmp_path / "lungs"


def replace_weights(folder: Path, data: bytes) -> None:
    """Put other weights beside the card, and make the card vouch for them."""
    (folder / library.WEIGHTS).write_bytes(data)
    change_card(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def change_card(folder: Path, **changes: object) -> None:
    path = folder / library.CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_model_is_loaded_as_it_was_but_for_half_precision(folder, network):
    model = library.load("lungs", "cpu")
    assert replace(model.card, weights_sha256="") == CARD
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        loaded = model.network.state_dict()[name]
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, value.half().float())
    with torch.inference_mode():
        torch.testing.assert_close(model.network(x), network(x), atol=1e-4, rtol=1e-2)


def test_weights_are_stored_in_half_precision_and_named_by_their_checksum(folder):
    stored = load_file(folder / library.WEIGHTS)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    written = json.loads((folder / library.CARD).read_text())["weights_sha256"]
    assert written == hashlib.sha256((folder / library.WEIGHTS).read_bytes()).hexdigest()


def test_a_loaded_network_is_frozen_in_evaluation_mode(folder):
    model = library.load("lungs", "cpu")
    assert not any(module.training for module in model.network.modules())
    assert not any(p.requires_grad for p in model.network.parameters())


def test_a_binary_model_has_one_output(tmp_path):
    card = replace(CARD, task="binary", classes=("a", "b"), operating_point=OperatingPoint((0.5, 0.5), "Half."))
    library.save(tmp_path / "two", card, build("tiny", 1))
    assert library.load(str(tmp_path / "two"), "cpu").network.head.out_features == 1


def test_models_are_listed_by_id(folder, network):
    library.save(folder.parent / "bones", replace(CARD, id="bones"), network)
    (folder.parent / "notes").mkdir()
    assert [card.id for card in library.list_cards()] == ["bones", "lungs"]


def test_an_unknown_model_is_named_with_those_there_are(folder):
    with pytest.raises(ModelNotFound, match=r"no model 'heart'\. Available: lungs\."):
        library.load("heart")


def test_without_models_the_sentence_says_none(folder, monkeypatch):
    monkeypatch.delenv("MEDFUSION_MODELS")
    assert library.list_cards() == []
    with pytest.raises(ModelNotFound, match=r"Available: none\."):
        library.load("lungs")


@pytest.mark.parametrize("model_id", ["../outside", "lungs/../../outside", "..", ".", "", "..\\outside"])
def test_an_id_does_not_lead_out_of_the_folder_of_models(tmp_path, monkeypatch, network, model_id):
    library.save(tmp_path / "outside", CARD, network)
    collection = tmp_path / "collection"
    library.save(collection / "lungs", CARD, network)
    (tmp_path / library.CARD).write_text((tmp_path / "outside" / library.CARD).read_text())
    (collection / library.CARD).write_text((tmp_path / "outside" / library.CARD).read_text())
    monkeypatch.setenv("MEDFUSION_MODELS", str(collection))
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "nothing-shipped")
    here = tmp_path / "far" / "away"  # from here none of them is a path to a model either
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(ModelNotFound):
        library.find(model_id)


def test_a_folder_given_by_path_is_taken(tmp_path, network):
    library.save(tmp_path / "elsewhere", CARD, network)
    assert library.load(str(tmp_path / "elsewhere"), "cpu").card.id == "lungs"


def test_weights_other_than_those_of_the_card_are_refused(folder):
    data = bytearray((folder / library.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / library.WEIGHTS).write_bytes(data)
    with pytest.raises(ModelDamaged, match=r"'lungs' are not those of its card.*Install"):
        library.load("lungs")


def test_missing_weights_are_named(folder):
    (folder / library.WEIGHTS).unlink()
    with pytest.raises(ModelDamaged, match="weights of model 'lungs' are missing"):
        library.load("lungs")


def test_a_pickle_in_disguise_is_refused_and_not_run(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it-ran",))

    replace_weights(folder, pickle.dumps(Bomb()))
    with pytest.raises(ModelDamaged, match="do not fit"):
        library.load("lungs")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_weights_of_another_network_are_refused(folder, tmp_path, change):
    state = load_file(folder / library.WEIGHTS)
    if change == "missing":
        del state["stem.0.weight"]
    elif change == "surplus":
        state["backdoor"] = torch.zeros(1)
    else:
        state["head.weight"] = torch.zeros(7, state["head.weight"].shape[1])
    save_file(state, tmp_path / "other.safetensors")
    replace_weights(folder, (tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(ModelDamaged, match="do not fit"):
        library.load("lungs")


@pytest.mark.parametrize("field", ["classes", "task", "input", "operating_point", "temperature", "weights_sha256"])
def test_a_card_without_a_field_is_refused(folder, field):
    path = folder / library.CARD
    raw = json.loads(path.read_text())
    del raw[field]
    path.write_text(json.dumps(raw))
    with pytest.raises(ModelDamaged, match="'lungs'"):
        library.load("lungs")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": 5}'])
def test_a_card_that_is_no_card_is_refused(folder, text):
    (folder / library.CARD).write_text(text)
    with pytest.raises(ModelDamaged, match="'lungs'"):
        library.load(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["clear", "nodule"]},
        {"size": "huge"},
        {"temperature": 0},
        {"task": "regression"},
        {"task": "binary"},
        {"input": {"height_px": 100, "width_px": 96}},
        {"class_offsets": [0.5, -0.5]},
        {"class_offsets": ["much", 0, 0]},
    ],
    ids=[
        "classes without thresholds",
        "unknown size",
        "no temperature",
        "unknown task",
        "binary with three",
        "input",
        "offsets of two",
        "no offset",
    ],
)
def test_a_card_that_contradicts_itself_is_refused(folder, changes):
    change_card(folder, **changes)
    with pytest.raises(ModelDamaged, match=r"contradicts itself|\((temperature|task|class_offsets\.0): "):
        library.read_card(folder)


def test_fields_from_a_later_version_are_left_aside(folder):
    change_card(folder, added_later=True)
    assert library.read_card(folder).id == "lungs"


def test_a_damaged_card_is_told_and_leaves_the_other_models_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / library.CARD).write_text("{")
    assert library.list_cards() == []
    assert len(library.problems()) == 1
    assert "'broken'" in library.problems()[0]
