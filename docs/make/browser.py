"""A page in Chromium, of which a picture is taken."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@contextmanager
def opened(address: str, width: int, height: int) -> Iterator[Page]:
    """Inside, the page at an address is shown, in light colours."""
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert place is not None, "there is no Chromium on this machine"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=place, args=list(OPTIONS))
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        page.goto(address)
        yield page
        browser.close()
