"""2,000 mutated files: each is a scan or one plain sentence, and the program goes on."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from collections import Counter

import numpy as np
import pytest

from medfusion import apart, worklist
from medfusion.errors import DataError, MedFusionError, ScanError
from medfusion.imaging import display, presets
from medfusion.labelled import read_labelled
from medfusion.types import Limits, Scan
from tests.hostile.corpus import KINDS, mutated, whole

EACH = 400
LIMITS = Limits(max_seconds=20)
SENTENCE = re.compile(r"\S.*\w[)]?[.?]", re.DOTALL)
NOT_PLAIN = re.compile(r"Traceback|Error\b|Exception|0x[0-9a-f]{6}|Secret|S3CRET|/tmp|site-packages")


def check_sentence(error: MedFusionError) -> None:
    words = str(error)
    assert SENTENCE.fullmatch(words), words
    assert not NOT_PLAIN.search(words), words
    assert len(words) < 400


def look_at(scan: Scan) -> None:
    """What a page does with a scan must not fail for one that was accepted."""
    assert scan.frames.ndim in (3, 4)
    picture = display(scan)
    assert picture.dtype == np.uint8
    assert picture.shape[:2] == scan.frames.shape[1:3]
    presets(scan)


def open_scan(data: bytes) -> str:
    try:
        scan = apart.read_scan(data, limits=LIMITS)
    except ScanError as error:
        check_sentence(error)
        return type(error).__name__
    look_at(scan)
    return "Scan"


def strip(data: bytes) -> None:
    """What the worklist does: nothing of the patient is left of a file that it takes."""
    try:
        stripped = apart.strip(data, LIMITS)
    except ScanError as error:
        check_sentence(error)
        return
    if apart.read_scan(stripped.content, limits=LIMITS) and b"S3CRET" in data:
        assert b"Secret^Name" not in stripped.content


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "zip"])
def test_a_mutated_file_is_a_scan_or_a_sentence(kind, record_property):
    for data in whole(kind):
        assert open_scan(data) == "Scan"  # or the mutations would try nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numbers at the edge of float32
        found = Counter(open_scan(data) for data in mutated(kind, EACH))
    record_property("outcomes", dict(found))
    logging.getLogger(__name__).info("%s: %s", kind, dict(found))
    assert found.total() == EACH
    assert len(found) > 1
    assert found["Scan"] < EACH


@pytest.mark.parametrize("kind", ["DICOM", "TIFF"])
def test_a_mutated_file_comes_into_the_worklist_or_is_told_why_not(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path))
    for data in mutated(kind, EACH // 4, seed=1):
        try:
            strip(data)
        except ScanError as error:  # stripped, it is still the damaged picture that it was
            check_sentence(error)


def test_a_mutated_zip_is_opened_or_refused_with_a_sentence(tmp_path):
    outcomes: Counter[str] = Counter()
    path = tmp_path / "set.zip"
    for data in mutated("zip", EACH):
        path.write_bytes(data)
        try:
            outcomes["set"] += len(read_labelled(path).cases) > 0
        except DataError as error:
            check_sentence(error)
            outcomes["refused"] += 1
        try:
            for _, content in worklist.unpacked("set.zip", data):
                open_scan(content)
        except DataError as error:
            check_sentence(error)
    assert outcomes["set"] > 10
    assert outcomes["refused"] > 10


def test_the_corpus_is_the_same_each_time():
    def fingerprint() -> str:
        return hashlib.sha256(b"".join(mutated("PNG", 20))).hexdigest()

    assert fingerprint() == fingerprint()
    assert os.getpid()
