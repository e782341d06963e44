"""Arrays to pictures that a browser shows: data URIs at display size, never numbers for each pixel."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import plotly.colors
import streamlit as st
from PIL import Image

from medfusion import service
from medfusion.types import Explanation, Scan, Window
from pages.ui.resources import Job

RAW_SIDE_PX = 1280  # a panel is 350 px wide at first; this leaves 3.5 times zoom before pixels show
MAP_SIDE_PX = 512  # maps are smooth: 7 × 7 to 28 × 28 cells, or superpixels of a 224 px picture
CLEAR_BELOW = 0.35  # of the strongest evidence: weaker evidence fades out, so that the anatomy stays visible
HATCH_PX = 9  # from line to line
HATCH_COLOUR = (255, 255, 255)
BLUE_ORANGE = ["#08306b", "#2171b5", "#9ecae1", "#f7f7f7", "#fdae6b", "#e6550d", "#7f2704"]
SCALES = {
    "cividis": plotly.colors.sequential.Cividis,
    "viridis": plotly.colors.sequential.Viridis,
    "blue–orange": BLUE_ORANGE,
}


def ramp(scale: str) -> np.ndarray:
    """A colour map as (256, 3) uint8, from its lowest to its highest value."""
    stops = [plotly.colors.hex_to_rgb(c) if c.startswith("#") else plotly.colors.unlabel_rgb(c) for c in SCALES[scale]]
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(np.linspace(0, 1, 256), at, channel) for channel in zip(*stops, strict=True)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def shrunk(picture: Image.Image, side_px: int) -> Image.Image:
    """At most side_px on the longer side; smaller pictures stay as they are."""
    factor = side_px / max(picture.size)
    if factor >= 1:
        return picture
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BOX if picture.mode == "F" else Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image) -> str:
    """A picture without loss: what the reader sees is what was decoded."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def small_uri(picture: Image.Image, side_px: int) -> str:
    """A picture to be glanced at, in the page itself for the same reason as `file_uri`."""
    buffer = io.BytesIO()
    shrunk(picture, side_px).convert("RGB").save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def file_uri(path: Path) -> str:
    """A small WebP as it is, in the page itself: Streamlit forgets a served one while the browser still fetches it."""
    return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()


@st.cache_data(max_entries=64, show_spinner=False)
def raw_uri(sha256: str, frame: int, window: Window | None, invert: bool, _scan: Scan) -> str:
    """One frame as the chosen window shows it."""
    return data_uri(shrunk(Image.fromarray(service.display(_scan, frame, window, invert)), RAW_SIDE_PX))


def thumbnail(scan: Scan, side_px: int = 320) -> str:
    """The middle of the first frame, square."""
    picture = Image.fromarray(service.display(scan)).convert("RGB")
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    return small_uri(picture.crop((left, top, left + edge, top + edge)).resize((side_px, side_px)), side_px)


@st.cache_data(max_entries=64, show_spinner=False)
def map_uri(
    job: Job, scale: str, signed: bool, hatched: bool, _explanation: Explanation, _unstable: np.ndarray | None = None
) -> str:
    """A map in colours; opaque where the evidence is strong, clear where there is none.

    hatched: whether places of _unstable (h, w), bool, are hatched.
    """
    picture = coloured(_explanation.signed if signed else _explanation.heatmap, scale, signed)
    if hatched and _unstable is not None:
        rows, columns = np.indices(picture.shape[:2])
        where = np.asarray(Image.fromarray(_unstable).resize(picture.shape[1::-1], Image.Resampling.NEAREST))
        picture[where & ((rows + columns) % HATCH_PX < 2)] = (*HATCH_COLOUR, 255)
    return data_uri(Image.fromarray(picture))


@st.cache_data(max_entries=64, show_spinner=False)
def difference_uri(first: Job, second: Job, scale: str, _first: Explanation, _second: Explanation) -> str:
    """Where two maps disagree, in the colours of a signed map."""
    return data_uri(Image.fromarray(coloured(service.disagreement(_first, _second), scale, signed=True)))


def coloured(values: np.ndarray, scale: str, signed: bool) -> np.ndarray:
    """(H, W) in 0..1, or in -1..1 if signed, to RGBA (h, w, 4) uint8 at the size a map is shown."""
    values = grid(values)
    position = (values + 1) / 2 if signed else values
    colours = ramp(scale)[np.rint(255 * np.clip(position, 0, 1)).astype(np.uint8)]
    alpha = np.rint(255 * np.clip(np.abs(values) / CLEAR_BELOW, 0, 1)).astype(np.uint8)
    return np.dstack([colours, alpha])


def grid(values: np.ndarray, side_px: int = MAP_SIDE_PX) -> np.ndarray:
    """(H, W) as float32 at the size a map is shown, (h, w)."""
    return np.asarray(shrunk(Image.fromarray(values.astype(np.float32)), side_px))


@st.cache_data(max_entries=64, show_spinner=False)
def outlines(job: Job, level: float, _explanation: Explanation, side_px: int = 128) -> list[np.ndarray]:
    """Closed lines around the evidence of at least level. Each (n, 2) of (x, y) in pixels of the original frame."""
    return closed_lines(_explanation.heatmap, level, side_px)


def closed_lines(values: np.ndarray, level: float, side_px: int) -> list[np.ndarray]:
    """Where (H, W) values cross a level. Each line (n, 2) of (x, y) in pixels of the values."""
    from skimage.measure import find_contours  # takes a second to import: only when an outline is asked for

    height, width = values.shape
    small = grid(values, side_px)
    framed = np.pad(small, 1)  # so that a line closes at the border
    size = np.array([width / small.shape[1], height / small.shape[0]])
    edges = [(line[:, ::-1] - 0.5) * size for line in find_contours(framed, level)]
    return [np.clip(edge, 0, (width, height)) for edge in edges]
