"""Prefix beam search: the likeliest sequences of symbols over all ways in which steps can say them.

Source: Hannun, Maas, Jurafsky, Ng: First-pass large vocabulary continuous speech recognition using bi-directional
recurrent DNNs, 2014, arXiv:1408.2873, without a language model. Shapes: T steps, V symbols.
"""

import math
from dataclasses import dataclass

import numpy as np

from rayrnn.tasks import Hypothesis

#: symbols that a step may add, at most: those of the highest probability
MOST_SYMBOLS = 40
_NOTHING = -math.inf


@dataclass
class _Ends:
    """Logarithms of the probability that a prefix was said, its last step a blank, or its last symbol."""

    in_blank: float = _NOTHING
    in_symbol: float = _NOTHING

    @property
    def both(self) -> float:
        return _sum(self.in_blank, self.in_symbol)


def prefix_search(chances_TV: np.ndarray, *, beam: int, blank: int, never: tuple[int, ...] = ()) -> list[Hypothesis]:
    """At most `beam` sequences, best first; with a beam of 1 what the likeliest symbols of all steps say.

    Of a network that has diverged, whose chances are no numbers, there is none.

    Args:
        chances_TV: log-probabilities.
        blank: the symbol that says nothing.
        never: symbols that are never said.
    """
    chances_TV = chances_TV.astype(np.float64).copy()
    chances_TV[:, list(never)] = _NOTHING
    if np.isnan(chances_TV).any():
        return []
    if beam == 1:
        return [_likeliest(chances_TV, blank)]
    prefixes: dict[tuple[int, ...], _Ends] = {(): _Ends(in_blank=0.0)}
    for chances_V in chances_TV:
        longer: dict[tuple[int, ...], _Ends] = {}
        order = np.argsort(-chances_V)[: MOST_SYMBOLS + 1].tolist()
        for prefix, ends in prefixes.items():
            _continue(prefix, ends, chances_V, order, blank, longer)
        best = sorted(longer.items(), key=lambda item: -item[1].both)[:beam]
        prefixes = dict(best)
    return [Hypothesis(prefix, ends.both) for prefix, ends in prefixes.items()]


def _continue(
    prefix: tuple[int, ...],
    ends: _Ends,
    chances_V: np.ndarray,
    order: list[int],
    blank: int,
    longer: dict[tuple[int, ...], _Ends],
) -> None:
    """Add all ways in which one more step goes on with a prefix."""
    same = longer.setdefault(prefix, _Ends())
    same.in_blank = _sum(same.in_blank, ends.both + float(chances_V[blank]))
    if prefix:
        same.in_symbol = _sum(same.in_symbol, ends.in_symbol + float(chances_V[prefix[-1]]))
    for symbol in order:
        if symbol == blank or chances_V[symbol] == _NOTHING:
            continue
        before = ends.in_blank if prefix and prefix[-1] == symbol else ends.both
        if before > _NOTHING:
            added = longer.setdefault((*prefix, symbol), _Ends())
            added.in_symbol = _sum(added.in_symbol, before + float(chances_V[symbol]))


def _likeliest(chances_TV: np.ndarray, blank: int) -> Hypothesis:
    said_T = chances_TV.argmax(-1)
    is_new_T = np.concatenate([[True], said_T[1:] != said_T[:-1]]) & (said_T != blank)
    return Hypothesis(tuple(said_T[is_new_T].tolist()), float(chances_TV.max(-1).sum()))


def _sum(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    larger, smaller = max(one, other), min(one, other)
    return larger if smaller == _NOTHING else larger + math.log1p(math.exp(smaller - larger))
