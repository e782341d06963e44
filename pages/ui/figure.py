"""Raw picture, Grad-CAM and LIME in one Plotly figure, so that zooming one zooms all."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from medfusion.service import SIDES, edges
from medfusion.types import Prediction, Scan
from pages.ui.messages import percent, spoken
from pages.ui.state import Zoom

GAP = 0.015  # between panels, of the figure's width
STACKED_GAP_PX = 96  # between panels above each other: a colour bar with its words, and the next title
MARGINS_PX = {"t": 58, "b": 72}
OUTLINE_COLOUR = "#ffffff"
HALO = "0 0 3px #000, 0 0 3px #000, 0 0 3px #000"  # letters on white and on black
MASK_COLOUR = "#ff6ec7"  # on no colour map
BAR_COLOUR = "#2f86bd"  # contrast of 4 or more on both themes
TOOLS = {
    "displaylogo": False,
    "scrollZoom": True,
    "displayModeBar": True,
    "modeBarButtons": [["zoomIn2d", "zoomOut2d", "pan2d", "zoom2d", "autoScale2d"]],
    "doubleClick": "autosize",  # back to the whole picture, also where the figure was drawn zoomed
}


@dataclass(frozen=True)
class ColourBar:
    """A colour map with its meaning and that of its ends."""

    colours: list[str]
    meaning: str
    low: str
    high: str
    middle: str = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture beside the others. Without a map_source it shows the scan alone."""

    title: str
    map_source: str | None = None
    bar: ColourBar | None = None
    outlines: list[np.ndarray] = field(default_factory=list)
    mask: list[np.ndarray] = field(default_factory=list)  # outlines of the reader's own mask
    note: str = ""  # shown over the picture


def evidence_figure(
    raw_source: str, scan: Scan, panels: list[Panel], room_px: int, stacked: bool, zoom: Zoom | None
) -> go.Figure:
    """Draw the panels in a row, or stacked on a narrow screen. zoom: the part in view, all without."""
    count = len(panels)
    ratio = scan.spacing_mm[0] / scan.spacing_mm[1] if scan.spacing_mm else 1.0
    height = height_px(scan.height_px * ratio / scan.width_px, count, room_px, stacked)
    figure = make_subplots(
        rows=count if stacked else 1,
        cols=1 if stacked else count,
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=GAP,
        vertical_spacing=STACKED_GAP_PX / (height - sum(MARGINS_PX.values())),
        subplot_titles=[panel.title for panel in panels],
    )
    for number, panel in enumerate(panels, start=1):
        place = {"row": number, "col": 1} if stacked else {"row": 1, "col": number}
        add_panel(figure, panel, raw_source, scan, place)
    frame_axes(figure, scan, ratio, zoom)
    figure.update_layout(
        height=height,
        margin={"l": 4, "r": 4} | MARGINS_PX,
        dragmode="pan",
        showlegend=False,
        hovermode=False,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#878d94", "activecolor": ink()},
        **plain_layout(),
    )
    return figure


def add_panel(figure: go.Figure, panel: Panel, raw_source: str, scan: Scan, place: dict[str, int]) -> None:
    """The scan first, then its map: the page's style sheet finds maps as the pictures that follow another."""
    for order, source in enumerate(filter(None, (raw_source, panel.map_source))):
        # a hair's breadth apart: Plotly takes pictures at the very same place for one, and drops the second
        figure.add_layout_image(
            source=source,
            x=order * 1e-6,
            y=0,
            sizex=scan.width_px,
            sizey=scan.height_px,
            sizing="stretch",
            layer="below",
            **place,
        )
    strokes = [(line, {"color": OUTLINE_COLOUR, "width": 1.5}) for line in panel.outlines]
    strokes += [(line, {"color": MASK_COLOUR, "width": 2, "dash": "dash"}) for line in panel.mask]
    for line, stroke in strokes or [(np.empty((0, 2)), {})]:
        figure.add_scatter(x=line[:, 0], y=line[:, 1], mode="lines", line=stroke, **place)
    if panel.bar:
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=bar_marker(figure, panel.bar, place), **place)
    add_sides(figure, scan, place)
    if panel.note:
        figure.add_annotation(
            text=panel.note,
            x=0.5,
            y=0.5,
            xref="x domain",
            yref="y domain",
            showarrow=False,
            font={"color": "#ffffff", "size": 14},
            bgcolor="rgba(0,0,0,0.65)",
            borderpad=8,
            **place,
        )


def add_sides(figure: go.Figure, scan: Scan, place: dict[str, int]) -> None:
    """Which side of the patient lies at each edge, whatever part is in view, and which side of the body it is."""
    lies = edges(scan.orientation)
    letters = [
        (lies.left, 0, 0.5, "left", "middle"), (lies.right, 1, 0.5, "right", "middle"),
        (lies.top, 0.5, 1, "center", "top"), (lies.bottom, 0.5, 0, "center", "bottom"),
    ] if lies else []  # fmt: skip
    if side := SIDES.get(scan.laterality or ""):
        letters.append((side, 0, 1, "left", "top"))
    for text, x, y, xanchor, yanchor in letters:
        figure.add_annotation(
            text=f"<b>{text}</b>",
            x=x,
            y=y,
            xref="x domain",
            yref="y domain",
            xanchor=xanchor,
            yanchor=yanchor,
            xshift={"left": 3, "right": -3}.get(xanchor, 0),
            showarrow=False,
            font={"color": "#ffffff", "size": 14, "shadow": HALO},
            **place,
        )


def bar_marker(figure: go.Figure, bar: ColourBar, place: dict[str, int]) -> dict[str, object]:
    """An invisible marker whose colour bar lies under the panel."""
    plot = figure.get_subplot(**place)
    left, right = plot.xaxis.domain
    ticks = {0.0: bar.low, 0.5: bar.middle, 1.0: bar.high}
    shown = {at: text for at, text in ticks.items() if text}
    return {
        "color": [0],
        "cmin": 0,
        "cmax": 1,
        "colorscale": bar.colours,
        "showscale": True,
        "colorbar": {
            "orientation": "h",
            "x": (left + right) / 2,
            "y": plot.yaxis.domain[0],
            "yanchor": "top",
            "ypad": 4,
            "len": (right - left) * 0.8,
            "thickness": 9,
            "outlinewidth": 0,
            "tickvals": list(shown),
            "ticktext": list(shown.values()),
            "ticks": "",
            "title": {"text": bar.meaning, "side": "bottom", "font": {"size": 13}},
        },
    }


def frame_axes(figure: go.Figure, scan: Scan, ratio: float, zoom: Zoom | None) -> None:
    """Axes in pixels of the original frame, unseen, of true proportions; no panning off the picture."""
    width, height = scan.width_px, scan.height_px
    seen = zoom or Zoom((0, width), (height, 0))
    figure.add_scatter(x=[0, width], y=[0, height], mode="lines", opacity=0, row=1, col=1)  # what autoscale goes to
    shared = {"visible": False, "constrain": "domain", "minallowed": 0}
    figure.update_xaxes(range=seen.x, maxallowed=width, **shared)
    figure.update_yaxes(range=seen.y, maxallowed=height, scaleanchor="x", scaleratio=ratio, **shared)


def ink() -> str:
    """The colour of text on the page's theme."""
    return "#16191d" if st.context.theme.type == "light" else "#e4e6e8"


def plain_layout() -> dict[str, object]:
    """No background of its own, and the page's type."""
    font = {"color": ink(), "family": "'Source Sans', sans-serif", "size": 13}
    return {"template": "none", "font": font, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}


def height_px(aspect: float, count: int, room_px: int, stacked: bool) -> int:
    """A height that leaves pictures as wide as may be, and each still in view as a whole. room_px: of all together."""
    around = sum(MARGINS_PX.values())
    if stacked:
        return round(count * room_px * min(aspect, 1.6) + (count - 1) * STACKED_GAP_PX) + around
    return round(min(max(room_px / count * aspect, 220), 0.2 * room_px + 420)) + around


def probability_bars(prediction: Prediction) -> go.Figure:
    """One bar for each class, with its number."""
    names = [f"{spoken(name)}  " for name in prediction.classes]
    numbers = [f" {percent(probability)}" for probability in prediction.probabilities]
    bars = go.Bar(
        x=prediction.probabilities,
        y=names,
        orientation="h",
        text=numbers,
        textposition="outside",
        cliponaxis=False,
        marker_color=BAR_COLOUR,
    )
    figure = go.Figure(bars)
    figure.update_xaxes(visible=False, range=[0, 1.3])
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", automargin=True)
    figure.update_layout(height=12 + 28 * len(names), margin={"l": 0, "r": 0, "t": 2, "b": 2}, bargap=0.35)
    return figure.update_layout(**plain_layout())
