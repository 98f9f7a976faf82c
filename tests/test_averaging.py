"""The averaging's arithmetic: weights, outer optimizers, optimizer state."""

import math
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.averaging.averager import Averager, OuterOptimizer
from rayrnn.averaging.compression import Wire
from rayrnn.averaging.optimizer_state import load_own_state, moments, own_state, prepare_state
from tests.together import Thread, together


def linear(values: float = 0.0) -> torch.nn.Linear:
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(values)
    return model


def learn(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int, updates: int = 3) -> None:
    random = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=random)).square().sum().backward()
        optimizer.step()


@given(st.lists(st.tuples(st.floats(-10, 10, width=32), st.integers(0, 1000)), min_size=2, max_size=4))
def test_the_mean_is_weighted_by_steps_learned(members: list[tuple[float, int]]) -> None:
    def work(group: Thread) -> tuple[float, float]:
        value, weight = members[group.rank]
        model = linear(value)
        average = Averager(model, torch.optim.SGD(model.parameters())).average(group, weight=weight, notes=[value])
        return model.weight[0, 0].item(), average.weight

    total = sum(weight for _, weight in members)
    for (value, _), (mean, weight) in zip(members, together(len(members), work), strict=True):
        expected = sum(v * w for v, w in members) / total if total else value
        assert mean == pytest.approx(expected, abs=1e-4)
        assert weight == total


def test_equal_work_gives_the_plain_mean() -> None:
    def work(group: Thread) -> float:
        model = linear(float(group.rank))
        Averager(model, torch.optim.SGD(model.parameters())).average(group, weight=40, notes=[])
        return model.bias[0].item()

    assert together(4, work) == [1.5] * 4


def test_a_worker_without_work_contributes_nothing_even_when_it_holds_nan() -> None:
    def work(group: Thread) -> float:
        model = linear(float("nan") if group.rank else 7.0)
        Averager(model, torch.optim.SGD(model.parameters())).average(group, weight=0 if group.rank else 9, notes=[])
        return model.weight[1, 1].item()

    assert together(3, work) == [7.0] * 3


def test_a_single_worker_keeps_its_parameters_bit_for_bit() -> None:
    torch.manual_seed(1)
    model = torch.nn.LSTM(5, 7)
    before = [parameter.clone() for parameter in model.parameters()]
    averager = Averager(model, torch.optim.Adam(model.parameters()), optimizer_state="average")
    together(1, lambda group: averager.average(group, weight=12345, notes=[1.0]))
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_parameters_are_written_in_place() -> None:
    def work(group: Thread) -> bool:
        model = linear(float(group.rank))
        addresses = [parameter.data_ptr() for parameter in model.parameters()]
        Averager(model, torch.optim.SGD(model.parameters())).average(group, weight=1, notes=[])
        return addresses == [parameter.data_ptr() for parameter in model.parameters()]

    assert together(2, work) == [True, True]


def test_every_member_sees_every_members_notes() -> None:
    def work(group: Thread) -> list[list[float]]:
        model = linear()
        averager = Averager(model, torch.optim.SGD(model.parameters()))
        notes: list[list[float]] = averager.average(group, weight=1, notes=[group.rank, 10.0]).notes.tolist()
        return notes

    assert together(3, work) == [[[0.0, 10.0], [1.0, 10.0], [2.0, 10.0]]] * 3


@pytest.mark.parametrize("policy", ["keep", "average", "reset"])
def test_optimizer_state_is_kept_averaged_or_reset(policy: str) -> None:
    def work(group: Thread) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        model = linear(1.0)
        optimizer = torch.optim.Adam(model.parameters())
        averager = Averager(model, optimizer, optimizer_state=policy)
        learn(model, optimizer, seed=group.rank)
        before = [moment.clone() for moment in moments(optimizer)]
        averager.average(group, weight=5, notes=[])
        return before, [moment.clone() for moment in moments(optimizer)]

    (before_0, after_0), (before_1, after_1) = together(2, work)
    assert len(before_0) == 4
    if policy == "keep":
        assert all(torch.equal(a, b) for a, b in zip(before_0 + before_1, after_0 + after_1, strict=True))
    elif policy == "reset":
        assert not any(moment.any() for moment in after_0 + after_1)
    else:
        for a, b, mean_0, mean_1 in zip(before_0, before_1, after_0, after_1, strict=True):
            torch.testing.assert_close(mean_0, (a + b) / 2)
            assert torch.equal(mean_0, mean_1)


def test_preparing_the_optimizers_state_changes_no_later_value() -> None:
    torch.manual_seed(0)
    for make in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        plain, prepared = linear(0.5), linear(0.5)
        first, second = make(plain.parameters(), lr=0.1), make(prepared.parameters(), lr=0.1)
        prepare_state(second)
        learn(plain, first, seed=3)
        learn(prepared, second, seed=3)
        assert torch.equal(plain.weight, prepared.weight), make


def test_nesterov_is_torchs_sgd_with_nesterov_momentum_on_the_negative_move() -> None:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(6))
    reference = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    outer = OuterOptimizer(parameter.detach().clone(), kind="nesterov", learning_rate=0.7, momentum=0.9)
    for _ in range(4):
        mean = parameter.detach() + torch.randn(6)
        parameter.grad = parameter.detach() - mean
        reference.step()
        torch.testing.assert_close(outer.step(mean), parameter.detach())


def test_bmuf_moves_by_momentum_and_the_scaled_block_gradient() -> None:
    outer = OuterOptimizer(torch.zeros(1), kind="bmuf", learning_rate=1.0, momentum=0.5)
    assert outer.step(torch.tensor([1.0])).item() == 1.0  # update = 0 * 0.5 + (1 - 0)
    assert outer.step(torch.tensor([2.0])).item() == 2.5  # update = 1 * 0.5 + (2 - 1) = 1.5
    assert outer.step(torch.tensor([2.5])).item() == 3.25  # update = 1.5 * 0.5 + 0


def test_an_outer_optimizer_goes_on_from_its_stored_state() -> None:
    first = OuterOptimizer(torch.zeros(3), kind="nesterov", learning_rate=0.7, momentum=0.9)
    first.step(torch.tensor([1.0, 2.0, 3.0]))
    second = OuterOptimizer(torch.ones(3), kind="nesterov", learning_rate=0.7, momentum=0.9)
    second.load(first.state())
    mean = torch.tensor([4.0, 4.0, 4.0])
    assert torch.equal(first.step(mean), second.step(mean))


def test_a_workers_own_state_is_its_moments_counts_and_chance() -> None:
    model, other = linear(1.0), linear(1.0)
    optimizer, fresh = torch.optim.Adam(model.parameters()), torch.optim.Adam(other.parameters())
    prepare_state(optimizer)
    prepare_state(fresh)
    learn(model, optimizer, seed=1)
    stored = own_state(optimizer)
    drawn = torch.rand(3)
    load_own_state(fresh, stored)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(a, b) for a, b in zip(moments(optimizer), moments(fresh), strict=True))


def test_the_plain_mean_keeps_nothing_to_go_on_from() -> None:
    outer = OuterOptimizer(torch.zeros(3), kind="none", learning_rate=1.0, momentum=0.0)
    mean = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(outer.step(mean), mean)
    assert outer.state() == {}


def test_what_an_outer_optimizer_stores_has_the_names_that_checkpoints_have() -> None:
    for kind in ("nesterov", "bmuf"):
        assert list(OuterOptimizer(torch.zeros(3), kind=kind, learning_rate=1.0, momentum=0.5).state()) == [
            "common",
            "velocity",
        ]


@pytest.mark.parametrize("wire", ["float32", "int8"])
@pytest.mark.parametrize("outer", ["none", "nesterov"])
def test_what_is_learned_while_an_average_travels_is_added_to_it(outer: str, wire: Wire) -> None:
    """The same as an average that is waited for, and the same steps after it."""

    def work(group: Thread, *, travels: bool) -> list[torch.Tensor]:
        model = torch.nn.Linear(3, 2)
        with torch.no_grad():
            model.weight.copy_(torch.arange(6.0).view(2, 3) + group.rank)
            model.bias.fill_(0.5)
        averager = Averager(
            model,
            torch.optim.SGD(model.parameters()),
            outer=outer,
            outer_learning_rate=0.7,
            outer_momentum=0.9,
            wire=wire,
        )
        found = []
        for number in range(3):
            moved = (1 + group.rank) * (2.0**number)
            if travels:
                averager.send(group, weight=1 + group.rank, notes=[number])
                with torch.no_grad():
                    model.weight.add_(moved)
                average = averager.receive()
            else:
                average = averager.average(group, weight=1 + group.rank, notes=[number])
                with torch.no_grad():
                    model.weight.add_(moved)
            assert average.weight == 3
            assert average.notes.flatten().tolist() == [number, number]
            found += [parameter.detach().clone() for parameter in model.parameters()]
        averager.close()
        return found

    waited = together(2, lambda group: work(group, travels=False))
    meanwhile = together(2, lambda group: work(group, travels=True))
    for first, second in zip(waited[0] + waited[1], meanwhile[0] + meanwhile[1], strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("when", ["sent", "since"])
def test_a_worker_that_was_or_became_broken_takes_what_arrives_as_it_is(when: str) -> None:
    def work(group: Thread) -> float:
        broken = group.rank == 1
        model = linear(math.nan if broken and when == "sent" else 2.0)
        averager = Averager(model, torch.optim.SGD(model.parameters()))
        averager.send(group, weight=0 if broken and when == "sent" else 1, notes=[])
        with torch.no_grad():
            model.weight.add_(math.nan if broken else 1.0)
        averager.receive()
        averager.close()
        return model.weight[0, 0].item()

    assert together(2, work) == [3.0, 2.0]


def test_what_a_group_raises_while_an_average_travels_is_raised_where_it_is_received() -> None:
    class Fails(Thread):
        def sum(self, flat: torch.Tensor) -> bool:
            raise OSError("the link is gone")

    def work(group: Thread) -> None:
        model = linear(1.0)
        averager = Averager(model, torch.optim.SGD(model.parameters()))
        averager.send(Fails(0, 1, [None], threading.Barrier(1)), weight=1, notes=[])
        with pytest.raises(OSError, match="the link is gone"):
            averager.receive()
        # and the next one is made as ever
        averager.send(group, weight=1, notes=[])
        assert averager.receive().weight == 1
        averager.close()

    together(1, work)
