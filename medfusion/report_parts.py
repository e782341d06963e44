"""What the files of a report share: the answer in words, and the scan beside its maps with their marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from medfusion import conformal
from medfusion.explain import EXPLAINERS
from medfusion.explain.record import Tests, overlay, shown
from medfusion.imaging import display
from medfusion.imaging.marks import mark
from medfusion.library import Model
from medfusion.types import Explanation, Prediction, Scan

RESEARCH = "Research use only: not a medical device, not for diagnosis or treatment."
PANEL_PX = 512


@dataclass(frozen=True, eq=False)
class Report:
    """One answer with its maps. content: the file of the scan. source: a header to refer to in place of its own."""

    content: bytes
    scan: Scan
    model: Model
    prediction: Prediction
    made: Sequence[Explanation]
    tests: Tests
    source: Dataset | None = None


def panels(report: Report) -> list[tuple[str, Image.Image]]:
    """The scan and its maps with their names, each with orientation letters and ruler, in the body's proportions."""
    scan, picture = report.scan, display(report.scan, report.prediction.frame)
    named = [("Scan", shown(picture).convert("RGB"))]
    named += [(EXPLAINERS[one.method].title, overlay(picture, one.heatmap)) for one in report.made]
    rows_mm, columns_mm = scan.spacing_mm or (1.0, 1.0)
    height, width = scan.height_px * rows_mm, scan.width_px * columns_mm
    factor = PANEL_PX / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return [(name, mark(panel.resize(size), scan)) for name, panel in named]


def montage(report: Report) -> Image.Image:
    """The panels side by side, with their names, the answer, what speaks against it and the notice in the picture."""
    sized, said = panels(report), report.prediction
    font, line, margin = ImageFont.load_default(18), 28, 6
    width, below = sum(panel.width for _, panel in sized), max(panel.height for _, panel in sized) + line
    told = [in_words(said), *(f"Warning: {one}" for one in said.warnings)]
    told.append(f"RESEARCH USE ONLY  {said.model_id} {said.model_version}")
    letters = max(1, int((width - 2 * margin) / font.getlength("n")))
    lines = [part for one in told for part in wrap(one, letters)]
    whole = Image.new("RGB", (width, below + len(lines) * line))
    draw, left = ImageDraw.Draw(whole), 0
    for name, panel in sized:
        whole.paste(panel, (left, line))
        draw.text((left + margin, 4), name, font=font, fill="white")
        left += panel.width
    for number, words in enumerate(lines):
        draw.text((margin, below + number * line), words, font=font, fill="white")
    return whole


def in_words(prediction: Prediction) -> str:
    chances = ", ".join(
        f"{plain(name)} {100 * p:.1f} %" for name, p in zip(prediction.classes, prediction.probabilities, strict=True)
    )
    named = " + ".join(map(plain, prediction.answers)) or "none of the classes"
    return f"{'Abstains; else ' if conformal.abstains(prediction.plausible) else ''}{named} ({chances})"


def plain(name: str) -> str:
    """A class as it is read aloud."""
    return name.replace("_", " ")
