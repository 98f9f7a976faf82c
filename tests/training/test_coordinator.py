"""The coordinator gives every worker the same answer: which sums count, who is left, who comes in."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import ray
from ray.exceptions import ActorDiedError

from rayrnn.training.coordinator import Coordinator, start_coordinator
from rayrnn.training.messages import (
    Answer,
    Batch,
    Event,
    Joined,
    Lost,
    Member,
    Orders,
    Report,
    Started,
    View,
    WentOn,
    Word,
)

ANN, BOB, CAT = (Member(number, name) for number, name in enumerate(("ann", "bob", "cat")))
STATE = ("a reference",)


def say(
    coordinator: Coordinator, member: Member, word: Word, view: View | None = None, **more: object
) -> asyncio.Task[Answer]:
    report = Report(member, word, view.sums if view else 0, view, **more)  # type: ignore[arg-type]
    return asyncio.ensure_future(coordinator.report(report))


async def together(coordinator: Coordinator, *members: Member) -> View:
    """The first view of `members`."""
    answers = await asyncio.gather(*(say(coordinator, member, "join") for member in members))
    views = {answer.view for answer in answers}
    assert len(views) == 1
    view = views.pop()
    assert view is not None
    return view


def raised(member: Member) -> Lost:
    return Lost(member.number, "raised", "ValueError: chosen", 0.0)


async def told_by(coordinator: Coordinator) -> list[Event]:
    news = await coordinator.collect("", 0)
    return [event for batch in news.batches for event in batch.events]


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), timeout=30))


def test_the_first_view_has_everybody_in_the_order_of_the_numbers() -> None:
    async def scene() -> None:
        view = await together(Coordinator(expected=3, patience=20), CAT, ANN, BOB)
        assert view.members == (ANN, BOB, CAT)

    play(scene)


def test_workers_begin_without_one_that_never_comes() -> None:
    async def scene() -> None:
        view = await together(Coordinator(expected=3, patience=0.2), ANN, BOB)
        assert view.members == (ANN, BOB)

    play(scene)


def test_a_sum_counts_for_all_when_one_member_saw_the_whole_vote() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=3, patience=20)
        view = await together(coordinator, ANN, BOB, CAT)
        unsure = say(coordinator, BOB, "unsure", view)
        agreed = say(coordinator, ANN, "agreed", view)
        assert (await unsure).sums == (await agreed).sums == 1

    play(scene)


def test_a_sum_counts_when_the_member_that_saw_the_whole_vote_has_left() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=2, patience=20)
        view = await together(coordinator, ANN, BOB)
        unsure = say(coordinator, BOB, "unsure", view)
        await coordinator.leave(Report(ANN, "agreed", 1, view))
        answer = await unsure
        assert answer.sums == 1
        assert answer.view is not None

    play(scene)


def test_a_sum_counts_when_a_member_that_has_begun_the_next_round_has_left() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=2, patience=20)
        view = await together(coordinator, ANN, BOB)
        await coordinator.leave(Report(ANN, "join", 1, view.next_sum()))
        assert (await say(coordinator, BOB, "unsure", view)).sums == 1

    play(scene)


def test_those_left_add_up_again_when_nobody_saw_the_whole_vote() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=3, patience=20)
        view = await together(coordinator, ANN, BOB, CAT)
        words = say(coordinator, ANN, "unsure", view), say(coordinator, BOB, "no sum", view)
        await coordinator.leave(Report(CAT, "join", 0, view), raised(CAT))
        for answer in await asyncio.gather(*words):
            assert answer.sums == 0
            assert answer.view is not None
            assert answer.view.members == (ANN, BOB)
            assert answer.view.linked > view.linked

    play(scene)


def test_a_late_member_is_left_behind_and_comes_in_with_the_state_of_the_others() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=2, patience=0.5)
        view = await together(coordinator, ANN, BOB)
        alone = (await say(coordinator, ANN, "no sum", view, waited=0.5)).view
        assert alone is not None
        assert alone.members == (ANN,)
        late = say(coordinator, BOB, "no sum", view)
        await coordinator.joiner()
        await say(coordinator, ANN, "agreed", alone, state=STATE)
        answer = await late
        assert answer.state == STATE
        assert answer.view is not None
        assert answer.view.members == (ANN, BOB)
        told = await told_by(coordinator)
        assert [type(event) for event in told] == [Lost, WentOn, Joined]
        assert isinstance(told[0], Lost)
        assert told[0].reason == "late"

    play(scene)


def test_nobody_joins_without_a_state_to_take_over() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=1, patience=20)
        view = await together(coordinator, ANN)
        waiting = say(coordinator, BOB, "join")
        await coordinator.joiner()
        following = (await say(coordinator, ANN, "agreed", view)).view
        assert following is not None
        assert following.members == (ANN,)
        assert not waiting.done()
        await say(coordinator, ANN, "agreed", following, state=STATE)
        assert (await waiting).state == STATE

    play(scene)


def test_a_newcomer_that_has_its_state_keeps_it_when_the_sum_is_repeated() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=1, patience=20)
        view = await together(coordinator, ANN)
        waiting = say(coordinator, BOB, "join")
        await coordinator.joiner()
        await say(coordinator, ANN, "agreed", view, state=STATE)
        both = (await waiting).view
        again = await asyncio.gather(say(coordinator, ANN, "no sum", both), say(coordinator, BOB, "no sum", both))
        assert [answer.state for answer in again] == [(), ()]

    play(scene)


def test_those_who_are_further_begin_and_the_others_join_them() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=2, patience=20)
        behind = say(coordinator, ANN, "join")
        ahead = asyncio.ensure_future(coordinator.report(Report(BOB, "join", 7)))
        view = (await ahead).view
        assert view is not None
        assert (view.sums, view.members) == (7, (BOB,))
        await say(coordinator, BOB, "agreed", view, state=STATE)
        answer = await behind
        assert (answer.sums, answer.state) == (8, STATE)

    play(scene)


def test_no_generation_comes_twice_when_all_members_died_without_a_word() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=1, patience=20)
        before = await together(coordinator, ANN)
        for _ in range(1000):
            before = before.next_sum()  # while nothing happens the coordinator does not hear of it
        again = Member(ANN.number, "ann again")
        assert (await together(coordinator, again)).generation > before.generation

    play(scene)


def test_generations_rise_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        coordinator, newest = Coordinator(expected=1, patience=20), 0
        for number in range(4):
            monkeypatch.setattr(time, "time_ns", lambda number=number: 10**18 - number * 10**15)
            monkeypatch.setattr(time, "time", lambda number=number: 10**9 - number * 10**6)
            view = await together(coordinator, Member(ANN.number, f"ann {number}"))
            assert view.generation > newest
            newest = view.generation

    play(scene)


def test_a_coordinator_that_knows_nothing_begins_above_what_the_driver_has_heard_of() -> None:
    async def scene() -> None:
        before = await together(Coordinator(expected=1, patience=20), ANN)
        coordinator = Coordinator(expected=1, patience=20)
        await coordinator.give(Orders(number=1, generation=before.generation + 7))
        again = Member(ANN.number, "ann again")
        assert (await together(coordinator, again)).generation > before.generation + 7

    play(scene)


def test_those_who_live_are_believed_before_the_driver() -> None:
    async def scene() -> None:
        view = await together(Coordinator(expected=2, patience=20), ANN, BOB)
        coordinator = Coordinator(expected=2, patience=20)
        await coordinator.give(Orders(number=1, generation=view.generation))
        assert await coordinator.hear(Report(ANN, "agreed", 1, view))
        assert (await coordinator.collect("", 0)).members == (0, 1)

    play(scene)


def test_who_comes_after_the_end_is_told_so() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=1, patience=20)
        view = await together(coordinator, ANN)
        await coordinator.leave(Report(ANN, "agreed", 1, view))
        answer = await say(coordinator, BOB, "join")
        assert answer == Answer(None, 1)

    play(scene)


def test_a_process_that_was_replaced_is_turned_away() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=1, patience=20)
        view = await together(coordinator, ANN)
        say(coordinator, Member(ANN.number, "ann's successor"), "join")
        await asyncio.sleep(0)
        assert (await say(coordinator, ANN, "agreed", view)).replaced

    play(scene)


def test_a_coordinator_that_was_started_again_learns_from_the_workers() -> None:
    async def scene() -> None:
        view = await together(Coordinator(expected=2, patience=20), ANN, BOB)
        for _ in range(40):
            view = view.next_sum()
        coordinator = Coordinator(expected=2, patience=20)
        assert await coordinator.hear(Report(ANN, "agreed", 41, view))
        assert (await coordinator.collect("", 0)).members == (0, 1)
        assert not await coordinator.hear(Report(CAT, "agreed", 3, View(3, (CAT,), 4, 1)))

    play(scene)


def test_members_that_connect_hear_at_once_of_one_that_was_lost() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=2, patience=20)
        view = await together(coordinator, ANN, BOB)
        address = asyncio.ensure_future(coordinator.take(view.linked, "bob's"))
        await coordinator.put(view.linked, "ann's", b"1.2.3.4")
        assert await coordinator.take(view.linked, "ann's") == b"1.2.3.4"
        await coordinator.leave(Report(BOB, "join", 0, view), raised(BOB))
        assert await address is None

    play(scene)


def test_a_batch_is_given_again_until_the_driver_has_it_which_its_sender_hears_then() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=1, patience=20)
        assert (await coordinator.post(Batch("ann", 1, (Started(0),)))).taken == 0
        first = await coordinator.collect("", 0)
        again = await coordinator.collect("", 0)
        assert first == again
        assert (await coordinator.post(Batch("ann", 1, ()))).taken == 0, "the driver may not have got the answer"
        then = await coordinator.collect(first.incarnation, first.count)
        assert then.batches == ()
        assert (await coordinator.post(Batch("ann", 1, ()))).taken == 1

    play(scene)


def test_what_the_driver_has_of_another_incarnation_is_not_counted() -> None:
    async def scene() -> None:
        before, coordinator = Coordinator(expected=1, patience=20), Coordinator(expected=1, patience=20)
        await coordinator.post(Batch("ann", 1, (Started(0),)))
        news = await coordinator.collect((await before.collect("", 0)).incarnation, 5)
        assert len(news.batches) == 1
        assert (await coordinator.post(Batch("ann", 1, ()))).taken == 0

    play(scene)


def test_orders_that_come_late_do_not_replace_newer_ones() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=1, patience=20)
        waiting = asyncio.ensure_future(coordinator.orders())
        stopped = asyncio.ensure_future(coordinator.stop())
        await coordinator.give(Orders(number=1, checkpoint=STATE))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not waiting.done(), "there is nothing yet that a worker could learn"
        newest = Orders(number=3, spec=STATE, stop=True)  # type: ignore[arg-type]
        await coordinator.give(newest)
        await coordinator.give(Orders(number=2, spec=STATE))  # type: ignore[arg-type]
        assert await coordinator.orders() == newest
        assert await waiting == newest
        await stopped

    play(scene)


class Pulse:
    """A process that is out of reach in a way that nobody has thought of, and then is dead."""

    def __init__(self) -> None:
        self.asked = 0

    @property
    def __ray_ready__(self) -> "Pulse":
        return self

    async def remote(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise ValueError("chosen")
        raise ActorDiedError


def test_a_question_that_fails_does_not_end_the_watch_over_a_worker() -> None:
    async def scene() -> None:
        coordinator = Coordinator(expected=2, patience=20)
        process = Pulse()
        watched = Member(1, "watched", process)  # type: ignore[arg-type]
        view = await together(coordinator, ANN, watched)
        answer = await say(coordinator, ANN, "no sum", view)
        assert answer.view is not None
        assert answer.view.members == (ANN,)
        assert process.asked > 1

    play(scene)


@pytest.mark.usefixtures("ray_cluster")
def test_a_coordinator_whose_thinking_fails_in_time_is_started_again() -> None:
    coordinator = start_coordinator(expected=3, patience=0.2)
    before = ray.get(coordinator.collect.remote("", 0)).incarnation
    unequal = Member(0, "zero"), Member("one", "one")  # type: ignore[arg-type]
    for member in unequal:
        coordinator.report.remote(Report(member, "join", 0))
    deadline = time.monotonic() + 60
    while ray.get(coordinator.collect.remote("", 0)).incarnation == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ray.kill(coordinator)
