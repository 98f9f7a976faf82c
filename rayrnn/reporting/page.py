"""A run, or several, as one page: HTML that needs nothing beside it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from rayrnn.reporting import parts
from rayrnn.reporting.charts import Curve, chart
from rayrnn.reporting.history import History
from rayrnn.reporting.markup import (
    NOTHING,
    Markup,
    count,
    element,
    escaped,
    joined,
    number,
    paragraph,
    section,
    stylesheet,
    table,
)
from rayrnn.reporting.overview import Told, date, duration, lead, numbers, unit_of
from rayrnn.wording import command_line, counted

#: by which a page of ours is known; the version follows
GENERATOR = '<meta name="generator" content="rayrnn '
#: bytes of a page that is looked at, whether it is one of ours
MOST_PAGE = 64 * 2**20
#: runs that are compared
MOST_RUNS = 50
#: characters of a value of the recipe in a table
_MOST_SHOWN = 60


def page_of(told: Sequence[Told], *, command: str, reload_seconds: int = 0) -> str:
    """The page of one run, or of several beside one another.

    Args:
        command: that makes it again.
        reload_seconds: so often a browser looks for a newer one; 0 = never.
    """
    if len(told) == 1:
        title, body = told[0].name, _one(told[0])
    else:
        told = with_names(told)
        title, body = counted(len(told), "run"), _several(told)
    made = f"Made {date(time.time())} by rayrnn {version('rayrnn')}"
    again = joined((escaped(f"{made}; again with "), element("code", escaped(command))))
    if reload_seconds:
        again = escaped(f"{made}; this page looks for a newer one every {reload_seconds} s, until the run ends.")
    main = element("main", body, element("footer", again))
    reload = f'<meta http-equiv="refresh" content="{reload_seconds}">\n' if reload_seconds else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'{GENERATOR}{escaped(version("rayrnn"))}">\n'
        f'{reload}<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)} · rayrnn</title>\n{stylesheet()}\n</head>\n"
        f'<body class="rayrnn">\n{main}\n</body>\n</html>\n'
    )


def with_names(told: Sequence[Told]) -> list[Told]:
    """Runs of one name are called by their paths."""
    names = [one.name for one in told]
    return [replace(one, name=one.place) if names.count(one.name) > 1 else one for one in told]


def _one(told: Told) -> Markup:
    history, recipe = told.history, told.recipe
    return joined(
        (
            element("h1", escaped(told.name)),
            lead(told),
            numbers(told),
            parts.curves(history, unit_of(recipe)),
            *told.answers,
            parts.presence(history),
            parts.communication(history, recipe.averaging),
            parts.layer_norms(history),
            parts.recipe_text(recipe),
            parts.versions(history),
            _again(told),
        )
    )


def _again(told: Told) -> Markup:
    """What trains the same recipe once more, and what goes on with this run."""
    trust = told.recipe.asks_for_trust
    recipe = f"{told.place}/recipe.yaml"
    lines = [
        command_line("rayrnn", "train", recipe, "--out", f"{told.place}-again") + trust,
        command_line("rayrnn", "train", recipe, "--out", told.place, "--resume") + trust,
    ]
    shown = element("pre", escaped("\n".join(lines)))
    return section("Again", paragraph("The same recipe once more; or on with this run:"), shown, id_="again")


def _several(told: Sequence[Told]) -> Markup:
    return joined(
        (
            element("h1", escaped(f"{counted(len(told), 'run')} compared")),
            paragraph(", ".join(one.name for one in told), class_="lead"),
            _side_by_side(told),
            _differences(told),
            section("Curves", _overlaid(told), id_="curves"),
            _metrics_table(told),
        )
    )


def _overlaid(told: Sequence[Told]) -> Markup:
    units = {unit_of(one.recipe) for one in told}
    unit = f", {units.pop()}" if len(units) == 1 else ""
    charts = [
        chart(
            [Curve(one.name, one.history.numbers, one.history.losses, style=n) for n, one in enumerate(told)],
            title=f"Loss in training{unit}",
            may_be_logarithmic=True,
        ),
        chart(
            [_held_out(one, one.history.numbers, n) for n, one in enumerate(told)],
            title=f"Held-out loss{unit}",
            may_be_logarithmic=True,
        ),
        chart(
            [_held_out(one, one.history.seconds_so_far, n) for n, one in enumerate(told)],
            title=f"Held-out loss by training time{unit}",
            x_unit="seconds",
            may_be_logarithmic=True,
        ),
        chart(
            [Curve(one.name, one.history.numbers, _rates(one.history), style=n) for n, one in enumerate(told)],
            title="Steps a second, all workers",
            from_zero=True,
        ),
        chart(
            [Curve(one.name, one.history.numbers, one.history.learning_rates, style=n) for n, one in enumerate(told)],
            title="Learning rate",
            from_zero=True,
        ),
        chart(
            [
                Curve(one.name, one.history.numbers, [100 * part for part in one.history.averaging_shares], style=n)
                for n, one in enumerate(told)
            ],
            title="Share of averaging, %",
            from_zero=True,
        ),
    ]
    return element("div", *charts, class_="pair") if any(charts) else NOTHING


def _held_out(told: Told, x: Sequence[float], style: int) -> Curve:
    losses, best = told.history.held_out_losses, told.history.best
    there = [place for place, loss in enumerate(losses) if loss == loss]
    marked = None if best is None else there.index(best)
    return Curve(told.name, [x[place] for place in there], [losses[place] for place in there], style=style, best=marked)


def _rates(history: History) -> list[float]:
    return [line.steps / line.seconds if line.seconds > 0 else float("nan") for line in history.rounds]


def _side_by_side(told: Sequence[Told]) -> Markup:
    head = ("run", "state", "best held-out loss", "round", "newest loss", "rounds", "time", "workers", "steps a second")
    rows = []
    for one in told:
        history = one.history
        last, best = history.last, history.best
        rows.append(
            (
                one.name,
                one.brief,
                number(history.best_loss),
                None if best is None else f"{history.numbers[best]:,}",
                None if last is None else number(last.loss),
                count(last.round) if last else "0",
                duration(history.seconds),
                count(history.most_workers),
                None if history.steps_per_second is None else count(history.steps_per_second),
            )
        )
    return section("Side by side", table(head, rows, words=2), id_="side-by-side")


def _differences(told: Sequence[Told]) -> Markup:
    """The keys of the recipes that are not the same in all of them."""
    flat = [_flattened(one.recipe.model_dump(mode="json")) for one in told]
    # of keys that only some have, as those of two sources, the ones that nobody has set say nothing
    chosen = {key for one in told for key in _flattened(one.recipe.model_dump(mode="json", exclude_defaults=True))}
    everywhere = set.intersection(*map(set, flat))
    keys = dict.fromkeys(key for recipe in flat for key in recipe if key in chosen | everywhere and key != "name")
    apart = [key for key in keys if len({str(recipe.get(key)) for recipe in flat}) > 1]
    if not apart:
        return section("What differs", paragraph("The recipes are the same."), id_="differences")
    rows = [(key, *(_shown(recipe[key]) if key in recipe else None for recipe in flat)) for key in apart]
    head = ("key of the recipe", *(one.name for one in told))
    return section("What differs", table(head, rows, words=len(head)), id_="differences")


def _metrics_table(told: Sequence[Told]) -> Markup:
    names = dict.fromkeys(name for one in told for name in one.metrics)
    rows = [(name, *(number(one.metrics.get(name)) for one in told)) for name in names]
    measured = table(("on what is held out", *(one.name for one in told)), rows) if rows else NOTHING
    missing = [
        joined((element("h3", escaped(one.name)), *one.answers)) for one in told if one.answers and not one.metrics
    ]
    return section("Metrics", measured, *missing, id_="metrics")


def _flattened(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flattened(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def _shown(value: object) -> str:
    words = str(value)
    return words if len(words) <= _MOST_SHOWN else f"{words[: _MOST_SHOWN - 1]}…"
