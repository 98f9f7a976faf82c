"""The server's page in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rayrnn.runs.directory import Run
from tests.browsers import browser
from tests.serving.commands import Started

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

#: for what a server does, on a machine that is busy, in milliseconds
PATIENCE = 60_000


@pytest.fixture
def page(browser: "Browser", server: Started) -> Iterator["Page"]:
    """The page, opened by the address that the command prints; it must not ask anything of another host."""
    opened = browser.new_page(viewport={"width": 1000, "height": 800})
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith(server.url) else faults.append(request.url))
    opened.set_default_timeout(PATIENCE)
    opened.goto(f"{server.url}/#token={server.token}")
    opened.wait_for_selector("#work:not([hidden])")
    yield opened
    assert not faults
    opened.close()


def choose(page: "Page", model: str) -> None:
    page.select_option("#model", model)


def fits(page: "Page") -> bool:
    """Whether nothing lies beyond the right edge."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_a_text_is_written_while_one_looks(page: "Page") -> None:
    choose(page, "text")
    page.fill("#prompt", "abc")
    page.fill("#length", "400")
    page.click("#write")
    page.wait_for_function("document.querySelector('#speed').textContent.startsWith('400 symbols')")
    written = page.text_content("#written") or ""
    assert written.startswith("abc")
    assert len(written) == 403
    assert "token" not in page.url


def test_writing_can_be_stopped(page: "Page") -> None:
    choose(page, "text")
    page.fill("#prompt", "abc")
    page.fill("#length", "100000")
    page.click("#write")
    page.wait_for_function("document.querySelector('#written').textContent.length > 20")
    page.click("#stop")
    page.wait_for_selector("#write:not([disabled])")
    assert 20 < len(page.text_content("#written") or "") < 100_000


def test_what_is_wrong_is_told_beside(page: "Page") -> None:
    choose(page, "text")
    page.fill("#prompt", "XYZ")
    page.click("#write")
    page.wait_for_function("document.querySelector('#error').textContent.includes(\"'X'\")")


def test_a_csv_is_drawn_with_the_probabilities_of_its_classes(page: "Page", waves: Path) -> None:
    choose(page, "kinds")
    page.set_input_files("#file", waves / "11.csv")
    page.wait_for_selector("#result .bar")
    values = [float(text) for text in page.locator("#result .bar .value").all_text_contents()]
    assert len(values) == 3
    assert sum(values) == pytest.approx(1, abs=0.01)
    assert values == sorted(values, reverse=True)
    assert page.locator("#result svg").count() == 2


def test_a_series_is_drawn_with_its_forecast_and_what_is_out_of_the_ordinary(
    page: "Page", served_runs: dict[str, Run]
) -> None:
    choose(page, "series")
    page.set_input_files("#file", Path(served_runs["series"].path).parent / "test" / "0.csv")
    page.wait_for_selector("#result .score-line")
    assert page.locator("#result .given-line").count() == 2
    assert page.locator("#result .answer-line").count() == 2
    assert page.locator("#result .threshold").count() == 1
    assert page.locator("#result .event").count() >= 3


@pytest.mark.parametrize("width", [400, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_narrow_and_wide_screens(page: "Page", waves: Path, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert fits(page)
    choose(page, "kinds")
    page.set_input_files("#file", waves / "11.csv")
    page.wait_for_selector("#result .bar")
    assert fits(page)


def test_without_the_token_the_page_asks_for_it(browser: "Browser", server: Started) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.wait_for_selector("#locked:not([hidden])")
    page.fill("#token", "wrong")
    page.click("#unlock button")
    page.wait_for_function("document.querySelector('#wrong').textContent !== ''")
    page.fill("#token", server.token or "")
    page.click("#unlock button")
    page.wait_for_selector("#work:not([hidden])")
    page.close()


def test_the_interface_is_described_on_a_page_of_its_own(page: "Page", server: Started) -> None:
    page.goto(f"{server.url}/docs")
    page.wait_for_selector("summary")
    assert "/v1/completions" in (page.text_content("#paths") or "")
    assert fits(page)
