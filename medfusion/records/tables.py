"""The tables of the records: cases, answers, explanations, reads, runs, and the audit log.

No name, no patient id, no date of birth and no name of a file is a column: a patient is a keyed pseudonym.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Float, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

WAITING, ANSWERED, REFUSED, UNREADABLE = "waiting", "answered", "refused", "unreadable"  # what became of a case


class Time(TypeDecorator[datetime]):
    """UTC in and out, in databases that know no time zones as well."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: object) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: object) -> datetime | None:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC) if value else None


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention={"ix": "ix_%(column_0_label)s", "fk": "fk_%(table_name)s_%(column_0_name)s"})


class CaseRow(Base):
    __tablename__ = "cases"
    __table_args__ = ({"sqlite_autoincrement": True},)  # the log names cases by number: none is used again

    id: Mapped[int] = mapped_column(primary_key=True)
    added: Mapped[datetime] = mapped_column(Time)
    source: Mapped[str] = mapped_column(String(16))  # upload, listener, pacs
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")  # why it is refused or unreadable, in a sentence
    sha256: Mapped[str] = mapped_column(String(64), unique=True)  # of the file as it came
    file: Mapped[str] = mapped_column(String(128))  # as it is kept, under places.cases()
    patient: Mapped[str] = mapped_column(String(64), default="", index=True)  # pseudonyms
    study: Mapped[str] = mapped_column(String(64), default="", index=True)
    series: Mapped[str] = mapped_column(String(64), default="")
    instance: Mapped[int] = mapped_column(Integer, default=0)  # its number in the series
    sop: Mapped[str] = mapped_column(String(64), default="", index=True)  # pseudonym of the object itself
    modality: Mapped[str] = mapped_column(String(16), default="")
    body_part: Mapped[str] = mapped_column(String(64), default="")
    frames: Mapped[int] = mapped_column(Integer, default=0)
    burned_in: Mapped[bool] = mapped_column(default=False)  # the file says, or may hide, text in its pixels
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class AnswerRow(Base):
    __tablename__ = "answers"
    __table_args__ = (Index("ix_answers_case_made", "case_id", "made"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"))
    made: Mapped[datetime] = mapped_column(Time)
    model_id: Mapped[str] = mapped_column(String(64))
    model_version: Mapped[str] = mapped_column(String(64))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    frame: Mapped[int] = mapped_column(Integer)  # the one that the case is judged by, from 0
    answers: Mapped[list[str]] = mapped_column(JSON)
    plausible: Mapped[list[str] | None] = mapped_column(JSON)
    probabilities: Mapped[dict[str, float]] = mapped_column(JSON)
    risk: Mapped[float] = mapped_column(Float, index=True)
    uncertainty: Mapped[float] = mapped_column(Float)
    along: Mapped[list[float]] = mapped_column(JSON, default=list)  # risk of each frame
    warnings: Mapped[list[str]] = mapped_column(JSON, default=list)


class ExplanationRow(Base):
    __tablename__ = "explanations"

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"), index=True)
    made: Mapped[datetime] = mapped_column(Time)
    account: Mapped[dict[str, Any]] = mapped_column(JSON)  # all it depends on, as in explanation.json


class ReadRow(Base):
    __tablename__ = "reads"

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"), index=True)
    answer_id: Mapped[int | None] = mapped_column(ForeignKey("answers.id", ondelete="SET NULL"))
    made: Mapped[datetime] = mapped_column(Time)
    reader: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(128))  # the reader's own
    agrees: Mapped[bool]
    first_label: Mapped[str] = mapped_column(String(128), default="")  # before the answer was shown; "" if it was
    seconds: Mapped[float] = mapped_column(Float, default=0.0)
    comment: Mapped[str] = mapped_column(Text, default="")


class RunRow(Base):
    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(64))
    made: Mapped[datetime] = mapped_column(Time)
    status: Mapped[str] = mapped_column(String(16))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class AccountRow(Base):
    __tablename__ = "accounts"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    password: Mapped[str] = mapped_column(String(256), default="")  # argon2id; "" where OIDC signs in
    failed: Mapped[int] = mapped_column(Integer, default=0)
    locked_until: Mapped[datetime | None] = mapped_column(Time, default=None)


class AuditRow(Base):
    """One entry of the log. Rows are only added: triggers refuse to change or remove them."""

    __tablename__ = "audit"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1, without gaps
    at: Mapped[str] = mapped_column(String(32))  # UTC, as it was hashed
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(128))  # such as "case 12"
    details: Mapped[str] = mapped_column(Text)  # JSON, as it was hashed
    chain: Mapped[str] = mapped_column(String(64))  # keyed hash of this entry and of the chain before it
