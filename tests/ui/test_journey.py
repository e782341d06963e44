"""One reader's way through the app in a real browser. Any error on the browser's console fails it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable

import pytest

from tests.ui.accessible import download_maps
from tests.ui.browser import in_browser

PLOT = ".st-key-evidence .js-plotly-plot"
SOURCE = "document.querySelector('.st-key-evidence .imagelayer image').getAttribute('href')"
MAPS = ".st-key-evidence .imagelayer image + image"
SCREEN = f"""([x, y]) => {{
  const box = document.querySelector({PLOT!r} + " .draglayer .xy .nsewdrag").getBoundingClientRect();
  return [box.left + x * box.width, box.top + y * box.height];
}}"""  # a place in the first panel
pytestmark = in_browser


def view_range(page) -> list[float]:  # type: ignore[no-untyped-def]
    """The part of the picture in view, left and right, of the last panel."""
    return page.evaluate(f"[...document.querySelector({PLOT!r})._fullLayout.xaxis3.range]")


def scan_source(page) -> str:  # type: ignore[no-untyped-def]
    """The picture of the scan as it is drawn."""
    return page.evaluate(SOURCE)


def test_upload_answer_both_maps_opacity_zoom_page_switch_and_a_corrupt_file(  # type: ignore[no-untyped-def]
    browser_page, png: Callable[..., bytes], bad_files: dict[str, bytes]
) -> None:
    page = browser_page
    upload = page.locator("input[type=file]").first
    upload.wait_for(state="attached")
    upload.set_input_files({"name": "Thorax-Ü.png", "mimeType": "image/png", "buffer": png(seed=5)})

    page.get_by_text("looks like none of those").wait_for()  # a disc on noise; a reader may know better
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="Pneumonia on children's chest X-rays").click()
    page.get_by_text("Answer at the operating point").wait_for()
    assert page.get_by_text("means nothing unless").is_visible()
    page.get_by_text("LIME.", exact=True).wait_for()  # its sentence comes when it is done
    page.get_by_text("Shortcuts.", exact=True).wait_for()  # the maps are tested, too
    page.wait_for_function(f"document.querySelectorAll({PLOT!r}).length == 1")
    assert page.locator(".st-key-evidence .imagelayer").count() >= 3
    assert page.locator(MAPS).count() >= 1

    page.locator(".map-controls input").fill("25")
    assert page.locator(MAPS).first.evaluate("image => getComputedStyle(image).opacity") == "0.25"

    page.locator(PLOT).scroll_into_view_if_needed()
    box = page.locator(PLOT).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.16, box["y"] + box["height"] * 0.5)
    page.mouse.wheel(0, -500)
    page.wait_for_timeout(1500)
    zoomed = view_range(page)
    assert 0 < zoomed[0] < zoomed[1] < 240  # all panels follow the first

    before = scan_source(page)
    page.get_by_text("Invert", exact=True).click()  # draws the figure anew
    page.wait_for_function("seen => " + SOURCE + " !== seen", arg=before)
    page.wait_for_timeout(1000)
    assert view_range(page) == pytest.approx(zoomed)

    before = scan_source(page)
    page.get_by_role("button", name="Drag to window").click()
    page.mouse.move(box["x"] + box["width"] * 0.16, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.16 - 80, box["y"] + box["height"] * 0.5 - 40, steps=4)
    assert float(page.locator("#window-preview feFuncR").get_attribute("slope")) > 1.1  # shown while dragging
    page.mouse.up()
    page.wait_for_function(
        "[...document.querySelectorAll('aside input, section input')].some(i => i.value == 'Custom')"
    )
    page.wait_for_timeout(1500)
    assert scan_source(page) != before
    assert view_range(page) == pytest.approx(zoomed)  # it did not pan

    page.get_by_role("button", name="Measure").click()  # takes the place of dragging the window
    start = page.evaluate(SCREEN, [0.2, 0.5])
    end = page.evaluate(SCREEN, [0.8, 0.5])
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    wide = zoomed[1] - zoomed[0]
    told = page.locator(".distances").inner_text()
    assert float(told.split()[1]) == pytest.approx(0.6 * wide, rel=0.05)  # px: a PNG knows no millimetres
    assert told.endswith(" px")
    assert page.locator(".distance-layer line.line").count() == 3  # in every panel
    assert view_range(page) == pytest.approx(zoomed)
    page.get_by_role("button", name="Measure").focus()
    for key in ("ArrowUp", "Enter", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    told_all = page.locator(".distances").inner_text()
    assert len(told_all.split(",")) == 2
    page.get_by_role("button", name="Measure").click()

    page.get_by_role("link", name="Model library").click()
    page.get_by_text("Intended use").wait_for()
    page.get_by_role("link", name="Reading these maps").click()
    page.get_by_text("In this order").wait_for()
    page.get_by_role("link", name="Analyse").click()
    page.locator(PLOT).wait_for()
    page.wait_for_timeout(1000)
    assert page.get_by_role("heading", name="Thorax-Ü.png").is_visible()
    assert page.locator(MAPS).first.evaluate("image => getComputedStyle(image).opacity") == "0.25"
    assert view_range(page) == pytest.approx(zoomed)
    assert page.locator(".distances").inner_text() == told_all
    page.get_by_role("button", name="Clear distances").click()
    assert page.locator(".distance-layer line.line").count() == 0

    files = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in bad_files.items()]
    page.locator("input[type=file]").first.set_input_files(files)
    page.get_by_text("files could not be shown").wait_for()
    assert page.get_by_role("heading", name="Thorax-Ü.png").is_visible()

    with zipfile.ZipFile(download_maps(page).path()) as archive:
        assert {"maps/gradcam.npz", "maps/lime.png", "maps/explanation.json"} <= set(archive.namelist())
        assert b"Thorax" not in archive.read("maps/explanation.json")
