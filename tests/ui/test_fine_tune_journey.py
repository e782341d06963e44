"""Fine-tuning in a real browser: a zip in, training watched, the result read, the model promoted and used."""

from __future__ import annotations

from tests.ui.accessible import check, check_widths, press, settle
from tests.ui.browser import in_browser
from tests.ui.test_fine_tune import SMALL, sides_zip
from training.finish import About
from training.plan import Plan

pytestmark = in_browser


def test_from_a_zip_to_a_model_in_use(browser_page, shot) -> None:  # type: ignore[no-untyped-def]
    page = browser_page
    page.get_by_role("link", name="Fine-tune").click()
    page.get_by_text("Bring labelled cases").wait_for()
    hostile = {"name": "letters.zip", "mimeType": "application/zip", "buffer": b"A letter, no zip."}
    page.locator("input[type=file]").set_input_files(hostile)
    page.get_by_text("neither a folder nor a readable zip file").wait_for()

    file = {"name": "Fälle.zip", "mimeType": "application/zip", "buffer": sides_zip(copies=2)}
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("2 pictures are there more than once").first.wait_for()
    page.get_by_role("button", name="Leave 2 pictures out").click()
    page.get_by_text("Fit to train on").wait_for()
    page.get_by_role("button", name="Go on to the settings").click()

    page.get_by_role("button", name="Load settings").click()
    plan = Plan("sides", SMALL, About("Sides"))
    settings = {"name": "plan.json", "mimeType": "application/json", "buffer": plan.as_json().encode()}
    page.locator("input[type=file]").set_input_files(settings)
    page.get_by_text("The loaded settings replace both").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Start training").click()

    page.get_by_text("Curves begin after the first epoch").or_(page.get_by_text("What it looks at")).first.wait_for()
    page.get_by_text("What it looks at after epoch 3").wait_for()
    page.goto(page.url.removesuffix("fine_tune"))  # the run does not need the page
    page.get_by_role("link", name="Fine-tune").click()
    page.get_by_role("button", name="See the result").wait_for()
    shot(page, "training", 1100)
    check(page, "Training")
    check_widths(page, "Training", {360: 780})
    press(page, page.get_by_role("button", name="See the result"))
    page.get_by_text("held-out cases that nothing was chosen by").wait_for()
    page.get_by_text("Reliability", exact=True).wait_for()
    shot(page, "result", 1400)
    check(page, "Result")
    check_widths(page, "Result", {360: 780, 768: 1024})
    press(page, page.get_by_role("button", name="Go on to promotion"))

    promote = page.get_by_role("button", name="Promote", exact=True)
    promote.wait_for()
    check(page, "Promotion")
    shot(page, "promotion", 900)
    reason = page.get_by_role("textbox", name="Promote all the same? Write down why.")
    reason.or_(page.get_by_text("Nothing speaks against it")).first.wait_for()
    if reason.count():  # three epochs may not be enough to beat guessing
        reason.fill("A test of the way, not of the model.")
        reason.press("Control+Enter")
        page.wait_for_timeout(1000)
    press(page, promote)
    page.get_by_text("is in use: on the Analyse page").wait_for()
    page.get_by_role("link", name="Model library").click()
    page.get_by_role("heading", name="Model library").wait_for()
    settle(page)  # a page that is still being drawn closes its lists
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="Sides").wait_for()
