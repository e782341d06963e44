"""A server and a real browser for tests. Any error on the browser's console fails the test that used it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --no-first-run"
LONG_MS = 300_000  # the machine may be busy

in_browser = [
    pytest.mark.browser,
    pytest.mark.timeout(900),  # on a machine that also trains
    pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium: install it, or name it in CHROMIUM"),
]


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[str]:
    """A server of our own on a free port, with its records and log in the folder. Gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("serve.py")), str(port), *options],
        cwd=ROOT,
        env=os.environ | {"MEDFUSION_HOME": str(folder / "home")},
        stdout=log,
        stderr=log,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=300)  # on a busy machine
        log.close()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serve(tmp_path) as address:
        yield address


def wait_for(url: str, server: subprocess.Popen[bytes], limit_s: float = 240) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(url, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"The server did not start (exit status {server.poll()}).")


@contextmanager
def open_browser() -> Iterator[object]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@contextmanager
def open_page(browser, address: str) -> Iterator[object]:  # type: ignore[no-untyped-def]
    """A page of a new session, whose console errors fail the test at its end."""
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(LONG_MS)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert not errors, errors


@pytest.fixture
def browser_page(address: str) -> Iterator[object]:
    with open_browser() as browser, open_page(browser, address) as page:
        yield page
