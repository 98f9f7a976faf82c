"""What is said of workers that are lost."""

import io

from rich.console import Console

from rayrnn.training.screen import Screen
from tests.training.recipes import small

DIED = {"kind": "died", "worker": 1, "round": 7, "detail": "its node was lost"}


def learned(number: int, *workers: int) -> dict[str, object]:
    members = [{"worker": worker, "averaging_seconds": 0.1} for worker in workers]
    return {
        "kind": "round",
        "round": number,
        "loss": 2.0,
        "steps": 90,
        "seconds": 1.0,
        "broken": [],
        "workers": members,
    }


def screen() -> tuple[Screen, io.StringIO]:
    said = io.StringIO()
    return Screen(Console(file=said, width=100), small(averaging={"rounds": 1000})), said


def test_a_death_is_told_with_the_time_that_it_cost() -> None:
    talk, said = screen()
    talk.attendance(DIED)
    talk.round(learned(7, 0, 1))
    talk.attendance({"kind": "went_on", "round": 7, "workers": [0], "seconds": 0.9})
    talk.round(learned(8, 0))
    assert "worker 1 died (its node was lost) in round 8; worker 0 went on after 0.9 s" in said.getvalue()


def test_a_death_that_nobody_had_to_wait_for_is_told_while_the_run_goes_on() -> None:
    talk, said = screen()
    talk.attendance(DIED)
    for number in (7, 8, 9):
        talk.round(learned(number, 0))
    assert "died" not in said.getvalue(), "the others may still say how long they waited"
    talk.round(learned(10, 0))
    assert "worker 1 died (its node was lost)" in said.getvalue()
