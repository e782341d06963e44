"""A report as PDF: one A4 page or two, without identity. The lines for patient and study are left to be filled in."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Drawing, Rect, String
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Image as PdfImage
from reportlab.platypus import KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

from medfusion import conformal
from medfusion.explain import EXPLAINERS, describe
from medfusion.imaging.geometry import unit
from medfusion.imaging.marks import SIDES
from medfusion.report_parts import RESEARCH, Report, panels, plain
from medfusion.types import Explanation, ModelCard, Scan

WIDTH = 174 * mm - 12  # within the frame's own padding, points
GAP = 3 * mm
INK, SOFT, LINE, BAR = (HexColor(colour) for colour in ("#16191d", "#5a6168", "#d3d8de", "#0b5c8a"))
HAND = "_" * 26
PANELS_A_ROW = 3


def as_pdf(report: Report) -> bytes:
    """The whole document."""
    out, said, card = io.BytesIO(), report.prediction, report.model.card
    story: list[Any] = [
        text("MedFusionNet report", "title"),
        text(RESEARCH, "notice"),
        text(f"Patient {HAND}   Born {HAND[:14]}   Study {HAND[:18]}", "soft"),
        Spacer(1, GAP),
        answer(report),
        Spacer(1, GAP),
        *pictures(report),
        text(escape(legend(report)), "soft"),
        *(text(f"<b>Warning.</b> {escape(warning)}") for warning in said.warnings),
        *(text(f"<b>{EXPLAINERS[one.method].title}.</b> {escape(describe(one))}") for one in report.made),
        Spacer(1, GAP),
        facts(report),
        Spacer(1, GAP),
        KeepTogether(
            [text("Limits of this model", "head"), *(text(f"• {coded(escape(one))}", "soft") for one in card.limits)]
        ),
    ]
    document = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=14 * mm, bottomMargin=16 * mm,
        title="MedFusionNet report", author="MedFusionNet",
    )  # fmt: skip
    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def coded(words: str) -> str:
    """Markup of words in which `code` stands between backticks, as in a card's README."""
    fonts()
    return re.sub("`([^`]+)`", r'<font name="DejaVuSansMono">\1</font>', words)


def legend(report: Report) -> str:
    """What the colours of the maps mean."""
    if not report.made:
        return "Without maps."
    target = plain(report.made[0].target_name)
    return (
        f"Yellow: most support of {target}; blue: little; no colour: none. A map shows what the model relied on; it is "
        "not the location of a lesion."
    )


@cache
def fonts() -> tuple[str, str]:
    """A face with more letters than PDF's own has, from matplotlib."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"):
        pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))
    pdfmetrics.registerFontFamily("DejaVuSans", normal="DejaVuSans", bold="DejaVuSans-Bold")
    return "DejaVuSans", "DejaVuSans-Bold"


def text(words: str, kind: str = "body") -> Paragraph:
    """A paragraph; words may hold markup."""
    face, bold = fonts()
    look: dict[str, Any] = {
        "title": {"fontName": bold, "fontSize": 16, "leading": 20},
        "notice": {"fontName": bold, "fontSize": 8.5, "leading": 12, "spaceAfter": 6},
        "answer": {"fontName": bold, "fontSize": 15, "leading": 19, "spaceAfter": 4},
        "head": {"fontName": bold, "fontSize": 8.5, "leading": 12},
        "soft": {"fontName": face, "fontSize": 7.5, "leading": 10.5, "textColor": SOFT, "spaceAfter": 2},
        "body": {"fontName": face, "fontSize": 8.5, "leading": 12, "spaceAfter": 3},
    }[kind]
    return Paragraph(words, ParagraphStyle(kind, **({"textColor": INK} | look)))


def answer(report: Report) -> Table:
    """The answer at the left, the probabilities at the right."""
    said, card = report.prediction, report.model.card
    named = " + ".join(map(plain, said.answers)) or "none of the classes"
    open_ = conformal.abstains(said.plausible)
    left = [text("Answer at the operating point", "soft")]
    left += [text("The model abstains" if open_ else escape(named), "answer")]
    if said.plausible is not None:
        left += [text(escape(conformal.in_words([plain(name) for name in said.plausible])))]
    left += [text(f"Without abstaining: <b>{escape(named)}</b>.")] if open_ else []
    left += [text(escape(said.operating_point.rule), "soft"), text(escape(right_how_often(card)), "soft")]
    right = [text("Calibrated probabilities", "soft"), bars(report)]
    return Table(
        [[left, right]], colWidths=[WIDTH * 0.52, WIDTH * 0.48],
        style=[("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (0, 0), 0),
               ("LINEABOVE", (0, 0), (-1, 0), 0.5, LINE), ("LINEBELOW", (0, 0), (-1, 0), 0.5, LINE)],
    )  # fmt: skip


def right_how_often(card: ModelCard) -> str:
    """How often the model was right on held-out pictures, with its interval."""
    test = card.metrics.get("test")
    held = test.get("accuracy") if isinstance(test, dict) else None
    if not isinstance(test, dict) or not isinstance(held, dict) or not {"value", "low", "high"} <= set(held):
        return "How often this model is right has not been measured."
    value, low, high = (f"{100 * float(held[name]):.1f} %" for name in ("value", "low", "high"))
    return (
        f"This model is right in {value} of {test.get('n', 'the')} held-out pictures (95 % interval {low} to {high})."
    )


def bars(report: Report) -> Drawing:
    """One bar for each class, with its number."""
    said, row, face = report.prediction, 13, fonts()[0]
    names = [plain(name) for name in said.classes]
    indent = min(80.0, 8 + max(pdfmetrics.stringWidth(name, face, 8) for name in names))
    full = WIDTH * 0.48 - indent - 46
    drawing = Drawing(WIDTH * 0.46, row * len(names) + 4)
    for number, (name, probability) in enumerate(zip(names, said.probabilities, strict=True)):
        base = row * (len(names) - 1 - number) + 4
        drawing.add(String(indent - 4, base + 1, name[:22], textAnchor="end", fontName=face, fontSize=8, fillColor=INK))
        drawing.add(Rect(indent, base, full * probability, 8, fillColor=BAR, strokeColor=None))
        told = String(indent + full * probability + 4, base + 1, f"{100 * probability:.1f} %")
        told.fontName, told.fontSize, told.fillColor = face, 8, INK
        drawing.add(told)
    return drawing


def pictures(report: Report) -> list[Table]:
    """The scan and its maps in rows of three, each under its name."""
    held = panels(report)
    wide = (WIDTH - (PANELS_A_ROW - 1) * GAP) / PANELS_A_ROW
    rows = []
    for first in range(0, len(held), PANELS_A_ROW):
        part = held[first : first + PANELS_A_ROW]
        cells: list[Any] = [[text(escape(name), "head"), picture_of(panel, wide)] for name, panel in part]
        cells += [""] * (PANELS_A_ROW - len(part))
        plain_style = [("LEFTPADDING", (0, 0), (-1, -1), 0), ("RIGHTPADDING", (0, 0), (-1, -1), GAP)]
        rows.append(Table([cells], colWidths=[wide + GAP] * PANELS_A_ROW, style=plain_style, hAlign="LEFT"))
    return rows


def picture_of(panel: Any, width: float) -> PdfImage:
    """A panel in its proportions, no higher than wide by half."""
    out = io.BytesIO()
    panel.save(out, "PNG")
    factor = min(width / panel.width, 1.5 * width / panel.height)
    return PdfImage(io.BytesIO(out.getvalue()), panel.width * factor, panel.height * factor)


def facts(report: Report) -> Table:
    """What the answer rests on."""
    card, said, scan = report.model.card, report.prediction, report.scan
    rows = [
        ("Model", f"{card.title} ({card.id} {card.version})"),
        ("Weights, SHA-256", card.weights_sha256),
        ("Scan", scan_words(scan, said.frame)),
        ("Scan, SHA-256", said.scan_sha256),
        *((EXPLAINERS[one.method].title, settings_words(one)) for one in report.made),
        ("Made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")),
    ]
    cells = [[text(escape(name), "soft"), text(escape(words), "soft")] for name, words in rows]
    return Table(
        cells, colWidths=[36 * mm, WIDTH - 36 * mm],
        style=[("LINEBELOW", (0, 0), (-1, -1), 0.25, LINE), ("VALIGN", (0, 0), (-1, -1), "TOP"),
               ("LEFTPADDING", (0, 0), (0, -1), 0), ("TOPPADDING", (0, 0), (-1, -1), 1.5),
               ("BOTTOMPADDING", (0, 0), (-1, -1), 1)],
    )  # fmt: skip


def scan_words(scan: Scan, frame: int) -> str:
    spacing = scan.spacing_mm
    words = [
        scan.modality or "modality unknown",
        scan.body_part and scan.body_part.capitalize(),
        SIDES.get(scan.laterality or ""),
        f"{scan.width_px} × {scan.height_px} px",
        f"{spacing[1]:.3g} × {spacing[0]:.3g} {unit(scan)} to a pixel" if spacing else "pixel size unknown",
        f"frame {frame + 1} of {scan.frame_count}" if scan.frame_count > 1 else None,
    ]
    return ", ".join(word for word in words if word)


def settings_words(one: Explanation) -> str:
    told = [f"{name.replace('_', ' ')} {value}" for name, value in one.settings.items() if value is not None]
    return ", ".join([f"class {plain(one.target_name)}", *told, *([] if one.seed is None else [f"seed {one.seed}"])])


def foot(canvas: Any, _: Any) -> None:
    canvas.setFont(fonts()[0], 7)
    canvas.setFillColor(SOFT)
    canvas.drawString(18 * mm, 8 * mm, RESEARCH)
    canvas.drawRightString(A4[0] - 18 * mm, 8 * mm, str(canvas.getPageNumber()))
