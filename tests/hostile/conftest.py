"""A server and a browser, as the tests of the pages have them."""

from tests.ui.browser import address, browser_page  # noqa: F401
