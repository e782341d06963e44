"""An explanation in words, for the page and as alternative text. It says where evidence lies, never what is there."""

from __future__ import annotations

import numpy as np

from medfusion.types import Explanation

ROWS = ("upper", "middle", "lower")
COLUMNS = ("left", "centre", "right")
SPREAD_OUT = 0.25  # a ninth holds 11 % of an even map; below a quarter nothing stands out
EVEN = 0.01  # a map that varies by less than this part of its largest value is the same everywhere
EDGE = 1 / 16  # of each side: the outermost cells of the network's coarsest map, about
AT_THE_EDGE = 0.9  # share of the positive evidence, on the quarter of the picture that the edges take
CAUTIONS = {
    "constant": "The map is the same everywhere, so it does not say where anything lies.",
    "all negative": "All that the map marks speaks against it.",
    "border only": "Nearly all of it lies at the edge of the picture, where no finding is expected: do not rely on it.",
}


def describe(explanation: Explanation) -> str:
    """Where evidence for and against the target lies, its share, and how well a local model fits.

    Thirds of the picture, left and right as the viewer sees it.
    """
    words = [positive(explanation), negative(explanation)]
    kind = degenerate(explanation)
    words += [CAUTIONS[kind]] if kind else []
    if explanation.fit is not None:
        words.append(f"Its local model explains {100 * explanation.fit:.0f} % of the change (R²)")
        words[-1] += f", from {explanation.samples} samples." if explanation.samples else "."
    return " ".join(filter(None, words))


def degenerate(explanation: Explanation) -> str | None:
    """Which of CAUTIONS a map deserves: it has no place to show, or only places that cannot be meant."""
    if float(np.ptp(explanation.signed)) < EVEN and explanation.signed.any():
        return "constant"
    if not explanation.has_positive_evidence:
        return "all negative" if explanation.signed.any() else None
    height, width = explanation.heatmap.shape
    inside = explanation.heatmap[inner(height), inner(width)].sum(dtype=np.float64)
    at_the_edge = 1 - float(inside / explanation.heatmap.sum(dtype=np.float64))
    return "border only" if at_the_edge >= AT_THE_EDGE else None


def inner(side: int) -> slice:
    edge = round(EDGE * side)
    return slice(edge, side - edge)


def positive(explanation: Explanation) -> str:
    target = explanation.target_name.replace("_", " ")
    if not explanation.has_positive_evidence:
        return f"No positive evidence for {target}: no part of the picture speaks for it by this method."
    subject, ending = f"The positive evidence for {target}", "This is where the model looked, not a finding."
    if not explanation.knows_class:
        subject = "The attention"
        ending = "It is the same for every class: where the model looked, not what speaks for one, and not a finding."
    where, share = place(explanation.heatmap)
    if share < SPREAD_OUT:
        return f"{subject} is spread over the picture; no ninth of it holds over {100 * share:.0f} %. {ending}"
    lies = f"{subject} lies mostly in the {where} of the picture, as you look at it"
    return f"{lies}: {100 * share:.0f} % of it in that ninth. {ending}"


def negative(explanation: Explanation) -> str:
    """What speaks against the target, and its share; empty where nothing does or the method does not tell."""
    against = np.maximum(-explanation.signed, 0)
    total = float(np.abs(explanation.signed).sum(dtype=np.float64))
    if total == 0 or not against.any() or not explanation.knows_class:
        return ""
    part = float(against.sum(dtype=np.float64)) / total
    where, share = place(against)
    amount = f"{100 * part:.0f} %" if part >= 0.005 else "Less than 1 %"
    lies = f"mostly in the {where}" if share >= SPREAD_OUT else "spread over the picture"
    return f"{amount} of what the map marks speaks against it, {lies}."


def place(values: np.ndarray) -> tuple[str, float]:
    """The ninth of the picture that holds most of a map, by name, and its share. The map must not be all zero."""
    shares = ninths(values)
    row, column = np.unravel_index(int(shares.argmax()), shares.shape)
    name = "centre" if (row, column) == (1, 1) else f"{ROWS[row]} {COLUMNS[column]}"
    return name, float(shares[row, column])


def ninths(heatmap: np.ndarray) -> np.ndarray:
    """(3, 3) shares of the map's sum, rows from above, columns from the viewer's left. The map must not be all zero."""
    bands = [np.array_split(band, 3, axis=1) for band in np.array_split(heatmap.astype(np.float64), 3, axis=0)]
    sums = np.array([[cell.sum() for cell in band] for band in bands])
    return sums / sums.sum()
