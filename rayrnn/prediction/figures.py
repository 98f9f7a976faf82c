"""Pictures of sequences that were judged: the sequence, its scores, the threshold, and events found and known.

Drawn with matplotlib, which is an extra. The colours are those of Okabe and Ito, which all kinds of sight tell apart;
what was found and what is known also differ in place and hatching.
"""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rayrnn.anomalies.intervals import Interval
from rayrnn.errors import DataError, UsageError
from rayrnn.wording import listed, path_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
#: of one command: those with the largest scores
MOST_FIGURES = 100
#: numbers of a sequence that one figure shows
MOST_LINES = 6
#: a column whose numbers take less than this part of the axis is drawn on a scale of its own, and so are the others
MOST_RANGES = 8
#: symbols that are written below their steps
MOST_SYMBOLS = 60
_INCHES = (12.0, 6.0)
#: dots an inch: 1200 pixels across
_DOTS = 100
_BLACK, _BLUE, _VERMILION = "#000000", "#0072B2", "#D55E00"
_LINES = (_BLACK, "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#999999")
_STYLE = {
    "svg.hashsalt": "rayrnn",
    "svg.fonttype": "none",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Picture:
    """What a figure shows of one sequence of S steps."""

    key: str
    #: numbers of the sequence float64 [S, C], or its symbols
    values: np.ndarray | Sequence[str]
    #: of the C numbers
    names: Sequence[str]
    #: NaN where a step has none: float64 [S]
    scores: np.ndarray
    thresholds: np.ndarray
    found: Sequence[Interval]
    #: None where nobody said what is known
    known: Sequence[Interval] | None
    #: what the scores are
    unit: str
    #: of the whole sequence, where that is judged
    verdict: str = ""


def check_plot(path: str | Path) -> None:
    """See, before anything is computed, whether figures can be drawn there.

    Raises:
        UsageError: the name ends in something else than .png or .svg, matplotlib is missing, or there are figures.
        DataError: the directory is not there.
    """
    place = path_of(path)
    if place.suffix not in SUFFIXES:
        raise UsageError(f"--plot is {path}: its name must end in {' or '.join(SUFFIXES)}")
    _figure_class()
    if not place.parent.is_dir():
        raise DataError(f"{path} cannot be written: there is no directory {place.parent}")
    there = [other.name for other in place.parent.iterdir() if _is_figure(other.name, place)]
    if there:
        raise UsageError(
            f"--plot {path}: there are figures of this name already, {listed(sorted(there), 3)}: remove them, or "
            "choose another name"
        )


def _is_figure(name: str, place: Path) -> bool:
    return name == place.name or (name.startswith(f"{place.stem}-") and name.endswith(place.suffix))


def draw(pictures: Sequence[Picture], path: str | Path) -> list[Path]:
    """One figure a sequence: at `path` where there is one sequence, else with the sequence's name before the suffix.

    Raises:
        DataError: a file cannot be written.
    """
    place, drawn, taken = path_of(path), list[Path](), set[str]()
    for picture in pictures:
        name = re.sub(r"[^\w.=+-]+", "_", picture.key) or "_"
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        file = place if len(pictures) == 1 else place.with_name(f"{place.stem}-{name}{place.suffix}")
        try:
            with importlib.import_module("matplotlib").rc_context(_STYLE):
                # without a date, so that the same picture is the same file
                nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if file.suffix == ".svg" else None
                _figure_of(picture).savefig(file, dpi=_DOTS, metadata=nothing)
        except OSError as error:
            raise DataError(f"{file} cannot be written: {error.strerror}") from None
        drawn.append(file)
    return drawn


def _figure_class() -> "type[Figure]":
    try:
        kind: type[Figure] = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install 'rayrnn[plot]'") from None
    return kind


def _figure_of(picture: Picture) -> "Figure":
    figure = _figure_class()(figsize=_INCHES, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(_plain(f"{picture.key}   {picture.verdict}".rstrip()), x=0.01, ha="left", fontweight="bold")
    _draw_values(above, picture)
    _draw_scores(below, picture)
    named: dict[str, Artist] = {}
    for axes in (above, below):
        _draw_events(axes, picture)
        named |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    above.set_xlim(-0.5, max(1, len(picture.scores)) - 0.5)
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=6, frameon=False)
    return figure


def _draw_values(axes: "Axes", picture: Picture) -> None:
    if isinstance(picture.values, np.ndarray):
        shown_SK = picture.values[:, :MOST_LINES]
        scaled = _differ_in_scale(shown_SK)
        for place, values_S in enumerate(_each_scaled(shown_SK).T if scaled else shown_SK.T):
            name = picture.names[place] if picture.names else f"number {place}"
            axes.plot(values_S, color=_LINES[place], linewidth=0.9, label=_plain(name))
        axes.set_ylabel("series, each scaled" if scaled else "series")
        return
    places = {symbol: place for place, symbol in enumerate(dict.fromkeys(picture.values))}
    axes.plot([places[symbol] for symbol in picture.values], ".", color=_BLACK, label="symbol")
    if len(places) <= MOST_SYMBOLS // 2:
        axes.set_yticks(list(places.values()), [_plain(symbol) for symbol in places], fontsize=9)
    axes.set_ylabel("symbol")


def _differ_in_scale(values_SK: np.ndarray) -> bool:
    """Whether what one column does cannot be seen on the axis of all."""
    there_SK = values_SK[np.isfinite(values_SK).all(axis=1)]
    if not len(there_SK) or values_SK.shape[1] < 2:
        return False
    ranges_K = np.ptp(there_SK, axis=0)
    return bool((ranges_K[ranges_K > 0] < np.ptp(there_SK) / MOST_RANGES).any())


def _each_scaled(values_SK: np.ndarray) -> np.ndarray:
    """Every column from 0, its lowest number, to 1."""
    lowest_K, highest_K = np.fmin.reduce(values_SK), np.fmax.reduce(values_SK)
    return np.asarray((values_SK - lowest_K) / np.where(highest_K > lowest_K, highest_K - lowest_K, 1))


def _draw_scores(axes: "Axes", picture: Picture) -> None:
    is_long = len(picture.scores) > MOST_SYMBOLS
    axes.plot(picture.scores, "-" if is_long else ".-", color=_BLUE, linewidth=0.9, label=f"score ({picture.unit})")
    if not np.isnan(picture.thresholds).all():
        axes.plot(picture.thresholds, "--", color=_BLACK, linewidth=1.2, label="threshold")
    axes.set_ylabel("score")
    axes.set_xlabel("step")


def _draw_events(axes: "Axes", picture: Picture) -> None:
    """What was found is filled over the whole height; what is known is a hatched band above what else is drawn."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + (high - low) / 10)
    for number, (start, end) in enumerate(picture.found):
        axes.axvspan(start - 0.5, end + 0.5, color=_VERMILION, alpha=0.3, linewidth=0, label="_" if number else "found")
    for number, (start, end) in enumerate(picture.known or ()):
        axes.axvspan(
            start - 0.5,
            end + 0.5,
            ymin=0.92,
            facecolor="white",
            edgecolor=_BLACK,
            hatch="/////",
            linewidth=1,
            label="_" if number else "known",
        )


def _plain(text: str) -> str:
    """The same letters where matplotlib looks for formulas."""
    return text.replace("$", r"\$")
