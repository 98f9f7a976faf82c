"""Averages whose parameters travel in bfloat16 or int8: the same bits everywhere, and nothing lost in the long run."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrnn.averaging.averager import Averager
from rayrnn.averaging.compression import Wire, num_encoded
from rayrnn.averaging.optimizer_state import moments
from tests.together import Thread, together

WIRES: list[Wire] = ["bfloat16", "int8"]
#: more than one block of int8
INPUTS, OUTPUTS = 60, 30

Weights = list[torch.Tensor]


class Learner:
    """A small network that learns noise of its own."""

    def __init__(self, number: int, *, wire: Wire, **how: object) -> None:
        self.model = torch.nn.Linear(INPUTS, OUTPUTS)
        # of its own: members are threads, which share torch's generator
        same = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.uniform_(-0.1, 0.1, generator=same)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.averager = Averager(self.model, self.optimizer, wire=wire, **how)  # type: ignore[arg-type]
        self._noise = torch.Generator().manual_seed(number + 1)

    def learn(self, updates: int = 2) -> None:
        for _ in range(updates):
            self.optimizer.zero_grad()
            self.model(torch.randn(4, INPUTS, generator=self._noise)).square().sum().backward()
            self.optimizer.step()

    def move(self, by: torch.Tensor) -> None:
        with torch.no_grad():
            self.model.weight.add_(by)

    def weights(self) -> Weights:
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    def residual(self) -> torch.Tensor:
        return self.averager.own_state()["residual"]


def learned_together(size: int, rounds: int, *, weight: Callable[[int, int], float], **how: object) -> list[Weights]:
    """Every member's parameters after so many rounds; `weight` of (rank, round)."""

    def work(group: Thread) -> Weights:
        learner = Learner(group.rank, **how)  # type: ignore[arg-type]
        for number in range(rounds):
            learner.learn()
            learner.averager.average(group, weight=weight(group.rank, number), notes=[])
        return learner.weights()

    return together(size, work)


def equal(first: Weights, second: Weights) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@settings(max_examples=20)
@given(
    st.sampled_from(WIRES),
    st.integers(2, 4),
    st.sampled_from(["none", "nesterov", "bmuf"]),
    st.sampled_from(["keep", "average", "reset"]),
    st.lists(st.integers(0, 3), min_size=12, max_size=12),
)
def test_all_members_hold_the_same_bits_after_every_average(
    wire: Wire, size: int, outer: str, policy: str, chosen: list[int]
) -> None:
    def weight(rank: int, number: int) -> float:
        return 1.0 if number == 2 else float(chosen[(3 * rank + number) % 12])

    members = learned_together(size, 3, weight=weight, wire=wire, outer=outer, optimizer_state=policy)
    assert all(equal(members[0], other) for other in members[1:])


@pytest.mark.parametrize("wire", WIRES)
def test_the_encoded_mean_is_near_the_exact_one(wire: Wire) -> None:
    def weight(rank: int, number: int) -> float:
        return 1.0 + rank

    start = Learner(0, wire=wire).weights()
    exact = learned_together(3, 1, weight=weight, wire="float32")[0]
    encoded = learned_together(3, 1, weight=weight, wire=wire)[0]
    for before, mean, near in zip(start, exact, encoded, strict=True):
        assert (mean - near).abs().amax() <= (mean - before).abs().amax() / 50
    assert not equal(exact, encoded)


@pytest.mark.parametrize("wire", WIRES)
def test_a_single_member_keeps_its_parameters_bit_for_bit_and_owes_nothing(wire: Wire) -> None:
    plain, averaged = Learner(0, wire="float32"), Learner(0, wire=wire)
    for _ in range(3):
        plain.learn()
        averaged.learn()
        together(1, lambda group: averaged.averager.average(group, weight=5, notes=[1.0]))
    assert equal(plain.weights(), averaged.weights())
    assert not averaged.residual().any()


@pytest.mark.parametrize("wire", WIRES)
def test_members_that_were_alone_for_a_round_send_what_they_learned_since(wire: Wire) -> None:
    """The last common parameters are those after the round alone, not those before."""

    def work(group: Thread) -> float:
        learner = Learner(group.rank, wire=wire)
        learner.move(torch.tensor(1.0))
        together(1, lambda alone: learner.averager.average(alone, weight=1, notes=[]))
        before = learner.weights()[0]
        learner.averager.average(group, weight=1, notes=[])
        return float((learner.weights()[0] - before).abs().amax())

    assert together(2, work) == [0.0, 0.0]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("weight", [0.0, float("nan"), 3.0], ids=["no work", "no number", "work"])
def test_a_worker_that_is_not_finite_or_has_no_weight_contributes_nothing_and_keeps_what_it_owes(
    wire: Wire, weight: float
) -> None:
    def work(group: Thread) -> tuple[Weights, bool, float]:
        learner = Learner(group.rank, wire=wire, optimizer_state="average")
        learner.learn()
        learner.averager.average(group, weight=1, notes=[])
        owed = learner.residual()
        learner.learn()
        if group.rank == 1:
            learner.move(torch.tensor(float("nan")))
        result = learner.averager.average(group, weight=weight if group.rank == 1 else 4, notes=[])
        return learner.weights(), torch.equal(learner.residual(), owed), result.weight

    (first, first_owes_the_same, total), (second, second_owes_the_same, _) = together(2, work)
    assert equal(first, second)
    assert all(values.isfinite().all() for values in first)
    assert (first_owes_the_same, second_owes_the_same) == (False, True)
    assert total == 4


def test_without_any_weight_the_parameters_stay() -> None:
    def work(group: Thread) -> bool:
        learner = Learner(group.rank, wire="int8")
        learner.learn()
        before = learner.weights()
        learner.averager.average(group, weight=0, notes=[])
        return equal(before, learner.weights())

    assert together(2, work) == [True, True]


@pytest.mark.parametrize("wire", WIRES)
def test_in_the_long_run_everything_that_was_learned_arrives(wire: Wire) -> None:
    """Two workers move by the same in every round: all but the last loss has arrived, the smallest moves too."""
    moves = torch.logspace(-6, 0, INPUTS).repeat(OUTPUTS, 1)
    rounds = 200

    def work(group: Thread) -> torch.Tensor:
        learner = Learner(group.rank, wire=wire)
        with torch.no_grad():
            learner.model.weight.zero_()
        learner.averager.take_over({})
        for _ in range(rounds):
            learner.move(moves * (1 + group.rank))
            learner.averager.average(group, weight=1, notes=[])
        return learner.weights()[0]

    arrived, _ = together(2, work)
    assert (arrived - 1.5 * rounds * moves).abs().amax() < 0.02


@pytest.mark.parametrize("policy", ["keep", "average"])
def test_the_encoded_bytes_are_counted(policy: str) -> None:
    def work(group: Thread) -> int:
        learner = Learner(group.rank, wire="int8", optimizer_state=policy)
        return learner.averager.average(group, weight=1, notes=[1.0, 2.0]).num_bytes

    num_values = INPUTS * OUTPUTS + OUTPUTS
    exact = 2 * num_values * 4 if policy == "average" else 0
    assert together(2, work) == [num_encoded(num_values, "int8") + exact + 3 * 8] * 2


def test_every_member_sees_every_members_notes() -> None:
    def work(group: Thread) -> list[list[float]]:
        average = Learner(group.rank, wire="bfloat16").averager.average(group, weight=1, notes=[group.rank, 0.1])
        rows: list[list[float]] = average.notes.tolist()
        return rows

    assert together(3, work) == [[[0.0, 0.1], [1.0, 0.1], [2.0, 0.1]]] * 3


def test_averaged_moments_travel_exactly_so_that_no_square_becomes_negative() -> None:
    def work(group: Thread) -> tuple[Weights, Weights]:
        learner = Learner(group.rank, wire="int8", optimizer_state="average")
        learner.learn()
        before = [moment.clone() for moment in moments(learner.optimizer)]
        learner.averager.average(group, weight=1, notes=[])
        return before, [moment.clone() for moment in moments(learner.optimizer)]

    (before_0, after_0), (before_1, after_1) = together(2, work)
    assert equal(after_0, after_1)
    for a, b, mean in zip(before_0, before_1, after_0, strict=True):
        torch.testing.assert_close(mean, (a + b) / 2)


@pytest.mark.parametrize("wire", WIRES)
def test_who_goes_on_from_stored_state_goes_on_bit_for_bit(wire: Wire) -> None:
    def work(group: Thread) -> tuple[Weights, Weights, bool]:
        learner, other = Learner(group.rank, wire=wire), Learner(group.rank, wire=wire)
        learner.learn()
        learner.averager.average(group, weight=1, notes=[])
        other.model.load_state_dict(learner.model.state_dict())
        other.averager.take_over(learner.averager.outer.state())
        other.averager.load_own_state(learner.averager.own_state())
        owes = bool(other.residual().any())
        for one in (learner, other):
            one.move(torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(group.rank)))
            one.averager.average(group, weight=1, notes=[])
        return learner.weights(), other.weights(), owes

    for whole, resumed, owes in together(2, work):
        assert equal(whole, resumed)
        assert owes


def test_who_joins_or_borrows_another_workers_state_owes_nothing() -> None:
    def work(group: Thread) -> tuple[bool, bool, bool]:
        learner, borrower = Learner(group.rank, wire="int8"), Learner(group.rank, wire="int8")
        learner.learn()
        learner.averager.average(group, weight=1, notes=[])
        state = learner.averager.own_state()
        borrower.averager.load_own_state(state, borrowed=True)
        learner.averager.take_over(learner.averager.outer.state())
        return bool(state["residual"].any()), bool(learner.residual().any()), bool(borrower.residual().any())

    assert together(2, work) == [(True, False, False)] * 2


def test_with_float32_a_workers_state_is_what_it_always_was() -> None:
    assert "residual" not in Learner(0, wire="float32").averager.own_state()
