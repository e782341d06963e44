"""Orientation letters, spacing and rulers: answers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset, Sequence

from medfusion.imaging import read_scan
from medfusion.imaging.geometry import Edges, direction, distance, edges, ruler, unit
from medfusion.types import Scan
from tests.core.dicom_files import dicom


def scan(spacing_mm=None, width_px=400, **more):
    return Scan(np.zeros((1, 300, width_px), np.uint8), "x", "0", "DICOM", spacing_mm=spacing_mm, **more)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (("L", "P"), Edges("R", "L", "A", "P")),  # an axial slice, seen from the feet
        (("L", "F"), Edges("R", "L", "H", "F")),  # a frontal chest X-ray
        (("P", "F"), Edges("A", "P", "H", "F")),  # a sagittal slice
        (("R", "F"), Edges("L", "R", "H", "F")),  # the same chest, turned round
        (("LA", "FP"), Edges("RP", "LA", "HA", "FP")),
        (("L",), None),
        (("CR", "D"), None),  # a dog's: cranial, dorsal
        (None, None),
    ],
)
def test_each_edge_says_which_side_of_the_patient_lies_there(orientation, expected):
    assert edges(orientation) == expected


@pytest.mark.parametrize(
    ("cosines", "letters"),
    [
        ([1, 0, 0], "L"),
        ([-1, 0, 0], "R"),
        ([0, 0, -1], "F"),
        ([0.99, 0.14, 0], "L"),  # leans by 8 degrees
        ([0.94, -0.34, 0], "LA"),  # leans by 20 degrees
        ([0, 0.6, 0.8], "HP"),
        ([0.577, 0.577, -0.577], "LPF"),
    ],
)
def test_a_direction_names_its_main_side_first_and_small_leanings_not_at_all(cosines, letters):
    assert direction(cosines) == letters


def test_a_distance_takes_each_axis_in_its_own_spacing():
    assert distance((10, 10), (13, 14), scan()) == 5  # pixels
    assert distance((0, 0), (30, 20), scan((0.2, 0.1))) == 5  # 30 columns of 0.1 mm and 20 rows of 0.2 mm: 3 and 4 mm
    assert unit(scan()) == "px"
    assert unit(scan((0.2, 0.2))) == "mm"
    assert unit(scan((0.2, 0.2), spacing_at="detector")) == "mm at the detector"


@pytest.mark.parametrize(
    ("spacing_mm", "width_px", "length_px", "text"),
    [
        ((0.5, 0.5), 400, 100, "50 mm"),  # 0.3 of 200 mm is 60 mm
        ((0.7, 0.7), 512, 100 / 0.7, "100 mm"),  # 0.3 of 358 mm is 107 mm
        ((9, 0.25), 256, 10 / 0.25, "10 mm"),  # the ruler lies along the columns
        (None, 400, 100, "100 px"),
        (None, 64, 10, "10 px"),
        ((0.001, 0.001), 400, 100, "0.1 mm"),  # a microscope
    ],
)
def test_a_ruler_is_a_round_length_that_fits(spacing_mm, width_px, length_px, text):
    found = ruler(scan(spacing_mm, width_px))
    assert (found.length_px, found.text) == (pytest.approx(length_px), text)


PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize(
    ("attributes", "spacing_mm", "at"),
    [
        ({"PixelSpacing": ["0.5", "0.5"]}, (0.5, 0.5), "body"),
        ({"PixelSpacing": ["0.1", "0.1"], "ImagerPixelSpacing": ["0.2", "0.2"]}, (0.1, 0.1), "body"),  # calibrated
        ({"PixelSpacing": ["0.2", "0.2"], "ImagerPixelSpacing": ["0.2", "0.2"]}, (0.2, 0.2), "detector"),  # it is not
        (
            {"PixelSpacing": ["0.2", "0.2"], "ImagerPixelSpacing": ["0.2", "0.2"],
             "PixelSpacingCalibrationType": "GEOMETRY"},
            (0.2, 0.2), "body",
        ),
        ({"ImagerPixelSpacing": ["0.2", "0.2"]}, (0.2, 0.2), "detector"),
        ({"NominalScannedPixelSpacing": ["0.1", "0.1"]}, (0.1, 0.1), "film"),
        ({}, None, "body"),
    ],
)  # fmt: skip
def test_where_millimetres_hold_is_what_the_file_says(attributes, spacing_mm, at):
    found = read_scan(dicom(PIXELS, **attributes))
    assert (found.spacing_mm, found.spacing_at) == (spacing_mm, at)
    assert any("detector" in note or "film" in note for note in found.notes) == (at != "body")


def region(delta_cm: float) -> Dataset:
    made = Dataset()
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = 3
    made.PhysicalDeltaX = made.PhysicalDeltaY = delta_cm
    return made


def test_ultrasound_regions_that_differ_leave_distances_in_pixels():
    alike = read_scan(dicom(PIXELS, SequenceOfUltrasoundRegions=Sequence([region(0.02), region(0.02)])))
    differ = read_scan(dicom(PIXELS, SequenceOfUltrasoundRegions=Sequence([region(0.02), region(0.05)])))
    assert alike.spacing_mm == pytest.approx((0.2, 0.2))
    assert differ.spacing_mm is None and unit(replace(differ)) == "px"
    assert any("different pixel sizes" in note for note in differ.notes)


def lying(cosines: list[str], spacing: str) -> Dataset:
    frame, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = cosines, [spacing, spacing]
    frame.PlaneOrientationSequence, frame.PixelMeasuresSequence = Sequence([plane]), Sequence([measures])
    return frame


def test_frames_that_lie_in_different_ways_have_no_letters_and_no_millimetres():
    axial, sagittal = ["1", "0", "0", "0", "1", "0"], ["0", "1", "0", "0", "0", "-1"]
    frames = np.stack([PIXELS, PIXELS])
    same = dicom(frames, PerFrameFunctionalGroupsSequence=Sequence([lying(axial, "1"), lying(axial, "1")]))
    other = dicom(frames, PerFrameFunctionalGroupsSequence=Sequence([lying(axial, "1"), lying(sagittal, "2")]))
    found = read_scan(same)
    assert (found.orientation, found.spacing_mm) == (("L", "P"), (1, 1))
    found = read_scan(other)
    assert (found.orientation, found.spacing_mm) == (None, None)
