"""An explanation in words, for the page and as alternative text. It says where evidence lies, never what is there."""

from __future__ import annotations

import numpy as np

from medfusion.types import Explanation

ROWS = ("upper", "middle", "lower")
COLUMNS = ("left", "centre", "right")
SPREAD_OUT = 0.25  # a ninth holds 11 % of an even map; below a quarter nothing stands out


def describe(explanation: Explanation) -> str:
    """Where the positive evidence for the target lies: thirds of the picture, left and right as the viewer sees it."""
    target = explanation.target_name.replace("_", " ")
    if not explanation.has_positive_evidence:
        return f"No positive evidence for {target}: no part of the picture speaks for it by this method."
    shares = ninths(explanation.heatmap)
    row, column = np.unravel_index(int(shares.argmax()), shares.shape)
    share = float(shares[row, column])
    held = f"{100 * share:.0f} %"
    if share < SPREAD_OUT:
        return f"The positive evidence for {target} is spread over the picture; no ninth of it holds over {held}."
    place = "centre" if (row, column) == (1, 1) else f"{ROWS[row]} {COLUMNS[column]}"
    return (
        f"The positive evidence for {target} lies mostly in the {place} of the picture, as you look at it: "
        f"{held} of it in that ninth. This is where the model looked, not a finding."
    )


def ninths(heatmap: np.ndarray) -> np.ndarray:
    """(3, 3) shares of the map's sum, rows from above, columns from the viewer's left. The map must not be all zero."""
    bands = [np.array_split(band, 3, axis=1) for band in np.array_split(heatmap.astype(np.float64), 3, axis=0)]
    sums = np.array([[cell.sum() for cell in band] for band in bands])
    return sums / sums.sum()
