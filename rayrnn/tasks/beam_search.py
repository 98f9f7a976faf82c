"""Beam search: the likeliest sequences of symbols that a decoder can write, several of every row, all rows at once.

Shapes: B rows, K hypotheses of each (the beam), N = B * K, V symbols, T steps that were read.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch

from rayrnn.tasks import Hypothesis, Search


class Writer(Protocol):
    """What writes symbol by symbol, N hypotheses at once."""

    def step(self, symbols_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits NV of what follows these symbols, and the weights NT of what was looked at."""

    def keep(self, rows_N: torch.Tensor) -> None:
        """Go on with these of the hypotheses, in this order."""


@dataclass(frozen=True)
class Writable:
    """What can be written."""

    #: what ends a hypothesis, and stands before its first symbol
    end: int
    #: what is never written
    never: tuple[int, ...]
    #: symbols of a hypothesis, at most: then it ends as it is
    most: int


@dataclass
class _Alive:
    """A hypothesis that goes on."""

    log_probability: float
    symbols: tuple[int, ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()


@dataclass
class _Row:
    """The hypotheses of one row."""

    alive: list[_Alive]
    finished: list[Hypothesis] = field(default_factory=list)


def length_penalty(length: int, exponent: float) -> float:
    """What the log-probability of so many symbols is divided by (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    return float(((5 + length) / 6) ** exponent)


@torch.inference_mode()
def beam_search(writer: Writer, symbols: Writable, search: Search, *, num_rows: int) -> list[list[Hypothesis]]:
    """Write what is likeliest, best first: at most `search.beam` hypotheses a row, at least one.

    Args:
        writer: stands before the first symbol of every row.
    """
    rows = [_Row([_Alive(0.0)]) for _ in range(num_rows)]
    writer.keep(torch.arange(num_rows).repeat_interleave(search.beam))
    last_N = torch.full((num_rows * search.beam,), symbols.end)
    for length in range(1, symbols.most + 2):
        logits_NV, weights_NT = writer.step(last_N)
        best = _continuations(logits_NV, rows, symbols, search, is_last=length > symbols.most)
        seen = weights_NT.cpu().tolist() if search.keep_weights else None
        going_on = []
        for number, row in enumerate(rows):
            own = None if seen is None else seen[number * search.beam : (number + 1) * search.beam]
            parents = _go_on(row, best[number], own, symbols.end, search)
            going_on += [number * search.beam + parent for parent in parents]
        if all(_is_over(row, symbols.most, search) for row in rows):
            break
        writer.keep(torch.tensor(going_on))
        last_N = torch.tensor([_last(one, symbols.end) for row in rows for one in _filled(row, search.beam)])
    return [sorted(row.finished, key=lambda one: -one.score)[: search.beam] for row in rows]


def _continuations(
    logits_NV: torch.Tensor, rows: list[_Row], symbols: Writable, search: Search, *, is_last: bool
) -> list[list[tuple[float, int, int]]]:
    """The best ways to go on with every row, best first: log-probability, number of the hypothesis, symbol."""
    before_BK = torch.full((len(rows), search.beam), -torch.inf, dtype=torch.float64)
    for number, row in enumerate(rows):
        for place, one in enumerate(row.alive):
            before_BK[number, place] = one.log_probability
    chances_NV = logits_NV.double().log_softmax(-1).cpu()
    chances_NV[:, list(symbols.never)] = -torch.inf
    if is_last:
        ends_N = chances_NV[:, symbols.end].clone()
        chances_NV.fill_(-torch.inf)[:, symbols.end] = ends_N
    num_symbols = chances_NV.shape[-1]
    flat = (before_BK.unsqueeze(-1) + chances_NV.reshape(len(rows), search.beam, num_symbols)).flatten(1)
    values, places = flat.topk(min(2 * search.beam, flat.shape[-1]), dim=-1)
    return [
        [(value, *divmod(place, num_symbols)) for value, place in zip(*pair, strict=True) if value > -torch.inf]
        for pair in zip(values.tolist(), places.tolist(), strict=True)
    ]


def _go_on(
    row: _Row, best: list[tuple[float, int, int]], seen: list[list[float]] | None, end: int, search: Search
) -> list[int]:
    """End what ends, go on with the best of the others, and say which hypotheses these go on from."""
    alive: list[_Alive] = []
    parents: list[int] = []
    for log_probability, parent, symbol in best:
        if len(alive) == search.beam:
            break
        before = row.alive[parent]
        weights = before.weights if seen is None else (*before.weights, tuple(seen[parent]))
        if symbol == end:
            score = log_probability / length_penalty(len(before.symbols) + 1, search.length_penalty)
            row.finished.append(Hypothesis(before.symbols, score, weights))
        else:
            alive.append(_Alive(log_probability, (*before.symbols, symbol), weights))
            parents.append(parent)
    row.alive = alive
    return (parents or [0]) + [(parents or [0])[-1]] * (search.beam - max(1, len(parents)))


def _filled(row: _Row, beam: int) -> list[_Alive]:
    """As many as the beam; where fewer are alive, some twice, of which nothing is taken."""
    alive = row.alive or [_Alive(-torch.inf)]
    return alive + [alive[-1]] * (beam - len(alive))


def _last(one: _Alive, end: int) -> int:
    return one.symbols[-1] if one.symbols else end


def _is_over(row: _Row, most: int, search: Search) -> bool:
    """Whether nothing that is alive can still be among the best: log-probabilities only fall."""
    if not row.alive:
        return True
    if len(row.finished) < search.beam:
        return False
    worst = sorted((one.score for one in row.finished), reverse=True)[search.beam - 1]
    return worst >= row.alive[0].log_probability / length_penalty(most + 1, search.length_penalty)
