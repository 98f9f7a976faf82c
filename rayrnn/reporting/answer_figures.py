"""What a network answers, as tables and figures: confusions, classes, numbers against the truth, texts.

N answers, V numbers of each.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rayrnn.reporting.charts import HEIGHT, WIDTH, Scale, figure, plot, scale_of
from rayrnn.reporting.markup import (
    NOTHING,
    Markup,
    count,
    element,
    escaped,
    joined,
    number,
    paragraph,
    share,
    shortened,
    table,
)

#: classes that a confusion matrix has room for; of more, the largest errors are told
MATRIX_CLASSES = 24
LARGEST_ERRORS = 20
#: rows of a table of classes
MOST_CLASSES = 60
#: numbers of an answer that are drawn, points of one drawing, and bars
MOST_NUMBERS = 6
MOST_POINTS = 1500
BARS = 41
#: characters of a text
MOST_CHARACTERS = 500
#: of a colour, so that words over it stay readable
_DARKEST = 0.55


@dataclass(frozen=True)
class Numbers:
    """Some of a network's numbers beside the true ones, in the data's own units; NaN where there is no truth."""

    #: float64 [N, V]
    answers: np.ndarray
    truths: np.ndarray
    #: of all answers, of which these are some
    total: int
    #: of the V numbers; empty where they have none
    names: Sequence[str]


@dataclass(frozen=True)
class SetCounts:
    """How often each class was rightly said to apply, wrongly, and wrongly not: V each."""

    hits: Sequence[int]
    false_alarms: Sequence[int]
    misses: Sequence[int]


@dataclass(frozen=True)
class Example:
    """One answer beside its truth."""

    key: str
    #: empty where what was read is no text
    given: str
    answer: str
    truth: str


def confusions(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    """A confusion matrix, or its largest errors; and how well each class is found."""
    counts = np.array(matrix, np.int64)
    shown = _matrix(classes, counts) if len(classes) <= MATRIX_CLASSES else _largest_errors(classes, counts)
    hits = np.diag(counts)
    found = SetCounts(hits.tolist(), (counts.sum(0) - hits).tolist(), (counts.sum(1) - hits).tolist())
    return joined((shown, by_class(classes, found)))


def by_class(classes: Sequence[str], found: SetCounts) -> Markup:
    """Precision, recall and F1 of every class; of many, the hardest."""
    rows = []
    for name, hits, false, missed in zip(classes, found.hits, found.false_alarms, found.misses, strict=True):
        precision, recall = _ratio(hits, hits + false), _ratio(hits, hits + missed)
        f1 = _ratio(2 * hits, 2 * hits + false + missed)
        rows.append((f1, (name, share(precision), share(recall), share(f1), count(hits + missed))))
    title = "By class"
    if len(rows) > MOST_CLASSES:
        title = f"The {MOST_CLASSES} hardest of {len(rows):,} classes"
        rows = sorted(rows, key=lambda row: (math.isnan(row[0]), row[0]))[:MOST_CLASSES]
    head = ("class", "precision", "recall", "F1", "there are")
    return table(head, [row for _, row in rows], caption=title)


def residuals(found: Numbers) -> Markup:
    """The answers against the truth, and how their differences are spread, for every number of an answer."""
    figures = []
    for place in range(min(MOST_NUMBERS, found.answers.shape[1])):
        answers_N, truths_N = found.answers[:, place], found.truths[:, place]
        there_N = np.isfinite(answers_N) & np.isfinite(truths_N)
        if there_N.any():
            name = found.names[place] if found.names else f"number {place}" if found.answers.shape[1] > 1 else ""
            figures += [_scatter(answers_N[there_N], truths_N[there_N], name)]
            figures += [_histogram(answers_N[there_N] - truths_N[there_N], name)]
    if not figures:
        return paragraph("None of the answers has a finite number beside its truth.")
    some = len(found.answers)
    note = f"{count(some)} of {count(found.total)} answers." if some < found.total else f"All {count(some)} answers."
    return joined((paragraph(note, class_="dim"), element("div", *figures, class_="pair")))


def examples(rows: Sequence[Example]) -> Markup:
    """What was read, what was answered, and what was due."""
    with_text = any(row.given for row in rows)
    head = ("sequence", *(("read",) if with_text else ()), "answer", "truth")
    cells = [(row.key, *((row.given,) if with_text else ()), row.answer, row.truth) for row in rows]
    shown = [[shortened(cell, MOST_CHARACTERS) for cell in row] for row in cells]
    return table(head, shown, words=len(head))


def texts(samples: Sequence[str]) -> Markup:
    """Texts that were drawn, side by side."""
    return element("div", *(element("pre", escaped(sample)) for sample in samples), class_="samples")


def scores(values: Mapping[str, str]) -> Markup:
    """The names of metrics, and their values as people read them."""
    return table(("on what is held out", ""), list(values.items()))


def _matrix(classes: Sequence[str], counts: np.ndarray) -> Markup:
    rows = []
    for name, row in zip(classes, counts, strict=True):
        whole = max(1, int(row.sum()))
        cells = (
            element("td", escaped(f"{n:,}" if n else "·"), style=_heat(n / whole) if n else None) for n in row.tolist()
        )
        rows.append(element("tr", element("th", escaped(name), scope="row", title=name), *cells))
    head = element(
        "tr",
        element("th", escaped("true \\ answer")),
        *(element("th", escaped(n), scope="col", title=n) for n in classes),
    )
    shown = element("table", element("thead", head), element("tbody", *rows), class_="matrix")
    caption = "A row a true class, a column an answer; the colour is the share of the row."
    return figure("Confusions", element("div", shown, class_="scroll"), caption=caption)


def _heat(part: float) -> str:
    return f"background:rgba(var(--heat),{_DARKEST * part:.3f})"


def _largest_errors(classes: Sequence[str], counts: np.ndarray) -> Markup:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LARGEST_ERRORS]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    rows = [(classes[true], classes[said], f"{wrong[true, said]:,}") for true, said in places if wrong[true, said]]
    return (
        table(("true class", "taken for", "times"), rows, words=2, caption="The most frequent errors")
        if rows
        else NOTHING
    )


def _scatter(answers_N: np.ndarray, truths_N: np.ndarray, name: str) -> Markup:
    every = max(1, len(answers_N) // MOST_POINTS)
    answers_N, truths_N = answers_N[::every], truths_N[::every]
    both = scale_of([answers_N, truths_N])
    lefts, tops = both.place(truths_N) * WIDTH, (1 - both.place(answers_N)) * HEIGHT
    dots = "".join(f"M{left:.1f} {top:.2f}h0" for left, top in zip(lefts, tops, strict=True))
    diagonal = element("path", class_="base", d=f"M0 {HEIGHT:.0f}L{WIDTH:.0f} 0")
    drawn = joined((diagonal, element("path", class_="dots k0", d=dots)))
    return figure(_titled("Answer against truth", name), plot(drawn, both, both, x_unit="truth", kind="tall"))


def _histogram(errors_N: np.ndarray, name: str) -> Markup:
    """The middle 99 %, so that one far away does not flatten the others."""
    low, high = np.quantile(errors_N, [0.005, 0.995])
    reach = max(abs(low), abs(high)) or 1.0
    inside_N = errors_N[np.abs(errors_N) <= reach]
    counts, edges = np.histogram(inside_N, bins=BARS, range=(-reach, reach))
    across, up = Scale(-reach, reach), Scale(0.0, float(max(1, counts.max())) * 1.04)
    bars = list[Markup]()
    for height, left, right in zip(counts.tolist(), edges, edges[1:], strict=False):
        start, end = across.place(left) * WIDTH + 1, across.place(right) * WIDTH - 1
        top = (1 - up.place(height)) * HEIGHT
        if height:
            bars.append(
                element("path", class_="bar k0", d=f"M{start:.1f} {HEIGHT:.0f}V{top:.2f}H{end:.1f}V{HEIGHT:.0f}Z")
            )
    spread = f"mean {number(float(errors_N.mean()), 3)}, standard deviation {number(float(errors_N.std()), 3)}"
    outside = len(errors_N) - len(inside_N)
    beyond = f"; {count(outside)} lie outside" if outside else ""
    return figure(
        _titled("Answer less truth", name),
        plot(joined(bars), across, up, x_unit="error", kind="tall"),
        caption=f"{spread[:1].upper()}{spread[1:]}{beyond}.",
    )


def _titled(title: str, name: str) -> str:
    return f"{title}: {name}" if name else title


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
