"""A run goes on with, and is measured on, the data that it began with: anything else would be held out that was not."""

import hashlib
from collections.abc import Iterable

from rayrnn.data.prepare import Prepared
from rayrnn.data.sequences import Sequences
from rayrnn.errors import UsageError
from rayrnn.recipe.data_sections import Data
from rayrnn.recipe.table_sections import VersionedTable
from rayrnn.runs.directory import Run
from rayrnn.runs.schema import StoredData
from rayrnn.wording import counted

#: where the data is another than the run began with
RESUME_ADVICE = (
    "go on with the data as it was (a program's own dataset: rayrnn.train(recipe, data=..., resume=True)), or begin "
    "another run, --out PATH"
)


def data_of(prepared: Prepared) -> StoredData:
    """What is remembered of a run's data."""
    parts = {id(part.sequences): part.sequences for part in (prepared.training, prepared.held_out)}.values()
    content, order = _marks(parts)
    return StoredData(
        handed_over=prepared.handed_over,
        training=len(prepared.training),
        held_out=len(prepared.held_out),
        content=content,
        order=order,
        versions=dict(prepared.versions),
    )


def was_handed_over(run: Run, sequences: Sequences) -> bool:
    """Whether these are all the sequences that a program handed over to a run, in the order in which it did."""
    then = run.stored_data
    return then is not None and then.handed_over and _marks([sequences]) == (then.content, then.order)


def _marks(parts: Iterable[Sequences]) -> tuple[str, str]:
    """By what all that some sequences hold is known again, and by what their order is."""
    content, order = hashlib.sha256(), hashlib.sha256()
    for sequences in parts:
        content.update(f"{len(sequences)} {sequences.content} ".encode())
        order.update(sequences.steps.tobytes())
    return content.hexdigest(), order.hexdigest()


def versions_of(run: Run) -> dict[str, int]:
    """At which versions a run has read its tables, by the keys of its recipe; none where they have none."""
    then = run.stored_data
    return {} if then is None else dict(then.versions)


def described(run: Run, data: Data) -> str:
    """What the data of a run is called, with the version of a table that it has read."""
    return (data.at(versions_of(run)) if isinstance(data, VersionedTable) else data).describe()


def check_origin(run: Run, *, handed_over: bool, advice: str) -> None:
    """See, before anything is read, whether the data comes from where a run's came from.

    Args:
        handed_over: a program gives it now.
        advice: what the user can do where it does not.

    Raises:
        UsageError: a program gave it then.
    """
    then = run.stored_data
    if then is not None and then.handed_over and not handed_over:
        raise UsageError(f"{run.name}: it learned from what a program handed over, which nobody else has; {advice}")


def check_data(run: Run, prepared: Prepared, *, advice: str) -> list[str]:
    """See whether these are the sequences that a run began with.

    Args:
        advice: what the user can do where they are not.

    Returns:
        what the user should know.

    Raises:
        UsageError: they are others.
    """
    then, now = run.stored_data, data_of(prepared)
    if then is None:
        return []
    if then.content != now.content:
        were, are = (f"{counted(one.training, 'sequence')} and {one.held_out:,} held out" for one in (then, now))
        change = f"{were} then, {are} now" if were != are else f"{are}, with other content"
        raise UsageError(f"{prepared.name} is not what {run.name} began with: {change}; {advice}")
    if then.order != now.order:
        return ["the sequences come in another order than when the run began: others are held out than then"]
    return []
