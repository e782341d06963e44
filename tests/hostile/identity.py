"""A patient whose every mark is unmistakable, files that are full of it, and a search for what is left of it."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medfusion.samples import sample_bytes

FAMILY, GIVEN, NUMBER, ACCESSION = "Zaphodova", "Trilliane", "PLANTID77310", "PLANTACC5519"
BIRTH, PLACE, DOCTOR, UIDS = "19440229", "Klinik Nirgendheim", "Quastenflosser", "1.2.826.0.1.7731077"
MARKS = (FAMILY, GIVEN, NUMBER, ACCESSION, BIRTH, PLACE, DOCTOR, UIDS)
NAMED = f"{FAMILY}_{GIVEN}_{NUMBER}"  # begins the names of files


def dicom(instance: int = 1) -> bytes:
    """A drawn chest X-ray with the patient in all places that a file has for one, and in some that it has not."""
    data = pydicom.dcmread(io.BytesIO(sample_bytes("synthetic-chest")))
    name = f"{FAMILY}^{GIVEN}"
    texts = {
        "PatientName": name, "PatientID": NUMBER, "PatientBirthDate": BIRTH, "AccessionNumber": ACCESSION,
        "InstitutionName": PLACE, "InstitutionAddress": f"{PLACE} 1", "ReferringPhysicianName": DOCTOR,
        "OperatorsName": DOCTOR, "OtherPatientIDs": NUMBER, "StudyID": NUMBER[:16], "StudyDescription": f"pa {name}",
        "SeriesDescription": f"pa {name}", "PatientComments": name, "ImageComments": name, "PatientAddress": PLACE,
        "StudyInstanceUID": f"{UIDS}.1", "SeriesInstanceUID": f"{UIDS}.1.2", "SOPInstanceUID": f"{UIDS}.1.2.{instance}",
        "FrameOfReferenceUID": f"{UIDS}.9", "StationName": NUMBER[:16], "ProtocolName": name,
        "DeviceSerialNumber": NUMBER, "RequestedProcedureDescription": name, "AdditionalPatientHistory": name,
        "StudyDate": BIRTH,
    }  # fmt: skip
    for keyword, text in texts.items():
        setattr(data, keyword, text)
    inner = Dataset()
    inner.PatientName, inner.PatientID, inner.ReferencedSOPInstanceUID = name, NUMBER, f"{UIDS}.4"
    inner.private_block(0x0011, "NIRGENDHEIM", create=True).add_new(0x02, "LT", name)
    data.RequestAttributesSequence = Sequence([inner])
    block = data.private_block(0x0029, f"{PLACE[:6]} VENDOR", create=True)
    block.add_new(0x01, "LO", name)
    block.add_new(0x02, "OB", f"{NUMBER}{BIRTH}".encode())
    data.InstanceNumber = instance
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.SourceApplicationEntityTitle = NUMBER[:16]
    data.preamble = f"{name} {NUMBER}".encode().ljust(128, b"\0")
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def png(seed: int = 0) -> bytes:
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", f"{FAMILY} {NUMBER}")
    about.add_itxt("Title", f"{GIVEN} {ACCESSION}")
    out = io.BytesIO()
    grey = np.random.default_rng(seed).integers(0, 256, (96, 96), dtype=np.uint8)
    Image.fromarray(grey).save(out, "PNG", pnginfo=about)
    return out.getvalue()


def jpeg(seed: int = 0) -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = f"{FAMILY} {NUMBER}", DOCTOR
    out = io.BytesIO()
    colours = np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(colours).save(out, "JPEG", exif=exif, comment=PLACE.encode())
    return out.getvalue()


def marks_in(content: bytes) -> set[str]:
    """Those that bytes hold, in any usual coding; zips and packed streams are looked into."""
    views = [content, *inflated(content)]
    found = set()
    for mark in MARKS:
        for coding in ("utf-8", "utf-16-le", "utf-16-be"):
            wanted = mark.encode(coding).lower()
            if any(wanted in view.lower() for view in views):
                found.add(mark)
    return found


def inflated(content: bytes) -> Iterator[bytes]:
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    for start in (b"stream\r\n", b"stream\n"):  # PDF
        for part in content.split(start)[1:]:
            try:
                yield zlib.decompressobj().decompress(part)
            except zlib.error:
                continue


def left_in(folder: Path) -> dict[str, set[str]]:
    """Files under a folder whose name or content holds marks; the names of folders count, too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        marks = marks_in(str(path.relative_to(folder)).encode())
        if path.is_file() and not path.is_symlink():
            marks |= marks_in(path.read_bytes())
        if marks:
            found[str(path.relative_to(folder))] = marks
    return found
