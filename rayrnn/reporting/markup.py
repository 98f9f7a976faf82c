"""HTML from values: everything that is not ours is escaped, and no element has a script or an address elsewhere."""

import base64
import html
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NewType

#: well-formed HTML; whatever else a page shows is escaped first
Markup = NewType("Markup", str)

NOTHING = Markup("")
#: what stands where there is no number
ABSENT = "\N{EN DASH}"
#: what only HTML's end of a line may do, and nobody sees
_UNSEEN = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "�")


def escaped(text: object) -> Markup:
    """The text letter by letter; what no page may hold is replaced."""
    words = str(text).encode("utf-8", errors="replace").decode().translate(_UNSEEN)
    return Markup(html.escape(words))


def element(name: str, *content: Markup, **attributes: object) -> Markup:
    """`<name a="b">content</name>`; an attribute that is None is left out, `class_` is `class`."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = "".join(f' {key}="{escaped(value)}"' for key, value in given.items())
    return Markup(f"<{name}{inside}>{''.join(content)}</{name}>")


def joined(parts: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("".join(parts))


def paragraph(text: str, *, class_: str | None = None) -> Markup:
    """A sentence or several; what stands between backticks is code."""
    parts = text.split("`")
    if not len(parts) % 2:  # one of them is alone
        return element("p", escaped(text), class_=class_)
    shown = (element("code", escaped(part)) if place % 2 else escaped(part) for place, part in enumerate(parts))
    return element("p", *shown, class_=class_)


def section(title: str, *content: Markup, id_: str) -> Markup:
    """A part of a page; nothing where all of it is empty."""
    return element("section", element("h2", escaped(title)), *content, id_=id_) if any(content) else NOTHING


def facts(rows: dict[str, str]) -> Markup:
    """Names and what they stand for, one under the other."""
    pairs = (joined((element("dt", escaped(name)), element("dd", escaped(value)))) for name, value in rows.items())
    return element("dl", *pairs) if rows else NOTHING


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, words: int = 1, caption: str = "") -> Markup:
    """A table that scrolls by itself where it is wide.

    Args:
        words: so many columns, from the left, are words; the others are numbers and stand to the right.
    """
    titles = (element("th", escaped(name), class_=_kind(place, words), scope="col") for place, name in enumerate(head))
    lines = (
        element("tr", *(element("td", _cell(value), class_=_kind(place, words)) for place, value in enumerate(row)))
        for row in rows
    )
    title = element("caption", escaped(caption)) if caption else NOTHING
    whole = element("table", title, element("thead", element("tr", *titles)), element("tbody", *lines))
    return element("div", whole, class_="scroll")


def _kind(place: int, words: int) -> str | None:
    return None if place < words else "number"


def _cell(value: object) -> Markup:
    return escaped(ABSENT if value is None else value)


def shortened(text: str, most: int) -> str:
    """The text, or so many characters of it and how many more there are."""
    return text if len(text) <= most else f"{text[:most]} … and {len(text) - most:,} characters more"


def count(value: float) -> str:
    """A whole number, its thousands apart: `1,234`."""
    return f"{value:,.0f}" if math.isfinite(value) else ABSENT


def number(value: float | None, digits: int = 4) -> str:
    """So many digits that count, without an exponent where people read none: `0.08476`, `1,234`, `1.2e-07`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits - 1}e}"
    whole = len(f"{abs(value):.0f}") if abs(value) >= 1 else 1 + (math.floor(math.log10(abs(value))) if value else 0)
    return f"{value:,.{max(0, digits - whole)}f}"


def share(value: float | None) -> str:
    """`12.3 %`."""
    return ABSENT if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def picture(png: bytes, *, title: str) -> Markup:
    """An image that the page itself holds."""
    data = base64.b64encode(png).decode("ascii")
    return Markup(f'<img src="data:image/png;base64,{data}" alt="{escaped(title)}">')


def stylesheet() -> Markup:
    """The look of every page and figure, in light and dark, on a screen and on paper."""
    style = files("rayrnn.reporting").joinpath("style.css").read_text(encoding="utf-8")
    return Markup(f"<style>{style}</style>")


def figure_alone(*content: Markup) -> Markup:
    """A part of a page by itself, with its look, as a notebook shows it."""
    return joined((stylesheet(), element("div", *content, class_="rayrnn card")))
