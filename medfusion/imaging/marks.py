"""Orientation letters, side and ruler drawn into a picture that leaves the program, so that they cannot get lost."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from medfusion.imaging.geometry import edges, ruler
from medfusion.types import Scan

INK, HALO = (255, 255, 255), (0, 0, 0)
SIDES = {"L": "left", "R": "right"}
SMALLEST_PX = 96  # on the shorter side, for letters to leave anything of the picture


def mark(picture: Image.Image, scan: Scan) -> Image.Image:
    """A copy of a picture of the whole frame, of any size and mode, as RGB with its marks."""
    marked = picture.convert("RGB")
    width, height = marked.size
    if min(width, height) < SMALLEST_PX:
        return marked
    size = max(12, round(min(width, height) / 20))
    font, draw, gap = ImageFont.load_default(size), ImageDraw.Draw(marked), round(size / 3)

    def write(text: str, x: float, y: float, anchor: str) -> None:
        draw.text((x, y), text, font=font, fill=INK, anchor=anchor, stroke_width=max(1, gap // 3), stroke_fill=HALO)

    if lies := edges(scan.orientation):
        write(lies.left, gap, height / 2, "lm")
        write(lies.right, width - gap, height / 2, "rm")
        write(lies.top, width / 2, gap, "ma")
        write(lies.bottom, width / 2, height - gap, "md")
    if side := SIDES.get(scan.laterality or ""):
        write(side, gap, gap, "la")
    draw_ruler(draw, scan, (width, height), gap)
    write(ruler(scan).text, gap, height - 3.5 * gap, "ld")
    return marked


def draw_ruler(draw: ImageDraw.ImageDraw, scan: Scan, size: tuple[int, int], gap: int) -> None:
    """Five parts at the lower left, black around white."""
    width, height = size
    length = ruler(scan).length_px * width / scan.width_px
    base = height - gap
    for colour, stroke in ((HALO, 4), (INK, 2)):
        draw.line((gap, base, gap + length, base), fill=colour, width=stroke)
        for part in range(6):
            x, tick = gap + part * length / 5, 2 * gap if part in (0, 5) else gap
            draw.line((x, base, x, base - tick), fill=colour, width=stroke)
