"""PNG, JPEG and TIFF come out in the right colours, depth and orientation."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from medfusion.errors import UnsupportedScan
from medfusion.imaging import display, read_scan

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (100, 100, 100)


def colours() -> np.ndarray:
    quarters = np.array([[RED, GREEN], [BLUE, GREY]], np.uint8)
    return quarters.repeat(16, axis=0).repeat(16, axis=1)


def ramp(dtype: str, step: int = 1) -> np.ndarray:
    return (step * np.arange(256)).reshape(16, 16).astype(dtype)


def save(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_8_bit_grey_is_kept_and_shown_as_it_is(file_format):
    scan = read_scan(save(Image.fromarray(ramp("u1") // 2), file_format))
    np.testing.assert_array_equal(scan.frames, ramp("u1")[None] // 2)
    np.testing.assert_array_equal(display(scan), ramp("u1") // 2)
    assert (scan.file_format, scan.modality) == (file_format, None)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_every_level_and_is_shown_over_its_range(file_format):
    scan = read_scan(save(Image.fromarray(ramp("u2", step=200)), file_format))
    assert scan.frames.dtype == np.uint16
    np.testing.assert_array_equal(scan.frames[0], ramp("u2", step=200))
    np.testing.assert_array_equal(display(scan), ramp("u1"))  # 0..51000 over 0..255


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_rgb_is_shown_as_it_is(file_format):
    np.testing.assert_array_equal(display(read_scan(save(Image.fromarray(colours()), file_format))), colours())


def test_jpeg_colours_are_right_within_its_loss():
    picture = display(read_scan(save(Image.fromarray(colours()), "JPEG", quality=95)))
    np.testing.assert_allclose(picture[4::16, 4::16].astype(int), colours()[4::16, 4::16], atol=6)


def test_a_transparent_picture_lies_on_black():
    rgba = np.dstack([colours(), np.full((32, 32), 255, np.uint8)])
    rgba[:16, :16, 3], rgba[:16, 16:, 3] = 0, 51  # red vanishes, green at a fifth
    picture = display(read_scan(save(Image.fromarray(rgba), "PNG")))
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[0, 31].tolist() == [0, 51, 0]
    assert picture[31, 31].tolist() == list(GREY)


def test_palette_pictures_become_their_colours():
    picture = Image.fromarray(colours()).quantize(4)
    assert picture.mode == "P"
    np.testing.assert_array_equal(display(read_scan(save(picture, "PNG"))), colours())


def test_a_transparent_palette_entry_is_black():
    picture = Image.new("P", (16, 16), 1)
    picture.putpalette([0, 0, 0, 255, 255, 255])
    assert display(read_scan(save(picture, "PNG", transparency=1))).max() == 0


def test_cmyk_becomes_rgb():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    for file_format in ("TIFF", "JPEG"):
        picture = display(read_scan(save(cmyk, file_format)))
        np.testing.assert_allclose(picture[8, 8].astype(int), RED, atol=4)


def test_one_bit_is_black_and_white():
    bits = Image.fromarray((ramp("u1") % 2 * 255).astype("u1")).convert("1")
    for file_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(display(read_scan(save(bits, file_format))), ramp("u1") % 2 * 255)


def test_grey_saved_as_rgb_becomes_grey_so_that_windows_work():
    scan = read_scan(save(Image.fromarray(ramp("u1")).convert("RGB"), "PNG"))
    np.testing.assert_array_equal(scan.frames, ramp("u1")[None])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_once(file_format):
    tall = np.zeros((48, 24), np.uint8)
    tall[:24] = 200  # white above, as it should be seen
    stored = Image.fromarray(np.rot90(tall, 1).copy())  # orientation 6: turn by 90° clockwise to see it
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = display(read_scan(save(stored, file_format, exif=exif)))
    assert picture.shape == (48, 24)
    np.testing.assert_allclose(picture.astype(int), tall, atol=12)


def test_pages_of_a_tiff_are_frames_and_other_sizes_are_left_out():
    pages = [Image.fromarray(ramp("u1")), Image.fromarray(255 - ramp("u1")), Image.new("L", (20, 20))]
    scan = read_scan(save(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    np.testing.assert_array_equal(scan.frames, [ramp("u1"), 255 - ramp("u1")])
    assert scan.notes == ("1 page of another size than the first is left out.",)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_white_is_zero_turns_a_tiff_over(dtype):
    values = ramp(dtype, step=1 if dtype == "u1" else 257)
    picture = display(read_scan(tiff(values, photometric="miniswhite")))
    np.testing.assert_array_equal(picture, 255 - ramp("u1"))


@pytest.mark.parametrize("dtype", ["i1", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_scientific_tiffs_of_every_type_are_read(dtype, byteorder):
    values = ramp(dtype) / 2 if dtype[0] == "f" else ramp("i8") * 100 - (12800 if dtype == "i2" else 0)
    values = (ramp("i8") - 128 if dtype == "i1" else values).astype(dtype)
    scan = read_scan(tiff(values, byteorder=byteorder, photometric="minisblack"))
    np.testing.assert_array_equal(scan.frames[0], values)


def test_deep_colour_tiffs_keep_their_most_significant_bits():
    for planes in ("contig", "separate"):
        deep = colours().astype("u2") * 257
        data = tiff(deep if planes == "contig" else deep.transpose(2, 0, 1), photometric="rgb", planarconfig=planes)
        np.testing.assert_array_equal(display(read_scan(data)), colours())


def test_deep_colour_pngs_keep_their_most_significant_bits():
    import cv2

    _, data = cv2.imencode(".png", colours()[..., ::-1].astype("u2") * 257)
    np.testing.assert_array_equal(display(read_scan(data.tobytes())), colours())


def test_nan_is_shown_black_and_the_rest_over_its_range():
    values = ramp("f4") / 255
    values[0, 0] = np.nan
    values[0, 1] = np.inf
    picture = display(read_scan(tiff(values)))
    assert (picture[0, 0], picture[0, 1], picture[15, 15]) == (0, 255, 255)


def test_a_picture_of_nan_alone_is_refused_with_a_remedy():
    with pytest.raises(UnsupportedScan, match=r"NaN.*Export it again"):
        read_scan(tiff(np.full((16, 16), np.nan, np.float32)))


def test_the_suffix_in_the_name_means_nothing():
    assert read_scan(save(Image.fromarray(colours()), "PNG"), name="scan.dcm").file_format == "PNG"
