"""The network that a recipe names, and a run's best model: any process of the cluster can answer with it.

B batch, T time, V symbols, classes or numbers of the answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Encoding
from rayrnn.data.rows import step_counts
from rayrnn.errors import RunError
from rayrnn.models.contract import Form, check_contract, construct, widest
from rayrnn.models.network import Network
from rayrnn.models.own import OwnNetwork, find_own, name_of
from rayrnn.recipe import Recipe, task_of, validate_recipe
from rayrnn.runs.directory import Run, check_trust
from rayrnn.runs.layout import MODEL
from rayrnn.tasks import Task

#: numbers that one layer of the network computes at once, about: 64 MiB
NUMBERS_AT_ONCE = 2**24
#: a minibatch ends where a sequence is shorter than this share of its longest, unless it has only few so far
ALIKE = 0.9
FEWEST = 32


def with_network(recipe: Recipe, network: Callable[..., object]) -> Recipe:
    """The same recipe with a network of the user's own, which `model.options` are for.

    Raises:
        UsageError: the network cannot be found again by a name.
    """
    model = {"network": name_of(network), "options": recipe.model.options}
    return validate_recipe(recipe.model_dump(mode="json") | {"model": model})


def find_network(recipe: Recipe) -> OwnNetwork | None:
    """The network of its user's own that a recipe names, whose code is run by that; None where it is rayrnn's.

    Raises:
        RecipeError: it cannot be found.
    """
    return None if recipe.model.network is None else find_own(recipe.model.network)


def build_network(recipe: Recipe, encoding: Encoding, own: OwnNetwork | None = None) -> torch.nn.Module:
    """The network that a recipe and the data's encoding ask for; its values come from torch's seed.

    Args:
        own: what `find_network` has found.

    Raises:
        RecipeError: the network of the user's own is not there on this host, or cannot be made.
    """
    if own is not None:
        return construct(own.maker(), _form(encoding), recipe.model.options, name=own.name)
    assert recipe.model.network is None, f"{recipe.model.network} was not looked for"
    return Network(
        num_inputs=encoding.num_inputs,
        num_outputs=encoding.num_outputs,
        symbols=encoding.symbols,
        cell=recipe.model.cell,
        hidden_size=recipe.model.hidden,
        num_layers=recipe.model.layers,
        embedding_size=recipe.model.embedding,
        dropout=recipe.model.dropout,
        bidirectional=recipe.model.bidirectional,
        pooling=None if encoding.per_step else recipe.model.pooling,
    )


def check_network(recipe: Recipe, encoding: Encoding, own: OwnNetwork | None) -> None:
    """See on a tiny minibatch whether a network of the user's own keeps the contract; rayrnn's does.

    Raises:
        RecipeError: it does not; says what came and what was expected.
    """
    if own is not None:
        generates = task_of(recipe).generates
        check_contract(
            lambda: build_network(recipe, encoding, own),
            _form(encoding),
            name=own.name,
            causal=generates,
            in_pieces=generates or recipe.training.truncate > 0,
        )


def load_network(run: Run) -> torch.nn.Module:
    """The run's best model, ready to answer (eval mode).

    Raises:
        UsageError: the network is not rayrnn's, and the run was not opened with `trust`.
        RunError: there is no model yet, or the file is no safetensors file of this recipe.
    """
    return _load(run, _trusted_network(run))


def _trusted_network(run: Run) -> OwnNetwork | None:
    recipe = run.recipe
    check_trust(recipe, trusted=run.trusted, where=run.name)
    return find_network(recipe)


def _load(run: Run, own: OwnNetwork | None) -> torch.nn.Module:
    network = build_network(run.recipe, run.encoding, own)
    path = run.path / MODEL
    try:
        network.load_state_dict(load_tensors(path.read_bytes()))
    except FileNotFoundError:
        raise RunError(f"{run.name}/{MODEL} is not there: the run has no model yet; train it with --resume") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"{path} is no model of this run: {error}") from None
    return network.eval()


def _form(encoding: Encoding) -> Form:
    return Form(encoding.num_inputs, encoding.num_outputs, encoding.symbols, encoding.per_step)


@dataclass(frozen=True)
class Trained:
    """What it takes to answer; small enough to travel."""

    recipe: Recipe
    encoding: Encoding
    weights: dict[str, torch.Tensor]
    #: about the most numbers that the network holds of one step
    width: int
    own: OwnNetwork | None = None

    def network(self) -> torch.nn.Module:
        """The network, ready to answer, on the GPU where this process has one."""
        network = build_network(self.recipe, self.encoding, self.own)
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
        UsageError: the network is not rayrnn's, and the run was not opened with `trust`.
        RunError: there is none, or it is damaged.
    """
    own, encoding = _trusted_network(run), run.encoding
    network = _load(run, own)
    return Trained(run.recipe, encoding, network.state_dict(), widest(network, _form(encoding)), own)


@torch.inference_mode()
def answer(
    network: torch.nn.Module, minibatch: Minibatch, *, task: Task, truncate: int
) -> Iterator[tuple[Minibatch, torch.Tensor]]:
    """Yield the segments of a minibatch with the network's outputs, BTV or BV; the recurrent state goes on."""
    state: object = None
    device = next(network.parameters()).device
    for segment in minibatch.to(device).segments(truncate):
        outputs, state = task.call(network, segment, state)
        yield segment, outputs


@torch.inference_mode()
def outputs_of(rows: pa.Table, model: Trained, network: torch.nn.Module) -> np.ndarray:
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
