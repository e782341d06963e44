"""TIFFs that Pillow refuses or misreads (8-bit signed, 32-bit unsigned, 64-bit, deep colour), through tifffile."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffFileError, TiffFrame, TiffPage

from medfusion.errors import DamagedFile, UnsupportedScan
from medfusion.imaging.limits import check_pixels
from medfusion.types import Limits

PILLOW_READS = {"bool", "uint8", "uint16", "int16", "int32", "float32"}
GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
RESAVE = "Save it as an 8- or 16-bit TIFF or PNG."


def read_scientific(data: bytes, limits: Limits) -> tuple[list[np.ndarray], int, bool] | None:
    """The pages as (H, W) numbers or (H, W, 3) uint8, how many were left out, and whether zero is white.

    None when Pillow reads this file well. Raises UnsupportedScan for what neither reads.
    """
    try:
        with TiffFile(BytesIO(data)) as file:
            first = file.pages.first
            deep_colour = first.samplesperpixel > 1 and first.dtype != np.uint8
            if str(first.dtype) in PILLOW_READS and not deep_colour:
                return None
            if not isinstance(first.imagelength, int) or not isinstance(first.imagewidth, int):
                return None
            check_pixels(first.imagelength, first.imagewidth, len(file.pages), limits)
            pages = [
                page for page in map(as_page, file.pages) if page.shape == first.shape and page.dtype == first.dtype
            ]
            white_zero = first.photometric == PHOTOMETRIC.MINISWHITE
            return [decode_page(page) for page in pages], len(file.pages) - len(pages), white_zero
    except (TiffFileError, IndexError, KeyError, TypeError, struct.error):
        return None  # damaged, or not TIFF to this package: Pillow's attempt tells


def as_page(page: TiffPage | TiffFrame) -> TiffPage:
    return page.aspage() if isinstance(page, TiffFrame) else page


def decode_page(page: TiffPage) -> np.ndarray:
    """Grey of any type, or colours to uint8 by their most significant bits; alpha lies on black."""
    if page.photometric not in (*GREY, PHOTOMETRIC.RGB) or page.dtype is None or page.dtype.kind not in "uif":
        raise UnsupportedScan(f"The colours or numbers of this TIFF are of an unusual kind. {RESAVE}")
    try:
        values = page.asarray()
    except ValueError as error:
        if page.compression == COMPRESSION.NONE:
            raise DamagedFile("This TIFF holds less than it says. Export or copy it again.") from error
        raise UnsupportedScan(
            f"This TIFF is packed in a way that is not read ({COMPRESSION(page.compression).name}). {RESAVE}"
        ) from error
    if page.photometric in GREY and values.ndim == 2:
        return values
    if page.photometric != PHOTOMETRIC.RGB or page.dtype not in (np.uint16, np.uint32):
        raise UnsupportedScan(f"The colours of this TIFF are not whole numbers. {RESAVE}")
    planes = np.moveaxis(values, 0, 2) if values.shape[0] == page.samplesperpixel else values
    colours = (planes[..., :3] >> (8 * page.dtype.itemsize - 8)).astype(np.float32)
    if planes.shape[2] == 4:
        colours *= planes[..., 3:].astype(np.float32) / np.iinfo(page.dtype).max
    return colours.astype(np.uint8)
