"""A page as a browser shows it, in light and dark, wide and narrow, and on paper."""

from pathlib import Path
from typing import Any

import pytest

from rayrnn.reporting.report import write_report
from tests.browsers import browser
from tests.reporting.pages import line, worker_round, written
from tests.training.recipes import small

__all__ = ["browser"]

#: of what is drawn
FLAT = """[...document.querySelectorAll('.plot path.curve, .plot path.bar, .plot path.range')].filter(
    drawn => drawn.getBoundingClientRect().height < 1 || drawn.getBoundingClientRect().width < 1).length"""
DRAWN = "document.querySelectorAll('.plot path.curve, .plot path.bar, .plot path.range').length"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: words of axes that lie over one another
OVERLAPPING = """[...document.querySelectorAll('.plot')].flatMap(plot => ['x', 'y', 'unit'].flatMap(kind =>
    [...plot.querySelectorAll(`.${kind === 'unit' ? 'x' : kind}, .${kind}`)].map(one => one.getBoundingClientRect())
    .filter((one, place, all) => all.some((other, beside) => beside > place && one.left < other.right &&
    other.left < one.right && one.top < other.bottom && other.top < one.bottom)))).length"""
LUMINANCE = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run with all that a run can have, and three beside one another."""
    folder = tmp_path_factory.mktemp("pages")
    lost = {"kind": "lost", "worker": 1, "reason": "killed", "detail": "its process ended by signal 9", "time": 0.0}
    joined = {"kind": "joined", "worker": 1, "seconds": 8.25, "time": 0.0}
    lines = []
    for number in range(1, 41):
        more: dict[str, Any] = {"session": {"time": 1.8e9, "versions": {"rayrnn": "0.1.0"}}} if number == 1 else {}
        if number % 4 == 0:
            more["held_out_loss"] = 2.2 / number + 0.6
            layers = ((f"layers.{layer}.recurrence", 4.0 + layer + number / 50) for layer in range(4))
            more["layers"] = [{"name": name, "parameters": norm, "update": norm / number} for name, norm in layers]
        more |= {"membership": [lost]} if number == 12 else {"membership": [joined]} if number == 17 else {}
        there = (0,) if 12 <= number < 17 else (0, 1)
        parts = [
            worker_round(one, steps=900 + 40 * ((number + one) % 5), averaging=0.1 + 0.01 * (number % 7))
            for one in there
        ]
        lines.append(line(number, *there, **more, learning_rate=0.01 / number, workers=parts))
    recipe = small(averaging={"rounds": 40})
    runs = [written(folder / name, lines[:count], recipe) for name, count in (("one", 40), ("two", 30), ("three", 20))]
    write_report(runs[:1], folder / "one.html", answers=False)
    write_report(runs, folder / "several.html", answers=False)
    return {"one": folder / "one.html", "several": folder / "several.html"}


@pytest.mark.parametrize("name", ["one", "several"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 400])
def test_a_page_shows_everything_in_its_width(
    browser: Any, pages: dict[str, Path], name: str, scheme: str, width: int, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    assert said == []
    assert asked == [pages[name].as_uri()], "nothing is fetched beside the page"
    assert page.evaluate(OVERFLOW) == 0
    assert page.evaluate(DRAWN) >= 8
    assert page.evaluate(FLAT) == 0, "every curve has a height and a width"
    assert page.evaluate(OVERLAPPING) == 0, "no word of an axis lies on another"
    assert (page.evaluate(LUMINANCE) > 128) == (scheme == "light")
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 10_000
    page.close()


def test_a_page_is_printed_dark_on_white(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(pages["one"].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(LUMINANCE) == 255
    assert page.pdf()[:5] == b"%PDF-"
    page.close()
