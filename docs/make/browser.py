"""A page in Chromium, of which a picture is taken."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")


def program() -> str | None:
    """Where this machine has one that Playwright can drive."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Inside, it runs, without a window."""
    place = program()
    assert place is not None, "there is no Chromium on this machine"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=place, args=list(OPTIONS))
        yield browser
        browser.close()


@contextmanager
def opened(address: str, width: int, height: int) -> Iterator[Page]:
    """Inside, the page at an address is shown, in light colours."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        page.goto(address)
        yield page
