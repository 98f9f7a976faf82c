"""The sequences of a run, ready for the workers: read, gathered, split, their encoding fitted or found in the run."""

from dataclasses import dataclass

import numpy as np
import ray.data

from rayrnn.data.encoding import Encoding
from rayrnn.data.files import list_files
from rayrnn.data.fitting import fit_encoding, losses
from rayrnn.data.sequences import Part, Sequences, gather, split
from rayrnn.data.sources import read
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe import Recipe, choices_of, needs_of, task_of
from rayrnn.recipe.data_sections import Data, StepData, TextData
from rayrnn.recipe.sources import OWN
from rayrnn.wording import counted


@dataclass(frozen=True)
class Prepared:
    """What a run learns from."""

    #: what the user calls it
    name: str
    training: Part
    held_out: Part
    encoding: Encoding
    #: a program gave the dataset: it is not what the recipe's `data` names
    handed_over: bool = False
    #: what the user should know of the data
    notes: tuple[str, ...] = ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """Why sequences were left out that the source could not read."""
        parts = {id(part.sequences): part.sequences for part in (self.training, self.held_out)}
        return tuple(reason for sequences in parts.values() for reason in sequences.skipped)


def prepare(recipe: Recipe, data: ray.data.Dataset | None = None, *, encoding: Encoding | None = None) -> Prepared:
    """Read the recipe's data, or take `data`, and make it ready for the workers.

    Args:
        encoding: of a run that has one already: the numbers of its model mean what they meant. Fitted without.

    Raises:
        DataError: the data cannot be read, or has nothing to learn from.
        RecipeError: the recipe asks of these labels what they cannot give.
    """
    needs, notes = needs_of(recipe), list[str]()
    sequences = gather(data if data is not None else read(recipe.data, needs, say=notes.append), needs)
    training, held_out = _parts(recipe, sequences, notes, from_recipe=data is None)
    if encoding is None:
        encoding = _fit(recipe, training, held_out)
        # said once: a run that goes on learns what it learned
        for part in {id(part.sequences): part.sequences for part in (training, held_out)}.values():
            notes += losses(part, encoding)
    if not encoding.per_step and recipe.training.truncate:
        raise RecipeError(
            f"training.truncate is {recipe.training.truncate}, but a sequence has one label, at its end: set it to 0"
        )
    name = "the dataset" if data is not None else recipe.data.describe()
    return Prepared(name, training, held_out, encoding, data is not None, tuple(dict.fromkeys(notes)))


def _parts(recipe: Recipe, sequences: Sequences, notes: list[str], *, from_recipe: bool) -> tuple[Part, Part]:
    share = recipe.data.held_out
    if isinstance(share, str):
        others = gather(read(recipe.data, needs_of(recipe), where=share, say=notes.append), needs_of(recipe))
        if from_recipe:
            notes += _also_learned(recipe.data, share)
        return Part(sequences, np.arange(len(sequences))), Part(others, np.arange(len(others)))
    if share and len(sequences) == 1:
        raise _undivided(recipe, sequences, from_recipe=from_recipe)
    learned, kept_out = split(sequences, share, seed=recipe.seed, last=task_of(recipe).holds_out_last)
    return Part(sequences, learned), Part(sequences, kept_out)


def _also_learned(data: Data, held_out: str) -> list[str]:
    """What is to be said where files of the held-out path are learned, too."""
    path = getattr(data, "path", None)
    if path is None or data.source not in OWN:
        return []
    learned, kept_out = (list_files(where, endpoint=data.endpoint) for where in (path, held_out))
    known = set(learned.places)
    both = [name for name, place in zip(kept_out.names, kept_out.places, strict=True) if place in known]
    if not both:
        return []
    return [
        f"{len(both):,} of {counted(len(kept_out), 'file')} of data.held_out are in data.path too, such as {both[0]}: "
        "what was learned is measured there, not how it does on new sequences"
    ]


def _undivided(recipe: Recipe, sequences: Sequences, *, from_recipe: bool) -> DataError:
    steps = int(sequences.steps[0])
    shorter = (
        f", or set data.length to {max(2, steps // 10)}" if isinstance(recipe.data, TextData) and steps > 3 else ""
    )
    return DataError(
        f"there is one sequence, and data.held_out {recipe.data.held_out} of it cannot be kept apart: set data.held_out"
        f" to 0 or to a path of its own, or give more sequences{shorter if from_recipe else ''}"
    )


def _fit(recipe: Recipe, training: Part, held_out: Part) -> Encoding:
    return fit_encoding(
        training.sequences,
        training.indices,
        task_of(recipe),
        choices_of(recipe),
        held_out=held_out.sequences if held_out.sequences is not training.sequences else None,
        normalize=recipe.data.normalize if isinstance(recipe.data, StepData) else "none",
    )
