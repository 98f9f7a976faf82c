"""The network: symbols or numbers in, convolutions, layers of one cell, one answer a step or a sequence out.

Shapes: B batch, T time, F features, V symbols, classes or numbers of the answer, H hidden.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from rayrnn.models.cells import State, make_cell
from rayrnn.models.convolution import ImageConvolutions, Stack, StepConvolutions


def pool(steps: torch.Tensor, mask: torch.Tensor | None, how: str, backward: bool = False) -> torch.Tensor:
    """One vector_BH a row from the existing steps of steps_BTH; zeros where a row has none.

    Args:
        mask: BT, True where a step exists; None: everywhere.
        how: `last` (the step that has read the whole row), `mean` or `max`.
        backward: the steps were read from the end, so that the first step has read the whole row.
    """
    if mask is None:
        mask = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
    count = mask.sum(1)
    if how == "mean":
        return steps.masked_fill(~mask.unsqueeze(-1), 0).sum(1) / count.clamp(min=1).unsqueeze(-1)
    if how == "max":
        lowest = torch.finfo(steps.dtype).min
        pooled = steps.masked_fill(~mask.unsqueeze(-1), lowest).amax(1)
    else:
        rows = torch.arange(steps.shape[0], device=steps.device)  # `len` would be a constant of an export
        pooled = steps[rows, torch.zeros_like(count) if backward else (count - 1).clamp(min=0)]
    return pooled.masked_fill((count == 0).unsqueeze(-1), 0)


class BothDirections(nn.Module):
    """Two cells, the second over each row reversed within its own length, so that padding stays at the end."""

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forwards = make_cell(cell, input_size, hidden_size)
        self.backwards = make_cell(cell, input_size, hidden_size)

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        """Both directions' outputs_BTH, each at the step it belongs to: the second has seen that step and all after."""
        ahead, _ = self.forwards(inputs)
        back, _ = self.backwards(reverse(inputs, mask))
        return [ahead, reverse(back, mask)]


def reverse(steps: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Turn the existing steps of each row (BT or BTF) around; padding stays where it is. Twice is nothing."""
    if mask is None:
        return steps.flip(1)
    position = torch.arange(mask.shape[1], device=mask.device)
    mirrored = mask.sum(1, keepdim=True) - 1 - position
    index = torch.where(mirrored >= 0, mirrored, position)
    return steps.gather(1, index.reshape(index.shape + (1,) * (steps.dim() - 2)).expand_as(steps))


def merge(directions: list[torch.Tensor], how: str) -> torch.Tensor:
    """Join the directions along features (`concat`) or add them (`sum`); a single one stays as it is."""
    if len(directions) == 1:
        return directions[0]
    return torch.cat(directions, dim=-1) if how == "concat" else directions[0] + directions[1]


class Network(nn.Module):
    """Embed -> convolutions -> layers -> pool -> project.

    Args:
        num_inputs: symbols in the vocabulary, or features of a step.
        num_outputs: symbols, classes or numbers in an answer; 0 for no projection: the answers are the last layer's
            outputs themselves, pooled where the network pools.
        symbols: whether a step is a symbol (an integer) or `num_inputs` numbers.
        cell: `rnn`, `lstm`, `gru` or `graves_lstm`.
        hidden_size: of all layers, or of each of them.
        embedding_size: length of a symbol's learned vector; 0 feeds symbols one-hot.
        dropout: the share of activations dropped while training.
        dropout_at: where: of what the `first` layer reads, `between` layers, and of what the projection reads, `last`.
        bidirectional: `none`, or how two directions become one: `sum` or `concat`.
        pooling: None for an answer at every step; `last`, `mean` or `max` for one answer a sequence.
        front: convolutions before the layers, over steps, or over images with `step_shape`.
        step_shape: height, width and channels of the image that a step's numbers are.
        parallel: convolutions over the steps that the first layer sees; their mean and their largest over the steps
            stand beside what the layers answer a sequence with.
        mask_steps, mask_features: while training, a random run of at most so many steps, and of features, is set to 0
            in every sequence (see `hide_runs`).
        adds: for each number of an answer the place, in a step, of the number that is added to it; -1 for none. The
            network learns by how much the answer differs from it.

    Raises:
        ValueError: a word that names no cell, direction or pooling; an embedding, runs to hide or an image where the
            inputs are not such; convolutions that do not fit the answers.
    """

    def __init__(
        self,
        *,
        num_inputs: int,
        num_outputs: int,
        symbols: bool,
        cell: str,
        hidden_size: int | Sequence[int],
        num_layers: int,
        embedding_size: int = 0,
        dropout: float = 0.0,
        dropout_at: Sequence[str] = ("between",),
        bidirectional: str = "none",
        pooling: str | None = None,
        front: Stack | None = None,
        step_shape: tuple[int, int, int] | None = None,
        parallel: Stack | None = None,
        mask_steps: int = 0,
        mask_features: int = 0,
        adds: Sequence[int] = (),
    ) -> None:
        super().__init__()
        _check_word("bidirectional", bidirectional, ("none", "sum", "concat"))
        _check_word("pooling", pooling, (None, "last", "mean", "max"))
        if embedding_size and not symbols:
            raise ValueError(
                f"only symbols can be embedded: embedding_size is {embedding_size}, the inputs are numbers"
            )
        if (mask_steps or mask_features) and symbols:
            raise ValueError("mask_steps and mask_features set numbers to 0, and the inputs are symbols")
        if (front or parallel) and symbols and not embedding_size:
            raise ValueError("convolutions read numbers, and the inputs are symbols: give them an embedding")
        if adds and (symbols or pooling is not None or len(adds) != num_outputs):
            raise ValueError("what is added to an answer is a number of its step: one, or -1, for each of its numbers")
        if parallel and pooling is None:
            raise ValueError("parallel convolutions answer a sequence, and there is an answer at every step")
        self._num_inputs = num_inputs
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.mask_steps, self.mask_features = mask_steps, mask_features
        self.adds = list(adds)
        self.embedding = nn.Embedding(num_inputs, embedding_size) if embedding_size else None
        self.front = _front(embedding_size or num_inputs, front, step_shape)
        read = embedding_size or num_inputs if self.front is None else self.front.num_outputs
        hidden = [hidden_size] * num_layers if isinstance(hidden_size, int) else list(hidden_size)
        if len(hidden) != num_layers:
            raise ValueError(f"there are {len(hidden)} sizes for {num_layers} layers")
        widths = [2 * size if bidirectional == "concat" else size for size in hidden]
        #: numbers in an output of the last layer
        self.width = width = widths[-1]
        layer = make_cell if bidirectional == "none" else BothDirections
        sizes = zip([read, *widths[:-1]], hidden, strict=True)
        self.layers = nn.ModuleList(layer(cell, reads, size) for reads, size in sizes)
        self.parallel = StepConvolutions(read, parallel, each_channel=True) if parallel else None
        self.dropout = nn.Dropout(dropout)
        self._drops_first, self._drops_last = "first" in dropout_at, "last" in dropout_at
        self._drops_between = "between" in dropout_at
        width += 0 if self.parallel is None else 2 * self.parallel.num_outputs
        self.projection = nn.Linear(width, num_outputs) if num_outputs else nn.Identity()

    def forward(
        self, inputs: torch.Tensor, state: list[State] | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[State] | None]:
        """Answer every step, or every sequence when the network pools.

        Args:
            inputs: BT integers when the network takes symbols, else BTF floats.
            state: what the call before returned for the steps before these; None starts at zero.
            mask: BT, True where a step exists; padding stands at the end of a row. None: every step exists.

        Returns:
            Answers, BTV, or BV when the network pools (H in the place of V without a projection); and the state after
            the last step, one entry a layer (None when the network is bidirectional or has convolutions over steps: it
            needs whole sequences). Pooling is over the steps of this call. At padded steps and in the state of rows
            that have ended the values mean nothing. There are as many steps as `mask_after` says.

        Raises:
            ValueError: a bidirectional network, or one with convolutions over steps, was handed a state.
        """
        if mask is not None:
            inputs = inputs.masked_fill(~mask.reshape(mask.shape + (1,) * (inputs.dim() - 2)), 0)
        read = inputs
        if self.training and (self.mask_steps or self.mask_features):
            inputs = hide_runs(inputs, mask, steps=self.mask_steps, features=self.mask_features)
        if state is not None and self.needs_whole_sequences:
            raise ValueError(
                "a network that is bidirectional or has convolutions over steps reads whole sequences; it cannot go on "
                "from a state"
            )
        if self.embedding is not None:
            inputs = self.embedding(inputs)
        if self.front is not None:
            inputs, mask = self.front(inputs, mask), self.mask_after(mask)
        if self._drops_first and self.training:
            inputs = self.dropout(inputs if inputs.is_floating_point() else self._one_hot(inputs))
        if self.bidirectional == "none":
            directions, after = self._one_way(inputs, state)
        else:
            directions, after = self._both_ways(inputs, mask), []
        hidden = merge(directions, self.bidirectional) if self.pooling is None else self._pool(directions, mask)
        if self.parallel is not None:
            answers, there = self.parallel(inputs, mask), self.parallel.mask_after(mask)
            beside = torch.cat([pool(answers, there, "mean"), pool(answers, there, "max")], dim=-1)
            hidden = torch.cat([self.dropout(hidden), beside.to(hidden.dtype)], dim=-1)
        if self._drops_last:
            hidden = self.dropout(hidden)
        answers = self.projection(hidden)
        if self.adds:  # the last of the padded numbers is 0
            answers = answers + nn.functional.pad(read, (0, 1))[..., self.adds]
        return answers, None if self.needs_whole_sequences else after

    @property
    def needs_whole_sequences(self) -> bool:
        """Whether there is no state to go on from: it is bidirectional, or has convolutions over steps."""
        over_steps = isinstance(self.front, StepConvolutions) or self.parallel is not None
        return self.bidirectional != "none" or over_steps

    def mask_after(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Where the steps exist that the recurrent layers see, for a mask BT of the inputs."""
        return mask if self.front is None else self.front.mask_after(mask)

    def _one_hot(self, symbols: torch.Tensor) -> torch.Tensor:
        """The vectors that a layer takes symbols for, each of which is dropped by itself."""
        like = next(self.layers.parameters())
        vectors = like.new_zeros(*symbols.shape, self._num_inputs)
        return vectors.scatter_(-1, symbols.unsqueeze(-1), 1.0)

    def _one_way(self, hidden: torch.Tensor, state: list[State] | None) -> tuple[list[torch.Tensor], list[State]]:
        before = state if state is not None else [None] * len(self.layers)
        after = []
        for number, (layer, layer_state) in enumerate(zip(self.layers, before, strict=True)):
            hidden, layer_state = layer(self._dropped(hidden) if number else hidden, layer_state)
            after.append(layer_state)
        return [hidden], after

    def _both_ways(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        directions: list[torch.Tensor] = []
        for number, layer in enumerate(self.layers):
            hidden = self._dropped(merge(directions, self.bidirectional)) if number else hidden
            directions = layer(hidden, mask)
        return directions

    def _dropped(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.dropout(hidden) if self._drops_between else hidden

    def _pool(self, directions: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        return merge(
            [pool(steps, mask, str(self.pooling), backward=index == 1) for index, steps in enumerate(directions)],
            self.bidirectional,
        )


def hide_runs(inputs: torch.Tensor, mask: torch.Tensor | None, *, steps: int, features: int) -> torch.Tensor:
    """Set one random run of steps, and one of features, of each sequence to 0 (SpecAugment, arXiv:1904.08779).

    Each run's length is drawn from 0 to `steps` or `features`, and at most to what the sequence has; then its place.

    Args:
        inputs: BTF floats.
        mask: BT, True where a step exists; None: everywhere.
    """
    B, T, F = inputs.shape
    lengths = torch.full((B,), T, device=inputs.device) if mask is None else mask.sum(1)
    if steps:
        inputs = inputs.masked_fill(_runs(lengths, T, steps).unsqueeze(2), 0)
    if features:
        inputs = inputs.masked_fill(_runs(torch.full_like(lengths, F), F, features).unsqueeze(1), 0)
    return inputs


def _runs(lengths: torch.Tensor, longest: int, most: int) -> torch.Tensor:
    """One random run within each row's length, of at most so many places: True there, in B rows of `longest` places."""
    sizes, starts = torch.rand(2, len(lengths), 1, dtype=torch.float64, device=lengths.device)
    own = lengths.unsqueeze(1)
    sizes = (sizes * (own.clamp(max=most) + 1)).floor()
    starts = (starts * (own - sizes + 1)).floor()
    places = torch.arange(longest, device=lengths.device)
    inside: torch.Tensor = (places >= starts) & (places < starts + sizes)
    return inside


def _front(
    num_inputs: int, stack: Stack | None, step_shape: tuple[int, int, int] | None
) -> StepConvolutions | ImageConvolutions | None:
    if stack is None:
        return None
    if step_shape is None:
        return StepConvolutions(num_inputs, stack)
    if math.prod(step_shape) != num_inputs:
        raise ValueError(f"an image of {' x '.join(map(str, step_shape))} has not the {num_inputs} numbers of a step")
    return ImageConvolutions(step_shape, stack)


def _check_word(name: str, word: str | None, known: tuple[str | None, ...]) -> None:
    if word not in known:
        raise ValueError(f"{name} is {word!r}; it can be {', '.join(map(str, known))}")
