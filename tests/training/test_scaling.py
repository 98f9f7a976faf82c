"""`averaging.scaling`: what N workers make of the values of one."""

import functools
from typing import Any

import pytest
import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.order import Stream, make_plan
from rayrnn.data.prepare import Prepared, prepare
from rayrnn.recipe import Recipe
from rayrnn.tasks.language_model import LanguageModel
from rayrnn.training.learner import Learner, WorkerSpec
from rayrnn.training.loop import LearningSettings, learn_alone
from rayrnn.training.scaling import parts_of_minibatch
from rayrnn.training.summary import outline_of
from tests.training.recipes import small

CPU = torch.device("cpu")


def of_batch(batch_size: int, **averaging: Any) -> Recipe:
    return small(training={"batch_size": batch_size}, averaging=averaging)


@pytest.mark.parametrize(
    ("batch_size", "workers", "device", "parts"),
    [
        (16, 1, "cpu", 1),
        (16, 2, "cpu", 2),
        (16, 3, "cpu", 3),
        (16, 4, "cpu", 4),
        (16, 16, "cpu", 4),  # of four sequences each
        (64, 16, "cpu", 16),
        (7, 8, "cpu", 1),
        (1, 8, "cpu", 1),
        (32, 8, "cuda", 1),  # a GPU would take as long for each part as for the whole
        (256, 2, "cuda", 2),
        (256, 8, "cuda", 4),
    ],
)
def test_n_workers_learn_a_minibatch_in_n_parts_that_a_device_is_not_too_large_for(
    batch_size: int, workers: int, device: str, parts: int
) -> None:
    assert parts_of_minibatch(of_batch(batch_size), workers=workers, device=device) == parts
    assert parts_of_minibatch(of_batch(batch_size, scaling="none"), workers=workers, device=device) == 1


def minibatch(rows: int) -> Minibatch:
    random = torch.Generator().manual_seed(rows)
    symbols = torch.randint(1, 5, (rows, 9), generator=random)
    mask = torch.arange(8) < torch.randint(1, 9, (rows, 1), generator=random)
    return Minibatch(symbols[:, :-1], symbols[:, 1:], mask, mask, tuple(f"row {row}" for row in range(rows)))


@pytest.mark.parametrize(
    ("rows", "number", "sizes"), [(8, 2, [4, 4]), (7, 3, [3, 2, 2]), (2, 4, [1, 1]), (0, 3, [0]), (5, 1, [5])]
)
def test_the_parts_of_a_minibatch_are_its_rows_once_and_in_order(rows: int, number: int, sizes: list[int]) -> None:
    whole = minibatch(rows)
    parts = whole.parts(number)
    assert [len(part.keys) for part in parts] == [len(part.inputs) for part in parts] == sizes
    assert sum((part.keys for part in parts), ()) == whole.keys
    for name in ("inputs", "targets", "mask", "target_mask"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name


def learned(minibatches: list[Minibatch], parts: int) -> tuple[dict[str, torch.Tensor], Any]:
    torch.manual_seed(0)
    network = WithState()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    settings = LearningSettings(4, 1.0, "norm", parts=parts)
    work = learn_alone(network, optimizer, iter(minibatches), task=LanguageModel(), settings=settings)
    return network.state_dict(), work


class WithState(torch.nn.Module):
    """The smallest network that a language model can be."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = torch.nn.Embedding(5, 5)

    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> tuple[torch.Tensor, Any]:
        before = torch.zeros(len(inputs), 1, 5) if state is None else state
        logits = self.inside(inputs) + before
        return logits, logits[:, -1:]


def test_a_minibatch_in_parts_is_learned_as_so_many_minibatches_bit_for_bit() -> None:
    whole = [minibatch(7), minibatch(5)]
    in_parts, work = learned(whole, parts=3)
    one_by_one, pieces = learned([part for each in whole for part in each.parts(3)], parts=1)
    assert all(torch.equal(value, one_by_one[name]) for name, value in in_parts.items())
    assert (work.steps, work.updates, work.loss_sum) == (pieces.steps, pieces.updates, pieces.loss_sum)
    at_once, fewer = learned(whole, parts=1)
    assert fewer.updates < work.updates
    assert not torch.equal(at_once["inside.weight"], in_parts["inside.weight"])


@pytest.fixture(scope="module")
def prepared(ray_cluster: object) -> Prepared:
    return prepare(small())


def learner(recipe: Recipe, prepared: Prepared) -> Learner:
    return Learner(WorkerSpec(recipe, prepared.encoding, prepared.training, prepared.held_out), 0, CPU)


def test_workers_that_come_and_go_change_the_parts_with_the_next_round(prepared: Prepared) -> None:
    replica = learner(of_batch(16, frequency=1, workers={"min": 1, "max": 4}), prepared)
    sizes = [1, 2, 4, 2, 1]
    # 40 steps of a sequence, of which the last is only a target, in segments of 16
    assert [replica.learn(0, size).work.updates for size in sizes] == [3 * size for size in sizes]
    replica.close()


def test_the_account_before_training_counts_the_updates_of_all_parts(prepared: Prepared) -> None:
    replica = learner(of_batch(16, frequency=2), prepared)
    for workers, parts in ((1, 1), (3, 3), (4, 4)):
        outline = outline_of(of_batch(16, frequency=2), replica.model, prepared, num_workers=workers, device="cpu")
        assert (outline.parts, outline.updates_a_round) == (parts, 2 * 3 * parts)
    replica.close()


def test_a_round_that_is_given_up_leaves_no_minibatch_to_another(prepared: Prepared) -> None:
    """A replica that was left behind in the middle of a round may find that the others are where it would have been."""
    recipe = small(averaging={"frequency": 3})
    plan = make_plan(prepared.training, batch_size=recipe.training.batch_size, seed=recipe.seed)
    collate = functools.partial(LanguageModel().minibatch, encoding=prepared.encoding)
    streams = [Stream(prepared.training, collate, plan, frequency=3, ahead=2) for _ in range(2)]
    begun = streams[0].share(0, 0, 1)
    next(begun.minibatches)
    streams[0].close()
    found, expected = (
        [minibatch.keys for minibatch in stream.share(begun.next_cursor, 0, 1).minibatches] for stream in streams
    )
    assert found == expected
    for stream in streams:
        stream.close()
