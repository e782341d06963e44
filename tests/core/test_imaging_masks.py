"""A reader's own mask: pictures and DICOM segmentations against marks known beforehand."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import SegmentationStorage, generate_uid

from medfusion.apart import read_mask
from medfusion.errors import MedFusionError, UnsupportedScan
from tests.core.dicom_files import make_dataset, to_bytes
from tests.core.toy_networks import scan_of

SCAN = scan_of(np.zeros((40, 60), np.uint8))
MOVIE = scan_of(*np.zeros((3, 40, 60), np.uint8))


def marked(rows=slice(10, 20), columns=slice(30, 45)) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[rows, columns] = True
    return mask


def encoded(pixels: np.ndarray, file_format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, file_format, **options)
    return out.getvalue()


def segmentation(frames: np.ndarray, sources: list[tuple[str, int | None]] = ()) -> bytes:
    """(F, H, W) bool packed to bits, and for each frame the instance and frame that it was drawn on."""
    dataset = make_dataset(np.zeros((2, 2), np.uint8), SOPClassUID=SegmentationStorage, Modality="SEG")
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = *frames.shape[1:], len(frames)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    groups = []
    for instance, number in sources:
        source, derivation, group = Dataset(), Dataset(), Dataset()
        source.ReferencedSOPInstanceUID = instance
        if number:
            source.ReferencedFrameNumber = number
        derivation.SourceImageSequence = Sequence([source])
        group.DerivationImageSequence = Sequence([derivation])
        groups.append(group)
    if groups:
        dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return to_bytes(dataset)


@pytest.mark.parametrize("value", [1, 255])
def test_what_is_not_black_is_marked(value):
    assert np.array_equal(read_mask(encoded(marked().astype(np.uint8) * value), SCAN), marked())


def test_coloured_and_sixteen_bit_masks_are_read():
    red = np.zeros((40, 60, 3), np.uint8)
    red[marked()] = (200, 0, 0)
    assert np.array_equal(read_mask(encoded(red), SCAN), marked())
    assert np.array_equal(read_mask(encoded(marked().astype(np.uint16) * 40_000), SCAN), marked())


def test_blurred_edges_are_no_marks():
    found = read_mask(encoded(marked().astype(np.uint8) * 255, "JPEG", quality=60), SCAN)
    assert (found ^ marked()).sum() < 15


def test_segments_of_a_dicom_segmentation_are_taken_together():
    frames = np.stack([marked(), marked(slice(0, 5), slice(0, 5))])
    assert np.array_equal(read_mask(segmentation(frames), SCAN), frames.any(axis=0))


def test_a_segmentation_of_a_movie_marks_the_frames_that_it_names():
    image = generate_uid()
    frames = np.stack([marked(), marked(slice(0, 5), slice(0, 5))])
    data = segmentation(frames, [(image, 3), (image, 1)])
    assert np.array_equal(read_mask(data, MOVIE, frame=2), frames[0])
    assert np.array_equal(read_mask(data, MOVIE, frame=0), frames[1])
    with pytest.raises(UnsupportedScan, match="marks nothing here"):
        read_mask(data, MOVIE, frame=1)


def test_a_segmentation_of_a_whole_series_is_refused():
    data = segmentation(np.stack([marked(), marked()]), [(generate_uid(), None), (generate_uid(), None)])
    with pytest.raises(UnsupportedScan, match="several images of a series"):
        read_mask(data, SCAN)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(np.zeros((40, 60), np.uint8)), "marks nothing"),
        (encoded(np.full((40, 60), 255, np.uint8)), "marks everything"),
        (encoded(np.eye(40, dtype=np.uint8) * 255), "40×40 px and the scan 60×40"),
        (b"", "empty"),
        (b"not a picture at all", "."),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_a_sentence(data, reason):
    with pytest.raises(MedFusionError, match=reason) as refused:
        read_mask(data, SCAN)
    assert str(refused.value).endswith(".")
