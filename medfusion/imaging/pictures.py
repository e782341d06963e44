"""PNG, JPEG and TIFF to a Scan, through Pillow."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medfusion.errors import DamagedFile, ScanTooLarge, UnsupportedScan
from medfusion.imaging.limits import SMALLER, check_pixels
from medfusion.types import Limits, Scan


def read_picture(data: bytes, name: str, file_format: str, limits: Limits) -> Scan:
    """Decode one picture; the pages of a TIFF become frames."""
    try:
        image = Image.open(BytesIO(data), formats=[file_format])
    except Image.DecompressionBombError as error:
        most = f"{limits.max_pixels / 1e6:,.0f} million"
        raise ScanTooLarge(f"This picture has more than the {most} pixels that are read. {SMALLER}") from error
    except UnidentifiedImageError as error:
        raise DamagedFile(f"This {file_format} file is damaged from its start on. Export or copy it again.") from error
    pages = getattr(image, "n_frames", 1) if file_format == "TIFF" else 1
    check_pixels(image.height, image.width, pages, limits)
    frames = []
    left_out = 0
    size = image.size
    for page in range(pages):
        if pages > 1:
            image.seek(page)
        if image.size != size:
            left_out += 1
            continue
        frames.append(to_array(image))
    notes = (f"{left_out} pages of another size than the first are left out.",) if left_out else ()
    return Scan(
        frames=stack(frames),
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        file_format=file_format,
        inverted=file_format == "TIFF" and is_white_zero(image),
        notes=notes,
    )


def is_white_zero(image: Image.Image) -> bool:
    """TIFF 6.0, tag 262: 0 means that zero is white. Pillow turns 8-bit pages itself, deeper ones it leaves."""
    return image.tag_v2.get(262) == 0 and (image.mode.startswith("I") or image.mode == "F")  # type: ignore[attr-defined]


def to_array(image: Image.Image) -> np.ndarray:
    """One decoded page: (H, W) grey, or (H, W, 3) uint8 when it has colours. The EXIF orientation is applied."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return deep_grey(np.asarray(upright))
    if upright.mode in ("1", "L"):
        return np.array(upright.convert("L"))
    if upright.has_transparency_data:
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(black, upright.convert("RGBA"))
    rgb = np.array(upright.convert("RGB"))
    is_grey = (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all()
    return rgb[..., 0].copy() if is_grey else rgb  # so that windows work on a radiograph saved as RGB


def deep_grey(values: np.ndarray) -> np.ndarray:
    """(H, W) more than 8 bits deep, in native byte order and the smallest type that holds it."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).any():
            raise UnsupportedScan("This picture holds no numbers (all are NaN or infinite). Export it again.")
        return values.astype(np.float32)
    if values.min() >= 0 and values.max() <= 0xFFFF:
        return values.astype(np.uint16)
    return values.astype(np.int32)


def stack(frames: list[np.ndarray]) -> np.ndarray:
    """(F, H, W) or (F, H, W, 3): grey pages beside coloured ones become coloured."""
    if len({frame.ndim for frame in frames}) > 1:
        frames = [np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame for frame in frames]
    return np.stack(frames)
