"""The check before training: every fault of a set is found, named and told how to mend."""

import json

import numpy as np
import pytest
from PIL import Image

from training.__main__ import main as training_command


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
    with Image.open(tmp_path / "sheets" / "1-ill.png") as sheet:
        assert sheet.size == (6 * 128, 4 * 128)
        assert np.asarray(sheet)[:80, :96].any()
