"""A new model against the one it started from: on the same cases, class by class, whatever the order of classes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medfusion.evaluate import measure
from medfusion.labelled import read_labelled
from medfusion.library import Model
from medfusion.metrics import Estimate
from tests.core.toy_networks import QUADRANTS, ToyNet, dotted, model_of, one_class_a_quadrant
from training import compare


@pytest.fixture
def corners(tmp_path):
    """Twelve pictures, three of each class: the quadrant that is dotted."""
    for number in range(12):
        folder = tmp_path / "set" / QUADRANTS[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dotted(number % 4)).save(folder / f"{number}.png")
    return read_labelled(tmp_path / "set")


def named(model: Model, model_id: str) -> Model:
    return replace(model, card=replace(model.card, id=model_id, version="7"))


def mixing_up_two() -> Model:
    """Right on the upper row; takes lower left for lower right and the other way round."""
    rows = 0.5 * np.eye(4)[[0, 1, 3, 2]]
    return model_of(ToyNet(rows.tolist()))


def written(folder, child, parent, data):
    compare.write(folder, child, parent, measure(child, data), measure(parent, data) if parent else None)
    return json.loads((folder / compare.RESULT).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("auroc", "accuracy", "said"),
    [
        ((0.1, 0.02, 0.2), (0.0, -0.1, 0.1), "better"),
        ((0.0, -0.1, 0.1), (0.1, 0.01, 0.2), "better"),
        ((-0.1, -0.2, -0.02), (0.0, -0.1, 0.1), "worse"),
        ((0.0, -0.1, 0.1), (-0.1, -0.2, -0.01), "worse"),
        ((0.1, 0.02, 0.2), (-0.1, -0.2, -0.01), "better"),  # they disagree: ranking decides
        ((-0.1, -0.2, -0.02), (0.1, 0.01, 0.2), "worse"),
        ((0.1, -0.01, 0.2), (0.1, -0.01, 0.2), "alike"),  # both higher, neither surely
        ((0.1, 0.0, 0.2), (-0.1, -0.2, 0.0), "alike"),  # an interval that touches zero excludes nothing
        ((float("nan"),) * 3, (0.0, -0.1, 0.1), "alike"),
    ],
)
def test_better_and_worse_need_an_interval_that_excludes_no_difference(auroc, accuracy, said):
    assert compare.verdict(Estimate(*auroc), Estimate(*accuracy)) == said


def test_the_commonest_class_is_what_answering_nothing_else_would_reach(corners):
    part = replace(corners, cases=tuple(case for case in corners.cases if case.path not in ("upper left/0.png",)))
    part = replace(part, cases=tuple(case for case in part.cases if not case.path.startswith("lower left/")))
    part = replace(part, cases=tuple(case for case in part.cases if case.path != "lower right/3.png"))
    found = compare.commonest(measure(one_class_a_quadrant(), part))
    assert found["label"] == "upper right"
    assert found["accuracy"] == pytest.approx(3 / 7)  # of 2, 3, 0 and 2 cases
    assert found["gain"]["value"] == pytest.approx(4 / 7)  # the model is right everywhere
    assert found["p"] == pytest.approx(2 / 2**4)  # four cases to none: both tails of a fair coin


def test_a_better_model_is_called_so_with_its_gain_its_errors_and_a_report(corners, tmp_path):
    parent, child = named(mixing_up_two(), "old"), one_class_a_quadrant()
    result = written(tmp_path / "run", child, parent, corners)
    assert (result["n"], result["classes"]) == (12, list(QUADRANTS))
    assert (result["parent_id"], result["parent_version"]) == ("old", "7")
    assert result["child"]["accuracy"]["value"] == 1
    assert result["parent"]["accuracy"]["value"] == 0.5
    assert result["accuracy_gain"]["value"] == 0.5
    assert result["accuracy_gain"]["low"] > 0
    assert result["verdict"] == "better"
    assert result["p_accuracy"] == pytest.approx(2 / 2**6)  # six cases to none: both tails of a fair coin
    assert "p_auroc" not in result  # of two classes only
    assert result["maps"] == []  # it makes no error
    assert (tmp_path / "run" / "report" / "report.html").stat().st_size > 1000


def test_a_worse_model_is_called_so_and_its_errors_are_shown_with_both_maps(corners, tmp_path):
    parent, child = named(one_class_a_quadrant(), "old"), mixing_up_two()
    result = written(tmp_path / "run", child, parent, corners)
    assert result["verdict"] == "worse"
    assert result["accuracy_gain"]["value"] == -0.5
    assert len(result["maps"]) == 6
    for number, shown in enumerate(result["maps"]):
        assert {shown["label"], shown["answer"]} == {"lower left", "lower right"}
        assert shown["target"] == shown["answer"]
        assert 0 <= shown["given"] < 0.5  # what the true class was given
        assert 0 <= shown["likeness"] <= 1
        for name in ("scan", "child", "parent"):
            with Image.open(tmp_path / "run" / "maps" / f"{number}-{name}.webp") as picture:
                assert picture.size == (64, 64)


def test_how_maps_changed_is_told_on_any_cases_right_or_wrong(corners, tmp_path):
    same = written(tmp_path / "same", one_class_a_quadrant(), named(one_class_a_quadrant(), "old"), corners)
    assert same["changed"]["n"] == 12
    assert same["changed"]["likeness"] == pytest.approx(1)
    other = written(tmp_path / "other", one_class_a_quadrant(), named(mixing_up_two(), "old"), corners)
    assert other["changed"]["likeness"] < 1
    assert {one["label"] for one in other["changed"]["cases"]} <= {
        "lower left",
        "lower right",
    }  # the mixed up
    for number in range(3):
        for who in ("scan", "child", "parent"):
            assert (tmp_path / "other" / "maps" / f"changed-{number}-{who}.webp").is_file()


def test_cases_by_which_a_model_was_chosen_are_not_called_held_out(corners, tmp_path):
    model = one_class_a_quadrant()
    compare.write(tmp_path / "run", model, None, measure(model, corners), None, "val")
    assert json.loads((tmp_path / "run" / compare.RESULT).read_text())["split"] == "val"


def test_a_model_that_answers_as_before_is_alike_whatever_the_intervals(corners, tmp_path):
    parent = named(mixing_up_two(), "old")
    result = written(tmp_path / "run", mixing_up_two(), parent, corners)
    assert result["verdict"] == "alike"
    assert result["p_accuracy"] == 1
    assert result["auroc_gain"] == {"value": 0, "low": 0, "high": 0}


def test_without_anyone_to_compare_with_a_model_stands_alone(corners, tmp_path):
    result = written(tmp_path / "run", mixing_up_two(), None, corners)
    assert result["verdict"] == "alone"
    assert "parent_id" not in result
    assert [name for name in result if "gain" in name or name.startswith("p_")] == []
    assert len(result["maps"]) == 6
    assert "likeness" not in result["maps"][0]
    assert not list((tmp_path / "run" / "maps").glob("*-parent.webp"))


def test_a_parent_that_lists_the_same_classes_in_another_order_is_compared_class_by_class(corners, tmp_path):
    order = [2, 0, 3, 1]
    same = model_of(ToyNet((0.5 * np.eye(4)[order]).tolist()), [QUADRANTS[k] for k in order])
    result = written(tmp_path / "run", one_class_a_quadrant(), named(same, "old"), corners)
    assert result["parent"]["accuracy"]["value"] == 1
    assert result["accuracy_gain"]["value"] == 0
    assert result["auroc_gain"]["value"] == 0
    assert result["verdict"] == "alike"


def test_two_classes_are_ranked_by_the_one_looked_for_in_either_order(tmp_path):
    for number in range(12):
        label = ("left", "right")[number % 2]
        (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(dotted(number % 2)).save(tmp_path / "set" / label / f"{number}.png")
    data = read_labelled(tmp_path / "set")
    child = model_of(ToyNet([[-0.5, 0.5, 0, 0]]), ("left", "right"), "binary")
    turned = model_of(ToyNet([[0.5, -0.5, 0, 0]]), ("right", "left"), "binary")
    wrong = model_of(ToyNet([[0.5, -0.5, 0, 0]]), ("left", "right"), "binary")
    alike = written(tmp_path / "alike", child, named(turned, "old"), data)
    assert (alike["verdict"], alike["p_auroc"], alike["auroc_gain"]["value"]) == ("alike", 1, 0)
    better = written(tmp_path / "better", child, named(wrong, "old"), data)
    assert (better["verdict"], better["auroc_gain"]["value"]) == ("better", 1)
    worse = written(tmp_path / "worse", wrong, named(turned, "old"), data)
    assert [shown["likeness"] for shown in worse["maps"]] == pytest.approx([1.0] * 6)  # maps of one class, by name
