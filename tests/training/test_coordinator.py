"""The roll gives every worker the same answer: which sums count, who is left, who comes in."""

import asyncio
from collections.abc import Awaitable, Callable

from rayrnn.training.coordinator import Roll
from rayrnn.training.messages import Answer, Member, Report, Roster, Word

ANN, BOB, CAT = (Member(number, name) for number, name in enumerate(("ann", "bob", "cat")))
STATE = ("a reference",)


def say(roll: Roll, member: Member, word: Word, roster: Roster | None = None, **more: object) -> asyncio.Task[Answer]:
    report = Report(member, word, roster.round if roster else 0, roster, **more)  # type: ignore[arg-type]
    return asyncio.ensure_future(roll.report(report))


async def together(roll: Roll, *members: Member) -> Roster:
    """The first roster of `members`."""
    answers = await asyncio.gather(*(say(roll, member, "join") for member in members))
    rosters = {answer.roster for answer in answers}
    assert len(rosters) == 1
    roster = rosters.pop()
    assert roster is not None
    return roster


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), timeout=30))


def test_the_first_roster_has_everybody_in_the_order_of_the_numbers() -> None:
    async def scene() -> None:
        roster = await together(Roll(expected=3, patience=20), CAT, ANN, BOB)
        assert roster.members == (ANN, BOB, CAT)

    play(scene)


def test_workers_begin_without_one_that_never_comes() -> None:
    async def scene() -> None:
        roster = await together(Roll(expected=3, patience=0.2), ANN, BOB)
        assert roster.members == (ANN, BOB)

    play(scene)


def test_a_sum_counts_for_all_when_one_member_saw_the_whole_vote() -> None:
    async def scene() -> None:
        roll = Roll(expected=3, patience=20)
        roster = await together(roll, ANN, BOB, CAT)
        unsure = say(roll, BOB, "unsure", roster)
        agreed = say(roll, ANN, "agreed", roster)
        assert (await unsure).round == (await agreed).round == 1

    play(scene)


def test_a_sum_counts_when_the_member_that_saw_the_whole_vote_has_left() -> None:
    async def scene() -> None:
        roll = Roll(expected=2, patience=20)
        roster = await together(roll, ANN, BOB)
        unsure = say(roll, BOB, "unsure", roster)
        await roll.leave(Report(ANN, "agreed", 1, roster), finished=True)
        answer = await unsure
        assert answer.round == 1
        assert answer.roster is not None

    play(scene)


def test_a_sum_counts_when_a_member_that_has_begun_the_next_round_has_left() -> None:
    async def scene() -> None:
        roll = Roll(expected=2, patience=20)
        roster = await together(roll, ANN, BOB)
        await roll.leave(Report(ANN, "join", 1, roster.next_round()), finished=True)
        assert (await say(roll, BOB, "unsure", roster)).round == 1

    play(scene)


def test_those_left_add_up_again_when_nobody_saw_the_whole_vote() -> None:
    async def scene() -> None:
        roll = Roll(expected=3, patience=20)
        roster = await together(roll, ANN, BOB, CAT)
        words = say(roll, ANN, "unsure", roster), say(roll, BOB, "lost", roster)
        await roll.leave(Report(CAT, "join", 0, roster), finished=False)
        for answer in await asyncio.gather(*words):
            assert answer.round == 0
            assert answer.roster is not None
            assert answer.roster.members == (ANN, BOB)
            assert answer.roster.connected > roster.connected

    play(scene)


def test_a_late_member_is_left_behind_and_comes_in_with_the_state_of_the_others() -> None:
    async def scene() -> None:
        roll = Roll(expected=2, patience=0.5)
        roster = await together(roll, ANN, BOB)
        alone = (await say(roll, ANN, "lost", roster, waited=0.5)).roster
        assert alone is not None
        assert alone.members == (ANN,)
        late = say(roll, BOB, "lost", roster)
        await roll.joiner()
        await say(roll, ANN, "agreed", alone, state=STATE)
        answer = await late
        assert answer.state == STATE
        assert answer.roster is not None
        assert answer.roster.members == (ANN, BOB)
        assert [event["kind"] for event in await roll.collect()] == ["late", "went_on", "joined"]

    play(scene)


def test_nobody_joins_without_a_state_to_take_over() -> None:
    async def scene() -> None:
        roll = Roll(expected=1, patience=20)
        roster = await together(roll, ANN)
        waiting = say(roll, BOB, "join")
        await roll.joiner()
        following = (await say(roll, ANN, "agreed", roster)).roster
        assert following is not None
        assert following.members == (ANN,)
        assert not waiting.done()
        await say(roll, ANN, "agreed", following, state=STATE)
        assert (await waiting).state == STATE

    play(scene)


def test_a_newcomer_that_has_its_state_keeps_it_when_the_sum_is_repeated() -> None:
    async def scene() -> None:
        roll = Roll(expected=1, patience=20)
        roster = await together(roll, ANN)
        waiting = say(roll, BOB, "join")
        await roll.joiner()
        await say(roll, ANN, "agreed", roster, state=STATE)
        both = (await waiting).roster
        again = await asyncio.gather(say(roll, ANN, "lost", both), say(roll, BOB, "lost", both))
        assert [answer.state for answer in again] == [(), ()]

    play(scene)


def test_those_who_are_further_begin_and_the_others_join_them() -> None:
    async def scene() -> None:
        roll = Roll(expected=2, patience=20)
        behind = say(roll, ANN, "join")
        ahead = asyncio.ensure_future(roll.report(Report(BOB, "join", 7)))
        roster = (await ahead).roster
        assert roster is not None
        assert (roster.round, roster.members) == (7, (BOB,))
        await say(roll, BOB, "agreed", roster, state=STATE)
        answer = await behind
        assert (answer.round, answer.state) == (8, STATE)

    play(scene)


def test_no_edition_comes_twice_when_all_members_died_without_a_word() -> None:
    async def scene() -> None:
        roll = Roll(expected=1, patience=20)
        before = await together(roll, ANN)
        for _ in range(1000):
            before = before.next_round()  # while nothing happens the roll does not hear of it
        again = Member(ANN.number, "ann again")
        assert (await together(roll, again)).edition > before.edition

    play(scene)


def test_who_comes_after_the_end_is_told_so() -> None:
    async def scene() -> None:
        roll = Roll(expected=1, patience=20)
        roster = await together(roll, ANN)
        await roll.leave(Report(ANN, "agreed", 1, roster), finished=True)
        answer = await say(roll, BOB, "join")
        assert answer == Answer(None, 1)

    play(scene)


def test_a_process_that_was_replaced_is_turned_away() -> None:
    async def scene() -> None:
        roll = Roll(expected=1, patience=20)
        roster = await together(roll, ANN)
        say(roll, Member(ANN.number, "ann's successor"), "join")
        await asyncio.sleep(0)
        assert (await say(roll, ANN, "agreed", roster)).replaced

    play(scene)


def test_a_roll_that_was_started_again_learns_from_the_workers() -> None:
    async def scene() -> None:
        roster = await together(Roll(expected=2, patience=20), ANN, BOB)
        for _ in range(40):
            roster = roster.next_round()
        roll = Roll(expected=2, patience=20)
        assert await roll.hear(Report(ANN, "agreed", 41, roster))
        assert await roll.members() == [0, 1]
        assert not await roll.hear(Report(CAT, "agreed", 3, Roster(3, (CAT,), 4, 1)))

    play(scene)


def test_members_that_connect_hear_at_once_of_one_that_was_lost() -> None:
    async def scene() -> None:
        roll = Roll(expected=2, patience=20)
        roster = await together(roll, ANN, BOB)
        address = asyncio.ensure_future(roll.take(roster.connected, "bob's"))
        await roll.put(roster.connected, "ann's", b"1.2.3.4")
        assert await roll.take(roster.connected, "ann's") == b"1.2.3.4"
        await roll.leave(Report(BOB, "join", 0, roster), finished=False)
        assert await address is None

    play(scene)
