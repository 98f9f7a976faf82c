"""The network that a recipe names, and a run's best model: any process of the cluster can answer with it.

B batch, T time, V symbols, classes or numbers of the answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Classes, Encoding, Numbers, Symbols
from rayrnn.data.rows import Label, step_counts
from rayrnn.errors import RecipeError, RunError
from rayrnn.foreign import memory_bytes, read_inside
from rayrnn.models.contract import Form, check_contract, construct, widest
from rayrnn.models.network import Network
from rayrnn.models.own import OwnNetwork, find_own, name_of
from rayrnn.recipe import TASKS, Recipe, needs_of, task_of, validate_recipe
from rayrnn.runs.checkpoints import Tensors
from rayrnn.runs.directory import Run, check_trust
from rayrnn.runs.layout import ENCODING, MODEL, RECIPE
from rayrnn.runs.signed_tensors import bytes_to_tensors
from rayrnn.tasks import Task
from rayrnn.wording import size

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
    """See on a tiny minibatch whether a network of the user's own keeps the contract; of rayrnn's, whether it has room.

    Raises:
        RecipeError: it does not; says what came and what was expected.
    """
    if own is None:
        _check_size(recipe, encoding)
    else:
        generates = task_of(recipe).generates
        check_contract(
            lambda: build_network(recipe, encoding, own),
            _form(encoding),
            name=own.name,
            causal=generates,
            in_pieces=generates or recipe.training.truncate > 0,
        )


def _check_size(recipe: Recipe, encoding: Encoding) -> None:
    """Before memory is taken: with 2**60 parameters torch ends in an overflow, with fewer the system ends the process.

    The host that begins the run must have room for the parameters, their gradient, and the mean.
    """
    numbers = sum(tensor.numel() for tensor in shapes_of(recipe, encoding).values())
    if (due := 3 * 4 * numbers) > memory_bytes():
        raise RecipeError(
            f"the network has {numbers:,} parameters ({recipe.model.describe()}, {encoding.describe()}) and needs "
            f"{size(due)} of memory; this machine has {size(memory_bytes())}: lower model.hidden or model.layers"
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
    """The file is looked at before memory is taken for the network that the recipe asks for."""
    encoding, path = run.encoding, run.path / MODEL
    check_encoding(run.recipe, encoding, where=run.path)
    try:
        weights = bytes_to_tensors(read_inside(run.path, MODEL, most=memory_bytes()))
    except FileNotFoundError:
        raise RunError(f"{run.name}/{MODEL} is not there: the run has no model yet; train it with --resume") from None
    except OSError as error:
        raise RunError(f"{path} cannot be used: {error.strerror}") from None
    except Exception as error:  # safetensors raises its own, torch and KeyError theirs: all mean the same here
        raise RunError(f"{path} is no model of this run: {error}") from None
    if own is None:
        check_tensors(weights, shapes_of(run.recipe, encoding), where=str(path))
    network = build_network(run.recipe, encoding, own)
    if own is not None:
        check_tensors(weights, network.state_dict(), where=str(path))
    network.load_state_dict(weights)
    return network.eval()


def shapes_of(recipe: Recipe, encoding: Encoding) -> Tensors:
    """The tensors of rayrnn's own network as torch's meta device has them: without their values, and the memory."""
    with torch.device("meta"):
        return build_network(recipe, encoding).state_dict()


def check_tensors(found: Tensors, due: Tensors, *, where: str) -> None:
    """See whether these are the tensors that are due, by their names, shapes and types.

    Raises:
        RunError: they are not; names the first that differs.
    """
    for name in sorted(due.keys() | found.keys()):
        have, want = (_form_of(tensors.get(name)) for tensors in (found, due))
        if have != want:
            raise RunError(f'{where} does not fit this run and its {RECIPE}: "{name}" is {have}, and {want} is due')


def check_encoding(recipe: Recipe, encoding: Encoding, *, where: Path) -> None:
    """See whether an encoding answers what a recipe asks; only of rayrnn's own tasks is that known.

    Raises:
        RunError: it does not.
    """
    needs, own = needs_of(recipe), recipe.task in TASKS
    per_step = {Label.CLASS: False, Label.CLASSES: True, Label.NOTHING: True}.get(needs.label, encoding.per_step)
    kind = Classes if needs.of_classes else Numbers if "values" in needs.contents else Symbols
    ahead = needs.ahead if kind is Numbers else 0
    fits = isinstance(encoding.targets, kind) and (encoding.per_step, encoding.ahead) == (per_step, ahead)
    alike = kind is not Symbols or encoding.targets == encoding.inputs
    if own and not (fits and alike):
        raise RunError(
            f"{where / ENCODING} does not fit this run and its {RECIPE}: the task is {recipe.task}, and it has "
            f"{encoding.describe()}"
        )


def _form_of(tensor: torch.Tensor | None) -> str:
    if tensor is None:
        return "absent"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


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
