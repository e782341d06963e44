"""The check before training: every fault of a set is found, named and told how to mend."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfusion import library
from medfusion.errors import DataError
from medfusion.imaging import read_scan
from medfusion.labelled import read_labelled
from medfusion.types import Route
from training import kinds
from training import preflight as preflights
from training.__main__ import main as training_command
from training.preflight import preflight


def scene(seed: int) -> np.ndarray:
    """A picture of its own: a few soft blobs."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8))
    return np.asarray(coarse.resize((96, 80), Image.Resampling.BICUBIC))


@pytest.fixture
def sound(tmp_path):
    """Two classes of 30 pictures, one patient each, with a split."""
    folder = tmp_path / "set"
    lines = ["path,label,patient_id,split"]
    for number in range(60):
        label = ("ill", "well")[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(number)).save(folder / label / f"{number}.png")
        split = ("train", "val", "test")[0 if number < 36 else 1 + number // 2 % 2]
        lines.append(f"{label}/{number}.png,{label},p{number},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder


def check(folder, *more: str) -> int:
    return training_command(["check", "--data", str(folder), *more])


def test_a_sound_set_passes_with_its_counts(sound, capsys):
    assert check(sound) == 0
    said = capsys.readouterr().out
    assert "train: 18 ill, 18 well" in said
    assert "96×80 to 96×80 px" in said
    assert said.strip().endswith("Fit to train on.")


def test_unreadable_files_are_listed_one_by_one(sound, capsys):
    (sound / "ill" / "0.png").write_bytes(b"")
    (sound / "well" / "1.png").write_text("not a picture")
    assert check(sound, "--json") == 2
    shown = capsys.readouterr()
    assert set(json.loads(shown.out)["unreadable"]) == {"ill/0.png", "well/1.png"}
    assert "ill/0.png: " in shown.err
    assert "Mend or remove this file." in shown.err


def test_a_near_copy_on_the_other_side_of_the_split_blocks(sound, capsys):
    smaller = Image.fromarray(scene(0)).resize((48, 40))
    smaller.save(sound / "ill" / "40.png")  # of val; number 0 is in train
    assert check(sound, "--json") == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["duplicates"] == [["ill/0.png", "ill/40.png"]]
    assert "on more than one side of the split" in shown.err


def test_a_copy_on_the_same_side_is_advice(sound, capsys):
    Image.fromarray(scene(0)).save(sound / "ill" / "2.png")
    assert check(sound) == 0
    assert "more than once, or nearly: ill/0.png, ill/2.png" in capsys.readouterr().out


def test_one_picture_with_two_labels_blocks(sound, capsys):
    Image.fromarray(scene(0)).save(sound / "well" / "1.png")
    assert check(sound) == 2
    assert "The same picture has two labels: ill/0.png, well/1.png" in capsys.readouterr().err


def test_pictures_that_merely_resemble_each_other_are_no_copies(sound, capsys):
    for number in range(0, 60, 2):
        alike = scene(500).astype(int) + (scene(number).astype(int) - 128) // 4
        Image.fromarray(alike.clip(0, 255).astype(np.uint8)).save(sound / "ill" / f"{number}.png")
    assert check(sound, "--json") == 0
    assert json.loads(capsys.readouterr().out)["duplicates"] == []


def test_too_few_cases_block_with_how_many_are_needed(sound, capsys):
    lines = (sound / "manifest.csv").read_text().splitlines()
    (sound / "manifest.csv").write_text(
        "\n".join(lines[:1] + [line for line in lines if "well" in line or "train" in line])
    )
    assert check(sound) == 2
    assert "'ill' has 0 cases in val, fewer than 5. Add cases." in capsys.readouterr().err


def test_unequal_classes_and_unnamed_patients_are_worth_a_word(sound, capsys):
    (sound / "manifest.csv").unlink()
    for number in range(100, 240):
        label = "ill" if number < 110 else "well"
        Image.fromarray(scene(number)).save(sound / label / f"{number}.png")
    assert check(sound) == 0
    said = capsys.readouterr().out
    assert "'well' has 4 times as many cases as 'ill'" in said
    assert "No patient is named" in said
    assert "not split yet: 40 ill, 160 well" in said


def test_a_sheet_of_each_class_is_drawn(sound, tmp_path, capsys):
    assert check(sound, "--sheets", str(tmp_path / "sheets")) == 0
    with Image.open(tmp_path / "sheets" / "1-ill.webp") as sheet:
        assert sheet.size == (6 * 128, 4 * 128)
        assert np.asarray(sheet)[:80, :96].any()


def test_each_file_is_decoded_once_for_the_check_and_its_sheets(sound, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(preflights, "read_scan", lambda content, name: decoded.append(name) or read_scan(content, name))
    preflight(read_labelled(sound), sheets=tmp_path / "sheets")
    assert len(decoded) == len(set(decoded)) == 60
    assert len(list((tmp_path / "sheets").iterdir())) == 2


def test_the_check_tells_how_far_it_is_to_the_end_of_the_search_for_copies(sound):
    told: list[float] = []
    preflight(read_labelled(sound), progress=told.append)
    assert told == sorted(told)
    assert told[0] == 0
    assert 0.9 < told[-1] <= 1  # the last files and the search


def test_the_split_that_a_run_will_make_is_told(sound):
    unsplit(sound)
    found = preflight(read_labelled(sound))
    assert found.counts == {"": {"ill": 50, "well": 50}}
    assert set(found.planned) == {"train", "val", "test"}
    for side, part in (("train", 5 / 7), ("val", 1 / 7), ("test", 1 / 7)):
        assert found.planned[side]["ill"] == pytest.approx(50 * part, abs=2)


def test_a_split_without_test_is_worth_a_word(sound):
    manifest = sound / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",test", ",val"))
    assert any("No case is held out as test" in words for words in preflight(read_labelled(sound)).advice)


def test_too_few_cases_of_a_class_in_test_block(sound):
    manifest = sound / "manifest.csv"
    lines = [line for line in manifest.read_text().splitlines() if not (",ill," in line and line.endswith("test"))]
    manifest.write_text("\n".join(lines))
    assert preflight(read_labelled(sound)).blocks == ["Class 'ill' has 0 cases in test, fewer than 5. Add cases."]


class Told:
    """A router that answers from a list."""

    def __init__(self, *distances: dict[str, float]) -> None:
        self.left = list(distances)

    def route(self, picture: np.ndarray) -> Route:
        return Route(None, "", self.left.pop(0))


def test_what_kind_of_pictures_a_set_holds_is_guessed_by_the_router(monkeypatch):
    chest, eye = {"chest-xray": 0.4, "retina": 3.0}, {"chest-xray": 2.0, "retina": 0.9}
    other = {"chest-xray": 1.1, "retina": 5.0}
    words = {card.id: card.modality for card in library.list_cards()}
    monkeypatch.setattr(kinds.router, "load", lambda: Told(chest, chest, chest, eye, other))
    found = kinds.guess([scene(0)] * 5)
    assert found.counts == {words["chest-xray"]: 3, words["retina"]: 1, "": 1}
    assert found.model_id == "chest-xray"
    assert preflights.mixed(found) != []
    monkeypatch.setattr(kinds.router, "load", lambda: Told(chest, other))
    assert kinds.guess([scene(0)] * 2).model_id == ""  # half is not most
    monkeypatch.setattr(kinds.router, "load", lambda: None)
    assert kinds.guess([scene(0)]) == kinds.Kinds()


def test_pictures_of_an_unknown_kind_are_said_to_be(sound, capsys):
    assert check(sound) == 0
    assert "They look like no kind of picture that models here know." in capsys.readouterr().out


def copied(folder, source: int, name: str, side_px: tuple[int, int] = (60, 50)) -> None:
    """The picture of a case once more, smaller, under another name."""
    Image.fromarray(scene(source)).resize(side_px).save(folder / name)


def spared(folder, capsys) -> tuple[int, dict]:
    status = check(folder, "--json")
    return status, json.loads(capsys.readouterr().out)


def test_of_copies_on_two_sides_the_one_of_training_is_kept(sound, capsys):
    copied(sound, 40, "ill/2.png")  # 40 is of val, 2 of train: named first or last, it stays
    copied(sound, 3, "well/41.png")  # 41 is of val
    status, found = spared(sound, capsys)
    assert status == 2
    assert found["spare"] == ["ill/40.png", "well/41.png"]


def test_of_copies_on_one_side_all_but_the_first_can_be_spared_and_need_not(sound, capsys):
    copied(sound, 0, "ill/2.png")
    copied(sound, 0, "ill/4.png", (70, 58))
    status, found = spared(sound, capsys)
    assert status == 0
    assert found["duplicates"] == [["ill/0.png", "ill/2.png", "ill/4.png"]]
    assert found["spare"] == ["ill/2.png", "ill/4.png"]


def test_of_copies_with_two_labels_all_are_spared_for_nobody_knows_which_is_right(sound, capsys):
    copied(sound, 0, "well/1.png")
    copied(sound, 0, "well/3.png", (70, 58))
    status, found = spared(sound, capsys)
    assert status == 2
    assert sorted(found["spare"]) == ["ill/0.png", "well/1.png", "well/3.png"]


def test_a_damaged_file_in_a_sound_zip_is_listed_like_any_unreadable_one(sound, tmp_path, capsys):
    packed = Path(shutil.make_archive(str(tmp_path / "set"), "zip", sound))
    with zipfile.ZipFile(packed) as archive:
        info = archive.getinfo("ill/2.png")
    content = bytearray(packed.read_bytes())
    begin = info.header_offset + 30 + len(info.filename)
    content[begin : begin + info.compress_size] = bytes(info.compress_size)
    packed.write_bytes(content)
    assert check(packed, "--json", "--sheets", str(tmp_path / "sheets")) == 2
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)["unreadable"]) == ["ill/2.png"]
    assert "ill/2.png cannot be unpacked" in shown.err
    assert preflight(read_labelled(packed), left_out=["ill/2.png"]).blocks == []


def test_an_unreadable_file_is_spared(sound, capsys):
    (sound / "ill" / "0.png").write_bytes(b"")
    assert spared(sound, capsys)[1]["spare"] == ["ill/0.png"]


def test_what_is_spared_leaves_nothing_to_mend(sound):
    copied(sound, 40, "ill/2.png")
    copied(sound, 5, "well/7.png")
    copied(sound, 10, "well/9.png")
    (sound / "well" / "11.png").write_bytes(b"torn")
    data = read_labelled(sound)
    found = preflight(data)
    assert len(found.blocks) == 3  # the torn file, two labels, two sides
    again = preflight(data, left_out=found.spare)
    assert (again.blocks, again.duplicates, again.unreadable, again.spare) == ([], [], {}, [])
    assert again.left_out == found.spare == ["well/11.png", "ill/40.png", "well/7.png", "well/9.png", "ill/10.png"]
    assert again.counts["train"] == {"ill": 17, "well": 15}


def unsplit(folder, patients: dict[int, str] | None = None) -> None:
    """Without a split; some cases under a given patient."""
    lines = ["path,label,patient_id"]
    for number in range(100):
        label = ("ill", "well")[number % 2]
        Image.fromarray(scene(number)).save(folder / label / f"{number}.png")
        lines.append(f"{label}/{number}.png,{label},{(patients or {}).get(number, f'p{number}')}")
    (folder / "manifest.csv").write_text("\n".join(lines))


def test_copies_that_a_split_could_part_block_until_one_is_left(sound, capsys):
    unsplit(sound)
    assert check(sound) == 0
    capsys.readouterr()
    copied(sound, 0, "ill/2.png")
    assert check(sound, "--json") == 2
    shown = capsys.readouterr()
    assert "1 pictures are there more than once, or nearly, under different patients: ill/0.png, ill/2.png" in shown.err
    assert "give copies the same patient_id" in shown.err
    assert json.loads(shown.out)["spare"] == ["ill/2.png"]
    assert preflight(read_labelled(sound), left_out=["ill/2.png"]).blocks == []


def test_copies_of_one_patient_cannot_be_parted_by_a_split_and_are_advice(sound, capsys):
    unsplit(sound, {0: "anna", 2: "anna"})
    copied(sound, 0, "ill/2.png")
    assert check(sound, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["blocks"], found["duplicates"]) == ([], [["ill/0.png", "ill/2.png"]])
    assert found["advice"] == ["1 pictures are there more than once, or nearly: ill/0.png, ill/2.png."]


def test_leaving_out_a_whole_class_is_told_by_its_name(sound):
    data = read_labelled(sound)
    for label in ("ill", "well"):  # the first and the last of the classes
        gone = [case.path for case in data.cases if case.label == label]
        assert preflight(data, left_out=gone).blocks == [
            f"Class '{label}' has 0 cases in train, fewer than 5. Add cases."
        ]


def test_leaving_out_everything_is_an_error_and_no_crash(sound):
    data = read_labelled(sound)
    with pytest.raises(DataError, match="All files of this set are left out"):
        preflight(data, left_out=[case.path for case in data.cases])
