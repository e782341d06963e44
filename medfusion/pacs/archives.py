"""What pages and commands may ask of archives: each call checks the role and leaves an entry in the audit log.

The log says which archive, what kind of question and how much came: no id, name or date that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset

from medfusion import MAKER, access, worklist
from medfusion.access import READER, needs
from medfusion.errors import ArchiveError, ConfigError, MedFusionError
from medfusion.pacs import config, link
from medfusion.pacs.config import Archive
from medfusion.pacs.found import (
    FOR_OBJECTS,
    FOR_SERIES,
    FOR_STUDIES,
    PATIENT,
    Client,
    Part,
    Query,
    Series,
    Study,
    held_of,
    series_of,
    study_of,
    text,
)
from medfusion.records import audit, keys
from medfusion.records.database import session

UID = re.compile(r"[0-9.]{1,64}")
MANY_PROBLEMS = 5  # told of one fetch


@dataclass(frozen=True)
class Pick:
    """What to fetch: a study, or one series of it."""

    study: str
    series: str = ""


@dataclass(frozen=True)
class Fetched:
    """How far a fetch is, and what came of it."""

    total: int = 0  # objects to fetch
    done: int = 0
    new: int = 0
    known: int = 0  # on the worklist already
    left_out: int = 0  # that hold no picture
    problems: tuple[str, ...] = field(default=())

    def in_words(self) -> str:
        parts = [f"{self.new} new scan{'' if self.new == 1 else 's'}"]
        if self.known:
            parts.append(f"{self.known} already on the worklist")
        if self.left_out:
            parts.append(f"{self.left_out} left out: no pictures, or reports of this program")
        return ", ".join(parts) + "." + "".join(f" {one}" for one in self.problems)


def configured() -> dict[str, Archive]:
    """The archives by name; none without a configuration. Raises ConfigError."""
    return config.read().archives


def named(name: str) -> Archive:
    found = configured().get(name)
    if found is None:
        raise ConfigError(f"There is no archive {name!r}. Name one of {config.path().name}, or add it there.")
    return found


def client(archive: Archive) -> Client:
    if archive.is_web:
        from medfusion.pacs.web import Web

        return Web(archive)
    from medfusion.pacs.dimse import Dimse

    return Dimse(archive)


def log(archive: Archive, action: str, **details: object) -> None:
    with session(writes=True) as opened:
        audit.add(opened, access.current().name, action, f"archive {archive.name}", **details)


@needs(READER)
def echo(name: str) -> str:
    """Ask an archive whether it is there. Returns where it answered. Raises ArchiveError."""
    archive = named(name)
    try:
        client(archive).echo()
    except MedFusionError:
        log(archive, "archive tested", answered=False)
        raise
    log(archive, "archive tested", answered=True)
    return f"{archive.title} answers {'by DICOMweb' if archive.is_web else 'C-ECHO'} at {archive.where}"


@needs(READER)
def find(name: str, query: Query) -> list[Study]:
    """Studies, the newest first; at most max_results. Raises ArchiveError."""
    archive, checked = named(name), query.checked()
    found = [study_of(one) for one in client(archive).find("STUDY", checked.keys(), FOR_STUDIES)]
    log(archive, "archive searched", by=sorted(checked.keys()), found=len(found))
    return sorted((one for one in found if one.uid), key=lambda one: one.date, reverse=True)


@needs(READER)
def find_series(name: str, study: str) -> list[Series]:
    """The series of a study by number. Raises ArchiveError."""
    archive = named(name)
    found = all_series(client(archive), checked_uid(study))
    log(archive, "archive searched", by=["StudyInstanceUID"], found=len(found))
    return found


def checked_uid(uid: str) -> str:
    """Raises ArchiveError: one that is none could mean something else in an address, or a list of others."""
    if not UID.fullmatch(uid):
        raise ArchiveError("That is no identifier of a study or series. It has up to 64 digits and dots.")
    return uid


def all_series(asked: Client, study: str) -> list[Series]:
    found = [series_of(one) for one in asked.find("SERIES", {"StudyInstanceUID": study}, FOR_SERIES)]
    return sorted((one for one in found if one.uid), key=lambda one: (one.number, one.uid))


@needs(READER)
def fetch(name: str, picks: Sequence[Pick], tell: Callable[[Fetched], None] = lambda so_far: None) -> Fetched:
    """Bring studies or series onto the worklist, without identity. tell: called after each object.

    What is on the worklist already is not asked for again, so a fetch that was interrupted goes on where it was.
    Raises ArchiveError.
    """
    archive = named(name)
    for pick in picks:
        checked_uid(pick.study), pick.series and checked_uid(pick.series)
    asked = client(archive)
    plan, expected = planned(asked, picks)
    if expected == Fetched():
        raise ArchiveError(f"{archive.title} holds nothing of that. Search anew: it may be gone, or elsewhere.")
    if expected.total > archive.max_objects:
        raise ArchiveError(
            f"That is {expected.total} objects; {archive.title} is asked for up to {archive.max_objects} at once. "
            "Fetch single series, or raise max_objects."
        )
    arrivals = Arrivals(archive, expected, tell)
    for part in plan:
        arrivals.bring(asked, part)
    if not plan:
        log(archive, "archive fetched", objects=0, known=expected.known)
    return arrivals.so_far


class Arrivals:
    """What comes of one fetch."""

    def __init__(self, archive: Archive, expected: Fetched, tell: Callable[[Fetched], None]) -> None:
        self.archive, self.so_far, self.tell = archive, expected, tell
        self.came: set[str] = set()
        tell(expected)

    def bring(self, asked: Client, part: Part) -> None:
        """One series. What goes wrong is a problem of this one; the next may still come."""
        before = self.so_far
        try:
            asked.fetch(part, self.keep)
            self.miss(part)
        except ArchiveError as error:
            self.note(str(error))
        self.tell(self.so_far)
        log(
            self.archive, "archive fetched", study=keys.pseudonym(part.study, "study"), objects=len(part.objects),
            new=self.so_far.new - before.new,
        )  # fmt: skip

    def keep(self, content: bytes) -> None:
        """One object onto the worklist, or why not."""
        try:
            header = link.header_of(content)
            uid = text(header, "SOPInstanceUID")
            if uid in self.came:  # asked for twice, after the archive had stopped answering
                return
            if link.is_ours(header):
                self.came.add(uid)
                self.so_far = replace(self.so_far, total=self.so_far.total - 1, left_out=self.so_far.left_out + 1)
                return
            sealed = link.seal(link.of(header, self.archive.name)) if self.archive.send else ""
            _, is_new = worklist.add(content, "pacs", link=sealed, once=True)
            self.came.add(uid)
            self.count(new=int(is_new), known=int(not is_new))
        except MedFusionError as error:
            self.note(str(error))
        self.tell(self.so_far)

    def miss(self, part: Part) -> None:
        """After a series: what did not come, unless it comes to the listener."""
        lost = len({one.uid for one in part.objects} - self.came)
        if lost and not self.archive.is_web and self.archive.retrieve == "move":
            self.count(new=lost)
        elif lost:
            self.note(f"{lost} objects did not come from {self.archive.title}, or cannot be read.")

    def count(self, new: int = 0, known: int = 0) -> None:
        one = self.so_far
        done = min(one.total, one.done + new + known)
        self.so_far = replace(one, done=done, new=one.new + new, known=one.known + known)

    def note(self, sentence: str) -> None:
        told = self.so_far.problems
        if sentence not in told and len(told) < MANY_PROBLEMS:
            self.so_far = replace(self.so_far, problems=(*told, sentence))


def planned(asked: Client, picks: Sequence[Pick]) -> tuple[list[Part], Fetched]:
    """The objects to fetch, series by series: those with pictures that are not on the worklist yet."""
    plan: list[Part] = []
    so_far = Fetched()
    for study in dict.fromkeys(pick.study for pick in picks):
        uids, ours = series_to_fetch(asked, study, {pick.series for pick in picks if pick.study == study})
        so_far = replace(so_far, left_out=so_far.left_out + ours)
        for uid in uids:
            place = {"StudyInstanceUID": study, "SeriesInstanceUID": uid}
            every = [one for one in map(held_of, asked.find("IMAGE", place, FOR_OBJECTS)) if one.uid]
            images = [one for one in every if one.is_image]
            known = worklist.held([keys.pseudonym(one.uid, "instance") for one in images])
            fresh = tuple(one for one in images if keys.pseudonym(one.uid, "instance") not in known)
            so_far = replace(
                so_far, total=so_far.total + len(fresh), known=so_far.known + len(images) - len(fresh),
                left_out=so_far.left_out + len(every) - len(images),
            )  # fmt: skip
            if fresh:
                plan.append(Part(study, uid, fresh, len(fresh) == len(every)))
    return plan, so_far


def series_to_fetch(asked: Client, study: str, chosen: set[str]) -> tuple[list[str], int]:
    """The chosen series, or all but our own reports where the whole study is wanted; and how many those are."""
    if "" not in chosen:
        return sorted(chosen), 0
    listed = all_series(asked, study)
    ours = [one for one in listed if one.description.startswith(MAKER)]
    return [one.uid for one in listed if one not in ours], sum(one.objects for one in ours)


def goes_back_to(case_id: int, file: bytes | Path) -> list[Archive]:
    """The archives that a report of this scan can be sent to. case_id: of the worklist, or 0 for an opened file."""
    open_ones = [one for one in configured().values() if one.send]
    if not open_ones:
        return []
    if case_id and (sealed := worklist.way_back(case_id).link):
        return [one for one in open_ones if one.name == link.unseal(sealed).archive]
    return open_ones if link_of_file(file, "") else []


def link_of_file(file: bytes | Path, archive: str) -> link.Link | None:
    """Of a file that still has its identity; None of any other."""
    if begin_of(file)[128:132] != b"DICM":
        return None
    header = link.header_of(file)
    found = link.of(header, archive)
    known = all((found.study, found.series, found.sop, text(header, "PatientID")))
    return found if known and text(header, "PatientIdentityRemoved") != "YES" else None


def begin_of(file: bytes | Path) -> bytes:
    if isinstance(file, bytes):
        return file
    with file.open("rb") as opened:
        return opened.read(132)


@needs(READER)
def send(name: str, case_id: int, content: bytes, make: Callable[[Dataset], Sequence[bytes]]) -> str:
    """Send the report of one scan to the archive that the scan is of. Returns what was sent, in a sentence.

    The archive is asked whose study it is, and only if that is still the patient of the case, `make` gets the answer
    and returns the DICOM objects. Raises ArchiveError.
    """
    archive = named(name)
    if archive not in goes_back_to(case_id, content):
        raise ArchiveError(
            "This scan did not come from an archive that takes reports back (send = true). Fetch it from there first."
        )
    back = worklist.way_back(case_id) if case_id else None
    target = link.unseal(back.link) if back and back.link else link_of_file(content, name)
    assert target is not None  # or no archive would have been offered
    patient = back.patient if back else link.patient_of(link.header_of(content))
    asked = client(archive)
    about = {"case": case_id, "study": keys.pseudonym(target.study, "study")}
    try:
        objects = make(link.resolve(target, asked, archive.title, patient))
        asked.store(objects)
    except ArchiveError:
        log(archive, "report not sent", **about)
        raise
    log(archive, "report sent", **about, objects=len(objects))
    if case_id:
        worklist.note_sent(case_id, datetime.now(UTC))
    return f"{len(objects)} objects are stored in {archive.title}."


@needs(READER)
def send_files(name: str, contents: Sequence[bytes]) -> str:
    """Send reports that `python -m medfusion report` wrote from files with identity. Raises ArchiveError."""
    archive = named(name)
    if not archive.send:
        raise ArchiveError(f"{archive.title} takes no reports: its section has no send = true.")
    asked = client(archive)
    for content in contents:
        data = link.header_of(content)
        if not link.is_ours(data) or not text(data, "StudyInstanceUID"):
            raise ArchiveError("One of these files is no report of this program. Only those are sent.")
        study = {"StudyInstanceUID": data.StudyInstanceUID}
        owners = asked.find("STUDY", study, ("StudyInstanceUID", *PATIENT))
        if [text(one, "PatientID") for one in owners] != [text(data, "PatientID")]:
            raise ArchiveError(
                f"{archive.title} does not hold this study, or holds it for another patient, so nothing was sent. "
                "Make the report from the file as it is there."
            )
    asked.store(contents)
    log(archive, "report sent", case=0, objects=len(contents))
    return f"{len(contents)} objects are stored in {archive.title}."
