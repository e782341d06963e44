"""What modalities and archives send to us (C-STORE) goes onto the worklist, without identity. A process of its own.

Only peers of the configuration get in: their AE title and their address must both fit, and over TLS with a `ca` their
certificate, too. Only images are taken. Whatever comes, the listener goes on.
"""

from __future__ import annotations

import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from filelock import Timeout
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from medfusion import places, scorer, worklist
from medfusion.errors import ArchiveError, ConfigError, MedFusionError, RecordsError
from medfusion.pacs import config, link
from medfusion.pacs.config import Archive, Listener
from medfusion.pacs.dimse import IMAGES, SYNTAXES, VERIFICATION
from medfusion.pacs.found import is_image, text
from medfusion.records import audit
from medfusion.records.database import session
from medfusion.types import DEFAULT_LIMITS

SUCCESS = 0x0000
OUT_OF_RESOURCES, NOT_OF_ITS_KIND, NOT_UNDERSTOOD = 0xA700, 0xA900, 0xC000  # PS3.4 table B.2-1
REFUSED = (1, 1, 1)  # PS3.8 table 9-21: permanent, by the service user, no reason given
QUIET_S = 3600.0  # a stranger who knocks again is written into the log so seldom
LOOK_S = 2.0
HANDSHAKE_S = 10.0
ACTOR = "listener"


def main(say: Callable[[str], None], stop: threading.Event | None = None) -> None:
    """Listen until the process is asked to end. Raises ConfigError when it cannot begin."""
    settings = config.read()
    listener = settings.listener
    if listener is None:
        raise ConfigError(f"There is no listener in {config.path().name}. Add a section [listener] with its peers.")
    ended = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: ended.set())
    places.make_home()
    try:
        with places.lock(ACTOR).acquire(timeout=0):
            server = begin(Incoming(listener, settings.archives.get(listener.archive), say))
            secured = " with TLS" if listener.tls else ""
            say(f"Listening as {listener.aet} on {listener.address}:{listener.port}{secured}")
            try:
                while not ended.wait(LOOK_S):
                    scorer.ensure()
            finally:
                server.end()
    except Timeout as error:
        raise ConfigError("A listener of this installation runs already. Stop it first.") from error
    say("Stopped.")


def begin(incoming: Incoming) -> Server:
    """Open the port and serve it in threads. Raises ConfigError."""
    listener = incoming.listener
    entity = AE(listener.aet)
    entity.require_called_aet = True
    entity.require_calling_aet = sorted({peer.aet for peer in listener.peers})
    entity.maximum_associations = listener.max_associations
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = listener.timeout_s
    entity.add_supported_context(VERIFICATION)
    for kind in IMAGES:
        entity.add_supported_context(kind, SYNTAXES)
    try:
        server = Server(entity, incoming, config.server_context(listener) if listener.tls else None)
    except OSError as error:
        raise ConfigError(
            f"Port {listener.port} at {listener.address} cannot be listened to ({error.strerror}). "
            "Choose another one, or stop who has it; ports below 1024 need a right of their own."
        ) from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    entity._servers.append(server)
    return server


class Server(ThreadedAssociationServer):
    """Looks at the address of a connection first, and shakes hands for TLS in the connection's own thread."""

    def __init__(self, entity: AE, incoming: Incoming, tls: ssl.SSLContext | None) -> None:
        self.incoming, self.tls = incoming, tls
        handlers: list[Any] = [
            (evt.EVT_DATA_RECV, incoming.weigh),
            (evt.EVT_REQUESTED, incoming.look_at),
            (evt.EVT_REJECTED, incoming.rejected),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_C_STORE, incoming.store),
        ]
        listener = incoming.listener
        place = (listener.address, listener.port)
        super().__init__(entity, place, listener.aet, entity.supported_contexts, None, handlers)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self.incoming.is_known(client_address[0])

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls:
            request.settimeout(HANDSHAKE_S)
            request = self.tls.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.incoming.refuse(client_address[0], "a connection without the TLS that is asked for")

    def end(self) -> None:
        self.shutdown()
        for one in self.active_associations:
            one.abort()


class Incoming:
    """What happens to connections and objects. Called in threads of their own, one an association."""

    def __init__(self, listener: Listener, archive: Archive | None, say: Callable[[str], None]) -> None:
        self.listener, self.archive, self.say = listener, archive, say
        self.told: dict[tuple[str, str], float] = {}
        self.guard = threading.Lock()

    def is_known(self, address: str) -> bool:
        """Whether a connection comes from an address of a peer. Any other is closed before anything of it is read."""
        known = any(peer.fits(peer.aet, address) for peer in self.listener.peers)
        if not known:
            self.refuse(address, "an address of no peer")
        return known

    def weigh(self, event: Any) -> None:
        """Hang up on a message that is larger than any file that we read."""
        held = event.assoc.__dict__.setdefault("weighed", [0])
        held[0] += len(event.data)
        if held[0] > DEFAULT_LIMITS.max_bytes + 2**20:
            self.say("An object is larger than what is read: its association was ended.")
            hang_up(event.assoc)

    def look_at(self, event: Any) -> None:
        """Refuse a title that does not belong to the address."""
        requestor = event.assoc.requestor
        aet, address = requestor.primitive.calling_ae_title.strip(), requestor.address
        known = {peer.aet for peer in self.listener.peers}  # any other the library refuses
        if aet in known and not any(peer.fits(aet, address) for peer in self.listener.peers):
            event.assoc.acse.send_reject(*REFUSED)
            event.assoc.kill()
            self.refuse(address, f"{printable(aet)} from an address that is not its own")

    def rejected(self, event: Any) -> None:
        requestor = event.assoc.requestor
        called = requestor.primitive.called_ae_title if requestor.primitive else ""
        self.refuse(requestor.address, f"{printable(requestor.ae_title)} calling {printable(called)}")

    def refuse(self, address: str, what: str) -> None:
        """Say so, and write it into the log, not each time that a stranger knocks."""
        now, key = time.monotonic(), (address, what)
        with self.guard:
            if now - self.told.get(key, -QUIET_S) < QUIET_S:
                return
            self.told = {one: at for one, at in self.told.items() if now - at < QUIET_S} | {key: now}
        self.say(f"Refused: {what} ({address})")
        try:
            with session(writes=True) as opened:
                audit.add(opened, ACTOR, "peer refused", f"address {address}", what=what)
        except MedFusionError as error:
            self.say(str(error))

    def store(self, event: Any) -> int:
        """The status that the peer gets. It raises nothing, so that one bad object ends nothing."""
        event.assoc.__dict__["weighed"] = [0]
        try:
            content = event.encoded_dataset()
            header = link.header_of(content)
            request = event.request
            if not is_image(str(request.AffectedSOPClassUID)):
                return self.bad("an object of a kind without pictures", NOT_OF_ITS_KIND)
            if (text(header, "SOPClassUID"), text(header, "SOPInstanceUID")) != (
                request.AffectedSOPClassUID, request.AffectedSOPInstanceUID,
            ):  # fmt: skip
                return self.bad("an object that is not what it was announced as", NOT_OF_ITS_KIND)
            if "Rows" not in header or "Columns" not in header:
                return self.bad("an object without a picture", NOT_OF_ITS_KIND)
            if link.is_ours(header):
                return self.bad("a report of this program, which is no scan", SUCCESS)
            archive = self.archive
            sealed = link.seal(link.of(header, archive.name)) if archive and archive.send else ""
            worklist.add(content, ACTOR, actor=ACTOR, link=sealed, once=True)
            return SUCCESS
        except (RecordsError, OSError, MemoryError) as error:
            return self.bad(f"an object that cannot be kept now ({type(error).__name__})", OUT_OF_RESOURCES)
        except (ArchiveError, MedFusionError):
            return self.bad("an object that cannot be read", NOT_UNDERSTOOD)
        except Exception as error:  # untrusted headers fail in every way there is
            return self.bad(f"an object that cannot be read ({type(error).__name__})", NOT_UNDERSTOOD)

    def bad(self, what: str, status: int) -> int:
        self.say(f"Not taken: {what}")
        return status


def hang_up(association: Any) -> None:
    """Close the connection from within its own thread; the library then ends the association."""
    transport = association.dul.socket
    if transport is not None:
        transport.close()


def printable(title: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in title.strip())[:16]


def to_stderr(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
    sys.stderr.flush()
