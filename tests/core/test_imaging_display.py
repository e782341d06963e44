"""Windows, tables and inversion by the formulas of DICOM PS3.3 C.11.2, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medfusion.imaging import display, presets
from medfusion.types import Scan, VoiLut, Window


def scan_of(values: list, dtype: str = "i2", **fields: object) -> Scan:
    return Scan(frames=np.array([[values]], dtype), name="", sha256="", file_format="DICOM", **fields)


def shown(
    values: list, window: Window | None = None, dtype: str = "i2", invert: bool = False, **fields: object
) -> list[int]:
    return display(scan_of(values, dtype, **fields), window=window, invert=invert)[0].tolist()


@pytest.mark.parametrize("dtype", ["i2", "i4", "f4"])
def test_linear_window_of_the_standards_example(dtype):
    # C.11.2.1.2.1, c=2048 w=4096: 0 and below are black, 4095 and above are white, in between x · 255 / 4095
    assert shown([-5, 0, 1, 2048, 4095, 5000], Window(2048, 4096), dtype) == [0, 0, 0, 128, 255, 255]


def test_linear_window_of_width_1_is_a_threshold():
    assert shown([9, 10, 11], Window(10, 1)) == [0, 255, 255]  # x <= c - 0.5 is black


def test_linear_exact_window_uses_centre_and_width_as_they_are():
    assert shown([-100, 0, 50, 100, 200], Window(50, 100, "", "LINEAR_EXACT")) == [0, 0, 128, 255, 255]


def test_sigmoid_window():
    # 255 / (1 + exp(-4 (x - c) / w)) with c=0, w=4: at 1, 255 · 0.7311 = 186.4
    assert shown([-1000, 0, 1, 1000], Window(0, 4, "", "SIGMOID")) == [0, 128, 186, 255]


def test_voi_lut_holds_its_ends_and_wins_over_the_files_window_but_not_over_the_users():
    lut = VoiLut(first_value=-1, table=np.array([0, 100, 1023], np.uint16), bits=10)
    file = {"voi_lut": lut, "windows": (Window(0, 1),)}
    assert shown([-9, -1, 0, 1, 9], **file) == [0, 0, 25, 255, 255]  # 100 / 1023 · 255 = 24.9
    assert shown([-9, 9], Window(0, 1), **file) == [0, 255]


def test_the_first_window_of_the_file_is_the_default():
    assert shown([0, 100], windows=(Window(200, 100), Window(50, 100))) == [0, 0]


def test_inversion_comes_last_and_inverting_twice_is_none():
    window = Window(50, 100, "", "LINEAR_EXACT")
    assert shown([0, 25, 100], window, inverted=True) == [255, 191, 0]
    assert shown([0, 25, 100], window, inverted=True, invert=True) == [0, 64, 255]


def test_without_a_window_deep_grey_fills_the_screen_and_8_bits_stay():
    assert shown([10, 20, 30]) == [0, 128, 255]
    assert shown([10, 20, 30], dtype="u1") == [10, 20, 30]


def test_a_dead_pixel_does_not_darken_a_picture():
    values = [0] * 2000 + [1000] * 2000 + [65535]
    assert shown(values, dtype="u2")[2000] == 255


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4"])
def test_a_constant_picture_is_flat_grey(dtype):
    assert shown([7, 7, 7], dtype=dtype) == [128, 128, 128]


def test_padding_alone_does_not_crash():
    assert shown([-2000, -2000], padding=(-2000, -2000)) == [0, 0]


def test_colours_are_shown_as_they_are_and_a_window_acts_on_all_channels_alike():
    scan = Scan(np.array([[[[0, 100, 200]]]], np.uint8), "", "", "PNG")
    assert display(scan)[0, 0].tolist() == [0, 100, 200]
    assert display(scan, invert=True)[0, 0].tolist() == [255, 155, 55]
    assert display(scan, window=Window(100, 200, "", "LINEAR_EXACT"))[0, 0].tolist() == [0, 128, 255]


def test_the_picture_is_a_copy():
    scan = scan_of([1, 2, 3], "u1")
    display(scan)[:] = 0
    assert scan.frames.max() == 3


def test_each_frame_is_shown_by_its_number():
    scan = Scan(np.array([[[1]], [[2]]], np.uint8), "", "", "TIFF")
    assert [display(scan, frame).item() for frame in (0, 1)] == [1, 2]


def test_presets_name_the_files_windows_then_those_of_ct_then_the_full_range():
    offered = presets(scan_of([-1000, 1000], modality="CT", windows=(Window(40, 400), Window(1, 2, "MINE"))))
    names = [window.name for window in offered]
    assert names[:3] == ["From the file (1)", "MINE", "Lung"]
    assert {"Bone", "Brain", "Mediastinum"} <= set(names) and "Soft tissue" not in names  # the same as the file's first
    assert (offered[-1].name, offered[-1].center, offered[-1].width) == ("Full range", 0, 2000)


def test_presets_of_a_photograph_are_its_full_range_which_changes_nothing():
    scan = Scan(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3), "", "", "PNG")
    (full,) = presets(scan)
    np.testing.assert_array_equal(display(scan, window=full), display(scan))
