"""A run's best model, away from its directory: any process of the cluster can answer with it.

B batch, T time, V symbols, classes or numbers of the answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Encoding
from rayrnn.data.rows import step_counts
from rayrnn.models.network import Network
from rayrnn.recipe import Recipe, task_of
from rayrnn.runs.directory import Run, build_network
from rayrnn.tasks import Task

#: numbers that one layer of the network computes at once, about: 64 MiB
NUMBERS_AT_ONCE = 2**24
#: a minibatch ends where a sequence is shorter than this share of its longest, unless it has only few so far
ALIKE = 0.9
FEWEST = 32


@dataclass(frozen=True)
class Trained:
    """What it takes to answer; small enough to travel."""

    recipe: Recipe
    encoding: Encoding
    weights: dict[str, torch.Tensor]

    @property
    def width(self) -> int:
        """The most numbers that the network holds of one step."""
        return max(4 * self.recipe.model.hidden, self.encoding.num_inputs, self.encoding.num_outputs)

    def network(self) -> Network:
        """The network, ready to answer, on the GPU where this process has one."""
        network = build_network(self.recipe, self.encoding)
        network.load_state_dict(self.weights)
        return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def minibatches(self, steps: np.ndarray) -> Iterator[np.ndarray]:
        """Rows of like length together, the longest first, as many as fit into memory at ease.

        Args:
            steps: of every row; rows without a step are left out.
        """
        order = np.argsort(-steps, kind="stable")[: np.count_nonzero(steps > 0)]
        ordered = steps[order]
        start = 0
        while start < len(order):
            longest = int(ordered[start])
            room = max(1, NUMBERS_AT_ONCE // (self.width * longest))
            alike = int(np.searchsorted(-ordered, -ALIKE * longest, side="right")) - start
            count = min(room, max(alike, FEWEST))
            yield order[start : start + count]
            start += count


def trained(run: Run) -> Trained:
    """Take the best model out of a run's directory.

    Raises:
        RunError: there is none, or it is damaged.
    """
    return Trained(run.recipe, run.encoding, run.network().state_dict())


@torch.inference_mode()
def answer(
    network: Network, minibatch: Minibatch, *, task: Task, truncate: int
) -> Iterator[tuple[Minibatch, torch.Tensor]]:
    """Yield the segments of a minibatch with the network's outputs, BTV or BV; the recurrent state goes on."""
    state: object = None
    device = next(network.parameters()).device
    for segment in minibatch.to(device).segments(truncate):
        outputs, state = task.call(network, segment, state)
        yield segment, outputs


@torch.inference_mode()
def outputs_of(rows: pa.Table, model: Trained, network: Network) -> np.ndarray:
    """The network's outputs for canonical rows: float32 [steps of all rows, V], or [rows, V] with one answer a row."""
    task, truncate = task_of(model.recipe), model.recipe.training.truncate
    sizes = step_counts(rows) if model.encoding.per_step else np.ones(len(rows), np.int64)
    starts = np.cumsum(sizes) - sizes
    found = np.zeros((int(sizes.sum()), model.encoding.num_outputs), np.float32)
    for chosen in model.minibatches(step_counts(rows)):
        minibatch = task.minibatch(rows.take(pa.array(chosen)), model.encoding)
        pieces = list(answer(network, minibatch, task=task, truncate=truncate))
        if model.encoding.per_step:
            outputs_BTV = torch.cat([outputs for _, outputs in pieces], dim=1)
            own = sizes[chosen]
            places = np.repeat(starts[chosen] - (np.cumsum(own) - own), own) + np.arange(own.sum())
            found[places] = outputs_BTV[minibatch.mask.to(outputs_BTV.device)].float().cpu().numpy()
        else:
            found[chosen] = pieces[-1][1].float().cpu().numpy()
    return found
