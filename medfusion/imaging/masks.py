"""A reader's own mask of a scan: a picture that is black where nothing is marked, or a DICOM segmentation."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from medfusion.errors import UnsupportedScan
from medfusion.imaging import dicom_headers as headers
from medfusion.imaging.dicom import parse
from medfusion.imaging.reader import quiet_decoders, read_scan
from medfusion.types import DEFAULT_LIMITS, Limits, Scan

MARKED = 0.5  # of the brightest value: the edges that JPEG blurs are no mark


def read_mask(data: bytes, shape: tuple[int, int, int], frame: int = 0, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """(H, W) bool: where one frame of a scan of shape (F, H, W) is marked. Segments are taken together.

    Raises what read_scan raises, and UnsupportedScan where the mask is of another size, or marks nothing or everything.
    """
    drawn = read_scan(data, limits=limits)
    count, height, width = shape
    if (drawn.height_px, drawn.width_px) != (height, width):
        raise UnsupportedScan(
            f"The mask is {drawn.width_px}×{drawn.height_px} px and the scan {width}×{height}. "
            "Draw it on this scan, and export it at its full size."
        )
    of_frame = frames_for(data, drawn, count, frame, limits)
    values = drawn.frames[of_frame].astype(np.float64)
    values = values.max(axis=-1) if values.ndim == 4 else values
    strongest = max(float(values.max(initial=0)), np.finfo(float).tiny)
    mask: np.ndarray = np.logical_or.reduce(values > MARKED * strongest, axis=0)
    if not mask.any() or mask.all():
        what = "everything" if mask.any() else "nothing"
        raise UnsupportedScan(f"The mask marks {what} here. Marked places must be brighter than the rest, on black.")
    return mask


def frames_for(data: bytes, drawn: Scan, count: int, frame: int, limits: Limits) -> list[int]:
    """The mask's own frames of one of count frames of the scan, by what a segmentation refers to (PS3.3 C.8.20.2)."""
    every = list(range(drawn.frame_count))
    if drawn.modality != "SEG":
        return [frame] if drawn.frame_count == count else every
    with quiet_decoders():
        dataset = parse(data, limits)
        sources = [source_of(dataset, number) for number in every]
    if len({instance for instance, _ in sources if instance}) > 1:
        raise UnsupportedScan(
            "This segmentation covers several images of a series. Export the part that belongs to this one."
        )
    return [number for number, (_, of) in enumerate(sources) if of in (None, frame + 1)]


def source_of(dataset: Dataset, number: int) -> tuple[str | None, int | None]:
    """The instance that a frame of a segmentation was drawn on, and the frame of it, from 1; None where not told."""
    for place in headers.places(dataset, "DerivationImageSequence", number):
        for source in headers.sequence(place, "SourceImageSequence"):
            told = headers.number(source, "ReferencedFrameNumber")
            return headers.text(source, "ReferencedSOPInstanceUID"), None if told is None else int(told)
    return None, None
