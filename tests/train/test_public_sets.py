"""Sets of MedMNIST from a local copy: no test needs a network."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest

from medfusion.errors import DataError
from medfusion.labelled import read_labelled, read_pictures
from medfusion.types import InputSpec
from training import public_sets, service, sets
from training.__main__ import main

COUNTS = {"train": 12, "val": 6, "test": 6}


def arrays(colour: bool, columns: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {}
    for split, count in COUNTS.items():
        found[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, *([3] if colour else [])), dtype=np.uint8)
        found[f"{split}_labels"] = rng.integers(0, 2, (count, columns), dtype=np.uint8)
    return found


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that makes the local copy of a set and lets its checksum be the right one."""
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path))
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))

    def make(name: str, colour: bool = False, columns: int = 1) -> dict[str, np.ndarray]:
        made = arrays(colour, columns)
        out = io.BytesIO()
        np.savez_compressed(out, **made)
        (tmp_path / f"{name}.npz").write_bytes(out.getvalue())
        md5 = hashlib.md5(out.getvalue(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(public_sets.catalogue()[name], "MD5", md5)
        return made

    return make


@pytest.mark.parametrize(("name", "colour"), [("breastmnist", False), ("retinamnist", True)])
def test_a_set_is_stored_with_its_splits_labels_and_pictures(copy, name, colour):
    made = copy(name, colour)
    told: list[float] = []
    stored = sets.find(public_sets.keep_public(name, 28, told.append).id)
    assert stored.name == f"{name} 28 px (MedMNIST)"
    assert stored.origin["licence"] == "CC BY 4.0"
    data = read_labelled(stored.source)
    assert {split: len(data.subset(split).cases) for split in COUNTS} == COUNTS
    classes = public_sets.find_public(name).classes
    assert [case.label for case in data.subset("test").cases] == [classes[int(y[0])] for y in made["test_labels"]]
    for picture, own in zip(read_pictures(data.subset("val"), InputSpec(28, 28)), made["val_images"], strict=True):
        assert np.array_equal(picture, own if colour else np.repeat(own[..., None], 3, axis=2))


def test_several_labels_come_as_columns_of_their_own(copy):
    made = copy("chestmnist", columns=14)
    data = read_labelled(public_sets.keep_public("chestmnist", 28).source)
    assert data.several
    assert data.classes[:2] == ("atelectasis", "cardiomegaly")
    assert np.array_equal(data.subset("train").labels(), made["train_labels"])


def test_a_damaged_copy_is_told_and_not_used(copy, tmp_path):
    copy("breastmnist")
    with (tmp_path / "breastmnist.npz").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"breastmnist\.npz .* is damaged or another version"):
        public_sets.keep_public("breastmnist", 28)


def test_without_a_network_the_sentence_says_what_to_do_and_nothing_is_left(copy, tmp_path, monkeypatch):
    copy("breastmnist")
    monkeypatch.setitem(public_sets.catalogue()["breastmnist"], "url_64", "http://127.0.0.1:9/none")
    with pytest.raises(DataError, match=r"breastmnist_64\.npz could not be downloaded .* MEDMNIST_ROOT"):
        public_sets.keep_public("breastmnist", 64)
    assert [path.name for path in tmp_path.glob("*64*")] == []


def test_a_download_is_followed_and_checked(copy, tmp_path, monkeypatch):
    copy("breastmnist")
    content = (tmp_path / "breastmnist.npz").read_bytes()
    (tmp_path / "served").write_bytes(content)
    (tmp_path / "breastmnist.npz").unlink()
    info = public_sets.catalogue()["breastmnist"]
    monkeypatch.setitem(info, "url", (tmp_path / "served").as_uri())
    told: list[float] = []
    assert public_sets.fetch("breastmnist", 28, told.append).read_bytes() == content
    assert told[-1] == 1.0
    (tmp_path / "breastmnist.npz").unlink()
    (tmp_path / "served").write_bytes(content[:-1])
    with pytest.raises(DataError, match="did not arrive whole"):
        public_sets.fetch("breastmnist", 28)
    assert not (tmp_path / "breastmnist.npz").exists()


def test_the_command_writes_a_zip_and_names_what_there_is(copy, tmp_path, capsys):
    copy("breastmnist")
    assert main(["medmnist", "breastmnist", "--size", "28", "--out", str(tmp_path / "out.zip")]) == 0
    assert len(read_labelled(tmp_path / "out.zip").cases) == 24
    assert main(["medmnist", "organmnist3d", "--out", str(tmp_path / "no.zip")]) == 2
    assert "pneumoniamnist" in capsys.readouterr().err


def test_a_copy_where_the_package_itself_keeps_its_own_is_used(copy, tmp_path, monkeypatch):
    copy("breastmnist")
    own = tmp_path / "person" / ".medmnist" / "breastmnist.npz"
    own.parent.mkdir(parents=True)
    (tmp_path / "breastmnist.npz").rename(own)
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    assert public_sets.fetch("breastmnist", 28) == own


def npz(**made: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **made)
    return out.getvalue()


def test_any_file_of_that_form_is_a_set_with_numbered_classes(copy):
    made = arrays(colour=True, columns=1)
    content = npz(**made)
    stored = service.keep("Meine Ärzte.NPZ", io.BytesIO(content), len(content))
    assert stored.name == "Meine Ärzte.NPZ"
    data = read_labelled(stored.source)
    assert data.classes == ("class 0", "class 1")
    assert [int(case.label[-1]) for case in data.subset("val").cases] == made["val_labels"][:, 0].tolist()
    several = npz(**arrays(colour=False, columns=3))
    assert read_labelled(service.keep("x.npz", io.BytesIO(several), len(several)).source).several


@pytest.mark.parametrize(
    "change",
    [
        {"test_labels": None},
        {"val_images": None},
        {"train_labels": np.array([["ill"]] * 12)},
        {"train_labels": np.array([[object()]] * 12, dtype=object)},
        {"train_labels": np.full((12, 1), -1)},
        {"train_labels": np.zeros((11, 1), int)},
        {"train_labels": np.full((12, 1), 10**6)},
        {"train_images": np.zeros((12, 28, 28), np.float32)},
        {"train_images": np.zeros((12, 28, 28, 28), np.uint8)},
        {"train_images": np.zeros((12, 1, 2**29), np.uint8)[:, :, :0]},
    ],
)
def test_a_file_that_is_not_of_that_form_is_refused_by_its_name_and_leaves_nothing(copy, tmp_path, change):
    content = npz(**{name: value for name, value in (arrays(False, 1) | change).items() if value is not None})
    for wrong in (content, content[:-20], b"no zip"):
        with pytest.raises(DataError, match=r"odd\.npz"):
            public_sets.keep_file("odd.npz", io.BytesIO(wrong), len(wrong))
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
