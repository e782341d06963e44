"""Evaluation of a model on a labelled set: figures worked by hand, splits, and what is refused with a sentence."""

import io
import json
import math
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from medfusion import evaluate, library, metrics
from medfusion.__main__ import main
from medfusion.commands.evaluate import estimate
from medfusion.errors import ConfigError, DataError
from medfusion.library import Model
from medfusion.network import build
from medfusion.types import OperatingPoint
from tests.core.toy_networks import model_of

CLASSES = ("dark", "bright")  # not the order of the alphabet
SET = {"dark": [0, 0, 0, 255], "bright": [255, 255, 255, 255, 0]}  # grey values; the last of each class misleads


class Bright(nn.Module):
    """Odds of 3 to 1 for bright when white, and for dark when black."""

    def forward(self, x: Tensor) -> Tensor:
        return math.log(3) * (2 * x.mean((1, 2, 3)) - 1)[:, None]


class Opposite(Bright):
    """Three classes: dark, bright, and one that is never likely."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x) / 2
        return torch.cat([-z, z, torch.full_like(z, -9)], dim=1)


class Halves(nn.Module):
    """Two answers: the left half is bright, and the right half is."""

    def forward(self, x: Tensor) -> Tensor:
        return 8 * (torch.stack([half.mean((1, 2, 3)) for half in x.chunk(2, dim=3)], dim=1) - 0.5)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 20)


@pytest.fixture
def model() -> Model:
    return model_of(Bright(), CLASSES, "binary")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one untrained model called lamp, from where commands are called."""
    card = replace(model_of(Bright(), CLASSES, "binary").card, id="lamp", version="7")
    library.save(tmp_path / "models" / "lamp", card, build("tiny", 1))
    monkeypatch.setenv("MEDFUSION_MODELS", str(tmp_path / "models"))
    return tmp_path


def zipped(folder: Path, grey: dict[str, list[int]], columns: str = "", rows: tuple[str, ...] = ()) -> Path:
    """CLASS/INDEX.png of uniform grey; with columns, a manifest that adds a row's text to each picture."""
    path = folder / "set.zip"
    lines = ["path,label," + columns]
    with zipfile.ZipFile(path, "w") as archive:
        for label, values in grey.items():
            for index, value in enumerate(values):
                out = io.BytesIO()
                Image.new("L", (80, 70), value).save(out, "PNG")
                archive.writestr(f"{label}/{index}.png", out.getvalue())
                lines.append(f"{label}/{index}.png,{label}," + (rows[(len(lines) - 1) % len(rows)] if rows else ""))
        if columns:
            archive.writestr("manifest.csv", "\n".join(lines))
    return path


def values(figures: dict) -> dict[str, float]:
    return {name: figure["value"] for name, figure in figures.items() if isinstance(figure, dict) and "value" in figure}


def test_figures_are_those_worked_by_hand(model, tmp_path):
    figures = evaluate.evaluate(model, zipped(tmp_path, SET))
    assert figures["n"] == 9
    assert values(figures) == pytest.approx(
        {
            "accuracy": 7 / 9,
            "balanced_accuracy": (3 / 4 + 4 / 5) / 2,
            "auroc": (12 + (3 + 4) / 2) / 20,  # 20 pairs: 12 in order, 7 ties, one reversed
            "ece": 7 / 9 - 3 / 4,  # always 3/4 sure
            "brier": (7 * 2 * 0.25**2 + 2 * 2 * 0.75**2) / 9,
        },
        rel=1e-5,
    )
    dark, bright = figures["per_class"]["dark"], figures["per_class"]["bright"]
    assert (dark["n"], bright["n"]) == (4, 5)
    assert values(dark) == pytest.approx({"sensitivity": 3 / 4, "specificity": 4 / 5})
    assert values(bright) == pytest.approx({"sensitivity": 4 / 5, "specificity": 3 / 4})


def test_the_operating_point_moves_answers_and_leaves_discrimination_alone(model, tmp_path):
    strict = replace(model, card=replace(model.card, operating_point=OperatingPoint((0.2, 0.8), "Strict.")))
    figures = evaluate.evaluate(strict, zipped(tmp_path, SET))
    assert figures["accuracy"]["value"] == pytest.approx(4 / 9)  # nobody is called bright
    assert figures["per_class"]["bright"]["sensitivity"]["value"] == 0
    assert figures["auroc"]["value"] == pytest.approx(0.775)


def test_more_than_two_classes_are_answered_by_the_most_probable(tmp_path):
    three = model_of(Opposite(), (*CLASSES, "never"))
    figures = evaluate.evaluate(three, zipped(tmp_path, SET | {"never": [255]}))
    assert figures["accuracy"]["value"] == pytest.approx(7 / 10)
    assert figures["per_class"]["never"]["sensitivity"]["value"] == 0
    assert figures["per_class"]["bright"]["specificity"]["value"] == pytest.approx(3 / 5)


def test_what_was_measured_on_what_is_told(model, tmp_path):
    figures = evaluate.evaluate(model, zipped(tmp_path, SET))
    told = {name: figures[name] for name in ("model", "version", "data", "split")}
    assert told == {"model": "toy", "version": "1", "data": "set.zip", "split": "all"}


@pytest.mark.parametrize(("split", "n"), [("test", 4), ("train", 5), ("all", 9)])
def test_only_the_split_asked_for_is_measured(model, tmp_path, split, n):
    rows = ("train",) * 3 + ("test",) + ("train",) * 2 + ("test",) * 3
    figures = evaluate.evaluate(model, zipped(tmp_path, SET, "split", rows), split)
    assert (figures["split"], figures["n"]) == (split, n)


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_split_has_its_own_figures(model, tmp_path, split):
    rows = ("train",) * 3 + ("test",) + ("train",) * 4 + ("test",)  # those that mislead are kept for test
    figures = evaluate.evaluate(model, zipped(tmp_path, SET, "split", rows), split)
    assert figures["accuracy"]["value"] == {"train": 1.0, "test": 0.0}[split]


def test_a_split_that_is_not_there_is_named_with_those_that_are(model, tmp_path):
    data = zipped(tmp_path, SET, "split", ("train", "test"))
    with pytest.raises(DataError, match=r"set\.zip has no cases in split 'val'\. It has: test, train\."):
        evaluate.evaluate(model, data, "val")


def test_a_label_unknown_to_the_model_is_named_with_its_classes(model, tmp_path):
    with pytest.raises(DataError, match=r"'dim', unknown to the model\. Its classes: dark, bright"):
        evaluate.evaluate(model, zipped(tmp_path, SET | {"dim": [100]}))


def test_intervals_are_drawn_by_patient(model, tmp_path):
    one_patient = evaluate.evaluate(model, zipped(tmp_path, SET, "patient_id", ("p1",)))["accuracy"]
    assert one_patient["low"] == one_patient["value"] == one_patient["high"]
    nine_patients = evaluate.evaluate(model, zipped(tmp_path, SET))["accuracy"]
    assert nine_patients["low"] < nine_patients["value"] < nine_patients["high"]


def test_batches_do_not_change_the_figures_and_tell_their_progress(model, tmp_path, monkeypatch):
    data = zipped(tmp_path, SET)
    at_once, parts = evaluate.evaluate(model, data), []
    monkeypatch.setattr(evaluate, "BATCH", 4)
    assert evaluate.evaluate(model, data, progress=parts.append) == at_once
    assert parts == pytest.approx([4 / 9, 8 / 9, 1])


def test_a_multilabel_model_is_refused_on_single_labels(model, tmp_path):
    several = replace(model, card=replace(model.card, task="multilabel"))
    with pytest.raises(ConfigError, match="'toy' may give several answers"):
        evaluate.evaluate(several, zipped(tmp_path, SET))


def test_the_command_writes_every_figure_with_its_interval(site, capsys):
    out = site / "new folder" / "figures.json"
    words = ["--model", "lamp", "--data", str(zipped(site, SET)), "--json", str(out), "--device", "cpu"]
    assert main(["evaluate", *words]) == 0
    figures = json.loads(out.read_text())
    measured = ["accuracy", "balanced_accuracy", "auroc", "ece", "brier"]
    assert list(figures) == ["model", "version", "data", "split", "n", *measured, "per_class", "intervals"]
    assert list(figures["per_class"]) == list(CLASSES)
    dark = figures["per_class"]["dark"]
    for row, names in ((figures, measured), (dark, ["sensitivity", "specificity"])):
        assert set(row["intervals"]) == set(names)
        for name in names:
            low, high = row["intervals"][name]
            assert low <= row[name] <= high
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "lamp 7 on set.zip, all: n = 9"
    assert [line.split()[0] for line in said[1:]] == [*measured, "dark:", "bright:"]


def test_a_figure_that_is_not_defined_is_null_and_said_in_words(site, capsys):
    out = site / "figures.json"
    data = zipped(site, {"bright": [255, 0]})
    assert main(["evaluate", "--model", "lamp", "--data", str(data), "--json", str(out), "--device", "cpu"]) == 0

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    figures = json.loads(out.read_text(), parse_constant=refuse)  # NaN is not JSON
    assert figures["auroc"] is None
    assert figures["intervals"]["auroc"] == [None, None]
    assert figures["per_class"]["dark"]["sensitivity"] is None
    assert figures["accuracy"] is not None
    assert "auroc             not defined: a class is absent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--model": "torch"}, "no model 'torch'"),
        ({"--data": "nowhere.zip"}, "no file or folder 'nowhere.zip'"),
        ({"--json": "set.zip/figures.json"}, "cannot be written"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_sentence(site, monkeypatch, capsys, changes, said):
    monkeypatch.chdir(site)
    zipped(site, SET)
    words = {"--model": "lamp", "--data": "set.zip", "--json": "figures.json", "--device": "cpu"} | changes
    assert main(["evaluate", *(word for pair in words.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


def test_figures_read_as_value_and_interval():
    assert estimate({"value": 0.93651, "low": 0.9, "high": 0.96}) == "0.937 (0.900 to 0.960)"


def test_corruptions_are_measured_when_asked_for(site, tmp_path, capsys):
    out = tmp_path / "figures.json"
    command = ["evaluate", "--model", "lamp", "--data", str(zipped(tmp_path, SET)), "--json", str(out)]
    assert main([*command, "--corruptions"]) == 0
    drops = json.loads(out.read_text())["robustness"]["drops"]
    assert set(drops["noise"]) == {"1", "2", "3", "4", "5"}
    assert "AUROC lost at severity" in capsys.readouterr().out


def test_the_command_tells_what_prediction_sets_hold_by_class(site, capsys):
    folder = site / "models" / "lamp"
    held = replace(library.read_card(folder), set_thresholds=(0.5, 0.0))  # bright is in every set
    library.save(folder, replace(held, temperature=1e9), build("tiny", 1))  # both classes at one half
    assert main(["evaluate", "--model", "lamp", "--data", str(zipped(site, SET)), "--device", "cpu"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        "prediction sets for 0.900: 1.000 hold the true class, mean size 2.00, 0.000 name one class, 1.000 abstain"
        in said
    )
    assert f"dark: coverage, Wilson interval {estimate(asdict(metrics.wilson(4, 4)))}" in said


def test_several_labels_are_measured_decision_by_decision(tmp_path):
    model = model_of(Halves(), ("left", "right"), "multilabel")
    model = replace(model, card=replace(model.card, set_thresholds=(0.5, 0.5)))  # sets are of one label: not measured
    sides = {"both": (255, 255), "left": (255, 0), "right": (0, 255), "none": (0, 0), "wrong": (255, 0)}
    rows, files = ["path,label:left,label:right"], {}
    for name, (left, right) in sides.items():
        picture = Image.new("L", (64, 64), left)
        picture.paste(right, (32, 0, 64, 64))
        files[f"{name}.png"] = picture
        truth = (0, 1) if name == "wrong" else (left // 255, right // 255)
        rows.append(f"{name}.png,{truth[0]},{truth[1]}")
    path = tmp_path / "several.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.csv", "\n".join(rows))
        for name, picture in files.items():
            out = io.BytesIO()
            picture.save(out, "PNG")
            archive.writestr(name, out.getvalue())
    measured = evaluate.measure(model, evaluate.part_of(path, "all"))
    assert measured.answers.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0], [1, 0]]
    assert measured.figures["accuracy"]["value"] == pytest.approx(8 / 10)
    assert "prediction_sets" not in measured.figures
    assert measured.right.tolist() == [True, True, True, True, False]
    assert measured.answer(0) == "left + right"
    assert measured.answer(3) == "none"
    left, right = measured.figures["per_class"].values()
    assert (left["n"], left["sensitivity"]["value"], left["specificity"]["value"]) == (2, 1.0, pytest.approx(2 / 3))
    assert (right["n"], right["sensitivity"]["value"], right["specificity"]["value"]) == (3, pytest.approx(2 / 3), 1.0)
    balanced = (1 + 2 / 3 + 2 / 3 + 1) / 4
    assert measured.figures["balanced_accuracy"]["value"] == pytest.approx(balanced)
