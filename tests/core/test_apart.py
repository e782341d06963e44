"""Files are decoded in another process: the same scans, and one sentence whatever a file does to it."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest

from medfusion import apart, imaging
from medfusion.apart import messages
from medfusion.apart.pool import GAVE_UP, MOST, TOO_LONG, Pool, pool
from medfusion.errors import DamagedFile, NotAnImage, ScanTooLarge
from medfusion.types import DEFAULT_LIMITS, Identity, Limits, Scan, VoiLut, Window
from tests.core.dicom_files import dicom, lut_item, ramp

LARGE = dicom(np.zeros((64, 1000, 1000), np.uint16))


def workers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "medfusion.apart.worker" in one.cmdline()]


@pytest.mark.parametrize(
    "data",
    [
        dicom(ramp(), WindowCenter=[40, 80], WindowWidth=[80, 160], PatientOrientation=["L", "F"], PixelSpacing=[1, 2]),
        dicom(ramp(), VOILUTSequence=[lut_item(0, [0, 9, 200], 8)], PhotometricInterpretation="MONOCHROME1"),
        dicom(np.zeros((8, 8, 3), np.uint8) + 7),
    ],
)
def test_what_comes_back_is_what_would_have_been_decoded_here(data):
    here, there = (
        imaging.read_scan(data, "a.dcm", with_identity=True),
        apart.read_scan(data, "a.dcm", with_identity=True),
    )
    assert there.frames.dtype == here.frames.dtype
    assert np.array_equal(there.frames, here.frames)
    assert there.voi_lut is here.voi_lut is None or np.array_equal(there.voi_lut.table, here.voi_lut.table)
    same = {"frames": np.empty(0), "voi_lut": None}
    assert vars(replace(there, **same)).keys() == vars(replace(here, **same)).keys()
    for name, value in vars(here).items():
        assert name in same or getattr(there, name) == value


def test_sentences_come_back_with_their_class():
    with pytest.raises(NotAnImage, match="PDF"):
        apart.read_scan(b"%PDF-1.7")


def test_a_worker_that_dies_costs_its_file_and_no_other():
    apart.read_scan(dicom(ramp()))
    found: list[BaseException] = []

    def read() -> None:
        try:
            apart.read_scan(LARGE)
        except DamagedFile as error:
            found.append(error)

    held = pool().free[-1]
    os.kill(held.process.pid, signal.SIGSTOP)  # so that it is surely at work when it dies
    reading = threading.Thread(target=read)
    reading.start()
    while held in pool().free:
        pass
    os.kill(held.process.pid, signal.SIGSEGV)
    os.kill(held.process.pid, signal.SIGCONT)
    reading.join()
    assert [str(error) for error in found] == [GAVE_UP]
    assert apart.read_scan(dicom(ramp())).frames.shape == (1, 16, 16)


def test_one_that_died_while_idle_costs_nothing():
    apart.read_scan(dicom(ramp()))
    for worker in workers():
        worker.kill()
        worker.wait()
    assert apart.read_scan(dicom(ramp())).frames.shape == (1, 16, 16)


def test_decoding_that_takes_too_long_is_ended():
    with pytest.raises(DamagedFile, match=TOO_LONG[:40]):
        apart.read_scan(LARGE, limits=Limits(max_seconds=0.001))
    assert apart.read_scan(dicom(ramp())).frames.shape == (1, 16, 16)


def test_decoding_that_takes_too_much_memory_is_ended():
    with pytest.raises(ScanTooLarge, match="not enough memory"):
        apart.read_scan(LARGE, limits=Limits(max_memory_bytes=2**26))
    assert apart.read_scan(LARGE).frame_count == 64


def test_many_threads_share_few_workers_and_get_their_own_scans():
    scans: dict[int, Scan] = {}

    def read(start: int) -> None:
        scans[start] = apart.read_scan(dicom(ramp(start=start)))

    threads = [threading.Thread(target=read, args=(start,)) for start in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {start: int(scan.frames.min()) for start, scan in scans.items()} == {start: start for start in range(24)}
    assert len(workers()) <= MOST


def test_a_worker_ends_with_its_pool_and_is_told_no_secrets(monkeypatch):
    monkeypatch.setenv("MEDFUSION_DATABASE_URL", "postgresql://secret@localhost/records")
    fresh = Pool()
    fresh.call("read_scan", DEFAULT_LIMITS, data=dicom(ramp()))
    (worker,) = fresh.free
    assert "MEDFUSION_DATABASE_URL" not in psutil.Process(worker.process.pid).environ()
    fresh.close()
    assert worker.process.returncode is not None


@pytest.mark.parametrize(
    "value",
    [
        {"a": None, "b": (1, 2.5, "ü\0"), "c": {"d": b"\0\xff"}},
        Window(40, 80, "Brain"),
        VoiLut(-3, np.arange(5, dtype=np.uint16), 12),
        Identity("x", "y"),
    ],
)
def test_messages_come_out_as_they_went_in(value):
    file = messages.open_nameless()
    for _ in range(2):
        messages.write(file, {"value": value})
        found = messages.read(file)["value"]
        assert repr(found) == repr(value)
    os.close(file)


def test_a_reply_that_is_no_message_is_an_error_and_never_code():
    file = messages.open_nameless()
    for reply in (b"", b"\x80\x04.", messages.HEAD.pack(2**60), messages.HEAD.pack(9) + b"not JSON."):
        os.ftruncate(file, 0)
        os.pwrite(file, reply, 0)
        with pytest.raises(ValueError, match=r"cut off|Expecting value"):
            messages.read(file)
    os.close(file)
