"""From a case without identity back to its study in the archive, so that a report can go there. A sealed link.

The link holds the archive's name and the object's identifiers, encrypted with a key that is derived from site.key: no
name and no number of a patient. Whose study it is the archive alone knows, and is asked when a report is sent; its
answer is compared with the pseudonyms of the case, used for the report, and kept nowhere.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pydicom
from cryptography.fernet import Fernet, InvalidToken
from pydicom.dataset import Dataset

from medfusion import MAKER, privacy
from medfusion.errors import ArchiveError
from medfusion.imaging.dicom import check_inflated
from medfusion.imaging.reader import quiet_decoders
from medfusion.pacs.found import FOR_STUDIES, PATIENT, STUDY, Client, text
from medfusion.records import keys
from medfusion.types import DEFAULT_LIMITS

FOR_REPORTS = ("SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True)
class Link:
    archive: str
    study: str
    series: str
    sop: str
    sop_class: str
    modality: str


def lock() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(bytes.fromhex(keys.sign("link", "link"))))


def seal(link: Link) -> str:
    return lock().encrypt(json.dumps(asdict(link)).encode()).decode()


def unseal(token: str) -> Link:
    """Raises ArchiveError when it was sealed elsewhere."""
    try:
        return Link(**json.loads(lock().decrypt(token.encode())))
    except (InvalidToken, ValueError, TypeError) as error:
        raise ArchiveError("The link of this case to its study is of another installation. Fetch it again.") from error


def of(data: Dataset, archive: str) -> Link:
    """The link of an object that came with its identity."""
    named = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")
    return Link(archive, *(text(data, keyword) for keyword in named))


def header_of(file: bytes | Path) -> Dataset:
    """The header of a DICOM file, without pixels. Raises ArchiveError, or ScanError where it unpacks to too much."""
    source: io.BytesIO | Path = io.BytesIO(file) if isinstance(file, bytes) else file
    if isinstance(file, bytes):
        check_inflated(file, DEFAULT_LIMITS)
    try:
        with quiet_decoders():
            return pydicom.dcmread(source, force=True, stop_before_pixels=True)
    except MemoryError:
        raise
    except Exception as error:  # headers of untrusted files fail in every way there is
        raise ArchiveError("The header of this file is damaged, so no study belongs to it.") from error


def is_ours(data: Dataset) -> bool:
    """Whether an object is a report of this program: no scan to answer."""
    return text(data, "Manufacturer") == MAKER


def patient_of(data: Dataset) -> str:
    """The pseudonym of the patient, as privacy.strip makes it."""
    return privacy.pseudonym_of(str(data.get("PatientID") or data.get("PatientName") or ""))


def resolve(link: Link, client: Client, title: str, patient: str) -> Dataset:
    """What the archive says now of an object and its patient, for a report. patient: the pseudonym of the case.

    Raises ArchiveError when the object is not there any more, or belongs to somebody else by now.
    """
    studies = client.find("STUDY", {"StudyInstanceUID": link.study}, FOR_STUDIES)
    place = {"StudyInstanceUID": link.study, "SeriesInstanceUID": link.series, "SOPInstanceUID": link.sop}
    objects = client.find("IMAGE", place, FOR_REPORTS)
    held = [one for one in objects if text(one, "SOPInstanceUID") == link.sop]
    owner = [one for one in studies if text(one, "StudyInstanceUID") == link.study]
    if len(owner) != 1 or len(held) != 1:
        raise ArchiveError(f"{title} does not hold this scan any more, so nothing was sent. Look for the study there.")
    if not patient or patient_of(owner[0]) != patient:
        raise ArchiveError(
            f"{title} names another patient for this study than when the scan came: nothing was sent. Fetch it again."
        )
    found = Dataset()
    if charset := owner[0].get("SpecificCharacterSet"):
        found.SpecificCharacterSet = charset
    for keyword in (*PATIENT, *STUDY):
        if keyword in owner[0]:
            found[keyword] = owner[0][keyword]
    found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPInstanceUID = link.study, link.series, link.sop
    found.SOPClassUID = text(held[0], "SOPClassUID") or link.sop_class
    found.Modality = link.modality
    return found
