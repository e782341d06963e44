"""DICOM to a Scan: parse, refuse what has no picture, decode. Windows are left to the display."""

from __future__ import annotations

import hashlib
import zlib
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medfusion.errors import DamagedFile, NotAnImage, ScanTooLarge, UnsupportedScan
from medfusion.imaging import dicom_headers as headers
from medfusion.imaging.codestream import stated_size
from medfusion.imaging.dicom_pixels import decode
from medfusion.imaging.limits import SMALLER, check_pixels
from medfusion.types import Limits, Scan

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_dicom(data: bytes, name: str, limits: Limits, with_identity: bool) -> Scan:
    """Decode one DICOM object. Raises DamagedFile, NotAnImage, UnsupportedScan or ScanTooLarge."""
    dataset = parse(data, limits)
    refuse_without_pixels(dataset)
    frames = count_frames(dataset)
    check_pixels(int(dataset.Rows), int(dataset.Columns), frames, limits)
    check_streams(dataset)
    dataset.NumberOfFrames = frames
    pixels = decode(dataset)
    spacing = headers.spacing(dataset)
    return Scan(
        frames=pixels.frames,
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        file_format="DICOM",
        windows=headers.windows(dataset) or pixels.implied_windows,
        voi_lut=headers.voi_lut(dataset),
        inverted=pixels.inverted,
        modality=headers.text(dataset, "Modality"),
        body_part=headers.text(dataset, "BodyPartExamined"),
        laterality=headers.laterality(dataset),
        orientation=headers.orientation(dataset),
        spacing_mm=spacing.mm,
        spacing_at=spacing.at,
        transfer_syntax=dataset.file_meta.TransferSyntaxUID.name,
        notes=headers.notes(dataset) + spacing.notes,
        identity=headers.identity(dataset) if with_identity else None,
        padding=pixels.padding,
    )


def parse(data: bytes, limits: Limits) -> Dataset:
    """The data set, with a transfer syntax in its file meta information even where the file has none."""
    check_inflated(data, limits)
    try:
        dataset = dcmread(BytesIO(data), force=True)
    except (InvalidDicomError, EOFError) as error:
        raise DamagedFile("This DICOM file is cut off in its header. Export or copy it again.") from error
    if not len(dataset):
        raise DamagedFile("This DICOM file holds no elements. Export or copy it again.")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = plain
    return dataset


def check_inflated(data: bytes, limits: Limits) -> None:
    """Unpack a deflated data set (PS3.5 A.5) no further than the limit, as pydicom would unpack all of it."""
    if data[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in data[132:2048]:
        return
    start = 144 + int.from_bytes(data[140:144], "little")  # group length follows the preamble: PS3.10 section 7.1
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(unpacker.decompress(data[start:], limits.max_bytes + 1)) > limits.max_bytes:
        raise ScanTooLarge(
            f"This DICOM file unpacks to more than the {limits.max_bytes / 2**20:,.0f} MB that are read. {SMALLER}"
        )


def refuse_without_pixels(dataset: Dataset) -> None:
    """Say in words what an object is that holds no picture."""
    if any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        if "Rows" in dataset and "Columns" in dataset:
            return
        raise DamagedFile("This DICOM file does not say how large its picture is. Export or copy it again.")
    what = sop_class(dataset)
    if not what and "Modality" not in dataset:
        raise NotAnImage("This file looks like DICOM but holds no picture. Load the image series that it belongs to.")
    if what == "Media Storage Directory":
        raise UnsupportedScan(
            "This is a DICOMDIR, the index of a DICOM disc, without pictures. Load the files it lists."
        )
    kind = f" ({what})" if what else ""
    raise UnsupportedScan(f"This DICOM object{kind} holds no picture. Load the image series that it belongs to.")


def sop_class(dataset: Dataset) -> str:
    """What kind of object this is, in words."""
    uid = UID(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    return uid.name.removesuffix(" Storage") if uid and uid.name != uid else ""


def count_frames(dataset: Dataset) -> int:
    """NumberOfFrames; where it is missing, what the length of the pixel data tells, without decoding."""
    stated = headers.number(dataset, "NumberOfFrames")
    if stated and stated >= 1:
        return int(stated)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated)
        keyword = next(keyword for keyword in PIXEL_KEYWORDS if keyword in dataset)
        return max(1, 8 * len(dataset[keyword].value) // max(1, bits))
    return max(1, sum(1 for _ in generate_frames(dataset.PixelData, number_of_frames=1)))


def check_streams(dataset: Dataset) -> None:
    """Compressed pictures must be as large as the header says, so that its limits hold for them too."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    size = (int(dataset.Rows), int(dataset.Columns))
    for stream in generate_frames(
        dataset.PixelData, number_of_frames=int(headers.number(dataset, "NumberOfFrames") or 1)
    ):
        if stated_size(stream) not in (size, None):
            raise DamagedFile(
                "The picture inside this DICOM file has another size than its header says. Export it again."
            )
