"""An evaluation as a self-contained HTML page, with its figures as SVG and its tables as CSV, ready for a paper.

The page holds no pictures of patients and needs no network.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from medfusion import metrics
from medfusion.evaluate import Measurement

SMALLEST_SUBGROUP = 20
WORST = 20
BINS = 10  # of the reliability diagram
INK = "#010203"  # a colour of our own, which the page replaces by that of its text
COLOURS = ("#2f86bd", "#d9822b", "#4c9f70", "#9a6fb0", "#b5544f", "#7d7d7d")  # told apart by the colour-blind
TEMPLATE = Path(__file__).with_name("evaluation_report.html")

Table = list[list[str]]  # the first row is the head


def write(folder: Path, measured: Measurement, origin: Mapping[str, str]) -> Path:
    """Write report.html, figures/*.svg and tables/*.csv. origin: model, version, data and split. Returns the page."""
    figures = {name: draw(painter, measured) for name, (_, painter) in PAINTERS.items()}
    tables = {
        "figures": figure_table(measured.figures),
        "classes": class_table(measured),
        "confusion": confusion_table(measured),
        "subgroups": subgroup_table(measured),
        "worst": worst_table(measured),
    }
    for name, drawn in figures.items():
        put(folder / "figures" / f"{name}.svg", drawn.replace(INK, "#000000"))
    for name, table in tables.items():
        put(folder / "tables" / f"{name}.csv", as_csv(table))
    page = folder / "report.html"
    put(page, as_html(measured, origin, figures, tables))
    return page


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def spoken(name: str) -> str:
    return name.replace("_", " ")


# Figures


def looked_for(measured: Measurement) -> list[int]:
    """The classes that curves are drawn of: the second of two, else each against the rest; those that occur."""
    classes = range(len(measured.card.classes))
    chosen = [1] if measured.card.task == "binary" else list(classes)
    return [k for k in chosen if 0 < (measured.labels == k).sum() < len(measured.labels)]


def curves(
    axes: Axes, measured: Measurement, points: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]
) -> None:
    """One line for each class looked for. points: of truth and probability, to x and y."""
    for k in looked_for(measured):
        x, y = points(measured.labels == k, measured.probabilities[:, k])
        axes.plot(x, y, color=COLOURS[k % len(COLOURS)], label=spoken(measured.card.classes[k]))


def roc(axes: Axes, measured: Measurement) -> None:
    curves(axes, measured, lambda truth, p: roc_curve(truth, p)[:2])
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def precision_recall(axes: Axes, measured: Measurement) -> None:
    curves(axes, measured, lambda truth, p: precision_recall_curve(truth, p)[1::-1])
    axes.set(xlabel="Sensitivity (recall)", ylabel="PPV (precision)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def reliability(axes: Axes, measured: Measurement) -> None:
    """Share answered rightly against the probability stated, of the most probable class (Guo et al. 2017, figure 1)."""
    stated = measured.probabilities.max(axis=1)
    right = measured.probabilities.argmax(axis=1) == measured.labels
    bins = np.minimum((stated * BINS).astype(int), BINS - 1)
    filled = [b for b in range(BINS) if (bins == b).any()]
    x = [stated[bins == b].mean() for b in filled]
    y = [right[bins == b].mean() for b in filled]
    sizes = [10 + 160 * (bins == b).mean() for b in filled]
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, linestyle=":")
    axes.plot(x, y, color=COLOURS[0], linewidth=1)
    axes.scatter(x, y, s=sizes, color=COLOURS[0])
    axes.set(xlabel="Probability stated", ylabel="Share right", xlim=(0, 1.03), ylim=(0, 1.03))


def decision(axes: Axes, measured: Measurement) -> None:
    """Net benefit of acting on the model, on all and on none (Vickers & Elkin 2006)."""
    thresholds = np.linspace(0.01, 0.99, 99)
    odds = thresholds / (1 - thresholds)
    top = 0.0
    for k in looked_for(measured):
        truth, p = measured.labels == k, measured.probabilities[:, k]
        flagged = p[:, None] >= thresholds
        benefit = (flagged & truth[:, None]).mean(0) - odds * (flagged & ~truth[:, None]).mean(0)
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(thresholds, benefit, color=colour, label=spoken(measured.card.classes[k]))
        axes.plot(thresholds, truth.mean() - odds * (1 - truth.mean()), color=colour, linewidth=0.7, linestyle="--")
        top = max(top, truth.mean())
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set(xlabel="Threshold probability", ylabel="Net benefit", xlim=(0, 1), ylim=(-0.1, 1.1 * top + 0.02))


PAINTERS: Mapping[str, tuple[str, Callable[[Axes, Measurement], None]]] = {
    "roc": ("ROC: sensitivity against false alarms, each class against the rest", roc),
    "precision-recall": ("Precision and recall: how many of those flagged are right", precision_recall),
    "reliability": (
        "Reliability: on the dotted line stated and observed agree; larger dots, more cases",
        reliability,
    ),
    "decision": ("Decision curve: net benefit of acting on the model; dashed: on everyone; zero: on nobody", decision),
}


def draw(painter: Callable[[Axes, Measurement], None], measured: Measurement) -> str:
    """A figure of 9 × 8 cm as SVG text, its letters as text."""
    figure = Figure(figsize=(3.55, 3.15), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    painter(axes, measured)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(color=INK)
    for words in (axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()):
        words.set_color(INK)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    stored = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "medfusion", "font.family": "sans-serif"}):
        figure.savefig(stored, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stored.getvalue()


# Tables


def estimate(figure: Mapping[str, float]) -> list[str]:
    return [f"{figure[key]:.3f}" if np.isfinite(figure[key]) else "not defined" for key in ("value", "low", "high")]


def figure_table(figures: Mapping[str, Any]) -> Table:
    names = ("accuracy", "balanced_accuracy", "auroc", "ece", "brier")
    titles = {"auroc": "AUROC", "ece": "Calibration error", "brier": "Brier score"}
    rows = [[titles.get(name, spoken(name).capitalize()), *estimate(figures[name])] for name in names]
    return [["Figure", "Value", "95 % from", "to"], *rows]


def class_table(measured: Measurement) -> Table:
    per_class: Any = measured.figures["per_class"]
    rows = [
        [spoken(name), str(row["n"]), *estimate(row["sensitivity"]), *estimate(row["specificity"])]
        for name, row in per_class.items()
    ]
    return [["Class", "n", "Sensitivity", "from", "to", "Specificity", "from", "to"], *rows]


def confusion_table(measured: Measurement) -> Table:
    names = [spoken(name) for name in measured.card.classes]
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (measured.labels, measured.answers), 1)
    rows = [[name, *map(str, row)] for name, row in zip(names, counts.tolist(), strict=True)]
    return [["True class, answered:", *names], *rows]


def subgroup_table(measured: Measurement) -> Table:
    """Accuracy and AUROC by each value of each further column of the manifest."""
    rows: Table = []
    cases = measured.data.cases
    for column in sorted({name for case in cases for name, _ in case.more}):
        values = np.array([dict(case.more).get(column, "") for case in cases])
        for value in np.unique(values):
            chosen = values == value
            rows.append([column, value or "(empty)", str(chosen.sum()), *subgroup(measured, chosen)])
    return [["Column", "Value", "n", "Accuracy", "AUROC"], *rows]


def subgroup(measured: Measurement, chosen: np.ndarray) -> list[str]:
    if chosen.sum() < SMALLEST_SUBGROUP:
        return ["too few", "too few"]
    accuracy = (measured.answers[chosen] == measured.labels[chosen]).mean()
    auroc = metrics.auroc(measured.probabilities[chosen], measured.labels[chosen])
    return [f"{accuracy:.3f}", f"{auroc:.3f}" if np.isfinite(auroc) else "a class is absent"]


def worst_table(measured: Measurement) -> Table:
    """Wrong answers, those first that gave the true class the least."""
    truth = measured.probabilities[np.arange(len(measured.labels)), measured.labels]
    wrong = np.flatnonzero(measured.answers != measured.labels)
    names = [spoken(name) for name in measured.card.classes]
    rows = [
        [
            measured.data.cases[i].path,
            names[measured.labels[i]],
            names[measured.answers[i]],
            f"{measured.probabilities[i, measured.answers[i]]:.3f}",
            f"{truth[i]:.3f}",
        ]
        for i in wrong[np.argsort(truth[wrong], kind="stable")][:WORST]
    ]
    return [["Picture", "True class", "Answer", "Its probability", "That of the true class"], *rows]


def as_csv(table: Table) -> str:
    stored = io.StringIO()
    csv.writer(stored).writerows(table)
    return stored.getvalue()


# The page


def as_html(
    measured: Measurement, origin: Mapping[str, str], figures: Mapping[str, str], tables: Mapping[str, Table]
) -> str:
    """The template with everything put in. Names from files and manifests are escaped."""
    card = measured.card
    drawn = "\n".join(
        f"<figure>{inline(figures[name])}<figcaption>{caption}</figcaption></figure>"
        for name, (caption, _) in PAINTERS.items()
    )
    rates: Any = measured.figures["per_class"]
    sliders = [
        {
            "name": spoken(card.classes[k]),
            "sensitivity": rates[card.classes[k]]["sensitivity"]["value"],
            "specificity": rates[card.classes[k]]["specificity"]["value"],
            "prevalence": float((measured.labels == k).mean()),
        }
        for k in looked_for(measured)
    ]
    parts = {
        "title": f"{card.title}: {origin['data']}, {origin['split']}",
        "facts": f"{card.id} {card.version} · {origin['data']}, {origin['split']} · {len(measured.labels)} pictures",
        "rule": card.operating_point.rule,
    }
    raw = {name: as_rows(table) for name, table in tables.items()} | {
        "drawn": drawn,
        "sliders": json.dumps(sliders).replace("<", "\\u003c"),
    }
    filled = {name: html.escape(text) for name, text in parts.items()} | raw
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], TEMPLATE.read_text(encoding="utf-8"))


def inline(svg: str) -> str:
    """The drawing alone, in the colours of the page."""
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def as_rows(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    if not body:
        return "<p>None.</p>"
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
