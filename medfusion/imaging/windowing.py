"""From modality values to the grey levels of a screen: VOI LUT or window, then inversion (DICOM PS3.3 C.11.2)."""

from __future__ import annotations

import numpy as np

from medfusion.types import Scan, VoiLut, Window

TAIL = 0.001  # part of the pixels that may saturate at either end: dead pixels and lead markers
SAMPLE = 2**20  # pixels looked at to find the range of a large scan
FLAT_GREY = 128

# Usual centres and widths in Hounsfield units.
CT_WINDOWS = (
    Window(-600, 1500, "Lung"),
    Window(40, 400, "Soft tissue"),
    Window(50, 350, "Mediastinum"),
    Window(400, 1800, "Bone"),
    Window(40, 80, "Brain"),
    Window(75, 215, "Subdural"),
    Window(30, 150, "Liver"),
)


def display(scan: Scan, frame: int = 0, window: Window | None = None, invert: bool = False) -> np.ndarray:
    """One frame as the screen shows it: (H, W) or (H, W, 3) uint8.

    Without a window: the file's VOI LUT, else its first window, else 8-bit grey as it is and deeper grey over its range
    (0.1 % of the pixels may saturate at either end). Then MONOCHROME1 is inverted, then `invert`. Colours are shown as
    they are; a window acts on their three channels alike. NaN is shown as the lowest value, a constant as flat grey.
    """
    values = scan.frames[frame]
    rule = window or default_rule(scan)
    levels = values if rule is None else map_levels(values, rule)
    return 255 - levels if scan.inverted != invert else np.array(levels)


def presets(scan: Scan) -> tuple[Window, ...]:
    """Windows to offer: the file's own, the usual ones for CT, and the full range, without repetition."""
    offered = [*named(scan.windows), *(CT_WINDOWS if scan.modality == "CT" and scan.is_grey else ()), full_range(scan)]
    unique: dict[tuple[float, float, str], Window] = {}
    for window in offered:
        unique.setdefault((window.center, window.width, window.function), window)
    return tuple(unique.values())


def named(windows: tuple[Window, ...]) -> list[Window]:
    """The file's windows, each with a name to choose it by."""
    many = len(windows) > 1
    return [
        Window(w.center, w.width, w.name or (f"From the file ({i})" if many else "From the file"), w.function)
        for i, w in enumerate(windows, start=1)
    ]


def default_rule(scan: Scan) -> Window | VoiLut | None:
    """How the file asks to be shown. None: as it is."""
    if not scan.is_grey:
        return None
    if scan.voi_lut is not None:
        return scan.voi_lut
    if scan.windows:
        return scan.windows[0]
    return None if scan.frames.dtype == np.uint8 else range_window(scan, TAIL, "Automatic")


def full_range(scan: Scan) -> Window:
    """From the lowest to the highest value of all frames; of the type for 8 bits."""
    if scan.frames.dtype == np.uint8:
        return Window(127.5, 255, "Full range", "LINEAR_EXACT")
    return range_window(scan, 0, "Full range")


def range_window(scan: Scan, tail: float, name: str) -> Window:
    """A window over the values of all frames, without padding, NaN, infinities and a tail at either end."""
    values = image_values(scan, everything=tail == 0)
    if not values.size:
        return Window(0, 0, name, "LINEAR_EXACT")
    low = float(np.quantile(values, tail, method="lower"))
    high = float(np.quantile(values, 1 - tail, method="higher"))
    return Window((low + high) / 2, high - low, name, "LINEAR_EXACT")


def image_values(scan: Scan, everything: bool) -> np.ndarray:
    """(n,) finite values outside the padding; a regular sample of a large scan unless everything is wanted."""
    values = scan.frames.reshape(-1)
    if not everything:
        values = values[:: max(1, values.size // SAMPLE)]
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if scan.padding is not None:
        low, high = scan.padding
        values = values[(values < low) | (values > high)]
    return values


def map_levels(values: np.ndarray, rule: Window | VoiLut) -> np.ndarray:
    """Values of any shape to uint8 grey levels; up to 16 bits through a table of all values that can occur."""
    if values.dtype.kind == "f" or values.dtype.itemsize > 2:
        return to_levels(values, rule)
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    every_value = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned)
    return to_levels(every_value.view(values.dtype), rule)[values.view(unsigned)]


def to_levels(values: np.ndarray, rule: Window | VoiLut) -> np.ndarray:
    if isinstance(rule, VoiLut):
        # PS3.3 C.11.2.1.1: values before the first entry take the first, values after the last take the last
        index = np.clip(np.nan_to_num(values).astype(np.int64) - rule.first_value, 0, len(rule.table) - 1)
        top = max(2**rule.bits - 1, int(rule.table.max()))  # some files state fewer bits than they use
        share = rule.table[index] / top
    else:
        share = window_share(values.astype(np.float64), rule)
    return np.rint(255 * np.nan_to_num(share)).astype(np.uint8)


def window_share(x: np.ndarray, window: Window) -> np.ndarray:
    """Brightness 0..1 of values x; NaN stays NaN. A window without width shows a constant as flat grey."""
    c, w = window.center, window.width
    if window.function == "SIGMOID" and w > 0:
        return 1 / (1 + np.exp(np.clip(-4 * (x - c) / w, -500, 500)))  # PS3.3 C.11.2.1.3.1
    if window.function == "LINEAR" and w >= 1:
        c, w = c - 0.5, w - 1  # PS3.3 C.11.2.1.2.1; narrower ones only make sense as LINEAR_EXACT
        if w == 0:
            return (x > c).astype(np.float64)
    if w <= 0:
        return np.where(x == c, FLAT_GREY / 255, (x > c).astype(np.float64))
    return np.clip((x - c) / w + 0.5, 0, 1)  # PS3.3 C.11.2.1.3.2
