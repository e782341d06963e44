"""The report of an evaluation: tables worked by hand, a page that needs no network and trusts no name."""

import csv
import io
import re
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medfusion import conformal, metrics
from medfusion import evaluation_report as report
from medfusion.evaluate import Measurement
from medfusion.labelled import Case, LabelledSet
from tests.core.toy_networks import model_of, one_class_a_quadrant

ORIGIN = {"model": "toy", "version": "1", "data": "<b>set</b>.zip", "split": "test"}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measurement:
    """40 cases of four classes; every fifth is answered by the next class; site A and a small site <i>B</i>."""
    monkeypatch.setattr(metrics, "RESAMPLES", 20)
    card = one_class_a_quadrant().card
    labels = np.arange(40) % 4
    answers = np.where(np.arange(40) % 5 == 0, (labels + 1) % 4, labels)
    probabilities = np.full((40, 4), 0.1)
    probabilities[np.arange(40), answers] = 0.7
    probabilities[5, :] = 0.0
    probabilities[5, answers[5]] = 1.0  # the worst error of all
    cases = tuple(
        Case(f"{i}.png", (card.classes[y],), f"p{i}", "test", (("site", "<i>B</i>" if i < 4 else "A"),))
        for i, y in enumerate(labels)
    )
    figures = metrics.report(probabilities, labels, answers, card.classes)
    return Measurement(card, LabelledSet(Path("set"), cases, card.classes), probabilities, labels, answers, figures)


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_tables_hold_what_was_measured(measured, tmp_path):
    report.write(tmp_path, measured, ORIGIN)
    confusion = np.array([row[1:] for row in rows(tmp_path / "tables" / "confusion.csv")[1:]], dtype=int)
    assert confusion.sum() == 40
    assert np.trace(confusion) == 32
    assert [row[3] for row in rows(tmp_path / "tables" / "subgroups.csv")[1:]] == ["too few", f"{29 / 36:.3f}"]
    worst = rows(tmp_path / "tables" / "worst.csv")[1:]
    assert len(worst) == 8
    assert worst[0][0] == "5.png"
    assert worst[0][3:] == ["1.000", "0.000"]
    figures = {row[0]: row[1] for row in rows(tmp_path / "tables" / "figures.csv")[1:]}
    assert figures["Accuracy"] == "0.800"


def test_subgroups_tell_mean_sensitivity_and_specificity(measured, tmp_path):
    report.write(tmp_path, measured, ORIGIN)
    head, small, large = rows(tmp_path / "tables" / "subgroups.csv")
    assert small[head.index("Sensitivity")] == small[head.index("Specificity")] == "too few"
    # site A: cases 4 to 39, nine of each class; wrong are 5, 10, ..., 35, of the classes 1, 2, 3, 0, 1, 2, 3
    assert large[head.index("Sensitivity")] == f"{(8 + 7 + 7 + 7) / 36:.3f}"
    assert large[head.index("Specificity")] == f"{1 - (7 / 4) / 27:.3f}"  # seven false alarms in four times 27


def test_of_two_classes_subgroups_tell_the_second(measured):
    card = model_of(torch.nn.Identity(), ("well", "ill"), "binary").card
    labels, answers = np.array([0] * 10 + [1] * 20), np.array([0] * 9 + [1] * 6 + [0] * 15)
    probabilities = np.stack([1 - answers, answers], axis=1)
    part = Measurement(card, replace(measured.data, cases=measured.data.cases[:30]), probabilities, labels, answers, {})
    *_, sensitivity, specificity = report.subgroup(part)
    assert (sensitivity.value, specificity.value) == (5 / 20, 9 / 10)
    assert "are those of ill." in report.rated_in_words(card)


def test_curves_are_tables_too(measured, tmp_path):
    report.write(tmp_path, measured, ORIGIN)
    tables = {name: rows(tmp_path / "tables" / f"{name}.csv") for name in report.PAINTERS}
    first = [list(map(float, row[1:])) for row in tables["roc"][1:] if row[0] == "upper left"]
    # two of its ten are answered otherwise and two others called it; case 5 gives it nothing
    points = [[0, 0, np.inf], [2 / 30, 8 / 10, 0.7], [29 / 30, 1, 0.1], [1, 1, 0]]
    assert first == [pytest.approx(point, rel=1e-5) for point in points]
    recall, precision, threshold = map(float, tables["precision-recall"][1:][-1][1:])
    assert (recall, precision, threshold) == (0, 1, np.inf)
    sure, surest = ([float(cell) for cell in row] for row in tables["reliability"][1:])
    assert sure[:3] == pytest.approx([39, 0.7, 32 / 39], rel=1e-5)
    assert surest == pytest.approx([1, 1, 0, *astuple(metrics.wilson(0, 1))[1:]], rel=1e-5)
    half = next(row for row in tables["decision"][1:] if row[:2] == ["upper left", "0.5"])
    assert [float(cell) for cell in half[2:]] == pytest.approx([(8 - 2) / 40, (10 - 30) / 40], rel=1e-5)


def test_prediction_sets_stand_beside_what_was_promised(measured, tmp_path):
    limits = (0.05, 0.5, 0.5, 0.8)  # class 0 is in nearly every set, class 3 where it is answered
    card = replace(measured.card, set_thresholds=limits)
    seen = conformal.observed(measured.probabilities, measured.labels, limits, measured.answers)
    calibrated = replace(measured, card=card, figures=measured.figures | {"prediction_sets": seen})
    page = report.write(tmp_path, calibrated, ORIGIN).read_text(encoding="utf-8")
    head, *found = rows(tmp_path / "tables" / "sets.csv")
    by_class = {row[0]: dict(zip(head, row, strict=True)) for row in found}
    assert [row["Coverage"] for row in by_class.values()] == ["1.000", "0.800", "0.800", "0.800", "0.850"]
    assert by_class["lower right"]["Promised"] == "0.900"
    assert by_class["lower right"]["Coverage, 95 % to"] == f"{metrics.wilson(8, 10).high:.3f}"
    assert by_class["upper left"]["Pictures"] == "10"
    for row in by_class.values():
        assert float(row["One class named"]) + float(row["Abstained"]) == pytest.approx(1)
    assert 'id="h-sets"' in page
    assert "0.850" in page


def test_without_thresholds_nothing_is_said_of_prediction_sets(measured, tmp_path):
    page = report.write(tmp_path, measured, ORIGIN).read_text(encoding="utf-8")
    assert "Prediction sets" not in page
    assert not (tmp_path / "tables" / "sets.csv").exists()


def test_the_page_stands_alone_and_escapes_names(measured, tmp_path):
    page = report.write(tmp_path, measured, ORIGIN).read_text(encoding="utf-8")
    assert "{{" not in page
    assert "Research use only" in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    assert "<i>B</i>" not in page
    assert "&lt;i&gt;B&lt;/i&gt;" in page
    assert "&lt;b&gt;set&lt;/b&gt;.zip" in page
    assert page.count("<svg") == len(report.PAINTERS)
    assert report.INK not in page
    assert "currentColor" in page


def test_figures_are_files_of_their_own_and_the_same_each_time(measured, tmp_path):
    for folder in ("a", "b"):
        report.write(tmp_path / folder, measured, ORIGIN)
    for name in report.PAINTERS:
        first, second = ((tmp_path / folder / "figures" / f"{name}.svg").read_bytes() for folder in ("a", "b"))
        assert first == second
        assert first.startswith(b"<?xml")
        assert report.INK.encode() not in first


def test_a_class_that_does_not_occur_is_left_out_of_the_curves(measured):
    keep = measured.labels != 2
    cases = tuple(case for case, kept in zip(measured.data.cases, keep, strict=True) if kept)
    chosen = (measured.probabilities[keep], measured.labels[keep], measured.answers[keep])
    part = Measurement(
        measured.card,
        LabelledSet(Path("set"), cases, measured.card.classes),
        *chosen,
        metrics.report(*chosen, measured.card.classes),
    )
    assert report.looked_for(part) == [0, 1, 3]
    assert "not defined" in report.as_csv(report.figure_table(part.figures))
    for _, painter in report.PAINTERS.values():
        assert "<svg" in report.draw(painter, part)
