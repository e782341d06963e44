"""Holds for all tests: only the project's own models are in sight, what is made goes, and figures need no screen."""

import os
import tempfile

import pytest

os.environ.pop("MEDFUSION_MODELS", None)
made = tempfile.TemporaryDirectory(prefix="medfusion-tests-")  # gone with this process
os.environ["MEDFUSION_HOME"] = made.name
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # else the threads of all processes would wait for each other's
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))


def pytest_addoption(parser):
    parser.addoption("--guide", action="store_true", help="write the pictures of the user guide anew (`make guide`)")


@pytest.fixture(autouse=True)
def whom():
    """Who is at work: the machine's owner, whatever page an earlier test showed. A test can put another in."""
    from medfusion import access  # not before MEDFUSION_HOME is set

    held = [access.OWNER]
    access.ask_whom(lambda: held[0])
    return held
