"""Files to mutate, and a seeded stream of what may happen to them, by accident or because somebody means harm."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.core.dicom_files import compressed, dicom, lut_item, ramp
from tests.zips import zipped

LARGEST = 300_000  # bytes of a file to begin with
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FROM_PYDICOM = (
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "JPGExtended.dcm", "JPEG2000.dcm", "JPEG-lossy.dcm", "examples_palette.dcm", "SC_rgb_jpeg_gdcm.dcm",
    "rtdose_1frame.dcm", "image_dfl.dcm", "liver_1frame.dcm", "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_gdcm_KY.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_small_odd_jpeg.dcm",
    "ExplVR_BigEnd.dcm", "MR_small_bigendian.dcm",
)  # fmt: skip
FROM_SCIKIT_IMAGE = ("clock_motion.png", "coins.png", "microaneurysms.png", "camera.png", "multipage.tif")


def picture(mode: str, side: int = 48) -> Image.Image:
    grey = np.random.default_rng(3).integers(0, 256, (side, side), dtype=np.uint8)
    return Image.fromarray(grey).convert(mode)


def saved(mode: str, file_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture(mode).save(out, file_format, **options)
    return out.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, **options)  # type: ignore[arg-type]
    return out.getvalue()


def from_packages(names: tuple[str, ...], find: Callable[[str], str | None]) -> list[bytes]:
    """Those of the packages' own files that this version of them still has."""
    paths = [Path(found) for name in names if (found := find(name)) and Path(found).is_file()]
    return [path.read_bytes() for path in paths if path.stat().st_size <= LARGEST]


def in_pydicom(name: str) -> str | None:
    found = get_testdata_file(name, download=False)
    return str(found) if found else None


def in_scikit_image(name: str) -> str | None:
    spec = find_spec("skimage")
    return str(Path(spec.origin).parent / "data" / name) if spec and spec.origin else None


def dicoms() -> list[bytes]:
    grey, movie = ramp(32, 32), np.stack([ramp(24, 20), ramp(24, 20, start=9)])
    own = [
        dicom(grey, WindowCenter=[40, 80], WindowWidth=[80, 160], RescaleSlope=2, RescaleIntercept=-1024),
        dicom(grey, ImplicitVRLittleEndian),
        dicom(grey, DeflatedExplicitVRLittleEndian),
        dicom(movie, VOILUTSequence=[lut_item(0, list(range(64)), 8)], PhotometricInterpretation="MONOCHROME1"),
        dicom(np.zeros((16, 16, 3), np.uint8) + 7),
        dicom(grey, ModalityLUTSequence=[lut_item(0, list(range(200)), 16)]),
        *(compressed(grey, syntax) for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless)),
        compressed(np.zeros((16, 16, 3), np.uint8), RLELossless),
    ]
    return own + from_packages(FROM_PYDICOM, in_pydicom)


def pngs() -> list[bytes]:
    deep = Image.fromarray(ramp(40, 40, step=40))
    out = io.BytesIO()
    deep.save(out, "PNG")
    own = [saved(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    return [*own, out.getvalue(), *from_packages(FROM_SCIKIT_IMAGE[:4], in_scikit_image)]


def jpegs() -> list[bytes]:
    turned = Image.Exif()
    turned[0x0112], turned[0x010E] = 6, "Secret^Name"
    modes = [saved(mode, "JPEG") for mode in ("L", "RGB", "CMYK")]
    return [
        *modes,
        saved("RGB", "JPEG", progressive=True, exif=turned),
        saved("L", "JPEG", quality=5, restart_marker_blocks=2),
    ]


def tiffs() -> list[bytes]:
    grey, stacked = ramp(64, 64), np.stack([ramp(32, 32, "u1"), ramp(32, 32, "u1", 5)])
    return [
        saved("L", "TIFF"),
        saved("RGB", "TIFF", compression="tiff_lzw"),
        saved("1", "TIFF", compression="group4"),
        saved("RGB", "TIFF", compression="jpeg"),
        tiff(grey, compression="zlib"),
        tiff(grey, byteorder=">", tile=(16, 16)),
        tiff(grey.astype(np.float64)),
        tiff(grey.astype(np.int8)),
        tiff(np.stack([grey] * 3, axis=-1), photometric="rgb", planarconfig="separate"),
        tiff(stacked, photometric="minisblack", bigtiff=True, description="Secret^Name"),
        *from_packages(FROM_SCIKIT_IMAGE[4:], in_scikit_image),
    ]


def zips() -> list[bytes]:
    small = {f"normal/{n}.png": saved("L", "PNG") for n in range(2)} | {"sick/1.png": saved("RGB", "PNG")}
    table = "path,label,patient_id\nnormal/0.png,normal,1\nnormal/1.png,normal,2\nsick/1.png,sick,3\n"
    return [
        zipped(small),
        zipped(small, zipfile.ZIP_STORED),
        zipped(small | {"manifest.csv": table.encode()}),
        zipped({"a/1.dcm": dicom(ramp()), "b/2.dcm": compressed(ramp(32, 32), RLELossless)}),
        zipped({"a/inner.zip": zipped(small), "letter.txt": b"Not a picture.\n" * 9}),
    ]


KINDS: dict[str, Callable[[], list[bytes]]] = {
    "DICOM": dicoms,
    "PNG": pngs,
    "JPEG": jpegs,
    "TIFF": tiffs,
    "zip": zips,
}


@cache
def whole(kind: str) -> tuple[bytes, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the encoders
        return tuple(KINDS[kind]())


def mutated(kind: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """So many files of a kind, each with one to four mutations. The same seed makes the same files."""
    known = whole(kind)
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    for number in range(count):
        data = bytearray(known[number % len(known)])
        for _ in range(min(4, rng.geometric(0.6))):
            MUTATIONS[rng.integers(len(MUTATIONS))](data, rng, known)
        yield bytes(mended(data) if kind == "PNG" and number % 2 else data)


def place(data: bytearray, rng: np.random.Generator) -> int:
    """Anywhere, but mostly near the beginning, where headers are, or the end, where zips have theirs."""
    ends = [min(len(data), 256), min(len(data), 2048), len(data)]
    at = int(rng.integers(max(1, ends[rng.integers(3)])))
    return max(0, len(data) - 1 - at) if rng.random() < 0.2 else at


def flip_bits(data: bytearray, rng: np.random.Generator, _: tuple[bytes, ...]) -> None:
    for _ in range(rng.integers(1, 12)):
        if data:
            data[place(data, rng)] ^= 1 << int(rng.integers(8))


def write_extreme(data: bytearray, rng: np.random.Generator, _: tuple[bytes, ...]) -> None:
    """A number at the edge of what a field holds, in either byte order: lengths, sizes and counts among them."""
    at, width = place(data, rng), (1, 2, 4)[rng.integers(3)]
    value = EXTREMES[rng.integers(len(EXTREMES))] & (256**width - 1)
    data[at : at + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")


def cut_off(data: bytearray, rng: np.random.Generator, _: tuple[bytes, ...]) -> None:
    del data[place(data, rng) :]


def take_out(data: bytearray, rng: np.random.Generator, _: tuple[bytes, ...]) -> None:
    at = place(data, rng)
    del data[at : at + int(rng.integers(1, 64))]


def repeat(data: bytearray, rng: np.random.Generator, _: tuple[bytes, ...]) -> None:
    at, length = place(data, rng), int(rng.integers(1, 512))
    data[at:at] = data[at : at + length] * int(rng.integers(1, 20))


def put_noise(data: bytearray, rng: np.random.Generator, _: tuple[bytes, ...]) -> None:
    at, noise = place(data, rng), rng.bytes(int(rng.integers(1, 200)))
    data[at : at + len(noise)] = noise


def splice(data: bytearray, rng: np.random.Generator, known: tuple[bytes, ...]) -> None:
    """Goes on as another file of its kind."""
    other = known[rng.integers(len(known))]
    at = place(data, rng)
    data[at:] = other[at:]


MUTATIONS = (flip_bits, write_extreme, write_extreme, cut_off, take_out, repeat, put_noise, splice)


def mended(data: bytearray) -> bytearray:
    """A PNG whose checksums hold, so that its mutations reach the decoder."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data
