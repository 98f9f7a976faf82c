"""The network that a recipe names, and a run's best model: any process of the cluster can answer with it.

B batch, T time, V symbols, classes or numbers of the answer.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Classes, Encoding, Numbers
from rayrnn.data.rows import Label, step_counts
from rayrnn.data.symbols import Symbols
from rayrnn.errors import RecipeError, RunError
from rayrnn.foreign import memory_bytes, read_inside
from rayrnn.models.contract import Form, check_contract, construct, widest
from rayrnn.models.convolution import Stack, fewest_together
from rayrnn.models.decoder import EncoderDecoder
from rayrnn.models.network import Network
from rayrnn.models.own import OwnNetwork, find_own, name_of
from rayrnn.recipe import TASKS, Recipe, choices_of, needs_of, task_of, validate_recipe
from rayrnn.recipe.sections import Decoder
from rayrnn.runs.checkpoints import Tensors
from rayrnn.runs.directory import Run
from rayrnn.runs.kept_recipe import check_trust
from rayrnn.runs.layout import ENCODING, MODEL, RECIPE
from rayrnn.runs.signed_tensors import bytes_to_tensors
from rayrnn.tasks import Hypothesis, Numeric, Search, Searching, Task
from rayrnn.wording import size

#: numbers that one layer of the network computes at once, about: 64 MiB
NUMBERS_AT_ONCE = 2**24
#: inputs and outputs that a task holds beside its block, about: 16 MiB
NUMBERS_A_SLICE = 2**22
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
        return construct(own.maker(), form_of(encoding), recipe.model.options, name=own.name)
    assert recipe.model.network is None, f"{recipe.model.network} was not looked for"
    task = task_of(recipe)
    if not isinstance(task, Searching):
        pooling = None if encoding.per_step else recipe.model.pooling
        return _network(recipe, encoding, num_outputs=encoding.num_outputs, pooling=pooling)
    if not task.decodes:
        return _network(recipe, encoding, num_outputs=encoding.num_outputs, pooling=None)
    assert isinstance(encoding.targets, Symbols), "what is written is symbols"
    decoder, hidden = recipe.model.decoder or Decoder(), recipe.model.hidden
    assert isinstance(hidden, int), "a recipe's validation has seen to it"
    return EncoderDecoder(
        _network(recipe, encoding, num_outputs=0, pooling=None),
        num_outputs=encoding.num_outputs,
        end=encoding.targets.vocabulary.end,
        cell=recipe.model.cell,
        hidden_size=hidden,
        num_layers=decoder.layers,
        embedding_size=decoder.embedding,
        attention=decoder.attention,
        input_feeding=decoder.input_feeding,
        dropout=recipe.model.dropout,
    )


def _network(recipe: Recipe, encoding: Encoding, *, num_outputs: int, pooling: str | None) -> Network:
    return Network(
        num_inputs=encoding.num_inputs,
        num_outputs=num_outputs,
        symbols=encoding.symbols,
        cell=recipe.model.cell,
        hidden_size=recipe.model.hidden,
        num_layers=recipe.model.layers,
        embedding_size=recipe.model.embedding,
        dropout=recipe.model.dropout,
        dropout_at=recipe.model.dropout_at,
        bidirectional=recipe.model.bidirectional,
        pooling=pooling,
        front=_front(recipe),
        step_shape=recipe.data.step_shape,
        parallel=_parallel(recipe),
        mask_steps=recipe.model.mask_steps,
        mask_features=recipe.model.mask_features,
        adds=_added(recipe, encoding) if recipe.model.residual else (),
    )


def _added(recipe: Recipe, encoding: Encoding) -> list[int]:
    """For each output the number that is forecast, as it is now; -1 where the output is none of the answer's place."""
    assert encoding.foretold is not None, "a recipe's validation has seen to it"
    moved = encoding.parameters if recipe.training.loss == "quantile" else 1  # a distribution's mean stands first
    columns = encoding.foretold.columns * len(encoding.foretold.horizons)
    return [column if number < moved else -1 for column in columns for number in range(encoding.parameters)]


def _front(recipe: Recipe) -> Stack | None:
    model, over_images = recipe.model, recipe.data.step_shape is not None
    if model.front == "none":
        return None
    return Stack.of(model.front_channels, model.front_width, model.front_stride or (2 if over_images else 1,))


def _parallel(recipe: Recipe) -> Stack | None:
    model = recipe.model
    return None if model.parallel == "none" else Stack.of(model.parallel_channels, model.parallel_widths, (1,))


@torch.no_grad()
def begin_with(network: torch.nn.Module, vectors: np.ndarray) -> None:
    """Put vectors, float32 [V, E], into the embedding of what is read; where they are NaN it stays as it is."""
    reader = network.encoder if isinstance(network, EncoderDecoder) else network
    assert isinstance(reader, Network), "the embedding is that of rayrnn's own network"
    assert reader.embedding is not None, "vectors were compared with its size"
    there = torch.from_numpy(np.isfinite(vectors).all(axis=1))
    reader.embedding.weight[there] = torch.from_numpy(vectors)[there]


def check_network(recipe: Recipe, encoding: Encoding, own: OwnNetwork | None) -> None:
    """See on a tiny minibatch whether a network of the user's own keeps the contract; of rayrnn's, whether it has room.

    Raises:
        RecipeError: it does not; says what came and what was expected.
    """
    if own is None:
        if misfit := _misfit(recipe, encoding):
            raise RecipeError(misfit)
        _check_size(recipe, encoding)
    else:
        generates = task_of(recipe).generates
        check_contract(
            lambda: build_network(recipe, encoding, own),
            form_of(encoding),
            name=own.name,
            causal=generates or needs_of(recipe).ahead > 0,
            in_pieces=generates or recipe.training.truncate > 0,
        )


def _misfit(recipe: Recipe, encoding: Encoding) -> str | None:
    """Why rayrnn's network of a recipe cannot read or answer what the data holds, in words."""
    model, shape = recipe.model, recipe.data.step_shape
    front, parallel = _front(recipe), _parallel(recipe)
    if model.embedding and not encoding.symbols:
        return f"model.embedding is {model.embedding}, and the inputs are numbers: only symbols can be embedded"
    if (front or parallel) and encoding.symbols and not model.embedding:
        key = "model.front: conv" if front else "model.parallel: conv"
        return f"{key} reads numbers, and the inputs are symbols: set model.embedding, to 64 for instance"
    if (model.mask_steps or model.mask_features) and encoding.symbols:
        return "model.mask_steps and model.mask_features are for inputs that are numbers, and these are symbols"
    if front and shape is not None and math.prod(shape) != encoding.num_inputs:
        return f"the images are {' x '.join(map(str, shape))}, and a step has {encoding.num_inputs:,} numbers"
    if front and shape is not None and fewest_together(shape, front) < 2:
        return (
            f"model.front: conv leaves one value of an image of {shape[0]} x {shape[1]} to be normalized, which tells "
            "nothing: set model.front_stride: 1, give larger images (or patches), or more model.front_channels"
        )
    if parallel and encoding.per_step:
        return "model.parallel must be none: there is an answer at every step, not one for a sequence"
    # what another task answers at the network's steps need not belong to each of the data's
    if front and shape is None and max(front.strides) > 1 and encoding.per_step and recipe.task in TASKS:
        return "model.front_stride must be 1: there is an answer at every step, and a stride leaves steps out"
    return None


def _check_size(recipe: Recipe, encoding: Encoding) -> None:
    """Before memory is taken: with 2**60 parameters torch ends in an overflow, with fewer the system ends the process.

    The host that begins the run must have room for the parameters, their gradient, and the mean.
    """
    numbers = sum(tensor.numel() for tensor in shapes_of(recipe, encoding).values())
    if (due := 3 * 4 * numbers) > memory_bytes():
        raise RecipeError(
            f"the network has {numbers:,} parameters ({recipe.model.describe()}, {encoding.describe()}) and needs "
            f"{size(due)} of memory; this machine has {size(memory_bytes())}: lower model.hidden, model.layers "
            "or the channels of convolutions"
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
    one_answer = {Label.CLASS: False, Label.SET: False, Label.SEQUENCE: False, Label.CLASSES: True, Label.NOTHING: True}
    per_step = one_answer.get(needs.label, encoding.per_step)
    of_symbols = needs.takes_sequences or "values" not in needs.contents
    kind = Classes if needs.of_classes else Symbols if of_symbols else Numbers
    ahead, task = needs.ahead if kind is Numbers else 0, task_of(recipe)
    fits = isinstance(encoding.targets, kind) and (encoding.per_step, encoding.ahead) == (per_step, ahead)
    fits = fits and encoding.parameters == (task.parameters if isinstance(task, Numeric) else 1)
    foretold, horizons = encoding.foretold, choices_of(recipe).horizons
    fits = fits and (foretold is None or foretold.horizons == horizons)
    if isinstance(encoding.targets, Classes):
        fits = fits and encoding.targets.several == needs.takes_sets
    if isinstance(encoding.targets, Symbols) and needs.takes_sequences:
        vocabulary = encoding.targets.vocabulary
        fits = fits and vocabulary.end >= 0 and vocabulary.unknown == 0
    alike = kind is not Symbols or needs.takes_sequences or encoding.targets == encoding.inputs
    if own and not (fits and alike):
        raise RunError(
            f"{where / ENCODING} does not fit this run and its {RECIPE}: the task is {recipe.task}, and it has "
            f"{encoding.describe()}"
        )
    if recipe.model.network is None and (misfit := _misfit(recipe, encoding)):
        raise RunError(f"{where / ENCODING} does not fit this run and its {RECIPE}: {misfit}")


def _form_of(tensor: torch.Tensor | None) -> str:
    if tensor is None:
        return "absent"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def form_of(encoding: Encoding) -> Form:
    """What goes into a network of this encoding and what comes out of it."""
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

    def slices(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Neighbouring canonical rows whose inputs and outputs fit into memory at ease."""
        numbers_a_step = self.encoding.num_inputs + self.encoding.num_outputs
        cost = np.cumsum((step_counts(rows) + 1) * numbers_a_step)
        cuts = (np.flatnonzero(np.diff(cost // NUMBERS_A_SLICE)) + 1).tolist()
        for start, end in pairwise([0, *cuts, len(rows)]):
            yield rows.slice(start, end - start)


def trained(run: Run) -> Trained:
    """Take the best model out of a run's directory.

    Raises:
        UsageError: the network is not rayrnn's, and the run was not opened with `trust`.
        RunError: there is none, or it is damaged.
    """
    own, encoding = _trusted_network(run), run.encoding
    network = _load(run, own)
    return Trained(run.recipe, encoding, network.state_dict(), widest(network, form_of(encoding)), own)


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
def found_in(
    rows: pa.Table, model: Trained, network: torch.nn.Module, task: Searching, search: Search
) -> list[list[Hypothesis]]:
    """What a task that searches finds for canonical rows, in their order; for rows without a step nothing."""
    found: list[list[Hypothesis]] = [[] for _ in range(len(rows))]
    for chosen in model.minibatches(step_counts(rows) * search.beam):
        part = rows.take(pa.array(chosen))
        minibatch = cast(Task, task).minibatch(part, model.encoding).to(next(network.parameters()).device)
        for row, hypotheses in zip(chosen, task.search(network, minibatch, model.encoding, search), strict=True):
            found[row] = hypotheses
    return found


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
