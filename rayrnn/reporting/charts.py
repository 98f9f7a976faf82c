"""Charts as HTML: curves and areas are inline SVG that stretches, words beside it are text that keeps its size.

A curve of many points is thinned out: of every stretch of it stay the first, the lowest, the highest and the last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayrnn.reporting.markup import NOTHING, Markup, element, escaped, joined, number

#: stretches of a curve of which four points are drawn at most
STRETCHES = 300
#: of the drawing's own coordinates, which the browser stretches
WIDTH, HEIGHT = 1000.0, 100.0
COLOURS, DASHES = 8, 4
#: values from the lowest to the highest that differ by more are drawn on a logarithmic scale
LINEAR_RANGE = 100.0
#: beyond, a loss is as good as infinite, and would flatten all others
HIGHEST = 1e300


@dataclass(frozen=True)
class Curve:
    """Points in the order of x; where y is not finite there is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    #: which colour and dashes; curves of one chart differ in both
    style: int = 0
    thin: bool = False
    #: the point that is marked
    best: int | None = None
    #: around the curve, an area from the lower to the higher
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Scale:
    """One axis: what is drawn at which part of its length."""

    low: float
    high: float
    logarithmic: bool = False

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """From 0 to 1."""
        shown = np.asarray(values, np.float64)
        if self.logarithmic:
            low, high = math.log10(self.low), math.log10(self.high)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray((np.log10(shown) - low) / (high - low))
        return np.asarray((shown - self.low) / (self.high - self.low))

    def ticks(self, most: int) -> list[float]:
        """Round values, at most so many."""
        if not self.logarithmic:
            return round_values(self.low, self.high, most=most)
        powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        if len(powers) < 2:
            return [self.low, self.high]
        return [10.0**power for power in powers][:: -(-len(powers) // most)]


def chart(
    curves: Sequence[Curve],
    *,
    title: str,
    caption: str = "",
    x_unit: str = "round",
    from_zero: bool = False,
    may_be_logarithmic: bool = False,
    tall: bool = False,
) -> Markup:
    """Curves over one another, with axes, and a legend where there is more than one; nothing without a point.

    Args:
        from_zero: the y axis begins at 0.
        may_be_logarithmic: where the values are far apart.
    """
    curves = [curve for curve in curves if np.isfinite(_known(curve.y)).any()]
    if not curves:
        return NOTHING
    across = scale_of([_known(curve.x) for curve in curves], padding=0.0)
    values = [_known(other) for curve in curves for other in (curve.y, curve.low, curve.high) if other is not None]
    up = scale_of(values, from_zero=from_zero, may_be_logarithmic=may_be_logarithmic)
    lines = (_line(curve, across, up, dashed=len(curves) > 1) for curve in curves)
    drawn = joined((*(_area(curve, across, up) for curve in curves), *lines))
    marks = joined(_mark(curve, across, up) for curve in curves)
    words = f"{caption} Logarithmic scale.".strip() if up.logarithmic else caption
    return figure(
        title,
        legend(curves),
        plot(drawn, across, up, marks=marks, x_unit=x_unit, kind="tall" if tall else ""),
        caption=words,
    )


def figure(title: str, *content: Markup, caption: str = "") -> Markup:
    below = element("figcaption", escaped(caption)) if caption else NOTHING
    return element("figure", element("h3", escaped(title)), *content, below)


def plot(
    drawn: Markup,
    across: Scale,
    up: Scale,
    *,
    marks: Markup = NOTHING,
    x_unit: str = "",
    kind: str = "",
    pixels: int | None = None,
) -> Markup:
    """What is drawn, over a grid, beside its axes.

    Args:
        kind: `tall`, or another that the stylesheet knows.
        pixels: of its height; without it what the stylesheet says.
    """
    rows = up.ticks(6)
    lines = joined(
        element("path", class_="grid", d=f"M0 {_y(up, value):.2f}H{WIDTH:.0f}") for value in rows if value != up.low
    )
    base = element("path", class_="base", d=f"M0 {HEIGHT:.0f}H{WIDTH:.0f}")
    svg = element(
        "svg",
        lines,
        base,
        drawn,
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    columns = across.ticks(6)
    # the last of them gives its room to the unit, which needs less of a wide plot
    room = 0.85 if kind == "tall" else 0.78
    columns = [value for value in columns if not x_unit or across.place(value) < room]
    columns = [value for value in columns if x_unit != "round" or value == int(value)]
    at_x = joined(_word("x", f"left:{100 * across.place(value):.2f}%", tick(value, columns)) for value in columns)
    at_y = joined(_word("y", f"bottom:{100 * up.place(value):.2f}%", tick(value, rows)) for value in rows)
    unit = element("span", escaped(x_unit), class_="unit") if x_unit else NOTHING
    height = None if pixels is None else f"height:{pixels}px"
    return element("div", svg, at_x, at_y, unit, marks, class_=f"plot {kind}".rstrip(), style=height)


def legend(curves: Sequence[Curve]) -> Markup:
    """Which curve is which; nothing where there is only one."""
    if len(curves) < 2:
        return NOTHING
    return element("ul", *(element("li", _swatch(curve), escaped(curve.name)) for curve in curves), class_="legend")


def scale_of(
    values: Sequence[np.ndarray],
    *,
    padding: float = 0.04,
    from_zero: bool = False,
    may_be_logarithmic: bool = False,
) -> Scale:
    """An axis on which all finite values have room."""
    together = np.concatenate(values)
    finite = together[np.isfinite(together)]
    if not len(finite):
        return Scale(0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if may_be_logarithmic and low > 0 and high / low > LINEAR_RANGE:
        return Scale(low, high, logarithmic=True)
    if from_zero:
        low, high = min(0.0, low), max(0.0, high)
        return Scale(low, high * (1 + padding) if high > 0 else 1.0)
    span = high - low
    if span <= 1e-12 * max(abs(low), abs(high)) or span == 0:
        room = abs(low) * 0.1 or 1.0
        return Scale(low - room, high + room)
    return Scale(low - padding * span, high + padding * span)


def thinned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The places of the points that are drawn: extremes stay, and so do the ends of gaps."""
    if len(x) <= 4 * STRETCHES:
        return np.arange(len(x))
    places = set[int]()
    for stretch in np.array_split(np.arange(len(x)), STRETCHES):
        finite = stretch[np.isfinite(y[stretch])]
        places |= {int(stretch[0]), int(stretch[-1])}
        if len(finite):
            places |= {int(finite[np.argmin(y[finite])]), int(finite[np.argmax(y[finite])])}
        if len(finite) < len(stretch):
            places.add(int(stretch[np.argmin(np.isfinite(y[stretch]))]))
    return np.array(sorted(places))


def round_values(lowest: float, highest: float, *, most: int) -> list[float]:
    """At most so many multiples of 1, 2 or 5 times a power of ten, between two values."""
    span = highest - lowest
    if not 1e-300 < span < math.inf:  # no power of ten is smaller
        return [lowest]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most - 1)
    first, last = math.ceil(lowest / step - 1e-9), math.floor(highest / step + 1e-9)
    return [round(place * step, 12) if step > 1e-9 else place * step for place in range(first, last + 1)]


def tick(value: float, beside: Sequence[float]) -> str:
    """A value on an axis, with as many digits as tell it from its neighbours."""
    gaps = [abs(other - value) for other in beside if other != value]
    gap = min(gaps, default=0.0)
    if value and (abs(value) >= 1e7 or abs(value) < 1e-4):
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    if gap <= 0 or gap > abs(value) * 2:
        return number(value, 3).rstrip("0").rstrip(".") if "." in number(value, 3) else number(value, 3)
    return f"{value:,.{max(0, -math.floor(math.log10(gap) + 1e-9))}f}"


def style_of(style: int) -> str:
    """The classes of a colour, and of dashes that change with it."""
    dashes = style // COLOURS + style
    return f"k{style % COLOURS} d{dashes % DASHES}"


def _line(curve: Curve, across: Scale, up: Scale, *, dashed: bool) -> Markup:
    look = style_of(curve.style) if dashed else f"k{curve.style % COLOURS}"
    kinds = f"curve {look}" + (" thin" if curve.thin else "")
    points = _points(curve.x, curve.y, across, up)
    return element("path", element("title", escaped(curve.name)), class_=kinds, d=points) if points else NOTHING


def _area(curve: Curve, across: Scale, up: Scale) -> Markup:
    if curve.low is None or curve.high is None:
        return NOTHING
    x, low, high = _known(curve.x), _known(curve.low), _known(curve.high)
    there = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[there], low[there], high[there]
    keep = np.union1d(thinned(x, low), thinned(x, high)).astype(np.int64) if len(x) else np.arange(0)
    if len(keep) < 2:
        return NOTHING
    there_and_back = np.concatenate([x[keep], x[keep][::-1]]), np.concatenate([high[keep], low[keep][::-1]])
    corners = zip(across.place(there_and_back[0]) * WIDTH, (1 - up.place(there_and_back[1])) * HEIGHT, strict=True)
    way = "L".join(f"{left:.1f} {top:.2f}" for left, top in corners)
    return element("path", class_=f"range {style_of(curve.style)}", d=f"M{way}Z")


def _points(x: Sequence[float], y: Sequence[float], across: Scale, up: Scale) -> str:
    """`M`s begin after gaps; a point without neighbours is a dot."""
    known_x, known_y = _known(x), _known(y)
    keep = thinned(known_x, known_y)
    lefts = across.place(known_x[keep]) * WIDTH
    tops = (1 - up.place(known_y[keep])) * HEIGHT
    parts, open_ = list[str](), False
    for left, top in zip(lefts, tops, strict=True):
        if not (math.isfinite(left) and math.isfinite(top)):
            open_ = False
            continue
        parts.append(f"{'L' if open_ else 'M'}{left:.1f} {top:.2f}{'' if open_ else 'h0'}")
        open_ = True
    return "".join(parts)


def _mark(curve: Curve, across: Scale, up: Scale) -> Markup:
    if curve.best is None:
        return NOTHING
    left, bottom = float(across.place(curve.x[curve.best])), float(up.place(curve.y[curve.best]))
    where = f"left:{100 * left:.2f}%;bottom:{100 * bottom:.2f}%"
    return element("span", class_=f"mark k{curve.style % COLOURS}", style=where, title=f"{curve.name}: best")


def _swatch(curve: Curve) -> Markup:
    line = element("path", class_=f"curve {style_of(curve.style)}", d="M0 4H26")
    return element("svg", line, viewBox="0 0 26 8", aria_hidden="true")


def _word(kind: str, where: str, text: str) -> Markup:
    return element("span", escaped(text), class_=kind, style=where)


def _y(up: Scale, value: float) -> float:
    return float((1 - up.place(value)) * HEIGHT)


def _known(values: Sequence[float]) -> np.ndarray:
    """None and what is beyond all measure are gaps."""
    found = np.array([math.nan if value is None else value for value in values], np.float64)
    return np.where(np.abs(found) < HIGHEST, found, math.nan)
