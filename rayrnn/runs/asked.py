"""What a program asks of a run by its methods. The rooms above answer; they are loaded when they are asked."""

import operator
from importlib import import_module
from typing import Any

from rayrnn.errors import UsageError


class Asked:
    """The methods of a run that compute with its network. They run in this process, without a cluster."""

    def generate(
        self,
        prime: str | None = None,
        *,
        length: int = 300,
        samples: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> list[str]:
        """Write texts with a language model.

        Args:
            prime: what each text begins with; without it a symbol drawn at random.
            length: symbols to draw after it; a text that has come to its end is shorter.
            samples: how many texts.
            temperature: below 1 safer, above 1 bolder; 0 takes the likeliest symbol.
            top_k: only the k likeliest symbols; 0 = all.
            top_p: only the likeliest symbols of this probability together.
            seed: another number draws other texts; without it the recipe's.

        Returns:
            the texts, each with its prime.

        Raises:
            UsageError: the run is no language model, names code and is not trusted, or a number is out of range.
            DataError: the prime holds a symbol that the vocabulary lacks.
            RunError: the run has no usable model.
        """
        if prime is not None and not isinstance(prime, str):
            raise UsageError(f"prime is {prime!r}; due is a text")
        length, samples, top_k = _whole("length", length), _whole("samples", samples), _whole("top_k", top_k)
        seed = None if seed is None else _whole("seed", seed)
        room = _above("rayrnn.generation")
        drawing = room.Drawing(temperature=temperature, top_k=top_k, top_p=top_p)
        drawn = room.generate(self, prime=prime, length=length, samples=samples, drawing=drawing, seed=seed)
        return ["".join(pieces) for pieces in zip(*drawn, strict=True)]

    def predict(self, sequences: Any, *, beam: int | None = None) -> Any:
        """Answer sequences that the program holds.

        Args:
            sequences: a list of texts, of arrays [steps, features] (or [steps] of one feature, or of symbols), or of
                mappings in the row schema; or a data frame (pandas, polars, Arrow) with a row a sequence, as the row
                schema or the run's recipe call the columns, or with a row a step, a column for each feature: all of
                them one sequence, or one for each key where the recipe has `key` and `order_by`.
            beam: hypotheses that are followed where an answer has a length of its own; without it the recipe's.

        Returns:
            a mapping for each sequence of a list; for a pandas frame another, for others an Arrow table. Their columns
            are those of `rayrnn predict`.

        Raises:
            UsageError: the run is a language model, or names code and is not trusted; or this is no list of sequences.
            DataError: a sequence cannot be read; says which, and its step.
            RunError: the run has no usable model.
        """
        return _above("rayrnn.prediction.in_process").predict_given(self, sequences, beam=beam)

    def step(self, state: Any, x: Any, *, key: str | None = None) -> tuple[dict[str, Any], Any]:
        """Answer the next step of a sequence as soon as it is there.

        Args:
            state: None at the first step; then what the last call gave. It is never changed, so that two sequences
                can go on from one.
            x: the features of one step: a number, a list or array of them, or a mapping (or a row of a frame) by their
                names; or a symbol.
            key: the sequence's name, at its first step; a threshold of its own (`detect.fit: each`) goes by it.

        Returns:
            the answer (that of a language model: what comes next, `next`; with a score where `rayrnn detect` has fitted
            a threshold), and the state after the step.

        Raises:
            UsageError: the run cannot be followed step by step; says why.
            DataError: the step cannot be read.
            RunError: the run has no usable model, or has diverged.
        """
        answer, after = _above("rayrnn.prediction.in_process").step_given(self, state, x, key=key)
        return answer, after


def _whole(name: str, value: Any) -> int:
    """numpy's whole numbers are some too."""
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}; due is a whole number") from None


def _above(module: str) -> Any:
    """A room that knows runs, and that runs must not know."""
    return import_module(module)
