"""Whether a page suits everyone: axe's rules in both themes, widths, and a keyboard in place of a mouse."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import TimeoutError

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
STREAMLITS = {  # best practices, not of WCAG, that Streamlit's own markup breaks, where no theme or style sheet reaches
    # <section role="presentation" aria-label="…"> around the button of st.file_uploader, whose button and input have
    # names and are reached by the keyboard.
    "presentation-role-conflict": "stFileUploader",
    # st.toast names a heading that it does not have. Its words are read out; on a busy machine it is still there.
    "aria-dialog-name": "stToast",
}
THEMES = ("light", "dark")
WIDTHS = {360: 780, 768: 1024, 1440: 1000, 1920: 1080, 3840: 2160}  # px, and heights that go with them
STOPS = 150  # Tab presses after which a control counts as out of reach
IS_DONE = """document.querySelector("[data-testid=stApp]")?.dataset.testScriptState === "notRunning" """
IS_IN_THEME = """theme => getComputedStyle(document.querySelector("[data-testid=stApp]")).colorScheme === theme"""
# Where the focus is: hidden inputs of switches show it on their label, the cells of a table on its frame.
SHOWS_FOCUS = """() => {
    const at = document.activeElement;
    if (at === document.body) return true; // past the last control
    const bearers = [at, at.closest("label"), at.closest("[data-testid=stDataFrame]"), at.parentElement];
    const outlined = bearers.some(one => one && parseFloat(getComputedStyle(one).outlineWidth) >= 2
        && getComputedStyle(one).outlineStyle !== "none");
    const seen = at.tagName === "CANVAS" || at.tagName === "MAIN" || bearers.some(one => {
        const box = one?.getBoundingClientRect();
        return box && box.width > 1 && box.bottom > 0 && box.top < innerHeight;
    });
    return outlined && seen || `${at.outerHTML.slice(0, 200)}: ${outlined ? "out of view" : "no outline"}`;
}"""
# What is wider than its place: the page itself, and elements whose words are cut off. Lists of cells and logs scroll by
# themselves, as do the single-line fields that one types into.
CUT_OFF = """() => {
    const main = document.querySelector("[data-testid=stMain]");
    const own = "[data-testid=stDataFrame], .js-plotly-plot, pre, input, textarea";
    const isCut = one => ["hidden", "clip", "auto", "scroll"].includes(getComputedStyle(one).overflowX)
        && one.clientWidth > 2 && one.scrollWidth > one.clientWidth + 1 && one.innerText?.trim() && !one.closest(own);
    const wide = [document.documentElement, main].filter(one => one.scrollWidth > one.clientWidth);
    return [...wide, ...[...main.querySelectorAll("*")].filter(isCut)].map(one =>
        `${one.tagName} ${one.dataset.testid ?? ""} ${one.scrollWidth} > ${one.clientWidth}: ${one.innerText}`);
}"""


def settle(page: Any) -> None:
    """Wait until the page is drawn and nothing more comes."""
    page.wait_for_function(IS_DONE)
    page.wait_for_timeout(400)  # a component may ask for one more drawing
    page.wait_for_function(IS_DONE)


def insist(page: Any, press: Callable[[], object], found: Any) -> None:
    """Press until what comes of it is there: while a page is drawn anew, it may miss a press, or a file."""
    for _ in range(20):
        settle(page)
        press()
        with suppress(TimeoutError):
            return found.first.wait_for(timeout=30_000)
    raise AssertionError(f"There is no {found}.")


def download_maps(page: Any) -> Any:
    """The zip of Analyse, as Playwright hands it over. While the page is drawn, what moves up stands on it twice."""
    packed = page.get_by_role("button", name="Download maps.zip")
    insist(page, page.get_by_role("button", name="Save maps and report").last.click, packed)
    settle(page)
    with page.expect_download() as download:
        packed.last.click()
    return download.value


def check(page: Any, what: str) -> None:
    """Fail with what axe finds in either theme. The page is left in the light one."""
    settle(page)
    found = []
    for theme in reversed(THEMES):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(IS_IN_THEME, arg=theme)
        page.wait_for_timeout(300)  # colours fade over
        settle(page)
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE)
        options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
        for one in page.evaluate(f"axe.run(document, {json.dumps(options)})")["violations"]:
            theirs = STREAMLITS.get(one["id"])
            ours = [node for node in one["nodes"] if theirs is None or theirs not in node["html"]]
            where = [f"{node['html'][:200]}\n    {node['failureSummary']}" for node in ours[:3]]
            if ours:
                found.append("\n  ".join([f"{what}, {theme}: {one['id']}, {one['help']}", *where]))
    assert not found, "\n".join(found)


def check_widths(page: Any, what: str, widths: dict[int, int] = WIDTHS) -> None:
    """Fail where a width of the window makes the page scroll sideways or cuts words off. The window keeps its size."""
    before = page.viewport_size
    found = {}
    for width, height in widths.items():
        page.set_viewport_size({"width": width, "height": height})
        settle(page)
        page.wait_for_timeout(300)  # Plotly fits its figure
        found[width] = page.evaluate(CUT_OFF)
    page.set_viewport_size(before)
    settle(page)
    assert not any(found.values()), (what, found)


def reach(page: Any, control: Any) -> None:
    """Press Tab until the control has the focus, which must be seen all the way."""
    control.wait_for(state="attached")
    for _ in range(STOPS):
        if control.evaluate("one => one === document.activeElement"):
            return
        page.keyboard.press("Tab")
        shown = page.evaluate(SHOWS_FOCUS)
        assert shown is True, shown
    raise AssertionError(f"{STOPS} times Tab do not lead to {control}")


def press(page: Any, control: Any, key: str = "Enter") -> None:
    reach(page, control)
    page.keyboard.press(key)


def uploader(page: Any) -> Any:
    """The button of the first uploader on the page."""
    return page.locator("[data-testid=stFileUploaderDropzone] button").first


def open_page(page: Any, name: str) -> None:
    """By its link at the top."""
    settle(page)
    press(page, page.get_by_role("link", name=re.compile(rf"{name}$")))


@contextmanager
def choosing(page: Any, control: Any) -> Iterator[list[Any]]:
    """Open the system's dialogue for files by the keyboard, and hand over what the block puts into the list."""
    files: list[Any] = []
    yield files
    settle(page)  # what is chosen while the page is drawn anew may be lost
    with page.expect_file_chooser() as chooser:
        press(page, control)
    chooser.value.set_files(files)
