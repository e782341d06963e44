"""The figures of an evaluation as SVG text: curves, reliability, net benefit and confusion. Writes nothing.

What is neither a class nor a cell is drawn in INK, for a page to replace by the colour of its text.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from medfusion.evaluate import Measurement
from medfusion.metrics import Estimate, holds, stated, wilson

BINS = 10  # of the reliability diagram
INK = "#010203"  # a colour that nothing else has
COLOURS = ("#2f86bd", "#d9822b", "#4c9f70", "#9a6fb0", "#b5544f", "#7d7d7d")  # told apart by the colour-blind
STYLES = ("-", "--", ":")  # for the classes after the sixth
WIDTH, HEIGHT = 3.55, 3.0  # inches: one column of a paper
LEGEND_ROW = 0.15
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # letters stay text
    "svg.hashsalt": "medfusion",  # the same file each time
}


def spoken(name: str) -> str:
    return name.replace("_", " ")


def looked_for(measured: Measurement) -> list[int]:
    """The classes that curves are drawn of: the second of two, else each against the rest; those that occur."""
    classes = range(len(measured.card.classes))
    chosen = [1] if measured.card.task == "binary" else list(classes)
    return [k for k in chosen if 0 < holds(measured.labels, k).sum() < len(measured.labels)]


def line_of(measured: Measurement, k: int) -> dict[str, Any]:
    """Colour, dashes and name of a class."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": STYLES[k // len(COLOURS) % len(STYLES)],
        "label": spoken(measured.card.classes[k]),
    }


def with_figure(line: dict[str, Any], figure: Estimate) -> dict[str, Any]:
    return line | {"label": f"{line['label']}: {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"}


def roc_points(measured: Measurement, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p,) 1 − specificity, sensitivity and threshold of class k; the first threshold, infinite, flags nobody."""
    x, y, thresholds = roc_curve(holds(measured.labels, k), measured.probabilities[:, k])
    return x, y, thresholds


def roc(axes: Axes, measured: Measurement) -> None:
    for k in looked_for(measured):
        x, y, _ = roc_points(measured, k)
        axes.plot(x, y, **with_figure(line_of(measured, k), measured.ranking[k][0]))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def precision_recall_points(measured: Measurement, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p,) sensitivity, PPV and threshold of class k; the last threshold, infinite, flags nobody."""
    precision, recall, thresholds = precision_recall_curve(holds(measured.labels, k), measured.probabilities[:, k])
    return recall, precision, np.append(thresholds, np.inf)


def precision_recall(axes: Axes, measured: Measurement) -> None:
    for k in looked_for(measured):
        recall, precision, _ = precision_recall_points(measured, k)
        line = with_figure(line_of(measured, k), measured.ranking[k][1])
        axes.plot(recall, precision, **line, drawstyle="steps-pre")
    axes.set(xlabel="Sensitivity (recall)", ylabel="PPV (precision)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def reliability_points(measured: Measurement) -> Iterator[tuple[int, float, Estimate]]:
    """Of each bin with cases: their number, the mean probability stated and the share right with its Wilson interval.

    Of the most probable class, in BINS bins of equal width (Guo et al. 2017, figure 1).
    """
    confidence, right = stated(measured.probabilities, measured.labels)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for members in (bins == b for b in range(BINS) if (bins == b).any()):
        n = int(members.sum())
        yield n, float(confidence[members].mean()), wilson(int(right[members].sum()), n)


def reliability(axes: Axes, measured: Measurement) -> None:
    """Share answered rightly against the probability stated."""
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, linestyle=":")
    points = list(reliability_points(measured))
    total = sum(n for n, _, _ in points)
    for n, x, share in points:
        axes.plot([x, x], [share.low, share.high], color=COLOURS[0], linewidth=1)
        axes.scatter(x, share.value, s=8 + 120 * n / total, color=COLOURS[0], linewidth=0)
    axes.set(xlabel="Probability stated", ylabel="Share right", xlim=(0, 1.03), ylim=(-0.01, 1.03))


def decision_points(measured: Measurement, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(99,) threshold and net benefit of acting on the model and on everyone; on nobody it is 0."""
    thresholds, truth = np.linspace(0.01, 0.99, 99), holds(measured.labels, k)
    told, everyone = measured.probabilities[:, k], np.ones(len(truth))
    return thresholds, net_benefit(told, truth, thresholds), net_benefit(everyone, truth, thresholds)


def decision(axes: Axes, measured: Measurement) -> None:
    """Net benefit of acting on the model, on all and on none (Vickers & Elkin 2006)."""
    top = 0.0
    for k in looked_for(measured):
        line = line_of(measured, k)
        thresholds, on_model, on_all = decision_points(measured, k)
        axes.plot(thresholds, on_model, **line)
        axes.plot(thresholds, on_all, color=line["color"], linewidth=0.7, linestyle=(0, (4, 2)))
        top = max(top, holds(measured.labels, k).mean())
    axes.plot([], [], color=INK, linewidth=0.7, linestyle=(0, (4, 2)), label="acting on everyone")
    axes.axhline(0, color=INK, linewidth=0.6, label="acting on nobody")
    axes.set(xlabel="Threshold probability", ylabel="Net benefit", xlim=(0, 1), ylim=(-0.2 * top, 1.08 * top or 1))


def net_benefit(probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(t,) true positives less false ones at the odds of the threshold, for each case (Vickers & Elkin 2006)."""
    flagged = probabilities[:, None] >= thresholds
    odds = thresholds / (1 - thresholds)
    return (flagged & truth[:, None]).mean(0) - odds * (flagged & ~truth[:, None]).mean(0)


def confusion(axes: Axes, measured: Measurement) -> None:
    """Counts, shaded by the share of the true class."""
    counts = confused(measured)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts)
    for (row, column), share in np.ndenumerate(shares):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=COLOURS[0], alpha=0.75 * share))
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=min(9, 60 / size))
    names = [spoken(name) for name in measured.card.classes]
    axes.set_xticks(range(size), names, rotation=30 if size > 2 else 0, ha="right" if size > 2 else "center")
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0)
    axes.set(xlabel="Answer", ylabel="True class", xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")


def confused(measured: Measurement) -> np.ndarray:
    """(K, K) counts, the true class down and the answer across; a case counts for each of several labels."""
    if measured.labels.ndim == 2:
        together: np.ndarray = measured.labels.T @ measured.answers
        return together
    return confusion_matrix(measured.labels, measured.answers, labels=np.arange(len(measured.card.classes)))


PAINTERS: Mapping[str, tuple[str, Callable[[Axes, Measurement], None]]] = {
    "roc": ("ROC: sensitivity against false alarms; AUROC with its 95 % interval", roc),
    "precision-recall": (
        "Precision and recall: how many of those flagged are right; average precision with its 95 % interval",
        precision_recall,
    ),
    "reliability": (
        "Reliability: on the dotted line, what is stated and what is seen agree; larger dots, more cases; "
        "bars, 95 % Wilson intervals",
        reliability,
    ),
    "decision": (
        "Decision curve: net benefit of acting on the model, compared with acting on everyone and on nobody",
        decision,
    ),
    "confusion": (
        "Confusion matrix: pictures by true class and answer; the more colour, the larger the share of the true class",
        confusion,
    ),
}


# The points of the curves of one class, and what they are of.
CURVES: Mapping[str, tuple[tuple[str, ...], Callable[[Measurement, int], tuple[np.ndarray, ...]]]] = {
    "roc": (("1 - specificity", "Sensitivity", "Threshold"), roc_points),
    "precision-recall": (("Sensitivity (recall)", "PPV (precision)", "Threshold"), precision_recall_points),
    "decision": (("Threshold", "Net benefit of the model", "Net benefit of acting on everyone"), decision_points),
}


def draw(painter: Callable[[Axes, Measurement], None], measured: Measurement) -> str:
    """A figure 9 cm wide as SVG text, with its legend below."""
    with mpl.rc_context(STYLE):
        figure = Figure(layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        painter(axes, measured)
        rows = len(axes.get_legend_handles_labels()[0])
        figure.set_size_inches(WIDTH, HEIGHT + LEGEND_ROW * rows)
        if rows:
            figure.legend(loc="outside lower center", frameon=False, fontsize=7)
        stored = io.StringIO()
        figure.savefig(stored, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stored.getvalue()
