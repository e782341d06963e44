"""The report of an evaluation: tables worked by hand, a page that needs no network and trusts no name."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from medfusion import evaluation_report as report
from medfusion import metrics
from medfusion.evaluate import Measurement
from medfusion.labelled import Case, LabelledSet
from tests.core.toy_networks import one_class_a_quadrant

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
