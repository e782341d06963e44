"""An archive by DIMSE: C-ECHO, C-FIND, C-GET or C-MOVE, and C-STORE (PS3.4, Study Root)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext

from medfusion.errors import ArchiveError, ArchiveUnreachable
from medfusion.pacs import config
from medfusion.pacs.config import Archive
from medfusion.pacs.found import Held, Part, is_image
from medfusion.pacs.retry import tried

VERIFICATION = "1.2.840.10008.1.1"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))  # Study Root, PS3.4 C.6.2
PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
OF_VIDEO = ("MPEG", "HEVC", "JPIP", "SMPTE", "Part 2", "Deflated Image")  # and others that nothing here decodes
# One context each, so that what is stored compressed comes as it is.
PACKED = [one for one in AllTransferSyntaxes if one.is_encapsulated and not any(word in one.name for word in OF_VIDEO)]
SYNTAXES: list[str | UID] = [*PLAIN, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, *PACKED]
IMAGES = [name for cx in AllStoragePresentationContexts if is_image(name := str(cx.abstract_syntax))]
AT_ONCE = 100  # objects named in one request
MOST_CONTEXTS = 127  # of 128, one is for the query itself (PS3.8 9.3.2.2: odd numbers up to 255)
PENDING, SUCCESS = (0xFF00, 0xFF01), 0x0000
SAID = {  # PS3.7 annex C, PS3.4 tables B.2-1, C.4-1, C.4-2 and C.4-3
    0x0122: "it does not take this kind of object",
    0x0124: "it does not allow us that",
    0xA700: "it is out of resources",
    0xA701: "it is out of resources",
    0xA702: "it is out of resources",
    0xA801: "it does not know the AE title that we want objects sent to",
    0xA900: "the request does not fit what it expects",
}


class Dimse:
    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def echo(self) -> None:
        with self.associated([build_context(VERIFICATION)]) as association:
            self.check(association.send_c_echo(), "C-ECHO")

    def find(self, level: str, keys: dict[str, str], wanted: Sequence[str]) -> list[Dataset]:
        asked = Dataset()
        asked.QueryRetrieveLevel = level
        for keyword in wanted:
            setattr(asked, keyword, None)
        for keyword, value in keys.items():
            setattr(asked, keyword, value)
        if not all(value.isascii() for value in keys.values()):
            asked.SpecificCharacterSet = "ISO_IR 192"
        most = self.archive.max_results if level == "STUDY" else None

        def ask() -> list[Dataset]:
            found: list[Dataset] = []
            with self.associated([build_context(FIND)]) as association:
                for status, told in association.send_c_find(asked, FIND):
                    if self.check(status, "C-FIND") in PENDING and told is not None:
                        found.append(told)
                        if most and len(found) == most:
                            association.send_c_cancel(1, query_model=FIND)
            return found[:most]

        return tried(self.archive, ask)

    def fetch(self, part: Part, keep: Callable[[bytes], None]) -> None:
        for asked in requests_of(part):
            if self.archive.retrieve == "move":
                tried(self.archive, partial(self.move, asked))
            else:
                tried(self.archive, partial(self.get, asked, part.objects, keep))

    def get(self, asked: Dataset, objects: Sequence[Held], keep: Callable[[bytes], None]) -> None:
        def take(event: Any) -> int:
            keep(event.encoded_dataset())
            return SUCCESS

        classes = sorted({one.sop_class for one in objects if one.sop_class}) or IMAGES
        with self.associated(
            [build_context(GET), *storage(classes)],
            [(evt.EVT_C_STORE, take)],
            [build_role(name, scp_role=True) for name in classes],
        ) as association:
            for status, _ in association.send_c_get(asked, GET):
                self.check(status, "C-GET")

    def move(self, asked: Dataset) -> None:
        """Ask that our listener be sent it, and wait until it was."""
        to = self.archive.move_to or self.archive.our_aet
        with self.associated([build_context(MOVE)]) as association:
            for status, _ in association.send_c_move(asked, to, MOVE):
                self.check(status, "C-MOVE")
                if failed := status.get("NumberOfFailedSuboperations"):
                    raise ArchiveError(
                        f"{self.archive.title} could not send {failed} objects to {to}. Check that the listener runs, "
                        "and its address there."
                    )

    def store(self, objects: Sequence[bytes]) -> None:
        files = [pydicom.dcmread(io.BytesIO(one)) for one in objects]
        kinds = sorted({str(one.SOPClassUID) for one in files})

        def ask() -> None:
            with self.associated([build_context(kind, PLAIN) for kind in kinds]) as association:
                offered = {str(one.abstract_syntax) for one in association.accepted_contexts}
                if not offered.issuperset(kinds):
                    raise ArchiveError(f"{self.archive.title} does not take reports of this kind. Ask who runs it.")
                for one in files:
                    self.check(association.send_c_store(one), "C-STORE")

        tried(self.archive, ask)

    @contextmanager
    def associated(
        self,
        contexts: list[PresentationContext],
        handlers: Sequence[tuple[Any, Callable[[Any], int]]] = (),
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> Iterator[Association]:
        """An association that is released at the end. Raises ArchiveError with who refused what."""
        archive = self.archive
        entity = AE(archive.our_aet)
        entity.connection_timeout = entity.acse_timeout = archive.timeout_s
        entity.dimse_timeout = entity.network_timeout = archive.timeout_s
        tls = (config.client_context(archive), archive.host) if archive.tls else None
        # Kept by us: pynetdicom takes one that comes at once, before its own thread looks, for no connection.
        refusals: list[A_ASSOCIATE_RJ] = []

        def note(event: Any) -> None:
            if isinstance(event.pdu, A_ASSOCIATE_RJ):
                refusals.append(event.pdu)

        try:
            made = entity.associate(
                archive.host, archive.port, contexts, archive.aet, ext_neg=list(roles), tls_args=tls,
                evt_handlers=[(evt.EVT_PDU_RECV, note), *handlers],
            )  # fmt: skip
        except OSError as error:  # a host without an address
            raise self.unreachable() from error
        if not made.is_established:
            raise self.refused(refusals, made.rejected_contexts)
        try:
            yield made
        finally:
            if made.is_established:
                made.release()

    def refused(
        self, refusals: Sequence[A_ASSOCIATE_RJ], rejected_contexts: Sequence[PresentationContext]
    ) -> ArchiveError:
        archive = self.archive
        if refusals:
            told = refusals[0]
            reason = (told.source, told.reason_diagnostic)
            if told.result == 2:  # transient
                return ArchiveUnreachable(f"{archive.title} is too busy now. Try again later.")
            if reason == (1, 3):
                return ArchiveError(f"{archive.title} does not know us: enter the AE title {archive.our_aet} there.")
            if reason == (1, 7):
                return ArchiveError(f"{archive.title} has another AE title than {archive.aet}. Correct aet.")
            return ArchiveError(f"{archive.title} refuses us (reason {reason}). Ask who runs it.")
        if rejected_contexts:
            return ArchiveError(f"{archive.title} does not offer what was asked for. Ask who runs it.")
        return self.unreachable()

    def unreachable(self) -> ArchiveUnreachable:
        secured = ", and that both sides use TLS with certificates they trust" if self.archive.tls else ""
        where = f"{self.archive.title} does not answer as {self.archive.where}"
        return ArchiveUnreachable(f"{where}. Check that it runs, and its address{secured}.")

    def check(self, status: Dataset, what: str) -> int:
        """The status of an answer. Raises ArchiveError where it is a failure or there is none."""
        if "Status" not in status:
            raise ArchiveUnreachable(
                f"{self.archive.title} stopped answering ({what}). Try again later, or raise timeout_s."
            )
        code = int(status.Status)
        if code in (SUCCESS, 0xFE00, *PENDING) or code & 0xF000 == 0xB000:  # FE00: as we cancelled; Bxxx: warnings
            return code
        said = SAID.get(code, "it does not say why in words")
        raise ArchiveError(f"{self.archive.title} refuses the {what} (status {code:04X}: {said}). Ask who runs it.")


def requests_of(part: Part) -> Iterator[Dataset]:
    """The identifiers of C-GET or C-MOVE: the series, or lists of objects where only some are wanted."""
    uids = [one.uid for one in part.objects]
    for start in range(0, 1 if part.is_whole else len(uids), AT_ONCE):
        asked = Dataset()
        asked.QueryRetrieveLevel = "SERIES" if part.is_whole else "IMAGE"
        asked.StudyInstanceUID, asked.SeriesInstanceUID = part.study, part.series
        if not part.is_whole:
            asked.SOPInstanceUID = uids[start : start + AT_ONCE]
        yield asked


def storage(classes: Sequence[str]) -> list[PresentationContext]:
    """To be sent objects of these kinds: each syntax by itself, as far as there is room; else what all can send."""
    if len(classes) * (len(SYNTAXES) - 1) <= MOST_CONTEXTS:
        return [
            build_context(kind, syntax)
            for kind in classes
            for syntax in (PLAIN, *([one] for one in SYNTAXES if one not in PLAIN))
        ]
    return [build_context(kind, PLAIN) for kind in classes[:MOST_CONTEXTS]]
