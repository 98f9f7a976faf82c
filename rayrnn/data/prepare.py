"""The sequences of a run, ready for the workers: read, gathered, split, their encoding fitted or found in the run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rayrnn.data.beside_steps import roles_of
from rayrnn.data.encoding import Encoding
from rayrnn.data.files import list_files
from rayrnn.data.fitting import faults_of_targets, fit_encoding, found_units, losses
from rayrnn.data.rows import Needs, raise_faults
from rayrnn.data.sequences import Part, Sequences, cut_again, gather, split
from rayrnn.data.sources import Wanted, pinned, read
from rayrnn.data.sources.given import sequences_given
from rayrnn.data.symbols import Symbols
from rayrnn.data.units import Units
from rayrnn.data.vectors import Vectors, read_vectors
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe import Recipe, choices_of, needs_of, remarks_on_answers, task_of
from rayrnn.recipe.data_sections import Data, StepData, TargetUnits, TextUnits
from rayrnn.recipe.media_sections import ImageData
from rayrnn.recipe.sources import OWN
from rayrnn.recipe.table_sections import VersionedTable
from rayrnn.recipe.text_sections import TextData
from rayrnn.tasks import Weighing
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
    #: what the embedding begins with, where the recipe names vectors of words and there is no model yet
    vectors: Vectors | None = None
    #: why sequences that are there have nothing to learn from: their task sees to that
    unlearnable: tuple[str, ...] = ()
    #: at which versions tables were read that have some, by the keys of the section
    versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Why sequences were left out that the source could not read, or whose targets cannot be learned."""
        parts = _distinct(self.training, self.held_out)
        return (*(reason for sequences in parts for reason in sequences.skipped), *self.unlearnable)


def prepare(
    recipe: Recipe,
    data: Any = None,
    *,
    encoding: Encoding | None = None,
    begins: bool = False,
    versions: Mapping[str, int] | None = None,
) -> Prepared:
    """Read the recipe's data, or take `data`, and make it ready for the workers.

    Args:
        data: what a program hands over, see `sequences_given`.
        encoding: of a run that has one already: the numbers of its model mean what they meant. Fitted without.
        begins: whether there is nothing yet that the run goes on from.
        versions: at which the run has read tables before; without any they are the recipe's, or the newest.

    Raises:
        DataError: the data cannot be read, or has nothing to learn from.
        RecipeError: the recipe asks of these labels what they cannot give.
    """
    needs, notes = needs_to_read(recipe, encoding), list[str]()
    section = recipe.data if data is not None else pinned(recipe.data, versions or {})
    sequences, others = _gathered(section, data, needs, notes)
    _check_columns(recipe, sequences)
    training, held_out = _parts(recipe, sequences, others, from_recipe=data is None)
    if not needs.can_cut:
        needs = _with_pieces(recipe, training, needs)
        sequences, others = cut_again(sequences, needs), others and cut_again(others, needs)
        training, held_out = _parts(recipe, sequences, others, from_recipe=data is None)
    skips, unlearnable = getattr(recipe.data, "on_error", "stop") == "skip", list[str]()
    if encoding is None:
        encoding = _fit(recipe, training, held_out, needs)
        # said once: a run that goes on learns what it learned
        notes += remarks_on_answers(recipe)
        notes += [] if encoding.foretold is None else encoding.foretold.beyond(int(training.steps.max()))
        for part in _distinct(training, held_out):
            notes += losses(part, encoding)
            if part.num_dropped:
                notes.append(f"{counted(part.num_dropped, 'sequence')} without a step or an answer to learn left out")
            if not skips:
                raise_faults(faults_of_targets(part, task_of(recipe), encoding))
        if recipe.search is not None and recipe.search.beam > encoding.num_outputs:
            notes.append(f"search.beam is {recipe.search.beam}, and there are {encoding.num_outputs} symbols to follow")
    for part in _distinct(training, held_out) if skips else ():
        unlearnable += faults_of_targets(part, task_of(recipe), encoding)
    vectors = _vectors(recipe, encoding) if begins else None
    notes += [] if vectors is None else [vectors.describe()]
    if not encoding.per_step and recipe.training.truncate:
        raise RecipeError(
            f"training.truncate is {recipe.training.truncate}, but a sequence has one label, at its end: set it to 0"
        )
    name = "the dataset" if data is not None else section.describe()
    said = tuple(dict.fromkeys(notes))
    read_at = section.versions if data is None and isinstance(section, VersionedTable) else {}
    return Prepared(name, training, held_out, encoding, data is not None, said, vectors, tuple(unlearnable), read_at)


def needs_to_read(recipe: Recipe, encoding: Encoding | None = None) -> Needs:
    """What a recipe's task needs of a row, and what texts are cut into.

    Args:
        encoding: of a run that has one already; without it pieces of words are still to be found.
    """
    needs, data = needs_of(recipe), recipe.data
    if isinstance(data, TextUnits):
        rare = data.rare or (1 if data.units == "pieces" or (needs.every_symbol and data.units == "characters") else 2)
        every = needs.every_symbol and rare == 1 and data.units == "characters"
        needs = replace(needs, units=Units(data.units), rarest=rare, every_symbol=every)
    if isinstance(data, TargetUnits):
        needs = replace(needs, target_units=Units(data.target_units), rarest_target=data.target_rare)
    if isinstance(data, ImageData) and data.levels is not None:
        needs = replace(needs, known_symbols=tuple(map(str, range(data.levels))))
    if encoding is None:
        return needs
    if encoding.forecast is not None and encoding.forecast.known:
        needs = replace(needs, told_ahead=encoding.forecast.furthest)
    units = encoding.inputs.units if isinstance(encoding.inputs, Symbols) else needs.units
    target_units = encoding.targets.units if isinstance(encoding.targets, Symbols) else needs.target_units
    return replace(needs, units=units, target_units=target_units)


def _gathered(section: Data, data: Any, needs: Needs, notes: list[str]) -> tuple[Sequences, Sequences | None]:
    """All sequences; and those of a held-out path of its own."""
    share = section.held_out
    if data is None:
        found = read(section, needs, say=notes.append)
    else:
        found = sequences_given(data, section, Wanted(needs, say=notes.append))
    sequences = gather(found, needs)
    if not isinstance(share, str):
        return sequences, None
    others = gather(read(section, needs, where=share, say=notes.append), needs)
    if data is None:
        notes += _also_learned(section, share)
    return sequences, others


def _check_columns(recipe: Recipe, sequences: Sequences) -> None:
    """
    Raises:
        DataError: a dataset that a program hands over lacks what the recipe's columns are for.
        RecipeError: it has weights, and the task does not weigh.
    """
    data, task, has_weights = recipe.data, task_of(recipe), "weight" in sequences.schema.names
    if has_weights and not (isinstance(task, Weighing) and task.weighs):
        raise RecipeError(
            f"the dataset has a column `weight`, and task {recipe.task} does not say that it weighs its losses"
        )
    roles = roles_of(sequences.schema)
    there = {"weight": has_weights, "known_ahead": roles.known, "forecast": roles.forecast}
    for key, found in there.items():
        if getattr(data, key, None) and not found:
            raise DataError(
                f"data.{key} is given, and the dataset does not say which of its numbers that is: leave the key out, "
                "or let rayrnn read the columns"
            )


def _parts(recipe: Recipe, sequences: Sequences, others: Sequences | None, *, from_recipe: bool) -> tuple[Part, Part]:
    if others is not None:
        return Part(sequences, np.arange(len(sequences))), Part(others, np.arange(len(others)))
    return divided(recipe, sequences, from_recipe=from_recipe)


def divided(recipe: Recipe, sequences: Sequences, *, from_recipe: bool = False) -> tuple[Part, Part]:
    """The part of some sequences that is learned, and the one that is held out.

    Raises:
        DataError: there is one sequence only.
    """
    share = recipe.data.held_out
    assert isinstance(share, float), "a path has sequences of its own"
    if share and len(sequences) == 1:
        raise _undivided(recipe, sequences, from_recipe=from_recipe)
    last = task_of(recipe).holds_out_last and recipe.data.in_order
    learned, kept_out = split(sequences, share, seed=recipe.seed, last=last)
    return Part(sequences, learned), Part(sequences, kept_out)


def _with_pieces(recipe: Recipe, training: Part, needs: Needs) -> Needs:
    data = recipe.data
    return found_units(
        training.sequences,
        training.indices,
        needs,
        pieces=data.pieces if isinstance(data, TextUnits) else 0,
        target_pieces=data.target_pieces if isinstance(data, TargetUnits) else 0,
    )


def _also_learned(data: Data, held_out: str) -> list[str]:
    """What is to be said where files of the held-out path are learned, too."""
    path = getattr(data, "path", None)
    if path is None or data.source not in OWN:
        return []
    if getattr(data, "held_out_where", None) is not None:  # other rows of the same files, perhaps
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


def _distinct(training: Part, held_out: Part) -> Iterable[Sequences]:
    """The sequences of both parts, which may be the same ones."""
    return {id(part.sequences): part.sequences for part in (training, held_out)}.values()


def _vectors(recipe: Recipe, encoding: Encoding) -> Vectors | None:
    where = recipe.data.vectors if isinstance(recipe.data, TextUnits) else None
    if where is None:
        return None
    if not isinstance(encoding.inputs, Symbols):
        raise RecipeError(f"data.vectors is {where}, and these sequences are numbers: vectors are of words")
    if encoding.inputs.units.kind == "characters":
        raise RecipeError(f"data.vectors is {where}, and texts are cut into characters: set data.units: words")
    size = recipe.model.embedding
    return read_vectors(where, encoding.inputs.vocabulary, size=size, endpoint=recipe.data.endpoint)


def _fit(recipe: Recipe, training: Part, held_out: Part, needs: Needs) -> Encoding:
    return fit_encoding(
        training.sequences,
        training.indices,
        task_of(recipe),
        choices_of(recipe),
        needs=needs,
        held_out=held_out.sequences if held_out.sequences is not training.sequences else None,
        normalize=recipe.data.normalize if isinstance(recipe.data, StepData) else "none",
    )
