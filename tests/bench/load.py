"""`make load`: many browser sessions at once, each with a scan of its own, beside a training run and on few cores.

Prints how long readers wait for answer and Grad-CAM, what the server's memory does, and whether any reader was shown
something of another reader's scan. Needs Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import psutil
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from medfusion import inference, router, samples, service
from medfusion.imaging import display, read_scan
from pages.ui.messages import percent, spoken
from tests.ui.browser import CHROMIUM, QUIET, ROOT

PATIENCE_MS = 900_000
BOUND = 4.0  # times one session's time × sessions / cores
ALONE = 3  # readers one after the other, for the time without a queue
SAMPLED_S = 0.5


@dataclass(frozen=True)
class Expected:
    """A scan of one reader, and what the page must say of it."""

    name: str
    content: bytes
    probabilities: str
    gradcam: str


@dataclass
class Seen:
    """What one reader met. Seconds from the upload on."""

    name: str
    answer_s: float = float("nan")
    gradcam_s: float = float("nan")
    errors: list[str] = field(default_factory=list)


def scan(number: int, side_px: int = 1000) -> bytes:
    """A fundus photograph, turned and darkened in its own way: each gives other probabilities."""
    picture = Image.open(io.BytesIO(samples.sample_bytes("fundus"))).convert("RGB")
    turned = np.asarray(picture.rotate(13.0 * number).resize((side_px, side_px)), dtype=np.float32)
    out = io.BytesIO()
    Image.fromarray((turned * (1 - 0.012 * (number % 30))).astype(np.uint8)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def expected(count: int) -> list[Expected]:
    """Computed here, one after the other, as the page should show it."""
    known, model = router.load(), service.load_model("retina")
    found = []
    for number in range(count):
        content = scan(number)
        decoded = read_scan(content)
        told = inference.predict(model, decoded, 0, known.route(display(decoded)) if known else None)
        pairs = zip(told.classes, told.probabilities, strict=True)
        target = told.classes.index(told.answers[0])
        found.append(
            Expected(
                f"reader-{number}.png",
                content,
                "; ".join(f"{spoken(name)} {percent(share)}" for name, share in pairs),
                service.describe(service.explain(model, decoded, target, "gradcam")),
            )
        )
    if len({one.probabilities for one in found}) < count:
        raise SystemExit("Two scans have the same answer, so a mixed-up case could not be seen.")
    return found


class Server:
    """The app on a free port, and the memory of it and all its processes."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = home / "server.log"
        options = ["--server.headless=true", "--server.address=127.0.0.1", f"--server.port={self.port}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamlit", "run", "app.py", *options], stdout=log, stderr=log, cwd=ROOT,
                env=os.environ | {"MEDFUSION_HOME": str(home)},
            )  # fmt: skip
        self.peak_mib, self.ended = 0.0, threading.Event()
        threading.Thread(target=self.sample, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        while self.process.poll() is None:
            try:
                with urlopen(f"{self.url}/_stcore/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.3)
        raise SystemExit(f"The server did not start:\n{self.log.read_text()[-2000:]}")

    def mib(self) -> float:
        """Resident memory; the processes that decode count, too."""
        total = 0
        for one in [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]:
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20

    def sample(self) -> None:
        while not self.ended.wait(SAMPLED_S):
            try:
                self.peak_mib = max(self.peak_mib, self.mib())
            except psutil.NoSuchProcess:
                return

    def settled_mib(self, limit_s: float) -> float:
        """The least that it holds within so many seconds."""
        least, until = self.mib(), time.monotonic() + limit_s
        while time.monotonic() < until:
            time.sleep(2)
            least = min(least, self.mib())
        return least

    def close(self) -> None:
        self.ended.set()
        self.process.terminate()
        self.process.wait(60)


async def open_page(browser: Browser, url: str, errors: list[str]) -> Page:
    context = await browser.new_context(viewport={"width": 1440, "height": 1000})
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(url)
    await page.locator("input[type=file]").first.wait_for(state="attached")
    return page


async def read(page: Page, wanted: Expected, seen: Seen) -> None:
    """Upload, wait for answer and Grad-CAM, and compare both with what belongs to this scan."""
    started = time.monotonic()
    await page.locator("input[type=file]").first.set_input_files(
        {"name": wanted.name, "mimeType": "image/png", "buffer": wanted.content}
    )
    await page.get_by_text("Answer at the operating point").wait_for()
    bars = page.locator(".st-key-bars [aria-label], .st-key-bars[aria-label]").first
    await bars.wait_for(state="attached")
    seen.answer_s = time.monotonic() - started
    told = page.locator("p", has=page.locator("strong", has_text=re.compile(r"^Grad-CAM\.$"))).first
    await told.wait_for()
    seen.gradcam_s = time.monotonic() - started
    shown = await bars.get_attribute("aria-label") or ""
    if wanted.probabilities not in shown:
        seen.errors.append(f"other probabilities: {shown!r}, not {wanted.probabilities!r}")
    sentence = (await told.inner_text()).removeprefix("Grad-CAM.").strip()
    if sentence != wanted.gradcam:
        seen.errors.append(f"other map: {sentence!r}, not {wanted.gradcam!r}")
    if not await page.get_by_role("heading", name=wanted.name).is_visible():
        seen.errors.append("another scan in view")
    if await page.locator("[data-testid=stException]").count():
        seen.errors.append("an exception on the page")


async def one_reader(browser: Browser, url: str, wanted: Expected, together: asyncio.Barrier | None = None) -> Seen:
    seen = Seen(wanted.name)
    try:
        page = await open_page(browser, url, seen.errors)
        if together:
            await together.wait()
        await read(page, wanted, seen)
        if together:
            tell(seen)
            await together.wait()  # all stay until the last has its answer
        await page.context.close()
    except Exception as error:  # whatever a browser may raise is one reader's error
        seen.errors.append(f"{type(error).__name__}: {error}"[:300])
        if together:
            await together.abort()
    return seen


def tell(seen: Seen) -> Seen:
    """Progress, for whoever waits."""
    sys.stderr.write(
        f"{seen.name}: answer {seen.answer_s:.1f} s, Grad-CAM {seen.gradcam_s:.1f} s {seen.errors or ''}\n"
    )
    return seen


async def batch(page: Page, count: int, folder: Path) -> None:
    """Many files at once, looked at, and cleared again."""
    files = [folder / f"batch-{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(scan(number, 500))
    await page.locator("input[type=file]").first.set_input_files(files)
    await page.get_by_text(f"Cases ({count})").wait_for()
    await page.get_by_text("Answer at the operating point").wait_for()
    await page.get_by_role("button", name="Clear all").click()
    await page.get_by_text("No scan at hand?").wait_for()


@contextmanager
def training(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that does not end by itself, on pictures of noise."""
    path, rng = home / "set.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(240):
            out = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(out, "PNG")
            archive.writestr(f"{'one' if number % 2 else 'other'}/{number}.png", out.getvalue())
    arguments = [
        "--data",
        str(path),
        "--out",
        str(home / "out"),
        "--runs",
        str(home / "run"),
        "--start",
        "models/foundation",
    ]
    endless = ["--epochs", "1000", "--patience", "1000"]
    with (home / "training.log").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "training", "run", *arguments, *endless], stdout=log, stderr=log, cwd=ROOT,
            env=os.environ | {"MEDFUSION_HOME": str(home)},
        )  # fmt: skip
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def write(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def row(name: str, seen: list[Seen], what: str) -> str:
    waited = [value for one in seen if (value := getattr(one, what)) == getattr(one, what)] or [float("nan")]
    errors = sum(bool(one.errors) for one in seen)
    return f"{name:<38} {len(seen):>4} {errors:>6} {statistics.median(waited):>9.1f} {percentile(waited):>9.1f}"


def percentile(waited: list[float], share: float = 0.95) -> float:
    return float(np.quantile(waited, share, method="higher"))


async def measure(options: argparse.Namespace, home: Path) -> int:
    wanted = expected(1 + ALONE + options.sessions)
    server = Server(home)
    try:
        server.wait()
        async with async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
            warm = await one_reader(browser, server.url, wanted[0])
            tell(warm)
            alone = [tell(await one_reader(browser, server.url, one)) for one in wanted[1 : 1 + ALONE]]
            before, server.peak_mib = server.settled_mib(5), 0.0
            with training(home) as run:
                await asyncio.sleep(20)  # it reads its set and begins
                together = asyncio.Barrier(options.sessions)
                readers = [one_reader(browser, server.url, one, together) for one in wanted[1 + ALONE :]]
                seen = await asyncio.gather(*readers)
                still_trains = run.poll() is None
            peak = server.peak_mib
            after = server.settled_mib(options.settle_s)
            begun, server.peak_mib = after, 0.0
            last: list[str] = []
            page = await open_page(browser, server.url, last)
            await batch(page, options.batch, home)
            batch_peak = server.peak_mib
            cleared = server.settled_mib(options.settle_s)
            await browser.close()
    finally:
        server.close()
    free_s = statistics.median(one.answer_s for one in alone)
    bound = BOUND * free_s * options.sessions / options.cores
    slowest = percentile([one.answer_s for one in seen if one.answer_s == one.answer_s] or [float("inf")])
    write(f"{'seconds from upload':<38} {'n':>4} {'errors':>6} {'median':>9} {'95th':>9}")
    write(row("answer, one reader at a time", alone, "answer_s"))
    write(row("Grad-CAM, one reader at a time", alone, "gradcam_s"))
    write(row(f"answer, {options.sessions} readers and training", seen, "answer_s"))
    write(row(f"Grad-CAM, {options.sessions} readers and training", seen, "gradcam_s"))
    share = f"{BOUND:g} x {free_s:.1f} x {options.sessions} / {options.cores}"
    write(f"bound on the 95th percentile of the answer: {share} = {bound:.1f} s")
    write(f"{'memory of the server, MiB':<38} {'before':>9} {'peak':>9} {'after':>9}")
    write(f"{f'{options.sessions} readers':<38} {before:>9.0f} {peak:>9.0f} {after:>9.0f}")
    write(f"{f'{options.batch} files at once, then cleared':<38} {begun:>9.0f} {batch_peak:>9.0f} {cleared:>9.0f}")
    for one in [warm, *alone, *seen]:
        for error in one.errors:
            write(f"{one.name}: {error}")
    if not still_trains:
        write(f"The training run ended: {(home / 'training.log').read_text()[-500:]}")
    failed = any(one.errors for one in [warm, *alone, *seen]) or bool(last) or not still_trains
    if failed or slowest > bound:
        write(f"NOT as wanted. {' '.join(last)}")
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--batch", type=int, default=200, help="files at once that are cleared again")
    parser.add_argument("--cores", type=int, default=len(psutil.Process().cpu_affinity()))
    parser.add_argument("--settle-s", type=float, default=150, help="Streamlit keeps a session for two minutes")
    options = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("There is no Chromium: install it, or name it in CHROMIUM.")
    busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    write(f"load average {busy} before on {options.cores} cores")
    with tempfile.TemporaryDirectory(prefix="medfusion-load-") as home:
        return asyncio.run(measure(options, Path(home)))


if __name__ == "__main__":
    raise SystemExit(main())
