"""Draws symbols from a trained language model, all samples as one batch, one step at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import UsageError
from rayrnn.recipe import task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network

#: symbols of a text, and texts drawn at once
MOST_LENGTH = 10**9
MOST_SAMPLES = 10_000


@dataclass(frozen=True)
class Drawing:
    """How the next symbol is chosen from the model's logits.

    Args:
        temperature: divides the logits; 0 takes the likeliest symbol.
        top_k: only the k likeliest symbols; 0 = all.
        top_p: only the likeliest symbols that together reach this probability (nucleus sampling, Holtzman et al.
            2019, arXiv:1904.09751); 1 = all.

    Raises:
        UsageError: a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature is {self.temperature}; it must be 0 (the likeliest symbol) or more")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}; it must be 0 (all symbols) or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}; it must be above 0 and at most 1")


def generate(
    run: Run, *, prime: str | None, length: int, samples: int, drawing: Drawing, seed: int | None = None
) -> Iterator[list[str]]:
    """Yield what each sample begins with (the prime), then one symbol a sample, `length` times.

    A sample that has come to the end of its text (`data.length: 0` teaches where texts end) goes on with empty strings;
    when all have, the generation is over. Without a prime every sample begins with a symbol drawn at random; or with
    the one before the first, where the model has learned what sequences begin with (rows of pixels; it stands again
    before every row, and adds nothing to what is drawn).

    Raises:
        UsageError: the run is no language model, names code and is not trusted, or a number is out of range.
        DataError: the prime holds a symbol that the vocabulary lacks.
        RunError: the run has no usable model.
    """
    if not task_of(run.recipe).generates:
        raise UsageError(f"{run.name} learned {run.recipe.task}, it has no symbols to draw; use rayrnn predict")
    if length < 0 or samples < 1:
        raise UsageError(f"length is {length} and samples {samples}; they must be at least 0 and 1")
    if length > MOST_LENGTH or samples > MOST_SAMPLES:
        raise UsageError(
            f"length is {length} and samples {samples}; they can be at most {MOST_LENGTH:,} and {MOST_SAMPLES:,}: "
            "draw more in several calls, each with a seed of its own"
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"seed is {seed}; it must be at least 0 and less than 2**63")
    random = torch.Generator().manual_seed(run.recipe.seed if seed is None else seed)
    return _Generator(run, drawing, random).draw(prime, length, samples)


class _Generator:
    """A model, its vocabulary and a source of chance."""

    def __init__(self, run: Run, drawing: Drawing, random: torch.Generator) -> None:
        assert isinstance(run.encoding.inputs, Symbols), "what is drawn is symbols"
        self._symbols = run.encoding.inputs
        self._vocabulary = self._symbols.vocabulary
        self._begin_every = run.recipe.data.begin_every
        self._network = load_network(run)
        self._drawing = drawing
        self._random = random

    @torch.inference_mode()
    def draw(self, prime: str | None, length: int, samples: int) -> Iterator[list[str]]:
        inputs_BT = self._begin(prime, samples)
        # the prime as it was given: what nobody knows of it would come out as something else
        own = [self._symbols.units.goes_on(prime)] * samples if prime else None
        yield own or ["".join(map(self._symbols.appended, row)) for row in inputs_BT.tolist()]
        begin_B1 = torch.full((samples, 1), self._vocabulary.begin)
        given = int((inputs_BT[0] != self._vocabulary.begin).sum())
        ended_B = torch.zeros(samples, dtype=torch.bool)
        state = None
        for count in range(given + 1, given + length + 1):
            logits_BTV, state = self._network(inputs_BT, state, torch.ones_like(inputs_BT, dtype=torch.bool))
            drawn_B = draw_symbols(drawable(logits_BTV[:, -1], self._vocabulary), self._drawing, self._random)
            ended_B |= drawn_B == self._vocabulary.end
            if ended_B.all():
                return
            symbols = [self._symbols.appended(symbol) for symbol in drawn_B.tolist()]
            yield ["" if ended else symbol for symbol, ended in zip(symbols, ended_B.tolist(), strict=True)]
            inputs_BT = drawn_B.unsqueeze(1)
            if self._begin_every and count % self._begin_every == 0:
                inputs_BT = torch.cat([inputs_BT, begin_B1], dim=1)

    def _begin(self, prime: str | None, samples: int) -> torch.Tensor:
        begin = self._vocabulary.begin
        if prime or begin >= 0:
            symbols = torch.from_numpy(self._symbols.numbers_of(prime or "")).long()
            if not len(symbols) and begin < 0:
                raise UsageError("the prime holds nothing to begin with: give a word, or leave it out")
            if begin >= 0:
                every = self._begin_every or len(symbols) + 1
                rows = [symbols[start : start + every] for start in range(0, len(symbols) + 1, every)]
                symbols = torch.cat([part for row in rows for part in (torch.tensor([begin]), row)])
            return symbols.unsqueeze(0).expand(samples, -1)
        chances = torch.ones(samples, len(self._vocabulary.symbols))
        for symbol in (self._vocabulary.end, self._vocabulary.unknown):
            if symbol >= 0:
                chances[:, symbol] = 0
        return torch.multinomial(chances, 1, generator=self._random)


def drawable(logits_BV: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """What stands before the first symbol is never drawn, nor what stands for all that nobody knows."""
    never = [symbol for symbol in (vocabulary.begin, vocabulary.unknown) if symbol >= 0]
    return logits_BV.index_fill(-1, torch.tensor(never), -torch.inf) if never else logits_BV


def draw_symbols(logits_BV: torch.Tensor, drawing: Drawing, random: torch.Generator) -> torch.Tensor:
    """One symbol a row, B."""
    if drawing.temperature == 0:
        return logits_BV.argmax(-1)
    logits_BV = only_likeliest(cooled(logits_BV, drawing.temperature).float(), drawing.top_k)
    chances_BV = logits_BV.softmax(-1)
    if drawing.top_p < 1:
        chances_BV = nucleus(chances_BV, drawing.top_p)
    return torch.multinomial(chances_BV, 1, generator=random).squeeze(1)


def cooled(logits_BV: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """Over the temperature, one for all or B x 1; in double and from the highest down, so that the likeliest stays at 0
    however small the temperature is."""
    logits_BV = logits_BV.double()
    return (logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature


def only_likeliest(logits_BV: torch.Tensor, count: int) -> torch.Tensor:
    """Of every row the `count` highest, and those that are as high; the others are never drawn. 0 keeps all."""
    if not 0 < count < logits_BV.shape[-1]:
        return logits_BV
    least_B1 = logits_BV.topk(count).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)


def nucleus(chances_BV: torch.Tensor, share: float) -> torch.Tensor:
    """The chances of the likeliest symbols that together reach this share; the others have none."""
    ordered_BV, order_BV = chances_BV.sort(-1, descending=True)
    # a symbol stays while the likelier ones together have not reached the share: the first always does
    likelier_BV = ordered_BV.cumsum(-1) - ordered_BV
    over_BV = likelier_BV >= share
    over_BV[:, 0] = False  # however small the share is: it may be no number but 0 in the sum's type
    kept_BV = ordered_BV.masked_fill(over_BV, 0)
    return torch.zeros_like(chances_BV).scatter(-1, order_BV, kept_BV)
