"""A process that is killed in the middle of a write, 200 times at random, loses no record that was committed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from medfusion import places, worklist
from medfusion.records import audit

CUTS = 200
# One parent imports what is needed; each child that it forks writes cases and tells their numbers until it is killed.
PROGRAM = """
import os, sys
from medfusion import apart, privacy, worklist
from tests.records.scans import png
apart.strip = privacy.strip  # a process of its own for each child's files would take half a second to start
for line in sys.stdin:
    child = os.fork()
    if not child:
        for seed in range(100_000):
            number, _ = worklist.add(png(seed + 100_000 * int(line), side=8))
            worklist.keep_read(number, "ill")
            os.write(1, f"{number}\\n".encode())
    os.write(1, f"child {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"gone\\n")
"""


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_no_committed_record_is_lost(home):
    audit.verify()  # makes the tables
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    rng, told = random.Random(0), []
    try:
        for cut in range(CUTS):
            parent.stdin.write(f"{cut}\n")
            parent.stdin.flush()
            child, enough = 0, len(told) + rng.randrange(4)  # written before the cut, however slow the machine
            while not child or len(told) < enough:
                line = parent.stdout.readline()
                if line.startswith("child"):
                    child = int(line.split()[1])
                else:
                    told.append(int(line))
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            while (line := parent.stdout.readline()) != "gone\n":
                told.append(int(line))
    finally:
        parent.kill()
        parent.wait()
        parent.stdin.close()
        parent.stdout.close()
    found = {one.id: one for one in worklist.entries()}
    assert len(told) > CUTS / 2
    assert set(told) <= set(found)
    assert all(found[number].label == "ill" for number in told)
    assert all(one.path.exists() for one in found.values())
    entries, faults = audit.verify()
    assert faults == []
    assert entries == len(found) + sum(one.label == "ill" for one in found.values())
