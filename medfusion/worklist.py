"""The worklist: scans that wait for their answers, and those that have them, the most suspicious first.

Files come in without identity (see privacy.py) and stay on disk; `medfusion/scorer.py` answers them in a process of its
own. Nothing here decodes a picture.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import statistics
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from medfusion import access, apart, conformal, places, privacy
from medfusion.access import ADMINISTRATOR, READER, needs
from medfusion.errors import ConfigError, RecordsError
from medfusion.imaging.limits import check_bytes
from medfusion.records import audit
from medfusion.records.database import session, wipe
from medfusion.records.tables import ANSWERED, REFUSED, UNREADABLE, WAITING, AnswerRow, CaseRow, ReadRow
from medfusion.sources import opened_zip
from medfusion.types import DEFAULT_LIMITS

__all__ = ["ANSWERED", "REFUSED", "UNREADABLE", "WAITING"]
NAMED_LABEL = 128
MANY = 500  # values asked for at once
SPARE_BYTES = 2**30  # left on the disk for answers and log
ZIP_BEGIN = b"PK\x03\x04"


@dataclass(frozen=True)
class Answer:
    id: int
    model_id: str
    model_version: str
    frame: int  # the one with the highest risk, from 0
    answers: tuple[str, ...]
    plausible: tuple[str, ...] | None
    probabilities: dict[str, float]
    risk: float  # 0..1, that it is none of the harmless classes
    uncertainty: float  # 0..1, entropy over its largest value
    along: tuple[float, ...]  # risk of each frame
    warnings: tuple[str, ...]

    @property
    def abstains(self) -> bool:
        return conformal.abstains(self.plausible)


@dataclass(frozen=True)
class Entry:
    """One file of the worklist. patient, study and series are pseudonyms."""

    id: int
    added: datetime
    source: str
    status: str
    reason: str
    sha256: str
    patient: str
    study: str
    series: str
    instance: int
    modality: str
    body_part: str
    frames: int
    burned_in: bool
    answer: Answer | None = None
    label: str | None = None  # of the last read
    day: int | None = None  # of the study; only differences between studies of one patient mean anything

    @property
    def path(self) -> Path:
        return path_of(self.sha256)

    @property
    def read_as(self) -> str | int:
        """What a reader says something of: a whole series, or a file that is of none."""
        return self.series or self.id

    @property
    def thumbnail(self) -> Path:
        """A small picture, WebP; the scorer makes it."""
        return self.path.with_suffix(".webp")


@dataclass(frozen=True)
class Readings:
    """What readers made of the answers of one version of a model."""

    model_id: str
    model_version: str
    reads: int
    agree: int
    first: int  # said before the answer was shown
    changed: int  # of these, changed after it
    followed: int  # of these, to the model's answer
    median_s: float


def path_of(sha256: str) -> Path:
    return places.cases() / sha256[:2] / sha256


@needs(READER)
def add(
    content: bytes, source: str = "upload", actor: str = "", link: str = "", once: bool = False
) -> tuple[int, bool]:
    """Keep a file and let it wait for its answer: its case number, and whether it waits now. Raises ScanError.

    The same bytes are one case however often they come; one that got no answer waits for another try. once: so is the
    same object of a patient, which archives encode in several ways. link: sealed, to its study there (pacs/link.py).
    """
    check_bytes(len(content), DEFAULT_LIMITS)
    check_disk(len(content))
    sha256 = hashlib.sha256(content).hexdigest()
    actor = actor or access.current().name
    with session(writes=True) as opened:
        if known := opened.scalars(select(CaseRow).where(CaseRow.sha256 == sha256)).first():
            return known.id, came_again(opened, known, actor, link)
    bare = apart.strip(content)
    places.write_whole(path_of(sha256), bare.content)
    with session(writes=True) as opened:
        audit.hold(opened)  # two that bring the same object wait for each other
        known = opened.scalars(select(CaseRow).where(CaseRow.sha256 == sha256)).first()
        if known is None and once and bare.sop:
            same = CaseRow.sop == bare.sop, CaseRow.patient == bare.patient
            known = opened.scalars(select(CaseRow).where(*same).order_by(CaseRow.id)).first()
        if known:
            if known.sha256 != sha256:
                path_of(sha256).unlink(missing_ok=True)
            return known.id, came_again(opened, known, actor, link)
        row = CaseRow(
            added=datetime.now(UTC), source=source, status=WAITING, sha256=sha256, file=sha256, patient=bare.patient,
            study=bare.study, series=bare.series, instance=bare.instance, sop=bare.sop, burned_in=bare.burned_in,
            details=({} if bare.day is None else {"day": bare.day}) | ({"link": link} if link else {}),
        )  # fmt: skip
        opened.add(row)
        opened.flush()
        audit.add(opened, actor, "case added", f"case {row.id}", source=source, sha256=sha256)
        return row.id, True


def came_again(opened: Session, known: CaseRow, actor: str, link: str) -> bool:
    """Whether a case that is here already waits for another try."""
    if link:
        known.details = {**known.details, "link": link}
    again = known.status in (UNREADABLE, REFUSED) and path_of(known.sha256).exists()
    if again:
        known.status, known.reason = WAITING, ""
        audit.add(opened, actor, "case tried again", f"case {known.id}")
    return again


def check_disk(size: int) -> None:
    """Raises RecordsError when keeping so many bytes would leave too little for the records themselves."""
    places.make_home()
    free = shutil.disk_usage(places.home()).free
    if size + SPARE_BYTES > free:
        raise RecordsError(f"The disk has only {free >> 20} MB left, so no scan is kept. Free some space.")


def held(sops: Sequence[str]) -> set[str]:
    """Of these pseudonyms of objects, those that wait here or have their answer."""
    found: set[str] = set()
    with session() as opened:
        for start in range(0, len(sops), MANY):
            asked = CaseRow.sop.in_(sops[start : start + MANY]), CaseRow.status.in_((WAITING, ANSWERED))
            found |= set(opened.scalars(select(CaseRow.sop).where(*asked)))
    return found


@dataclass(frozen=True)
class WayBack:
    """What leads from a case to its study in an archive. link: sealed; "" where nothing does."""

    patient: str  # pseudonym
    path: Path
    link: str
    sent: datetime | None  # when the last report went there


@needs(READER)
def way_back(case_id: int) -> WayBack:
    """Raises RecordsError when there is no such case."""
    with session() as opened:
        row = opened.get(CaseRow, case_id)
        if row is None:
            raise RecordsError(f"Case {case_id} is not there any more. Choose another one.")
        told = row.details.get("sent")
        sent = datetime.fromisoformat(told) if told else None
        return WayBack(row.patient, path_of(row.sha256), row.details.get("link", ""), sent)


def note_sent(case_id: int, at: datetime) -> None:
    """Note when the report of a case went to its archive."""
    with session(writes=True) as opened:
        if row := opened.get(CaseRow, case_id):
            row.details = {**row.details, "sent": at.isoformat(timespec="seconds")}


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file as it is; of a zip each of its files. Raises DataError on a zip that is not safe to open."""
    if not content.startswith(ZIP_BEGIN):
        yield name, content
        return
    with opened_zip(name, content) as source:
        for inner in source.names():
            yield inner, source.read(inner)


def heads(listed: Sequence[Entry]) -> list[Entry]:
    """One entry a series, the first one; files of no series stand for themselves."""
    seen: set[str] = set()
    found = []
    for one in listed:
        if one.series and one.series in seen:
            continue
        seen.add(one.series)
        found.append(one)
    return found


@needs(READER)
def series_sizes() -> dict[str, int]:
    """How many files there are of each series."""
    with session() as opened:
        rows = opened.execute(select(CaseRow.series, func.count()).group_by(CaseRow.series)).all()
    return {row[0]: row[1] for row in rows if row[0]}


@needs(READER)
def with_series(listed: Iterable[Entry]) -> list[int]:
    """The case numbers of these and of all files of their series."""
    held = list(listed)
    series = {one.series for one in held if one.series}
    with session() as opened:
        more = opened.scalars(select(CaseRow.id).where(CaseRow.series.in_(series))).all()
    return sorted({*more, *(one.id for one in held)})


@needs(READER)
def slices(one: Entry) -> list[Entry]:
    """The files of the case's series in order of instance numbers; the case alone where it is of no series."""
    if not one.series:
        return [one]
    return sorted(listed(CaseRow.series == one.series), key=lambda other: (other.instance, other.id))


@needs(READER)
def risk_along(one: Entry) -> list[float | None]:
    """The risk of each frame, or of each slice of the series; None where a slice has no answer."""
    if one.answer and one.answer.along:
        return list(one.answer.along)
    return [other.answer.risk if other.answer else None for other in slices(one)]


@needs(READER)
def of_patient(patient: str) -> list[Entry]:
    """The answered cases of a patient, by pseudonym."""
    return [one for one in listed(CaseRow.patient == patient) if one.answer] if patient else []


def waiting(most: int) -> list[Entry]:
    """Cases without an answer, the oldest first."""
    with session() as opened:
        rows = opened.scalars(select(CaseRow).where(CaseRow.status == WAITING).order_by(CaseRow.id).limit(most)).all()
        return [entry(row) for row in rows]


@needs(READER)
def counts() -> dict[str, int]:
    """How many cases there are of each status."""
    with session() as opened:
        rows = opened.execute(select(CaseRow.status, func.count()).group_by(CaseRow.status)).all()
    return {row[0]: row[1] for row in rows}


@needs(READER)
def entries() -> list[Entry]:
    """All cases with their last answer and read: the riskiest first, of equal ones the least certain."""
    return sorted(listed(), key=urgency)


def listed(*which: ColumnElement[bool]) -> list[Entry]:
    """The cases that meet conditions, with their last answer and read, in no order."""
    ids = select(CaseRow.id).where(*which)
    with session() as opened:
        newest = select(func.max(AnswerRow.id)).where(AnswerRow.case_id.in_(ids)).group_by(AnswerRow.case_id)
        answers = {row.case_id: row for row in opened.scalars(select(AnswerRow).where(AnswerRow.id.in_(newest)))}
        last = select(func.max(ReadRow.id)).where(ReadRow.case_id.in_(ids)).group_by(ReadRow.case_id)
        reads = {row.case_id: row for row in opened.scalars(select(ReadRow).where(ReadRow.id.in_(last)))}
        rows = opened.scalars(select(CaseRow).where(*which)).all()
        return [entry(row, answers.get(row.id), reads.get(row.id)) for row in rows]


def urgency(one: Entry) -> tuple[float, float, int]:
    return (-one.answer.risk, -one.answer.uncertainty, one.id) if one.answer else (1, 0, one.id)


def doubt(one: Entry) -> tuple[float, float, int]:
    """The least certain first, of equal ones the riskiest."""
    return (-one.answer.uncertainty, -one.answer.risk, one.id) if one.answer else (1, 0, one.id)


def both(one: Entry) -> tuple[float, int]:
    """Risky and uncertain ones first: they gain most from a second look."""
    return (-one.answer.risk * one.answer.uncertainty, one.id) if one.answer else (1, one.id)


ORDERS: dict[str, Callable[[Entry], tuple[float, ...]]] = {
    "Risk": urgency,
    "Uncertainty": doubt,
    "Risk × uncertainty": both,
    "Newest": lambda one: (-one.id,),
    "Oldest": lambda one: (one.id,),
}
TELL_NOTHING = ("Oldest", "Newest")  # orders that are not of the answers


def entry(row: CaseRow, answer: AnswerRow | None = None, read: ReadRow | None = None) -> Entry:
    names = ("id", "added", "source", "status", "reason", "sha256", "patient", "study", "series", "instance")
    more = ("modality", "body_part", "frames", "burned_in")
    return Entry(
        **{name: getattr(row, name) for name in (*names, *more)}, answer=answered(answer) if answer else None,
        label=read.label if read else None, day=row.details.get("day"),
    )  # fmt: skip


def answered(row: AnswerRow) -> Answer:
    return Answer(
        row.id, row.model_id, row.model_version, row.frame, tuple(row.answers),
        None if row.plausible is None else tuple(row.plausible), row.probabilities, row.risk, row.uncertainty,
        tuple(row.along), tuple(row.warnings),
    )  # fmt: skip


@needs(READER)
def find(case_id: int) -> Entry:
    """Raises RecordsError when there is no such case."""
    found = listed(CaseRow.id == case_id)
    if not found:
        raise RecordsError(f"Case {case_id} is not there any more. Choose another one.")
    return found[0]


@dataclass(frozen=True)
class Outcome:
    """What became of a waiting case: an answer, or why there is none."""

    case_id: int
    status: str
    reason: str = ""
    answer: dict[str, Any] | None = None
    seen: Mapping[str, Any] = field(default_factory=dict)  # columns of the case that decoding told


def keep_outcome(
    case_id: int, status: str, reason: str = "", answer: dict[str, Any] | None = None, **seen: Any
) -> None:
    keep_outcomes([Outcome(case_id, status, reason, answer, seen)])


def keep_outcomes(outcomes: Iterable[Outcome]) -> None:
    """All of them in one transaction, for each waits for the disk."""
    told_of = {one.case_id: one for one in outcomes}
    with session(writes=True) as opened:
        still = CaseRow.id.in_(told_of), CaseRow.status == WAITING  # not removed, nor answered by another process
        for row in opened.scalars(select(CaseRow).where(*still).order_by(CaseRow.id)).all():
            one = told_of[row.id]
            row.status, row.reason = one.status, one.reason
            for name, value in one.seen.items():
                setattr(row, name, value)
            about = f"case {one.case_id}"
            if one.answer:
                opened.add(AnswerRow(case_id=one.case_id, made=datetime.now(UTC), **one.answer))
                told = {name: one.answer[name] for name in ("model_id", "model_version", "answers")}
                audit.add(opened, "scorer", "case answered", about, **told)
            else:
                audit.add(opened, "scorer", f"case {one.status}", about)


def suspects_folder() -> Path:
    return places.home() / "suspects"


@contextmanager
def suspected(case_id: int) -> Iterator[None]:
    """While a case is read its number lies on disk: if the process dies of it, the next one knows which it was."""
    mark = suspects_folder() / str(case_id)
    suspects_folder().mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def suspects() -> list[Entry]:
    """The waiting cases that the last process was reading when it died. They are no suspects any more."""
    folder = suspects_folder()
    marks = [mark for mark in folder.iterdir() if mark.name.isdecimal()] if folder.is_dir() else []
    found = listed(CaseRow.id.in_([int(mark.name) for mark in marks]), CaseRow.status == WAITING) if marks else []
    for mark in marks:
        mark.unlink(missing_ok=True)
    return found


@needs(READER)
def keep_read(
    case_id: int, label: str, reader: str = "", first_label: str = "", seconds: float = 0.0, comment: str = "",
    instead_of: int = 0,
) -> int:  # fmt: skip
    """What a reader says of a case, beside the answer it has now. Returns the number of the read.

    first_label: said before the answer was shown. instead_of: the read that this one completes.
    """
    reader = reader or access.current().name
    with session(writes=True) as opened:
        if opened.get(CaseRow, case_id) is None:
            raise RecordsError(f"Case {case_id} is not there any more. Choose another one.")
        answer = opened.scalars(
            select(AnswerRow).where(AnswerRow.case_id == case_id).order_by(AnswerRow.id.desc()).limit(1)
        ).first()
        agrees = answer is not None and label in answer.answers
        row = opened.get(ReadRow, instead_of) if instead_of else None
        row = row if row and row.reader == reader else ReadRow()
        row.case_id, row.answer_id = case_id, answer.id if answer else None
        row.made, row.reader, row.seconds, row.comment = datetime.now(UTC), reader, seconds, comment
        row.label, row.first_label, row.agrees = label[:NAMED_LABEL], first_label[:NAMED_LABEL], agrees
        opened.add(row)
        opened.flush()
        audit.add(opened, reader, "case read", f"case {case_id}", agrees=agrees, read_first=bool(first_label))
        return row.id


@dataclass(frozen=True)
class Said:
    """A reader's word on a series, or on a file that is of none."""

    first_label: str = ""  # before the answer was shown; "" if it was
    unfinished: int = 0  # the read that has only this word so far; 0: none


@needs(READER)
def own_reads() -> dict[str | int, Said]:
    """The last words of who is at work. Without accounts readers cannot be told apart: nobody's."""
    if not (name := access.current().name):
        return {}
    found = select(CaseRow.series, ReadRow).join(ReadRow).where(ReadRow.reader == name).order_by(ReadRow.id)
    with session() as opened:
        return {
            series or read.case_id: Said(read.first_label, read.id if read.label == read.first_label else 0)
            for series, read in opened.execute(found)
        }


@needs(READER)
def reading_figures() -> list[Readings]:
    """For each version of a model that readers saw an answer of."""
    groups: dict[tuple[str, str], list[tuple[ReadRow, AnswerRow]]] = {}
    with session() as opened:
        for read, answer in opened.execute(
            select(ReadRow, AnswerRow).join(AnswerRow, ReadRow.answer_id == AnswerRow.id)
        ):
            groups.setdefault((answer.model_id, answer.model_version), []).append((read, answer))
    found = []
    for (model_id, version), pairs in sorted(groups.items()):
        first = [(read, answer) for read, answer in pairs if read.first_label]
        changed = [(read, answer) for read, answer in first if read.first_label != read.label]
        found.append(
            Readings(
                model_id,
                version,
                len(pairs),
                sum(read.agrees for read, _ in pairs),
                len(first),
                len(changed),
                sum(read.agrees for read, _ in changed),
                statistics.median(read.seconds for read, _ in pairs),
            )
        )
    return found


@needs(READER)
def remove(case_ids: Iterable[int], actor: str = "", why: str = "case removed") -> int:
    """Take cases away with their files, answers and reads. The log keeps that there was one. Returns how many."""
    ids, actor = list(case_ids), actor or access.current().name
    with session(writes=True) as opened:
        rows = opened.scalars(select(CaseRow).where(CaseRow.id.in_(ids))).all()
        gone = [row.sha256 for row in rows]
        for row in rows:
            audit.add(opened, actor, why, f"case {row.id}", sha256=row.sha256)
        remove_rows(opened, [row.id for row in rows])
    for sha256 in gone:
        path_of(sha256).unlink(missing_ok=True)
        path_of(sha256).with_suffix(".webp").unlink(missing_ok=True)
    if gone:
        wipe()
    return len(gone)


def remove_rows(opened: Session, ids: Sequence[int]) -> None:
    opened.execute(delete(CaseRow).where(CaseRow.id.in_(ids)))  # answers, explanations and reads go with it


@needs(ADMINISTRATOR)
def remove_patient(patient_id: str, actor: str = "") -> int:
    """Remove all cases of a patient, by the id in the files or by pseudonym. Returns how many there were."""
    known = (patient_id.strip(), privacy.pseudonym_of(patient_id))
    with session() as opened:
        ids = opened.scalars(select(CaseRow.id).where(CaseRow.patient.in_([one for one in known if one]))).all()
    return remove(ids, actor, "patient removed")


@needs(ADMINISTRATOR)
def expire(days: float, actor: str = "retention") -> int:
    """Remove cases that were added so many days ago or earlier."""
    with session() as opened:
        ids = opened.scalars(select(CaseRow.id).where(CaseRow.added <= datetime.now(UTC) - timedelta(days))).all()
    return remove(ids, actor, "case expired")


def kept_days() -> float | None:
    """How long cases are kept, by MEDFUSION_RETENTION_DAYS; None: until they are removed. Raises ConfigError."""
    given = os.environ.get("MEDFUSION_RETENTION_DAYS", "").strip()
    if not given:
        return None
    try:
        days = float(given)
    except ValueError:
        days = -1.0
    if not 0 < days < float("inf"):
        raise ConfigError(f"MEDFUSION_RETENTION_DAYS is {given!r}. Set it to a number of days, or unset it.")
    return days


def as_rows(listed: Sequence[Entry], told: Container[str | int] | None = None) -> list[dict[str, object]]:
    """What an export holds: no identity, no file name.

    told: as what cases were read by somebody who reads before the answer; those of others stay empty. None: all.
    """
    rows: list[dict[str, object]] = []
    for one in listed:
        is_hidden = told is not None and one.read_as not in told
        row: dict[str, object] = {
            "case": one.id, "added": one.added.isoformat(timespec="seconds"), "status": one.status,
            "reason": one.reason, "patient": one.patient, "study": one.study, "series": one.series,
            "instance": one.instance, "modality": one.modality, "frames": one.frames, "sha256": one.sha256,
            "read": "" if is_hidden else one.label or "",
        }  # fmt: skip
        if told is not None:
            row["answer_hidden"] = is_hidden
        if one.answer:
            answer = answer_columns(one.answer)
            row |= dict.fromkeys(answer) if is_hidden else answer
        rows.append(row)
    return rows


def answer_columns(answer: Answer) -> dict[str, object]:
    return {
        "model": answer.model_id, "model_version": answer.model_version,
        "answer": " + ".join(answer.answers), "abstains": answer.abstains,
        "risk": round(answer.risk, 4), "uncertainty": round(answer.uncertainty, 4),
        "frame": answer.frame + 1, "probabilities": answer.probabilities,
        "risk_along": [round(value, 4) for value in answer.along],
    }  # fmt: skip


def as_csv(listed: Sequence[Entry], told: Container[str | int] | None = None) -> str:
    """For spreadsheets: text that they would take for a formula is quoted with an apostrophe."""
    rows, out = as_rows(listed, told), io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["case"]
    table = csv.DictWriter(out, names)
    table.writeheader()
    for row in rows:
        table.writerow({name: cell(value) for name, value in row.items()})
    return out.getvalue()


def cell(value: object) -> object:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_json(listed: Sequence[Entry], told: Container[str | int] | None = None) -> str:
    return json.dumps(as_rows(listed, told), indent=1, ensure_ascii=False) + "\n"
