"""The parts of a report that a run's own files are enough for: curves, workers, communication, layers, recipe."""

import math
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from rayrnn.recipe import Recipe
from rayrnn.recipe.sections import Averaging
from rayrnn.reporting.charts import HEIGHT, WIDTH, Curve, Scale, chart, figure, plot, style_of
from rayrnn.reporting.history import History
from rayrnn.reporting.markup import (
    NOTHING,
    Markup,
    count,
    element,
    escaped,
    facts,
    joined,
    number,
    paragraph,
    section,
    share,
    shortened,
    table,
)
from rayrnn.runs.schema import StoredMembership
from rayrnn.wording import counted, size

#: workers whose speeds are curves of their own; more are one curve, and an area from the slowest to the fastest
MOST_CURVES = 6
#: workers that have a band of their own, and layers that have a curve
MOST_BANDS = 128
MOST_LAYERS = 16
#: of what happened to the workers
MOST_EVENTS = 40
#: characters of why a worker was lost, and of a recipe, which may hold the text that is learned
MOST_DETAIL = 300
MOST_RECIPE = 100_000
#: pixels of a band's height, where there are few and where there are many
_BAND, _THIN_BAND = 22, 9
_REASONS = {"killed": "killed", "raised": "failed", "late": "did not come to the sum", "drained": "drained"}


def curves(history: History, unit: str) -> Markup:
    """Losses, rate, speed and averaging, by round."""
    if not history.rounds:
        return NOTHING
    return section(
        "Curves",
        loss_chart(history, unit),
        element("div", rate_chart(history), speed_chart(history), averaging_chart(history), class_="triple"),
        id_="curves",
    )


def loss_chart(history: History, unit: str) -> Markup:
    """The loss in training, and that on what is held out, its best marked."""
    rounds, held_out = history.numbers, history.held_out_losses
    measured = [place for place, loss in enumerate(held_out) if math.isfinite(loss)]
    best = history.best
    learned = Curve("in training", rounds, history.losses, style=0)
    judged = Curve(
        "held out",
        [rounds[place] for place in measured],
        [held_out[place] for place in measured],
        style=1,
        best=None if best is None else measured.index(best),
    )
    lowest = (
        "" if best is None else f"Lowest on what is held out: {number(held_out[best])} after round {rounds[best]:,}."
    )
    return chart(
        [learned, judged], title=f"Loss, {unit.strip('()')}", caption=lowest, may_be_logarithmic=True, tall=True
    )


def rate_chart(history: History) -> Markup:
    curve = Curve("learning rate", history.numbers, history.learning_rates)
    return chart([curve], title="Learning rate", from_zero=True)


def speed_chart(history: History) -> Markup:
    """Steps a second of every worker; of many, the mean, and an area from the slowest to the fastest."""
    title, workers = "Steps a second, each worker", history.workers
    if len(workers) <= MOST_CURVES:
        each = [
            Curve(f"worker {worker}", history.numbers, history.speeds(worker), style=place, thin=True)
            for place, worker in enumerate(workers)
        ]
        return chart(each, title=title, from_zero=True)
    speeds = [[speed for speed in found if math.isfinite(speed)] or [math.nan] for found in history.speeds_of_all()]
    mean = Curve(
        "mean",
        history.numbers,
        [math.fsum(found) / len(found) for found in speeds],
        low=[min(found) for found in speeds],
        high=[max(found) for found in speeds],
    )
    return chart([mean], title=title, caption="The mean, and from the slowest to the fastest.", from_zero=True)


def averaging_chart(history: History) -> Markup:
    if history.most_workers < 2:
        return NOTHING
    shares = [100 * part for part in history.averaging_shares]
    caption = "Of the workers' time: the average itself, and waiting for the slowest."
    curve = Curve("averaging", history.numbers, shares, style=2)
    return chart([curve], title="Share of averaging, %", caption=caption, from_zero=True)


def presence(history: History) -> Markup:
    """A band a worker, filled where it took part; who was lost, and who came."""
    workers = history.workers
    if not workers:
        return NOTHING
    shown = workers[:MOST_BANDS]
    said = _presence_words(history)
    more = f"The first {MOST_BANDS} of {len(workers):,} workers." if len(workers) > MOST_BANDS else ""
    bands = figure("Rounds that each took part in", _event_legend(history), _bands(history, shown), caption=more)
    return section("Workers", paragraph(said), bands, _event_table(history), id_="workers")


def _presence_words(history: History) -> str:
    workers, lost = history.workers, history.events("lost")
    took = f"{counted(len(workers), 'worker')} took part, {count(history.most_workers)} at most in one round."
    if not lost:
        return f"{took} None was lost."
    held_up = [event.seconds for _, event in history.events("went_on")]
    waited = f" The others went on after {number(max(held_up), 2)} s at most." if held_up else ""
    often = "once" if len(lost) == 1 else f"{len(lost):,} times"
    return f"{took} A worker was lost {often}.{waited}"


def _bands(history: History, workers: Sequence[int]) -> Markup:
    first, last = history.numbers[0], history.numbers[-1]
    across, up = Scale(first - 0.5, last + 0.5), Scale(0, len(workers))
    height = HEIGHT / len(workers)
    bars, marks, names = list[Markup](), list[Markup](), list[Markup]()
    every = -(-len(workers) // 32)
    for row, worker in enumerate(workers):
        for stretch in history.presence[worker]:
            left, right = (across.place(place) * WIDTH for place in (stretch.first - 0.5, stretch.last + 0.5))
            top, bottom = (row + 0.15) * height, (row + 0.85) * height
            shape = f"M{left:.1f} {top:.2f}H{max(right, left + 0.5):.1f}V{bottom:.2f}H{left:.1f}Z"
            title = element("title", escaped(f"worker {worker}: rounds {stretch.first:,} to {stretch.last:,}"))
            bars.append(element("path", title, class_=f"bar {style_of(0)}", d=shape))
        if row % every == 0:
            where = f"bottom:{100 * (1 - (row + 0.5) / len(workers)):.2f}%"
            names.append(element("span", escaped(f"worker {worker}"), class_="y", style=where))
    for kind, events in (("lost", history.events("lost")), ("joined", history.later_joins)):
        for place, event in islice(events, 500):
            if event.worker in workers:
                row = workers.index(event.worker)
                where = f"left:{100 * across.place(place):.2f}%;bottom:{100 * (1 - (row + 0.5) / len(workers)):.2f}%"
                words = f"round {place:,}: worker {event.worker} {_event_words(event)}"
                marks.append(element("span", class_=f"event {kind}", style=where, title=words))
    tall = len(workers) * (_BAND if len(workers) <= 16 else _THIN_BAND)
    rows = _NoTicks(up.low, up.high)
    return plot(joined(bars), across, rows, marks=joined((*names, *marks)), x_unit="round", kind="bands", pixels=tall)


class _NoTicks(Scale):
    """An axis whose rows have names instead."""

    def ticks(self, most: int) -> list[float]:
        return []


def _event_legend(history: History) -> Markup:
    kinds = [("lost", "lost", history.events("lost")), ("joined", "joined later", history.later_joins)]
    items = [
        element("li", element("span", class_=f"event {kind}"), escaped(words))
        for kind, words, events in kinds
        if events
    ]
    return element("ul", *items, class_="legend") if items else NOTHING


def _event_table(history: History) -> Markup:
    events = [*history.events("lost"), *history.later_joins]
    events.sort(key=lambda found: found[0])
    rows = [(f"{place:,}", f"worker {event.worker}", _event_words(event)) for place, event in events[:MOST_EVENTS]]
    rows += [
        (f"{place:,}", f"worker {worker}", "was not finite, and took the mean")
        for place, worker in islice(history.broken, MOST_EVENTS)
    ]
    if not rows:
        return NOTHING
    left = len(events) - MOST_EVENTS
    more = paragraph(f"And {left:,} more.", class_="dim") if left > 0 else NOTHING
    return joined((table(("round", "worker", "what happened"), rows, words=3), more))


def _event_words(event: StoredMembership) -> str:
    if event.kind == "joined":
        return "took part from here on" + (f", {number(event.seconds, 3)} s after it was lost" if event.seconds else "")
    detail = f": {shortened(event.detail, MOST_DETAIL)}" if event.detail else ""
    return f"was lost ({_REASONS.get(event.reason, event.reason)}{detail})"


def communication(history: History, averaging: Averaging) -> Markup:
    """What was sent, what it took, and whether it was worth it."""
    if history.bytes_a_round is None:
        return NOTHING
    rows = {
        "each worker, a round": size(history.bytes_a_round),
        "in all": size(history.bytes_sent),
        "encoding": _encoding_words(history, averaging),
    }
    if (spent := history.averaging_seconds) is not None:
        rows["averaging"] = f"{number(spent, 3)} s of each worker's time, {share(history.averaging_share)} of it"
    verdict = element("p", element("strong", escaped(words))) if (words := verdict_words(history)) else NOTHING
    basis = paragraph(_BASIS, class_="dim") if words else NOTHING
    return section("Communication", verdict, basis, facts(rows), id_="communication")


_BASIS = (
    "This compares steps a second, not what was learned by them. It is computed from the times of this run: the steps "
    "of all workers over the whole of their rounds, and one worker's steps over the time in which it learned by "
    "itself. Time for measuring what is held out is left out of both. Where several workers share one machine, one "
    "that has it alone may be faster than it was beside others."
)


def verdict_words(history: History) -> str:
    """Whether one worker alone would have been faster; empty where that is not known."""
    speed = history.speed
    if speed is None:
        return ""
    workers = number(speed.workers, 2).removesuffix(".0")
    figures = (
        f"it learned {count(speed.alone)} steps a second between averages, and {workers} workers together learned "
        f"{count(speed.together)} with all that averaging took."
    )
    return f"One worker alone would have been {number(speed.ratio, 2)} times as fast: {figures}"


def _encoding_words(history: History, averaging: Averaging) -> str:
    words = {"float32": "none: four bytes a value", "bfloat16": "two bytes a value", "int8": "one byte a value"}
    said = words.get(averaging.wire, averaging.wire)
    parameters = next((one.parameters for _, one in reversed(history.sessions) if one.parameters), None)
    sent = history.bytes_a_round
    if averaging.wire == "float32" or averaging.optimizer_state == "average" or not parameters or not sent:
        return said
    return f"{averaging.wire}: {said}, {number(4 * parameters / sent, 3)} times less than float32"


def layer_norms(history: History) -> Markup:
    """How large the layers were, and how far they moved; nothing of runs that did not record it."""
    layers = history.layers()
    if not layers:
        return NOTHING
    shown = list(islice(layers.items(), MOST_LAYERS))
    sizes = list[Curve]()
    moves = list[Curve]()
    for style, (name, found) in enumerate(shown):
        rounds = [place for place, _ in found]
        norms = np.array([_finite(layer.parameters) for _, layer in found])
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.array([_finite(layer.update) for _, layer in found]) / np.where(norms > 0, norms, math.nan)
        sizes.append(Curve(name, rounds, norms.tolist(), style=style))
        moves.append(Curve(name, rounds, (100 * moved).tolist(), style=style))
    more = f" The first {MOST_LAYERS} of {len(layers):,} layers." if len(layers) > MOST_LAYERS else ""
    pair = element(
        "div",
        chart(
            sizes,
            title="Parameters",
            caption=f"Euclidean norm of each layer.{more}",
            from_zero=True,
            may_be_logarithmic=True,
        ),
        chart(
            moves,
            title="Updates, %",
            caption="Norm of the change since the point before, relative to the layer's own.",
            from_zero=True,
            may_be_logarithmic=True,
        ),
        class_="pair",
    )
    return section("Layers", pair, id_="layers")


def recipe_text(recipe: Recipe) -> Markup:
    return section(
        "Recipe", element("pre", escaped(shortened(recipe.to_yaml().rstrip("\n"), MOST_RECIPE))), id_="recipe"
    )


def versions(history: History) -> Markup:
    """What the run was trained with; every time it was gone on with, if that was something else."""
    rows, before = dict[str, str](), ""
    for place, session in history.sessions:
        said = ", ".join(f"{name} {version}" for name, version in session.versions.items())
        if said and said != before:
            rows["from the beginning" if not rows else f"from round {place:,} on"] = said
        before = said
    return section("Versions", facts(rows), id_="versions") if rows else NOTHING


def tiles(values: Iterable[tuple[str, str, str]]) -> Markup:
    """Large numbers, each with its name above it and words below."""
    each = (
        element(
            "div",
            element("dt", escaped(name)),
            element("dd", escaped(value), element("small", escaped(below)) if below else NOTHING),
        )
        for name, value, below in values
    )
    return element("dl", *each, class_="tiles")


def _finite(value: float | None) -> float:
    return math.nan if value is None else value
