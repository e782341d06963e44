"""Scans without the patient: what is kept of a file that comes to stay. Headers by the basic profile of DICOM PS3.15.

Patients, studies and series become keyed pseudonyms, so that what belongs together stays together on this installation
and means nothing elsewhere. Pixels are not looked at: text that is burned into them stays, and is warned of.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import datetime

import numpy as np
import pydicom
import tifffile
from dicomanonymizer import anonymize_dataset
from dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c import U_TAGS
from pydicom.dataset import Dataset, FileMetaDataset

from medfusion.errors import DamagedFile
from medfusion.imaging import display, read_scan
from medfusion.imaging.dicom import check_inflated
from medfusion.imaging.dicom_headers import may_show_text
from medfusion.imaging.formats import recognise
from medfusion.imaging.reader import quiet_decoders
from medfusion.records import keys
from medfusion.types import DEFAULT_LIMITS, Limits, Stripped

SHIFT_DAYS = 20_000  # so many calendars
METHOD = "PS3.15 basic profile"


def keeps_identity() -> bool:
    """Whether the site wants files kept as they come: MEDFUSION_KEEP_IDENTITY=1."""
    return os.environ.get("MEDFUSION_KEEP_IDENTITY", "") == "1"


def strip(content: bytes, limits: Limits = DEFAULT_LIMITS) -> Stripped:
    """The same picture without name, dates, places and numbers of the patient. Raises ScanError.

    Parses files that nobody has looked at: programs that must go on call it as `apart.strip`.
    """
    if recognise(content) != "DICOM":
        return Stripped(content if keeps_identity() else bare(content, limits))
    check_inflated(content, limits)
    try:
        with quiet_decoders():
            data = pydicom.dcmread(io.BytesIO(content), force=True)
            found = Stripped(
                b"",
                patient=pseudonym_of(str(data.get("PatientID") or data.get("PatientName") or "")),
                study=keys.pseudonym(str(data.get("StudyInstanceUID") or ""), "study"),
                series=keys.pseudonym(str(data.get("SeriesInstanceUID") or ""), "series"),
                instance=int(data.get("InstanceNumber") or 0),
                sop=keys.pseudonym(str(data.get("SOPInstanceUID") or ""), "instance"),
                burned_in=may_show_text(data),
                day=day_of(data),
            )
            return Stripped(**vars(found) | {"content": content if keeps_identity() else anonymous(data, found)})
    except MemoryError:
        raise
    except Exception as error:  # headers of untrusted files fail in every way there is
        raise DamagedFile("The header of this file is damaged. Export or copy it again.") from error


def pseudonym_of(patient: str) -> str:
    return keys.pseudonym(patient.strip(), "patient")


def patient_of(content: bytes) -> str:
    """The pseudonym of the patient that a file names, "" where it names none."""
    if recognise(content) != "DICOM":
        return ""
    try:
        with quiet_decoders():
            data = pydicom.dcmread(io.BytesIO(content), force=True, stop_before_pixels=True)
            return pseudonym_of(str(data.get("PatientID") or data.get("PatientName") or ""))
    except MemoryError:
        raise
    except Exception:  # as above: a header that cannot be read names nobody
        return ""


def day_of(data: Dataset) -> int | None:
    """The day of the study, shifted by a number of days that is the patient's own (PS3.15 E.3.6, modified dates)."""
    try:
        date = datetime.strptime(str(data.get("StudyDate") or "").strip(), "%Y%m%d")
    except ValueError:
        return None
    patient = str(data.get("PatientID") or data.get("PatientName") or "").strip()
    return date.toordinal() + int(keys.sign(patient, "calendar")[:8], 16) % SHIFT_DAYS


def anonymous(data: Dataset, known: Stripped) -> bytes:
    meta = FileMetaDataset()
    if syntax := getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None):
        meta.TransferSyntaxUID = syntax
    every(data, lambda part: anonymize_dataset(part, rules()))
    data.PatientID = data.PatientName = known.patient
    data.PatientIdentityRemoved, data.DeidentificationMethod = "YES", METHOD
    meta.MediaStorageSOPClassUID = data.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", "")
    data.file_meta, data.preamble = meta, bytes(128)
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=bool(syntax))
    return out.getvalue()


def every(data: Dataset, work: Callable[[Dataset], object]) -> None:
    """A dataset and all in its sequences."""
    work(data)
    for element in data:
        if element.VR == "SQ":
            for part in element.value:
                every(part, work)


def rules() -> dict[tuple[int, ...], Callable[[Dataset, tuple[int, int]], None]]:
    """Identifiers are replaced by keyed ones: those of one study stay the same in all its files."""
    return dict.fromkeys(U_TAGS, replace_uid)


def replace_uid(data: Dataset, tag: tuple[int, int]) -> None:
    element = data.get(tag)
    if element is None or element.VR != "UI" or not element.value:
        return
    many = [element.value] if isinstance(element.value, str) else list(element.value)
    changed = [f"2.25.{int(keys.sign(str(one), 'uid')[:32], 16)}" for one in many]
    element.value = changed[0] if len(changed) == 1 else changed


def bare(content: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """A picture of another format as TIFF with nothing but pixels. Raises ScanError."""
    scan = read_scan(content, limits=limits)
    frames = scan.frames
    if frames.dtype not in (np.uint8, np.uint16):
        frames = np.stack([display(scan, number) for number in range(scan.frame_count)])
    out = io.BytesIO()
    kind = "minisblack" if frames.ndim == 3 else "rgb"
    tifffile.imwrite(out, frames, photometric=kind, compression="zlib", metadata=None, software=False)
    return out.getvalue()
