"""Every page for everyone: WCAG 2.2 AA by axe in both themes, no mouse needed, from 360 px to 4K.

One server and one browser serve all tests here; each has a session of its own. Training, its result and promotion are
looked at in test_fine_tune_journey.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from medfusion import access, worklist
from medfusion.synthetic import chest_xray, chest_xray_dicom
from tests.ui.accessible import check, check_widths, choosing, open_page, press, reach, settle, uploader
from tests.ui.browser import in_browser, open_browser, serve
from tests.ui.browser import open_page as new_page
from tests.ui.test_fine_tune import sides_zip

FIGURE = "document.querySelector('.st-key-evidence .js-plotly-plot')"
pytestmark = in_browser


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Callable[..., object]]:
    """Opens the app in a session of its own."""
    folder = tmp_path_factory.mktemp("accessible")
    options = ["whole"] if request.config.getoption("--guide") else []
    with pytest.MonkeyPatch.context() as patch, serve(folder, *options) as address, open_browser() as browser:
        patch.setenv("MEDFUSION_HOME", str(folder / "home"))  # the records of the server are ours to read, too
        yield lambda: new_page(browser, address)


@pytest.fixture
def scans(request: pytest.FixtureRequest) -> list[dict[str, object]]:
    """Drawn chest X-rays for the worklist: one, or several different ones for the picture of the guide."""
    files = [chest_xray_dicom()]
    if request.config.getoption("--guide"):
        for seed in range(1, 5):
            dataset = dcmread(io.BytesIO(chest_xray_dicom()))
            dataset.SOPInstanceUID, dataset.PatientID = generate_uid(), f"SYNTHETIC-{seed}"
            dataset.PixelData = chest_xray(seed=seed).astype("<u2").tobytes()
            out = io.BytesIO()
            dataset.save_as(out)
            files.append(out.getvalue())
    return [{"name": f"{n}.dcm", "mimeType": "application/dicom", "buffer": file} for n, file in enumerate(files)]


def x_range(page) -> list[float]:  # type: ignore[no-untyped-def]
    return page.evaluate(f"[...{FIGURE}._fullLayout.xaxis.range]")


def test_a_scan_is_read_without_a_mouse(visit, png, shot) -> None:  # type: ignore[no-untyped-def]
    with visit() as page:
        page.get_by_role("img", name="Bone scintigram").wait_for()  # the last of the samples
        check(page, "Analyse without a scan")
        check_widths(page, "Analyse without a scan", {360: 780})
        press(page, page.locator(".st-key-sample-synthetic-chest button"))
        page.get_by_text("Shortcuts.", exact=True).wait_for()
        page.get_by_text("random maps").nth(1).wait_for()  # both maps are tested
        check(page, "Analyse")
        check_widths(page, "Analyse")
        shot(page, "analyse", 1320)

        # another class, one more map
        reach(page, page.get_by_role("combobox", name="Evidence for"))
        page.keyboard.press("ArrowDown")
        page.get_by_role("option", name="normal").wait_for()
        page.keyboard.type("normal")
        page.keyboard.press("Enter")
        page.get_by_text("Support of normal").first.wait_for()
        reach(page, page.get_by_role("button", name="Grad-CAM", exact=True))
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.get_by_text("Grad-CAM++.", exact=True).wait_for()
        page.get_by_text("random maps").nth(2).wait_for()
        settle(page)

        # opacity, and the scan alone
        opacity = page.locator(".map-controls input")
        reach(page, opacity)
        page.keyboard.press("ArrowLeft")
        assert page.locator(".map-controls output").inner_text() == "59 %"
        reach(page, page.get_by_role("button", name="Hold to see the scan alone"))
        is_shown = "getComputedStyle(document.documentElement).getPropertyValue('--map-shown')"
        page.keyboard.down("Enter")
        assert page.evaluate(is_shown) == "0"
        page.keyboard.up("Enter")
        assert page.evaluate(is_shown) == "1"

        # closer, and to the side
        press(page, page.get_by_role("button", name="Zoom in"))
        page.wait_for_function(f"{FIGURE}._fullLayout.xaxis.range[0] > 100")
        before = x_range(page)
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"{FIGURE}._fullLayout.xaxis.range[0] > {before[0] + 10}")

        # one more scan, and from case to case
        page.locator("[data-testid=stSkipToContent]").evaluate("link => link.focus()")  # the top of the page
        with choosing(page, uploader(page)) as files:
            files.append({"name": "other.png", "mimeType": "image/png", "buffer": png(seed=3)})
        page.get_by_role("heading", name="other.png").wait_for()
        check(page, "A scan that no model knows")
        page.keyboard.press("p")
        page.get_by_role("heading", name="Synthetic chest X-ray").wait_for()


def test_the_worklist_is_read_without_a_mouse(visit, shot, scans) -> None:  # type: ignore[no-untyped-def]
    with visit() as page:
        open_page(page, "Worklist")
        page.get_by_text("Answered scans stand here").wait_for()
        check(page, "Worklist without cases")
        with choosing(page, uploader(page)) as files:
            files += scans
            files.append({"name": "letter.png", "mimeType": "image/png", "buffer": b"A letter, not a picture.\n" * 20})
        page.get_by_text("1 file could not be shown.").wait_for()
        page.get_by_text(f"Answered ({len(scans)})").wait_for()
        page.get_by_text("Answering in the background").wait_for(state="detached")
        check(page, "Worklist")
        check_widths(page, "Worklist")
        press(page, page.get_by_role("button", name="Dismiss"))
        page.get_by_text("1 file could not be shown.").wait_for(state="detached")
        shot(page, "worklist", 720)
        reach(page, page.locator("[data-testid=data-grid-canvas]"))
        for key in ("ArrowDown", "Shift+Space"):  # the first row
            page.keyboard.press(key)
        press(page, page.get_by_role("button", name="Read this case"))
        page.get_by_role("heading", name="Case").wait_for()
        page.get_by_text("random maps").nth(1).wait_for()
        press(page, page.locator("summary").filter(has_text="Your reading"))
        page.get_by_text("This case shows").wait_for()
        check(page, "A case of the worklist")
        press(page, page.get_by_role("button", name="Keep my reading"))
        page.get_by_text("Kept.", exact=True).wait_for()
        assert [one.label for one in worklist.entries() if one.label]


def test_a_set_is_checked_and_settings_chosen_without_a_mouse(visit, shot) -> None:  # type: ignore[no-untyped-def]
    with visit() as page:
        open_page(page, "Fine-tune")
        page.get_by_text("Bring labelled cases").wait_for()
        check(page, "Data")
        with choosing(page, uploader(page)) as files:
            files.append({"name": "sides.zip", "mimeType": "application/zip", "buffer": sides_zip(copies=2)})
        page.get_by_text("2 pictures are there more than once").first.wait_for()
        check(page, "Check with something to mend")
        press(page, page.get_by_role("button", name="Leave 2 pictures out"))
        page.get_by_text("Fit to train on").wait_for()
        check(page, "Check")
        check_widths(page, "Check", {360: 780, 3840: 2160})
        press(page, page.get_by_role("button", name="Go on to the settings"))
        page.get_by_text("Start from which model?").wait_for()
        shot(page, "settings", 760)
        press(page, page.locator("summary").filter(has_text="Advanced settings"))
        page.get_by_text("Label smoothing").wait_for()
        check(page, "Settings")
        check_widths(page, "Settings", {360: 780, 768: 1024})
        reach(page, page.get_by_role("button", name="Start training"))


@pytest.mark.parametrize(
    ("name", "until"),
    [
        ("Model library", "Take it elsewhere"),
        ("System", "What the scorer wrote"),
        ("Reading these maps", "In this order"),
    ],
)
def test_pages_to_look_things_up(visit, shot, name: str, until: str) -> None:  # type: ignore[no-untyped-def]
    with visit() as page:
        open_page(page, name)
        page.get_by_text(until).wait_for()
        if name == "System":
            press(page, page.get_by_role("button", name="Run all"))
            page.get_by_text("answers in").wait_for()
        shot(page, name.replace("these ", "").replace(" ", "-").lower())
        check(page, name)
        check_widths(page, name, {360: 780, 768: 1024, 3840: 2160})


def test_signing_in_without_a_mouse(visit, shot) -> None:  # type: ignore[no-untyped-def]
    with accounts({"anna": access.READER}), visit() as page:
        page.get_by_role("heading", name="Sign in").wait_for()
        check(page, "Signing in")
        shot(page, "sign-in", 560)
        check_widths(page, "Signing in", {360: 780, 3840: 2160})
        reach(page, page.get_by_role("textbox", name="Name"))
        page.keyboard.type("anna")
        reach(page, page.get_by_role("textbox", name="Password"))
        page.keyboard.type("correct horse battery")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Analyse a scan").wait_for()
        press(page, page.get_by_role("button", name="Sign out"))
        page.get_by_role("heading", name="Sign in").wait_for()


@contextmanager
def accounts(roles: dict[str, str]) -> Iterator[None]:
    """Only while the block runs, for other tests know no accounts."""
    for name, role in roles.items():
        access.keep(name, role, "correct horse battery")
    yield
    for name in roles:
        access.remove(name)
