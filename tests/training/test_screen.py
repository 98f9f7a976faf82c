"""What a run says on the screen, and in a file in its place."""

import io
import math
import re
import shlex
import threading
from pathlib import Path

import pytest
from rich.console import Console

from rayrnn.runs.directory import Run, create_run
from rayrnn.training.failures import interrupted
from rayrnn.training.messages import Evaluated, Joined, Lost, RoundLearned, WentOn, WorkerRound, from_json, to_json
from rayrnn.training.screen import Screen, curve, round_values
from rayrnn.training.summary import Outline, Summary
from tests.training.recipes import small

KILLED = Lost(worker=1, reason="killed", detail="its node was lost", time=0.0)


def learned(number: int, *workers: int) -> RoundLearned:
    members = tuple(WorkerRound(worker, 45, 1, 45.0, 0.5, 0.1, 0.1, 0.1) for worker in workers)
    return RoundLearned(number, number, 2.0, 0.1, 90, 0.0, 1.0, 100, (), members)


def screen(*, terminal: bool = False) -> tuple[Screen, io.StringIO]:
    said = io.StringIO()
    console = Console(file=said, width=100, force_terminal=terminal)
    return Screen(console, small(averaging={"rounds": 1000})), said


def test_a_loss_is_told_with_the_time_that_it_cost() -> None:
    reporter, said = screen()
    reporter.round(learned(7, 0, 1))
    reporter.membership(KILLED)
    reporter.membership(WentOn(workers=(0,), seconds=0.9, time=0.0))
    reporter.round(learned(8, 0))
    assert "worker 1 was lost (killed: its node was lost) in round 8; worker 0 went on after 0.9 s" in said.getvalue()


def test_a_loss_that_nobody_had_to_wait_for_is_told_while_the_run_goes_on() -> None:
    reporter, said = screen()
    reporter.round(learned(7, 0, 1))
    reporter.membership(KILLED)
    for number in (8, 9):
        reporter.round(learned(number, 0))
    assert "lost" not in said.getvalue(), "the others may still say how long they waited"
    reporter.round(learned(10, 0))
    assert "worker 1 was lost (killed: its node was lost)" in said.getvalue()


def test_a_worker_that_joins_is_told_of_unless_it_is_there_from_the_beginning() -> None:
    reporter, said = screen()
    reporter.membership(Joined(worker=1, seconds=0.0, time=0.0))
    reporter.round(learned(7, 0))
    assert "takes part" not in said.getvalue()
    reporter.membership(Joined(worker=1, seconds=2.5, time=0.0))
    assert "worker 1 takes part from round 8 on after 2.5 s" in said.getvalue()


def test_the_live_line_needs_no_thread_that_could_die() -> None:
    reporter, said = screen(terminal=True)
    before = threading.active_count()
    reporter.start(0)
    reporter.round(learned(1, 0))
    assert threading.active_count() == before
    assert "1/1000 loss 2.000" in said.getvalue()
    reporter.stop()


def test_an_event_is_the_same_after_its_way_through_json() -> None:
    for event in (KILLED, Joined(1, 2.5, 0.0), WentOn((0, 2), 0.9, 0.0)):
        assert from_json(to_json(event)) == event


def outline(num_workers: int) -> Outline:
    return Outline(
        num_parameters=100,
        bytes_a_round=3_640_000,
        parts=1,
        updates_a_round=8,
        num_training=90,
        num_held_out=10,
        steps_an_epoch=900,
        rounds_an_epoch=9.0,
        shortest=1,
        longest=10,
        padding_share=0.0,
        num_workers=num_workers,
    )


def test_a_run_that_was_finished_before_says_that_it_learned_nothing_more() -> None:
    reporter, said = screen()
    reporter.finish(Summary(Run(Path("runs/small")), "finished", 4, None, 0.5, 4, 0.0, 0.0), [])
    assert " 4 as before: it was finished, and learned nothing more" in said.getvalue()
    assert "speed" not in said.getvalue()


def test_in_a_file_every_fact_is_one_line_however_long() -> None:
    reporter, said = screen()
    reporter.header(outline(2), data="a/long/way/" * 20, encoding="97 symbols", run="runs/small")
    lines = said.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [
        "data",
        "encoding",
        "network",
        "workers",
        "a",
        "rounds",
        "run",
        "stop",
    ]
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("workers", "ends"), [(1, "; then the plain mean"), (2, "; then the plain mean, sending 3.64 MB")]
)
def test_what_a_round_is_fits_on_a_line_and_one_worker_sends_nothing(workers: int, ends: str) -> None:
    reporter, said = screen()
    reporter.header(outline(workers), data="texts", encoding="97 symbols", run="runs/small")
    (line,) = [line for line in said.getvalue().splitlines() if line.startswith("a round")]
    assert line.endswith(ends)
    assert len(line) < 100


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", ["runs/plain", "proj [v2]/my run", "it's" + 30 * " long", "[red]x[/red]"])
def test_the_next_command_is_shown_in_one_piece_that_can_be_pasted(name: str, *, terminal: bool) -> None:
    reporter, said = screen(terminal=terminal)
    reporter.finish(Summary(Run(Path(name)), "finished", 3, 1.0, None, 0, 10.0, 1.0), [])
    last = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).strip().splitlines()[-1]
    assert shlex.split(last) == ["next", "rayrnn", "generate", name]


@pytest.mark.parametrize("name", ["plain", "proj [v2]/my run", "it's", "$HOME;"])
def test_the_command_that_goes_on_can_be_pasted(tmp_path: Path, name: str) -> None:
    run = create_run(tmp_path / name)
    run.write_recipe(small())
    shown = str(interrupted(3, run)).rpartition("go on with: ")[2]
    path = str(tmp_path / name)
    assert shlex.split(shown) == ["rayrnn", "train", f"{path}/recipe.yaml", "--out", path, "--resume"]


def test_the_last_line_has_the_last_evaluation() -> None:
    reporter, said = screen()
    reporter.round(learned(1000, 0, 1))
    reporter.evaluation(Evaluated(1000, 1000, 1.25, None))
    reporter.stop()
    reporter.stop()
    assert said.getvalue().count("1000/1000") == 1
    assert "held-out 1.250" in said.getvalue()


def test_a_plain_line_has_a_measure_once_and_the_live_line_keeps_it() -> None:
    reporter, said = screen()
    reporter.evaluation(Evaluated(90, 90, 1.25, None))
    for number in (100, 200, 300):
        reporter.round(learned(number, 0))
    assert [line.split()[0] for line in said.getvalue().splitlines() if "held-out" in line] == ["100/1000"]
    reporter.evaluation(Evaluated(390, 390, 1.5, None))
    reporter.round(learned(400, 0))
    assert "held-out 1.500 (best 1.250)" in said.getvalue()
    live, said = screen(terminal=True)
    live.start(0)
    live.round(learned(1, 0))
    live.evaluation(Evaluated(1, 1, 1.25, None))
    assert [live._text(learned(number, 0)).plain.count("held-out") for number in (2, 3)] == [1, 1]
    live.stop()


@pytest.mark.parametrize(
    ("between", "most", "values"),
    [
        ((1, 640), 8, [100, 200, 300, 400, 500, 600]),
        ((1.26, 4.33), 6, [2, 3, 4]),
        ((0.0012, 0.0019), 6, [0.0012, 0.0014, 0.0016, 0.0018]),
        ((2.0, 2.0), 6, [2.0]),
        ((0.0, 5.5), 6, [0, 2, 4]),
        ((3.925, 4.52), 6, [4.0, 4.2, 4.4]),
    ],
)
def test_an_axis_has_few_and_round_values(between: tuple[float, float], most: int, values: list[float]) -> None:
    assert round_values(*between, most=most) == pytest.approx(values)


def test_the_curve_covers_the_rounds_that_had_a_loss() -> None:
    lines = [{"round": number, "loss": 1 + math.exp(-number / 20)} for number in range(1, 101)]
    lines[49] |= {"loss": None, "held_out_loss": 1.5}
    drawn = curve(lines, width=80)
    assert "100" in drawn
    assert "held out" in drawn
    assert curve([{"round": 1, "loss": None}], width=80) == ""
    perfect = [{"round": number, "loss": max(0.0, 1 - number / 20)} for number in range(1, 41)]
    assert "40" in curve(perfect, width=80), "a loss of 0 is one"


def test_every_span_has_values() -> None:
    for highest in (1.001**exponent for exponent in range(10_000)):
        for most in (6, 8):
            assert 1 <= len(round_values(0.0, highest, most=most)) <= most


def test_the_speed_of_a_round_is_that_of_learning_and_averaging_and_not_of_evaluating() -> None:
    reporter, said = screen()
    reporter.start(0)
    reporter.round(learned(1000, 0, 1))  # a second, of which each evaluated for a tenth: 90 steps in 1.8 worker-seconds
    reporter.stop()
    assert " 50 steps/s each" in said.getvalue()
