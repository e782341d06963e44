"""What an archive is asked for and what it tells, however it is reached. Identity is in here: shown, never kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medfusion.errors import ArchiveError

PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID")
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
FOR_STUDIES = (
    *PATIENT, *STUDY, "ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
)  # fmt: skip
FOR_SERIES = (
    "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined",
    "NumberOfSeriesRelatedInstances",
)  # fmt: skip
FOR_OBJECTS = ("SOPInstanceUID", "SOPClassUID", "InstanceNumber")
NO_CRITERION = re.compile(r"[*?\s]*")
UNSAFE = re.compile(r"[\\\x00-\x1f\x7f]")
DATE = re.compile(r"(\d{8})?-?(\d{8})?")
LONGEST = 64  # characters of an id or a number (PS3.5, LO)


@dataclass(frozen=True)
class Query:
    """Which studies. "" means any. date: 20250131, 20250101-20250131, or open at one end."""

    patient_id: str = ""
    accession: str = ""
    modality: str = ""
    date: str = ""

    def checked(self) -> Query:
        """Without blanks around. Raises ArchiveError on what no archive should be asked."""
        one = Query(*(text.strip() for text in (self.patient_id, self.accession, self.modality.upper(), self.date)))
        if any(UNSAFE.search(text) or len(text) > LONGEST for text in vars(one).values()):
            raise ArchiveError("A field holds a backslash or a control character, or is too long. Correct it.")
        if not DATE.fullmatch(one.date) or one.date == "-":
            raise ArchiveError("The date is not understood. Write 20250131, or 20250101-20250131.")
        if all(NO_CRITERION.fullmatch(text) for text in vars(one).values()):
            raise ArchiveError("Nothing was asked for. Give a patient id, accession number, modality or date.")
        return one

    def keys(self) -> dict[str, str]:
        """By DICOM keyword, those that are given."""
        named = {
            "PatientID": self.patient_id, "AccessionNumber": self.accession, "ModalitiesInStudy": self.modality,
            "StudyDate": self.date,
        }  # fmt: skip
        return {name: text for name, text in named.items() if text}


@dataclass(frozen=True)
class Study:
    uid: str
    patient_id: str
    patient_name: str
    born: str  # dates as ISO, "" where unknown
    date: str
    description: str
    accession: str
    modalities: tuple[str, ...]
    series: int  # 0 where the archive does not tell
    objects: int


@dataclass(frozen=True)
class Series:
    uid: str
    number: int
    modality: str
    description: str
    body_part: str
    objects: int


@dataclass(frozen=True)
class Held:
    """One object of an archive."""

    uid: str
    sop_class: str

    @property
    def is_image(self) -> bool:
        """Of a kind that has pixels to show, or of one that the archive does not tell."""
        return not self.sop_class or is_image(self.sop_class)


@dataclass(frozen=True)
class Part:
    """Objects of one series to fetch. is_whole: it has no others."""

    study: str
    series: str
    objects: tuple[Held, ...]
    is_whole: bool


class Client(Protocol):
    """An archive at the other end. Each call raises ArchiveError; ArchiveUnreachable where another try may help."""

    def echo(self) -> None: ...

    def find(self, level: str, keys: dict[str, str], wanted: Sequence[str]) -> list[Dataset]:
        """level: STUDY, SERIES or IMAGE. keys: DICOM keyword to value. At most max_results studies."""

    def fetch(self, part: Part, keep: Callable[[bytes], None]) -> None:
        """keep: called with the file of each object as it comes; it raises nothing."""

    def store(self, objects: Sequence[bytes]) -> None:
        """All of them, or an error. Storing an object again does no harm."""


def is_image(sop_class: str) -> bool:
    return "Image Storage" in UID(sop_class).name


def study_of(data: Dataset) -> Study:
    names = data.get("ModalitiesInStudy") or ()
    return Study(
        text(data, "StudyInstanceUID"), text(data, "PatientID"), spoken(text(data, "PatientName")),
        iso(text(data, "PatientBirthDate")), iso(text(data, "StudyDate")), text(data, "StudyDescription"),
        text(data, "AccessionNumber"), (names,) if isinstance(names, str) else tuple(map(str, names)),
        whole(data, "NumberOfStudyRelatedSeries"), whole(data, "NumberOfStudyRelatedInstances"),
    )  # fmt: skip


def series_of(data: Dataset) -> Series:
    return Series(
        text(data, "SeriesInstanceUID"), whole(data, "SeriesNumber"), text(data, "Modality"),
        text(data, "SeriesDescription"), text(data, "BodyPartExamined"), whole(data, "NumberOfSeriesRelatedInstances"),
    )  # fmt: skip


def held_of(data: Dataset) -> Held:
    return Held(text(data, "SOPInstanceUID"), text(data, "SOPClassUID"))


def text(data: Dataset, keyword: str) -> str:
    value = data.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def whole(data: Dataset, keyword: str) -> int:
    try:
        return int(data.get(keyword) or 0)
    except (ValueError, TypeError):
        return 0


def spoken(name: str) -> str:
    """Doe^Jane as Doe, Jane; of several writings the first."""
    family, _, given = name.partition("=")[0].partition("^")
    return ", ".join(part for part in (family.strip(), " ".join(given.replace("^", " ").split())) if part)


def iso(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if re.fullmatch(r"\d{8}", date) else date
