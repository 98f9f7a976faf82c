"""What the page of a run, or of several, says of what their files hold: without Ray, and without a network."""

import math
import os
import re
from pathlib import Path

import pytest

from rayrnn.errors import DataError, RunError, UsageError
from rayrnn.recipe import validate_recipe
from rayrnn.reporting.history import History
from rayrnn.reporting.markup import count, number, share
from rayrnn.reporting.report import write_report
from rayrnn.runs.checkpoints import write_checkpoint
from rayrnn.runs.directory import Run, open_run
from rayrnn.runs.round_lines import read_rounds
from rayrnn.runs.schema import StoredStory
from rayrnn.runs.store import Store
from tests.crashing import checkpoint
from tests.reporting.pages import Page, line, worker_round, written
from tests.s3_store import Store as Server
from tests.training.recipes import small

EVIL = "<script src=//evil.example/x.js>alert('&')</script>\x1b[2J\"onload="


def page_of(*runs: Run, out: Path) -> Page:
    write_report(runs, out, answers=False)
    return Page(out.read_text(encoding="utf-8"))


def history_of(run: Run) -> History:
    return History(read_rounds(run.path, StoredStory))


def test_a_run_is_shown_with_curves_workers_communication_and_recipe(tmp_path: Path) -> None:
    lines = [line(n, **({"held_out_loss": 2.0 / n + 0.6} if n % 2 == 0 else {})) for n in range(1, 7)]
    run = written(tmp_path / "run", lines)
    page = page_of(run, out=tmp_path / "report.html")
    headings = ("Curves", "Workers", "Communication", "Recipe", "Again")
    assert all(heading in page.text for heading in headings)
    assert "Finished. Language model by" in page.text
    assert "Lowest on what is held out: 0.9333 after round 6." in page.text
    assert "truncate: 16" in page.text
    assert f"rayrnn train {run.path}/recipe.yaml" in page.text
    assert len([one for one in page.named("path") if "curve" in one.get("class", "")]) >= 6
    assert "http-equiv" not in page.content, "it is over: nothing reloads"


def test_what_is_not_ours_is_shown_letter_by_letter(tmp_path: Path) -> None:
    lost = {"kind": "lost", "worker": 1, "reason": "raised", "detail": EVIL, "time": 0.0}
    layers = [{"name": EVIL, "parameters": 1.0, "update": 0.1}]
    lines = [line(1), line(2, membership=[lost], layers=layers, session={"time": 5.0, "versions": {EVIL: EVIL}})]
    recipe = small(averaging={"rounds": 2}, data={"text": EVIL * 30})
    page = page_of(written(tmp_path / "run", lines, recipe), out=tmp_path / "report.html")
    shown = EVIL.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert page.text.count(shown) >= 4
    assert "\x1b" not in page.content


def test_one_worker_alone_is_compared_by_the_times_of_the_run(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(n) for n in range(1, 5)])
    speed = history_of(run).speed
    assert speed is not None
    # each: 1,000 steps in 0.85 s of learning; both: 2,000 in a second without the 0.05 s of evaluating
    assert speed.alone == pytest.approx(1000 / 0.85)
    assert speed.together == pytest.approx(2000 / 0.95)
    page = page_of(run, out=tmp_path / "report.html")
    assert "One worker alone would have been 0.56 times as fast: it learned 1,176 steps a second" in page.text
    assert "compares steps a second, not what was learned by them" in page.text


def test_averaging_that_costs_more_than_the_others_give_is_said_so(tmp_path: Path) -> None:
    slow = [worker_round(0, averaging=0.7), worker_round(1, averaging=0.7)]
    page = page_of(written(tmp_path / "run", [line(1, workers=slow)]), out=tmp_path / "report.html")
    assert "One worker alone would have been 1.9 times as fast" in page.text


@pytest.mark.parametrize(
    "lines",
    [
        [line(1, 0), line(2, 0)],
        [{"round": 1, "loss": 2.0, "workers": [{"worker": 0}, {"worker": 1}]}],
        [{"round": 1, "loss": 2.0}],
    ],
    ids=["one worker", "no times", "no workers"],
)
def test_where_it_is_not_known_nothing_is_said_of_one_worker_alone(
    tmp_path: Path, lines: list[dict[str, object]]
) -> None:
    page = page_of(written(tmp_path / "run", lines), out=tmp_path / "report.html")
    assert "worker alone" not in page.text


def test_bytes_are_added_up_over_workers_that_sent_any(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(1), line(2, 0), line(3, 0, 1, 2)])
    history = history_of(run)
    assert (history.bytes_sent, history.bytes_a_round) == (4000 * 2 + 4000 * 3, 4000)
    page = page_of(run, out=tmp_path / "report.html")
    assert "in all 20 kB" in page.text


def test_a_worker_has_a_band_with_gaps_where_it_was_away(tmp_path: Path) -> None:
    lost = {"kind": "lost", "worker": 1, "reason": "killed", "detail": "by the kernel", "time": 0.0}
    went_on = {"kind": "went_on", "workers": [0], "seconds": 0.75, "time": 0.0}
    joined = {"kind": "joined", "worker": 1, "seconds": 8.25, "time": 0.0}
    lines = [line(1), line(2), line(3, 0, membership=[lost, went_on]), line(4, 0), line(5, membership=[joined])]
    run = written(tmp_path / "run", lines)
    bands = history_of(run).presence
    assert [(one.first, one.last) for one in bands[1]] == [(1, 2), (5, 5)]
    assert [(one.first, one.last) for one in bands[0]] == [(1, 5)]
    page = page_of(run, out=tmp_path / "report.html")
    assert "A worker was lost once. The others went on after 0.75 s at most." in page.text
    assert "3 worker 1 was lost (killed: by the kernel)" in page.text
    assert "5 worker 1 took part from here on, 8.25 s after it was lost" in page.text
    assert len([one for one in page.named("path") if "bar" in one.get("class", "")]) == 3


def test_a_hundred_workers_have_room(tmp_path: Path) -> None:
    workers = tuple(range(100))
    page = page_of(written(tmp_path / "run", [line(n, *workers) for n in range(1, 4)]), out=tmp_path / "report.html")
    assert len([one for one in page.named("path") if "bar" in one.get("class", "")]) == 100
    assert "The mean, and from the slowest to the fastest." in page.text


def test_layers_are_shown_where_they_were_recorded(tmp_path: Path) -> None:
    layers = [{"name": "layers.0", "parameters": 4.0, "update": 0.25}, {"name": "projection", "parameters": 2.0}]
    run = written(tmp_path / "run", [line(1), line(2, layers=layers), line(3), line(4, layers=layers)])
    page = page_of(run, out=tmp_path / "report.html")
    assert "Layers Parameters layers.0 projection" in page.text
    bare = page_of(written(tmp_path / "old", [line(1), line(2)]), out=tmp_path / "old.html")
    assert "Layers" not in bare.text
    assert "Versions" not in bare.text


def test_what_it_was_trained_with_and_how_much_was_saved_stand_there(tmp_path: Path) -> None:
    session = {"time": 1.8e9, "versions": {"rayrnn": "0.1.0", "ray": "2.60"}, "parameters": 4000}
    later = session | {"versions": {"rayrnn": "0.2.0", "ray": "2.60"}}
    lines = [line(1, session=session), line(2, session=session), line(3, session=later, time=1.8e9 + 60)]
    recipe = small(averaging={"rounds": 3, "wire": "int8"})
    page = page_of(written(tmp_path / "run", lines, recipe), out=tmp_path / "report.html")
    assert "from the beginning rayrnn 0.1.0, ray 2.60 from round 3 on rayrnn 0.2.0, ray 2.60" in page.text
    assert "int8: one byte a value, 4.00 times less than float32" in page.text
    assert "Begun 2027-01-15" in page.text


def test_a_run_without_a_round_says_so(tmp_path: Path) -> None:
    page = page_of(written(tmp_path / "run", []), out=tmp_path / "report.html")
    assert "It has not learned a round yet." in page.text
    assert "Curves" not in page.text
    assert "Recipe" in page.text


def test_a_run_that_diverged_says_so_and_draws_what_is_finite(tmp_path: Path) -> None:
    lines = [line(1), line(2, loss=1e308), line(3, loss=math.nan), line(4, loss=None, broken=[0, 1])]
    lines[-1]["culprit"] = {"worker": 0, "update": 3}
    page = page_of(written(tmp_path / "run", lines, small(averaging={"rounds": 9})), out=tmp_path / "report.html")
    assert "It stopped after round 4 of 9: the loss was not finite." in page.text
    assert "worker 1 was not finite, and took the mean" in page.text
    assert "nan" not in page.content.lower().replace("nanum", "")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("interrupted", "It was interrupted after round 2 of 6."),
        ("no better", "It stopped early, after round 2 of 6: the held-out loss got no better."),
        ("", "It is at round 2 of 6: in training, or cut short."),
    ],
)
def test_how_a_run_ended_is_said(tmp_path: Path, reason: str, said: str) -> None:
    run = written(tmp_path / "run", [line(1), line(2)], small())
    kept = checkpoint(2)
    kept.progress["reason"] = reason
    write_checkpoint(run.checkpoints, 2, kept)
    assert said in page_of(run, out=tmp_path / "report.html").text


def test_a_line_that_a_kill_tore_is_passed_over(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(1), line(2)])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "lo')
    assert [one.round for one in history_of(run).rounds] == [1, 2]
    assert "Finished." in page_of(run, out=tmp_path / "report.html").text


def test_a_line_that_holds_something_else_is_named(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(1), line(2, workers="many")])
    with pytest.raises(RunError, match=r'metrics.jsonl:2 cannot be used: key "workers"'):
        page_of(run, out=tmp_path / "report.html")


def test_ten_thousand_rounds_make_a_page_below_two_megabytes_that_keeps_extremes(tmp_path: Path) -> None:
    lines = [
        line(n, held_out_loss=1 + 1 / n, layers=[{"name": "l", "parameters": n, "update": 1}]) for n in range(1, 10001)
    ]
    lines[6543]["loss"] = 40.0
    run = written(tmp_path / "run", lines)
    page = page_of(run, out=tmp_path / "report.html")
    assert len(page.content) < 1_000_000
    assert "10,000" in page.text
    # 40 is the highest loss, and 0.5 the lowest: the curve reaches both
    learned = next(
        one["d"] for one in page.named("path") if one.get("class", "").startswith("curve k0") and "L" in one["d"]
    )
    heights = [float(point.split()[1].partition("h")[0]) for point in learned.replace("M", "L").split("L") if point]
    assert min(heights) < 5
    assert max(heights) > 95


def test_several_runs_are_overlaid_and_what_differs_is_in_a_table(tmp_path: Path) -> None:
    one = written(tmp_path / "one", [line(n, held_out_loss=1 / n) for n in range(1, 4)], small(averaging={"rounds": 3}))
    fast = small(averaging={"rounds": 3}, training={"learning_rate": 0.5}).model_copy(update={"name": "fast"})
    two = written(tmp_path / "two", [line(n, 0, 1, 2) for n in range(1, 4)], fast)
    page = page_of(one, two, out=tmp_path / "report.html")
    assert "2 runs compared small, fast" in page.text
    assert "key of the recipe small fast training.learning_rate 0.01 0.5" in page.text
    assert "0.3333 3" in page.text
    assert "Held-out loss by training time" in page.text
    curves = [one["class"] for one in page.named("path") if one.get("class", "").startswith("curve")]
    assert {"curve k0 d0", "curve k1 d1"} <= set(curves), "they differ in colour, and in dashes"
    assert "Drawn by the network" not in page.text


def test_what_differs_of_two_tasks_is_what_somebody_set(tmp_path: Path) -> None:
    text = written(tmp_path / "text", [line(1)], small(averaging={"rounds": 1}))
    data = {"source": "csv", "path": "x", "horizon": 1}
    foretold = validate_recipe({"name": "series", "task": "regression", "model": {"hidden": 8}, "data": data})
    series = written(tmp_path / "series", [line(1)], foretold)
    page = page_of(text, series, out=tmp_path / "report.html")
    assert {"task", "data.source", "data.horizon"} <= set(page.text.split())
    assert "data.delimiter" not in page.text
    assert "Loss, mean squared error" in page_of(series, out=tmp_path / "series.html").text


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    runs = [written(tmp_path / name, [line(1)], small(averaging={"rounds": 1})) for name in ("here", "there")]
    page = page_of(*runs, out=tmp_path / "report.html")
    assert (
        f"run state best held-out loss round newest loss rounds time workers steps a second {runs[0].path}" in page.text
    )
    assert "The recipes are the same." in page.text


def test_a_page_of_ours_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    run, out = written(tmp_path / "run", [line(1)]), tmp_path / "report.html"
    page_of(run, out=out)
    page_of(run, out=out)
    out.write_text("<p>my own</p>")
    with pytest.raises(UsageError, match=r"report.html is there already, and is no such file of rayrnn's: remove it"):
        page_of(run, out=out)
    assert out.read_text() == "<p>my own</p>"
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        page_of(run, out=tmp_path / "folder.html")


def test_a_page_and_its_run_may_lie_in_a_store(tmp_path: Path, s3_environment: Server) -> None:
    run = written(tmp_path / "run", [line(1), line(2)])
    place = f"s3://{s3_environment.bucket}/{tmp_path.name}"
    for name in ("recipe.yaml", "metrics.jsonl"):
        Store(f"{place}/run").write(name, (run.path / name).read_bytes())
    for _ in range(2):
        write_report([open_run(f"{place}/run")], f"{place}/report.html", answers=False)
    page = Page(Store(place).read("report.html").decode())
    assert f"{place}/run" in page.text
    assert "Finished." in page.text
    Store(place).write("mine.html", b"my own")
    with pytest.raises(UsageError, match="is there already, and is no such file of rayrnn's"):
        write_report([run], f"{place}/mine.html", answers=False)


def test_what_cannot_be_a_page_is_refused(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(1)])
    with pytest.raises(UsageError, match=r"--out is .*report.pdf: its name must end in .html"):
        page_of(run, out=tmp_path / "report.pdf")
    with pytest.raises(UsageError, match="there is no run to report on"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(UsageError, match=r"run is given twice"):
        page_of(run, open_run(run.path), out=tmp_path / "report.html")
    with pytest.raises(UsageError, match="at most 50"):
        page_of(*[run] * 51, out=tmp_path / "report.html")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be (written|reached)"):
        page_of(run, out=tmp_path / "file" / "report.html")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_nobody_may_write_to_is_told(tmp_path: Path) -> None:
    run, closed = written(tmp_path / "run", [line(1)]), tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot be written"):
        page_of(run, out=closed / "report.html")


def test_a_run_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(n, held_out_loss=1 / n) for n in range(1, 4)])
    shown = Page(run._repr_html_())
    assert "Finished." in shown.text
    assert "Loss, nats a symbol" in shown.text
    assert "not learned a round" in Page(written(tmp_path / "new", [])._repr_html_()).text
    (run.path / "metrics.jsonl").write_text('{"round": "none"}\n')
    assert 'cannot be used: key "round"' in Page(run._repr_html_()).text


def test_what_is_very_long_is_cut_and_says_so(tmp_path: Path) -> None:
    lost = {"kind": "lost", "worker": 1, "reason": "raised", "detail": "x" * 1000, "time": 0.0}
    recipe = small(averaging={"rounds": 2}, data={"text": "a long text " * 100_000})
    run = written(tmp_path / "run", [line(1), line(2, membership=[lost] * 600)], recipe)
    page = page_of(run, out=tmp_path / "report.html")
    assert "x … and 700 characters more" in page.text
    assert "And 560 more." in page.text
    assert len(page.content) < 1_000_000


def test_one_round_is_a_point_at_its_number(tmp_path: Path) -> None:
    page = page_of(written(tmp_path / "run", [line(1)]), out=tmp_path / "report.html")
    ticks = re.findall(r'<span class="x"[^>]*>([^<]*)</span>', page.content)
    assert set(ticks) == {"1"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0847623, "0.08476"),
        (1234567.0, "1,234,567"),
        (1.23456, "1.235"),
        (1.5e-7, "1.500e-07"),
        (0.0, "0.000"),
        (None, "\N{EN DASH}"),
        (math.inf, "\N{EN DASH}"),
        (-12.3456, "-12.35"),
    ],
)
def test_numbers_are_written_as_people_read_them(value: float | None, said: str) -> None:
    assert number(value) == said


def test_counts_have_their_thousands_apart_and_shares_a_percent_sign() -> None:
    assert (count(1234567), share(0.1234), share(None)) == ("1,234,567", "12.3 %", "\N{EN DASH}")
