"""PNG, JPEG and TIFF to a Scan, through Pillow."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medfusion.errors import DamagedFile, ScanTooLarge, UnsupportedScan
from medfusion.imaging.limits import SMALLER, check_pixels
from medfusion.imaging.scientific_tiff import read_scientific
from medfusion.types import Limits, Scan


def read_picture(data: bytes, name: str, file_format: str, limits: Limits) -> Scan:
    """Decode one picture; the pages of a TIFF become frames."""
    scientific = read_scientific(data, limits) if file_format == "TIFF" else None
    frames, left_out, inverted = scientific or read_with_pillow(data, file_format, limits)
    pages = "1 page" if left_out == 1 else f"{left_out} pages"
    verb = "is" if left_out == 1 else "are"
    return Scan(
        frames=stack([narrow(frame) for frame in frames]),
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        file_format=file_format,
        inverted=inverted,
        notes=(f"{pages} of another size than the first {verb} left out.",) if left_out else (),
    )


def read_with_pillow(data: bytes, file_format: str, limits: Limits) -> tuple[list[np.ndarray], int, bool]:
    """The pages of the first one's size, how many were left out, and whether zero is white."""
    image = open_picture(data, file_format, limits)
    pages = getattr(image, "n_frames", 1) if file_format == "TIFF" else 1
    check_pixels(image.height, image.width, pages, limits)
    inverted = file_format == "TIFF" and is_white_zero(image)
    frames, size = [], image.size
    for page in range(pages):
        if pages > 1:
            image.seek(page)
        if image.size == size:
            frames.append(to_array(image))
    return frames, pages - len(frames), inverted


def open_picture(data: bytes, file_format: str, limits: Limits) -> Image.Image:
    """Read the header only."""
    try:
        return Image.open(BytesIO(data), formats=[file_format])
    except Image.DecompressionBombError as error:
        most = f"{limits.max_pixels / 1e6:,.0f} million"
        raise ScanTooLarge(f"This picture has more than the {most} pixels that are read. {SMALLER}") from error
    except UnidentifiedImageError as error:
        raise DamagedFile(f"This {file_format} file is damaged from its start on. Export or copy it again.") from error


def is_white_zero(image: Image.Image) -> bool:
    """TIFF 6.0, tag 262: 0 means that zero is white. Pillow turns 8-bit pages itself, deeper ones it leaves."""
    return image.tag_v2.get(262) == 0 and (image.mode.startswith("I") or image.mode == "F")  # type: ignore[attr-defined]


def to_array(image: Image.Image) -> np.ndarray:
    """One decoded page: (H, W) grey, or (H, W, 3) uint8 when it has colours. The EXIF orientation is applied."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return np.array(upright)
    if upright.mode in ("1", "L") and not upright.has_transparency_data:
        return np.array(upright.convert("L"))
    if upright.has_transparency_data:
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(black, upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))


def narrow(frame: np.ndarray) -> np.ndarray:
    """One page in the smallest type of a Scan that holds it; colours that are all grey become grey."""
    if frame.ndim == 3:
        is_grey = (frame[..., 0] == frame[..., 1]).all() and (frame[..., 0] == frame[..., 2]).all()
        return frame[..., 0].copy() if is_grey else frame  # so that windows work on a radiograph saved as RGB
    if frame.dtype == np.uint8:
        return frame
    if frame.dtype.kind == "f":
        if not np.isfinite(frame).any():
            raise UnsupportedScan("This picture holds no numbers (all are NaN or infinite). Export it again.")
        with np.errstate(over="ignore"):  # beyond the range of float32 means infinite
            return frame.astype(np.float32)
    low, high = int(frame.min()), int(frame.max())
    dtype = (
        np.uint16
        if low >= 0 and high <= 0xFFFF
        else np.int32
        if high <= 0x7FFFFFFF and low >= -0x80000000
        else np.float32
    )
    return frame.astype(dtype)


def stack(frames: list[np.ndarray]) -> np.ndarray:
    """(F, H, W) or (F, H, W, 3): grey pages beside coloured ones become coloured."""
    if len({frame.ndim for frame in frames}) > 1:
        frames = [np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame for frame in frames]
    return np.stack(frames)
