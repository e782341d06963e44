"""Write small DICOM files of every kind, so that readers are tested against pixels known beforehand."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def make_dataset(pixels: np.ndarray | None, syntax: str = ExplicitVRLittleEndian, **attributes: object) -> Dataset:
    """A data set around pixels (H, W), (F, H, W) or (H, W, 3); attributes by keyword replace what follows from them."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName = "Secret^Name"
    dataset.PatientID = "S3CRET"
    dataset.Modality = "OT"
    if pixels is not None:
        describe_pixels(dataset, pixels)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def describe_pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    height, width = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.Rows, dataset.Columns = height, width
    if pixels.ndim == 3 and not colour:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)


def to_bytes(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def dicom(pixels: np.ndarray | None, syntax: str = ExplicitVRLittleEndian, **attributes: object) -> bytes:
    return to_bytes(make_dataset(pixels, syntax, **attributes))


def compressed(pixels: np.ndarray, syntax: str, **attributes: object) -> bytes:
    """A file whose pixels pydicom's own encoders pack: RLE, JPEG-LS or JPEG 2000."""
    dataset = make_dataset(pixels, **attributes)
    dataset.compress(syntax, generate_instance_uid=False)
    return to_bytes(dataset)


def ramp(height: int = 16, width: int = 16, dtype: str = "u2", start: int = 0, step: int = 1) -> np.ndarray:
    """(H, W) that counts from start in steps, row by row."""
    return (start + step * np.arange(height * width)).reshape(height, width).astype(dtype)


def lut_item(first: int, table: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US" if first >= 0 else "SS", [len(table), first, bits])
    item.add_new(0x00283006, "US", table)
    return item
