"""An evaluation as a self-contained HTML page, with its figures as SVG and its tables as CSV, ready for a paper.

The page needs no network, and holds pictures of patients only when asked to.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medfusion import conformal, metrics
from medfusion.evaluate import Measurement
from medfusion.evaluation_figures import CURVES, INK, PAINTERS, confused, draw, looked_for, reliability_points, spoken
from medfusion.labelled import read_pictures
from medfusion.metrics import Estimate
from medfusion.types import ModelCard

SMALLEST_SUBGROUP = 20
MANY = 12  # values of a column, from which on they are put together
WORST = 20
THUMBNAIL_PX = 96
TEMPLATE = Path(__file__).with_name("evaluation_report.html")
SETS = f"""<h2 id="h-sets">Prediction sets</h2>
{{}}
<p class="soft">Made to hold the true class in {100 * conformal.COVERAGE:.0f} % of the cases of each class, if they are
like those of calibration (class-conditional LAC). Where not exactly one class is left, the model abstains. In brackets:
95 % Wilson intervals, as if each picture were of another patient.</p>"""
WORSE = '<h2 id="h-robustness">AUROC lost when pictures are worse</h2>'
TITLES = {"jpeg": "JPEG", "auroc": "AUROC", "ece": "Calibration error", "brier": "Brier score"}

Cell = str | int | float | Estimate


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


def write(folder: Path, measured: Measurement, origin: Mapping[str, str], thumbnails: bool = False) -> Path:
    """Write report.html, figures/*.svg and tables/*.csv. Returns the page.

    origin: model, version, data and split. thumbnails: whether the page shows the pictures of the worst errors.
    """
    worst = worst_errors(measured)
    figures = {name: draw(painter, measured) for name, (_, painter) in PAINTERS.items()}
    tables = {
        "figures": figure_table(measured.figures),
        "classes": class_table(measured),
        "confusion": confusion_table(measured),
        "subgroups": subgroup_table(measured),
        "worst": worst_table(measured, worst),
    }
    if "prediction_sets" in measured.figures:
        tables["sets"] = sets_table(measured)
    if "robustness" in measured.figures:
        tables["robustness"] = robustness_table(measured.figures["robustness"])
    for name, drawn in figures.items():
        put(folder / "figures" / f"{name}.svg", drawn.replace(INK, "#000000"))
    for name, table in (tables | curve_tables(measured)).items():
        put(folder / "tables" / f"{name}.csv", as_csv(table))
    page = folder / "report.html"
    put(page, as_html(measured, origin, figures, tables, list(small_pictures(measured, worst)) if thumbnails else []))
    return page


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# Tables


def titled(name: str) -> str:
    return TITLES.get(name, spoken(name).capitalize())


def figure_table(figures: Mapping[str, Any]) -> Table:
    names = ("accuracy", "balanced_accuracy", "auroc", "ece", "brier")
    rows = [(titled(name), Estimate(**figures[name])) for name in names]
    return Table(("Figure", "Value"), rows)


def class_table(measured: Measurement) -> Table:
    per_class: Any = measured.figures["per_class"]
    rows = [
        (spoken(name), row["n"], Estimate(**row["sensitivity"]), Estimate(**row["specificity"]), *measured.ranking[k])
        for k, (name, row) in enumerate(per_class.items())
    ]
    return Table(("Class", "Pictures", "Sensitivity", "Specificity", "AUROC", "Average precision"), rows)


def sets_table(measured: Measurement) -> Table:
    """Coverage beside what was promised, size and single answers of prediction sets, of each true class and of all."""
    card, labels = measured.card, measured.labels
    cases = [(spoken(name), labels == k) for k, name in enumerate(card.classes) if (labels == k).any()]
    rows: list[tuple[Cell, ...]] = []
    for name, chosen in [*cases, ("All", labels >= 0)]:
        probabilities, answers = measured.probabilities[chosen], measured.answers[chosen]
        seen: Any = conformal.observed(probabilities, labels[chosen], card.set_thresholds, answers)
        n = int(chosen.sum())
        coverage = metrics.wilson(round(seen["coverage"] * n), n)
        rows.append((name, n, conformal.COVERAGE, coverage, seen["mean_size"], seen["single"], 1 - seen["single"]))
    head = ("True class", "Pictures", "Promised", "Coverage", "Mean size", "One class named", "Abstained")
    return Table(head, rows)


def curve_tables(measured: Measurement) -> dict[str, Table]:
    """The points of the figures of the same names, to six digits."""
    bins: list[tuple[Cell, ...]] = [
        (n, *map(six_digits, (stated, share.value, share.low, share.high)))
        for n, stated, share in reliability_points(measured)
    ]
    reach = ("Share right, 95 % from", "Share right, 95 % to")
    tables = {"reliability": Table(("Answers", "Mean probability stated", "Share right", *reach), bins)}
    for name, (head, points) in CURVES.items():
        rows: list[tuple[Cell, ...]] = [
            (spoken(measured.card.classes[k]), *map(six_digits, point))
            for k in looked_for(measured)
            for point in zip(*points(measured, k), strict=True)
        ]
        tables[name] = Table(("Class", *head), rows)
    return tables


def six_digits(value: float) -> str:
    return f"{value:.6g}"


def confusion_table(measured: Measurement) -> Table:
    names = [spoken(name) for name in measured.card.classes]
    counts = confused(measured).tolist()
    return Table(("True class, answered:", *names), [(name, *row) for name, row in zip(names, counts, strict=True)])


def subgroup_table(measured: Measurement) -> Table:
    """Accuracy, AUROC, sensitivity and specificity by the values of each further column of the manifest."""
    further = [dict(case.more) for case in measured.data.cases]
    rows: list[tuple[Cell, ...]] = []
    for column in sorted({name for row in further for name in row}):
        values = np.array([row.get(column, "").strip() for row in further])
        rows += [(column, *row) for row in subgroups(measured, values)]
    return Table(("Column", "Value", "Pictures", "Accuracy", "AUROC", "Sensitivity", "Specificity"), rows)


def subgroups(measured: Measurement, values: np.ndarray) -> Iterator[tuple[Cell, ...]]:
    """A row for each value. Of many, numbers go by quarters, and rare ones share a row: they could name a patient."""
    distinct, counts = np.unique(values[values != ""], return_counts=True)
    many = len(distinct) > MANY
    numbers = as_numbers(values) if many else None
    rare = distinct[counts < SMALLEST_SUBGROUP] if many and numbers is None else distinct[:0]
    groups = [(str(value), values == value) for value in distinct if value not in rare]
    for name, chosen in groups if numbers is None else quarters(numbers):
        yield name, int(chosen.sum()), *subgroup(measured.only(chosen))
    if len(rare):
        yield f"({len(rare)} rare values)", int(np.isin(values, rare).sum()), *("too few each",) * 4
    if (values == "").any():
        yield "(empty)", int((values == "").sum()), *subgroup(measured.only(values == ""))


def as_numbers(values: np.ndarray) -> np.ndarray | None:
    """(n,) float, NaN for what is empty; None when any other value is no number."""
    try:
        numbers = np.array([float(value or "nan") for value in values])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers[values != ""]).all() else None


def quarters(numbers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    edges = np.unique(np.nanquantile(numbers, (0.25, 0.5, 0.75), method="lower"))
    yield f"up to {edges[0]:g}", numbers <= edges[0]
    for low, high in pairwise(edges):
        yield f"over {low:g}, up to {high:g}", (numbers > low) & (numbers <= high)
    yield f"over {edges[-1]:g}", numbers > edges[-1]


def subgroup(part: Measurement) -> tuple[Cell, ...]:
    """Accuracy, AUROC, sensitivity and specificity."""
    if len(part.labels) < SMALLEST_SUBGROUP or len(np.unique(part.labels)) < 2:
        return ("too few",) * 4
    accuracy = part.interval(lambda p, y, a: float((a == y).mean()))
    auroc = "a class is absent" if part.absent else part.interval(lambda p, y, a: metrics.auroc(p, y))
    rates = (part.interval(mean_of(rate, part.card)) for rate in (metrics.sensitivity, metrics.specificity))
    return accuracy, auroc, *rates


def mean_of(rate: Callable[[np.ndarray, np.ndarray, int], float], card: ModelCard) -> metrics.Metric:
    """The rate of the second of two classes, else its mean over the classes that have cases to tell it."""
    classes = [1] if card.task == "binary" else range(len(card.classes))

    def mean(_: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> float:
        found = [value for k in classes if np.isfinite(value := rate(answers, labels, k))]
        return float(np.mean(found)) if found else float("nan")

    return mean


def robustness_table(found: Any) -> Table:
    """AUROC lost by corruption and severity. found: what corruptions.robustness returns."""
    severities = next(iter(found["drops"].values()))
    rows: list[tuple[Cell, ...]] = [(titled(name), *row.values()) for name, row in found["drops"].items()]
    means = [float(np.mean([row[severity] for row in found["drops"].values()])) for severity in severities]
    return Table(("Change", *(f"Severity {s}" for s in severities)), [*rows, ("Mean", *means)])


def worst_errors(measured: Measurement) -> np.ndarray:
    """Indices of wrong answers, those first that gave what is true the least."""
    wrong = np.flatnonzero(~measured.right)
    return wrong[np.argsort(measured.given(measured.labels)[wrong].min(axis=1), kind="stable")][:WORST]


def worst_table(measured: Measurement, worst: np.ndarray) -> Table:
    told, true = (measured.given(values).min(axis=1) for values in (measured.answers, measured.labels))
    rows = [
        (
            measured.data.cases[i].path,
            spoken(measured.data.cases[i].label),
            spoken(measured.answer(i)),
            float(told[i]),
            float(true[i]),
        )
        for i in worst.tolist()
    ]
    return Table(("Picture", "True class", "Answer", "Its probability", "That of the true class"), rows)


def as_csv(table: Table) -> str:
    """A figure with an interval takes three columns."""
    wide = [any(isinstance(row[i], Estimate) for row in table.rows) for i in range(len(table.head))]
    stored = io.StringIO()
    lines = csv.writer(stored)
    lines.writerow([n for name, w in zip(table.head, wide, strict=True) for n in columns_of(name, w)])
    for row in table.rows:
        lines.writerow([text for cell, w in zip(row, wide, strict=True) for text in texts_of(cell, w)])
    return stored.getvalue()


def columns_of(name: str, wide: bool) -> list[str]:
    return [name, f"{name}, 95 % from", f"{name}, 95 % to"] if wide else [name]


def texts_of(cell: Cell, wide: bool) -> list[str]:
    if isinstance(cell, Estimate):
        return [plain(cell.value), plain(cell.low), plain(cell.high)]
    return [plain(cell), "", ""] if wide else [plain(cell)]


def plain(cell: str | int | float) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.3f}" if np.isfinite(cell) else "not defined"


# The page


def as_html(
    measured: Measurement,
    origin: Mapping[str, str],
    figures: Mapping[str, str],
    tables: Mapping[str, Table],
    pictures: list[str],
) -> str:
    """The template with everything put in. Names from files and manifests are escaped."""
    card = measured.card
    parts = {
        "title": f"{card.title}: {origin['data']}, {origin['split']}",
        "facts": f"{card.id} {card.version} · {origin['data']}, {origin['split']} · {len(measured.labels)} pictures",
        "rule": card.operating_point.rule,
        "smallest": str(SMALLEST_SUBGROUP),
        "rated": rated_in_words(card),
        "absent": absent_in_words(measured.absent),
        "pictured": "This page shows pictures of patients: keep it where they may be kept." if pictures else "",
    }
    rows = {name: as_rows(name, table, pictures if name == "worst" else []) for name, table in tables.items()}
    raw = rows | {
        "sets": SETS.format(rows["sets"]) if "sets" in rows else "",
        "worse": f"{WORSE}\n{rows['robustness']}" if "robustness" in rows else "",
        "drawn": "\n".join(inline(name, figures[name]) for name in PAINTERS),
        "sliders": json.dumps(sliders(measured)).replace("<", "\\u003c"),
    }
    filled = {name: html.escape(text) for name, text in parts.items()} | raw
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], TEMPLATE.read_text(encoding="utf-8"))


def rated_in_words(card: ModelCard) -> str:
    """Of what sensitivity and specificity of subgroups are."""
    if card.task == "binary":
        return f"Sensitivity and specificity are those of {spoken(card.classes[1])}."
    return "Sensitivity and specificity are means over the classes that occur."


def absent_in_words(names: tuple[str, ...]) -> str:
    """A sentence, or nothing when every class occurs."""
    if not names:
        return ""
    return f"No pictures of {', '.join(map(spoken, names))}: figures that need every class, such as AUROC, are missing."


def sliders(measured: Measurement) -> list[dict[str, object]]:
    """By class: name, share, and pairs of sensitivity and specificity, first as measured and then as resampled."""
    return [
        {
            "name": spoken(measured.card.classes[k]),
            "prevalence": float(metrics.holds(measured.labels, k).mean()),
            "rates": [rates(measured, k, d) for d in (np.arange(len(measured.labels)), *measured.draws)],
        }
        for k in looked_for(measured)
    ]


def rates(measured: Measurement, k: int, draw: np.ndarray) -> list[float | None]:
    """Sensitivity and specificity of one bootstrap sample; None where it has no case to tell them."""
    answers, labels = measured.answers[draw], measured.labels[draw]
    found = metrics.sensitivity(answers, labels, k), metrics.specificity(answers, labels, k)
    return [round(rate, 4) if np.isfinite(rate) else None for rate in found]


def inline(name: str, svg: str) -> str:
    """A figure in the colours of the page, described to those who do not see it; its ids are its own."""
    caption = html.escape(PAINTERS[name][0])
    drawing = svg[svg.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = drawing.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def as_rows(name: str, table: Table, pictures: list[str]) -> str:
    """A table that scrolls by itself, named by the heading of its section; pictures: one before each row, or none."""
    if not table.rows:
        return "<p>None.</p>"
    numeric = [any(not isinstance(row[i], str) for row in table.rows) for i in range(len(table.head))]
    top = ('<th scope="col">Looks like</th>' if pictures else "") + "".join(
        f'<th scope="col"{right(number)}>{html.escape(title)}</th>'
        for title, number in zip(table.head, numeric, strict=True)
    )
    body = []
    for index, (first, *cells) in enumerate(table.rows):
        picture = f'<td><img src="{pictures[index]}" alt=""></td>' if pictures else ""
        rest = "".join(
            f"<td{right(number)}>{html.escape(shown(cell))}</td>"
            for cell, number in zip(cells, numeric[1:], strict=True)
        )
        body.append(f'<tr>{picture}<th scope="row">{html.escape(shown(first))}</th>{rest}</tr>')
    return (
        f'<div class="wide" role="region" tabindex="0" aria-labelledby="h-{name}"><table aria-labelledby="h-{name}">'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def right(number: bool) -> str:
    return ' class="number"' if number else ""


def shown(cell: Cell) -> str:
    if not isinstance(cell, Estimate):
        return plain(cell)
    interval = f" ({cell.low:.3f} to {cell.high:.3f})" if np.isfinite(cell.low) else ""
    return plain(cell.value) + interval


def small_pictures(measured: Measurement, worst: np.ndarray) -> Iterator[str]:
    """The pictures as data addresses, small."""
    data = replace(measured.data, cases=tuple(measured.data.cases[i] for i in worst.tolist()))
    for picture in read_pictures(data, measured.card.input):
        small = cv2.resize(picture, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        _, stored = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]))
        yield "data:image/jpeg;base64," + base64.b64encode(stored.tobytes()).decode()
