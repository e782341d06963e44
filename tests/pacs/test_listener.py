"""The listener: peers fill the worklist, strangers and garbage do not, and it goes on whatever comes."""

import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import CTImageStorage, EnhancedSRStorage, Verification

from medfusion import doctor, places, worklist
from medfusion.errors import ConfigError, ScanTooLarge
from medfusion.pacs import archives, config, link, listener
from medfusion.pacs.archives import Pick
from medfusion.records import audit
from medfusion.types import Limits
from tests.pacs.conftest import certificates, configure, dimse_section, free_port, listener_section
from tests.pacs.test_archives import changed_to
from tests.records.scans import NAME, SECRETS, dicom

SUCCESS = 0


@contextmanager
def listening(home, more="", tls="", archive_section="", port=0):
    """A listener in this process; gives its port and what it says."""
    port, said = port or free_port(), []
    configure(home, archive_section + listener_section(port, more=more, tls=tls))
    stop = threading.Event()
    thread = threading.Thread(target=listener.main, args=(said.append, stop))
    thread.start()
    deadline = time.monotonic() + 60
    while not said and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert said and said[0].startswith("Listening"), said
        yield port, said
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def no_scorer(monkeypatch):
    monkeypatch.setattr(listener.scorer, "ensure", lambda: None)
    monkeypatch.setattr(listener, "LOOK_S", 0.05)


def associate(port, aet="SCANNER", called="MEDFUSION", tls=None):
    entity = AE(aet)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    contexts = [build_context(Verification), build_context(CTImageStorage), build_context(EnhancedSRStorage)]
    return entity.associate("127.0.0.1", port, contexts, called, tls_args=tls)


def sent(port, *files, **given):
    """The status that each file got from the listener."""
    association = associate(port, **given)
    assert association.is_established
    found = []
    for file in files:
        told = association.send_c_store(pydicom.dcmread(io.BytesIO(file)))
        found.append(told.get("Status"))
    association.release()
    return found


def test_what_a_peer_sends_is_a_case_without_identity_and_once(home):
    with listening(home) as (port, _):
        association = associate(port)
        assert association.send_c_echo().Status == SUCCESS
        association.release()
        assert sent(port, dicom(1), dicom(2), dicom(1)) == [SUCCESS] * 3
        assert sent(port, dicom(2)) == [SUCCESS]
    assert [(one.source, one.instance) for one in worklist.entries()] == [("listener", 1), ("listener", 2)]
    assert {entry.actor for entry in audit.entries()} == {"listener"}
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert not [secret for secret in (*SECRETS, NAME) if secret.encode() in kept]


def test_strangers_are_refused_and_the_log_tells_of_them_once(home):
    with listening(home) as (port, said):
        for _ in range(3):
            assert associate(port, aet="STRANGER").is_rejected
            assert associate(port, called="OTHER").is_rejected
            assert associate(port, aet="ELSEWHERE").is_rejected  # a title of another address
        assert sent(port, dicom(1)) == [SUCCESS]
    refused = [entry.details["what"] for entry in audit.entries() if entry.action == "peer refused"]
    assert sorted(refused) == [
        "ELSEWHERE from an address that is not its own", "SCANNER calling OTHER", "STRANGER calling MEDFUSION",
    ]  # fmt: skip
    assert len([line for line in said if line.startswith("Refused")]) == 3


def test_an_address_of_no_peer_is_hung_up_on_before_it_says_a_word(home, monkeypatch):
    monkeypatch.setattr(config.Peer, "fits", lambda self, aet, address: False)
    with listening(home) as (port, _):
        association = associate(port)
        assert not association.is_established
        assert not association.is_rejected  # not even an answer
    assert [entry.details["what"] for entry in audit.entries()] == ["an address of no peer"]


def test_garbage_and_objects_that_are_none_end_nothing(home):
    data = pydicom.dcmread(io.BytesIO(dicom(3)))
    other = changed_to(pydicom.dcmread(io.BytesIO(dicom(4))), SOPClassUID=EnhancedSRStorage, Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns"):
        del data[keyword]
    empty = changed_to(data)
    with listening(home) as (port, said):
        begun = b"\x01\x00\x00\x00\x00\x10" + bytes(16)  # an A-ASSOCIATE-RQ of nothing
        for bytes_sent in (b"GET / HTTP/1.1\r\n\r\n", begun, b"\x04\x00\xff\xff\xff\xff", os.urandom(3000)):
            with socket.create_connection(("127.0.0.1", port), 10) as raw:
                raw.sendall(bytes_sent)
        half_open = socket.create_connection(("127.0.0.1", port), 10)
        association = associate(port)
        assert [str(one.abstract_syntax) for one in association.rejected_contexts] == [EnhancedSRStorage]
        association.release()
        with pytest.raises(ValueError, match="No presentation context"):
            sent(port, other)
        assert sent(port, empty) == [listener.NOT_OF_ITS_KIND]
        announced = pydicom.dcmread(io.BytesIO(dicom(5)))
        bad = (listener.NOT_UNDERSTOOD, listener.NOT_OF_ITS_KIND)
        assert stored(port, announced, b"\x08\x00\x05\x00XX" + os.urandom(500)) in bad
        another = encode(pydicom.dcmread(io.BytesIO(dicom(7))), True, True)
        assert stored(port, announced, another) == listener.NOT_OF_ITS_KIND
        assert sent(port, dicom(6)) == [SUCCESS]
        half_open.close()
        assert any("Not taken" in line for line in said)
    assert [one.instance for one in worklist.entries()] == [6]
    assert "Unmistakable" not in " ".join(said)


def stored(port, data, encoded):
    """The status of a C-STORE of these bytes, announced as another data set."""
    association = associate(port)
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    request.DataSet = io.BytesIO(encoded)
    (context,) = [one for one in association.accepted_contexts if one.abstract_syntax == data.SOPClassUID]
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, told = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return told.Status


def test_one_that_is_larger_than_what_is_read_is_cut_off(home, monkeypatch):
    class Small:
        max_bytes = -(2**20) + 20_000

    monkeypatch.setattr(listener, "DEFAULT_LIMITS", Small)
    with listening(home) as (port, said):
        association = associate(port)
        told = association.send_c_store(pydicom.dcmread(io.BytesIO(dicom(1))))  # 39 kB
        assert "Status" not in told
        assert any("larger than what is read" in line for line in said)
    assert worklist.entries() == []


def test_one_that_unpacks_to_more_than_is_read_is_not_unpacked(home, monkeypatch):
    data = pydicom.dcmread(io.BytesIO(dicom(1)))
    data.PixelData = bytes(len(data.PixelData))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    assert len(out.getvalue()) < 10_000
    monkeypatch.setattr(link, "DEFAULT_LIMITS", Limits(max_bytes=20_000))
    with pytest.raises(ScanTooLarge):
        link.header_of(out.getvalue())


def test_over_tls_only_who_has_a_certificate_gets_in(home, tmp_path):
    certificates(tmp_path)
    tls = (
        f'tls = true\nca = "{tmp_path}/ca.pem"\ncertificate = "{tmp_path}/server.pem"\nkey = "{tmp_path}/server.key"\n'
    )
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    nobody = (trusting, "127.0.0.1")
    known = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    known.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with listening(home, tls=tls) as (port, said):
        stalled = socket.create_connection(("127.0.0.1", port), 10)  # says nothing, and holds nobody up
        assert not associate(port).is_established
        assert not associate(port, tls=nobody).is_established
        assert sent(port, dicom(1), tls=(known, "127.0.0.1")) == [SUCCESS]
        stalled.close()
    assert "with TLS" in said[0]
    assert len(worklist.entries()) == 1


def test_a_real_archive_sends_and_is_asked_to_move_and_reports_can_go_back(home, orthanc):
    section = dimse_section(orthanc, more='send = true\nretrieve = "move"')
    port = orthanc.listener_port
    orthanc.put(dicom(1), dicom(2))
    with listening(home, 'archive = "dimse"', archive_section=section, port=port):
        told = archives.fetch("dimse", [Pick("1.2.3.4")])
        assert (told.total, told.done, told.problems) == (2, 2, ())
        assert len(worklist.entries()) == 2
        orthanc.put(dicom(3))
        (third,) = [one for one in orthanc.objects() if orthanc.tags(one)["InstanceNumber"] == "3"]
        orthanc.call("POST", "/modalities/ours/store", third)
        assert {one.instance for one in worklist.entries()} == {1, 2, 3}
        assert archives.fetch("dimse", [Pick("1.2.3.4")]).known == 3
    entry = worklist.entries()[0]
    assert link.unseal(worklist.way_back(entry.id).link).archive == "dimse"
    assert [one.name for one in archives.goes_back_to(entry.id, b"")] == ["dimse"]
    orthanc.put(dicom(4))
    told = archives.fetch("dimse", [Pick("1.2.3.4")])  # nobody listens any more
    assert "could not send 1 objects to MEDFUSION" in " ".join(told.problems) or "C-MOVE" in " ".join(told.problems)


def test_the_command_listens_until_it_is_told_to_stop(home):
    port = free_port()
    configure(home, listener_section(port))
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medfusion", "listen"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert "Listening as MEDFUSION" in child.stderr.readline()
    assert places.is_running(listener.ACTOR)
    assert doctor.check("archives").found.endswith(f"runs as MEDFUSION on 127.0.0.1:{port}")
    again = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert again.returncode == 2
    assert "runs already" in again.stderr
    assert sent(port, dicom(1)) == [SUCCESS]
    open_one = associate(port)
    child.send_signal(signal.SIGTERM)
    _, rest = child.communicate(timeout=120)
    assert (child.returncode, "Stopped." in rest) == (0, True)
    open_one.abort()
    assert len(worklist.entries()) == 1
    assert doctor.check("archives").state == "warning"


def test_it_does_not_begin_without_a_configuration_or_on_a_taken_port(home):
    with pytest.raises(ConfigError, match="There is no listener"):
        listener.main(lambda line: None, threading.Event())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        configure(home, listener_section(taken.getsockname()[1]))
        with pytest.raises(ConfigError, match="cannot be listened to"):
            listener.main(lambda line: None, threading.Event())
