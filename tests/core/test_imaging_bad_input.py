"""Whatever is dropped in, the answer is a scan or one sentence with cause and remedy."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from medfusion.errors import DamagedFile, NotAnImage, ScanError, ScanTooLarge, UnsupportedScan
from medfusion.imaging import read_scan
from medfusion.types import Limits
from tests.core.dicom_files import compressed, dicom, make_dataset, ramp, to_bytes

REMEDY = r"(again|Export|Load|Unpack)"


def save(image: Image.Image, file_format: str) -> bytes:
    file = BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def noise(file_format: str, side_px: int = 64) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side_px, side_px), dtype=np.uint8)
    return save(Image.fromarray(pixels), file_format)


def bomb_png(side_px: int) -> bytes:
    """A PNG that says it is huge; its body stays small."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"Befund: unauff\xc3\xa4llig\n" * 20, "text file"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"GIF89a...........", "GIF"),
        (b"\0\0\0\x18ftypheic....", "HEIC"),
        (b"PK\x03\x04......", "ZIP"),
        (b"\x1f\x8b........", "gzip"),
        (b"BM..........", "BMP"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (bytes(344) + b"n+1\0", "NIfTI"),
        (bytes(1000), "not an image"),
        (bytes(range(256)) * 8, "not an image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_an_image_is_named(data, words):
    with pytest.raises(NotAnImage, match=rf"{words}.*{REMEDY}"):
        read_scan(data, name="scan.png")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.9])
def test_truncated_pictures_are_called_damaged(file_format, kept):
    data = noise(file_format)
    with pytest.raises(DamagedFile, match=rf"{file_format}.*{REMEDY}"):
        read_scan(data[: max(12, int(len(data) * kept))])


@pytest.mark.parametrize("side_px", [9_000, 30_000])
def test_a_png_bomb_is_refused_before_it_unpacks(side_px):
    with pytest.raises(ScanTooLarge, match=REMEDY):
        read_scan(bomb_png(side_px))


def test_a_dicom_bomb_is_refused_by_its_header():
    with pytest.raises(ScanTooLarge, match=r"30,000 × 30,000.*Export"):
        read_scan(dicom(ramp(), Rows=30_000, Columns=30_000))
    with pytest.raises(ScanTooLarge, match=r"frames.*Export fewer frames"):
        read_scan(dicom(ramp(), NumberOfFrames=10_000_000))


def test_a_deflated_dicom_bomb_is_refused_before_it_unpacks():
    data = dicom(np.zeros((2000, 2000), np.uint8), DeflatedExplicitVRLittleEndian)
    assert len(data) < 20_000
    with pytest.raises(ScanTooLarge, match="unpacks"):
        read_scan(data, limits=Limits(max_bytes=1_000_000))


def test_bytes_are_limited():
    with pytest.raises(ScanTooLarge, match=r"1 MB.*Export"):
        read_scan(noise("PNG", 2000), limits=Limits(max_bytes=2**20))


def test_frames_times_pixels_are_limited_in_a_tiff():
    page = Image.new("L", (64, 64))
    file = BytesIO()
    page.save(file, "TIFF", save_all=True, append_images=[page] * 9)
    with pytest.raises(ScanTooLarge, match="10 frames"):
        read_scan(file.getvalue(), limits=Limits(max_total_pixels=9 * 64 * 64))


def test_a_page_larger_than_the_first_is_not_decoded():
    file = BytesIO()
    Image.new("L", (16, 16)).save(file, "TIFF", save_all=True, append_images=[Image.new("L", (300, 300))])
    assert read_scan(file.getvalue(), limits=Limits(max_pixels=1000)).frames.shape == (1, 16, 16)


@pytest.mark.parametrize("size", [(1, 1), (500, 1)])
def test_a_picture_too_small_to_show_anything_is_refused(size):
    with pytest.raises(UnsupportedScan, match=rf"{size[0]} × {size[1]} pixels.*Export"):
        read_scan(save(Image.new("L", size), "PNG"))


def test_sentences_hold_neither_the_name_nor_the_patient():
    for data in (dicom(None), dicom(ramp())[:-9], dicom(ramp(), Rows=1)):
        with pytest.raises(ScanError) as caught:
            read_scan(data, name="Müller^Jan.dcm")
        assert not any(word in str(caught.value) for word in ("Müller", "Secret", "S3CRET"))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGExtended12Bit])
def test_data_that_gdcm_gives_up_on_are_called_damaged(syntax):
    dataset = make_dataset(ramp(), BitsStored=12, HighBit=11)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc3" + bytes(60)])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(DamagedFile, match=REMEDY):
        read_scan(to_bytes(dataset))


def files_to_break() -> list[bytes]:
    return [
        noise("PNG"),
        noise("JPEG"),
        noise("TIFF"),
        dicom(ramp()),
        compressed(ramp(32, 32), RLELossless),
        compressed(ramp(32, 32), JPEG2000Lossless),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_broken_bytes_never_raise_anything_but_a_sentence(seed):
    rng = np.random.default_rng(seed)
    for data in files_to_break():
        for _ in range(12):
            broken = bytearray(data)
            for position in rng.integers(0, min(len(data), 1500), 6):
                broken[position] = rng.integers(0, 256)
            try:
                read_scan(bytes(broken))
            except ScanError as error:
                assert str(error).endswith(".")
