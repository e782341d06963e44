"""JPEG Extended with 12 bits a sample (DICOM PS3.5 8.2.1), through GDCM: pydicom leaves it to a GPL-licensed plugin."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGExtended12Bit

from medfusion.errors import DamagedFile


def is_jpeg_12(dataset: Dataset) -> bool:
    grey = dataset.get("SamplesPerPixel", 1) == 1
    return grey and dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit and dataset.BitsStored > 8


def decode_jpeg_12(dataset: Dataset) -> np.ndarray:
    """(F, H, W) uint16. Raises DamagedFile when a frame does not decode to the size of the header."""
    count = int(dataset.NumberOfFrames)
    frames = generate_frames(dataset.PixelData, number_of_frames=count)
    return np.stack([decode_frame(frame, dataset) for _, frame in zip(range(count), frames, strict=False)])


def decode_frame(frame: bytes, dataset: Dataset) -> np.ndarray:
    import gdcm  # 70 ms and 20 MB that few files need

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))  # 16 allocated makes GDCM complain on stderr
    decoded = image.GetBuffer()
    pixels = np.frombuffer((decoded or "").encode("utf-8", "surrogateescape"), "<u2")
    if pixels.size != dataset.Rows * dataset.Columns:
        raise DamagedFile("A picture inside this DICOM file is damaged. Export or copy it again.")
    return pixels.reshape(dataset.Rows, dataset.Columns)
