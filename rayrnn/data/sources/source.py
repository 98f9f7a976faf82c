"""What a source is: a section of the recipe, and what reads the sequences that the section names.

A source of your own is such a class, named in the recipe as `source: package.module:Name`; a plugin names it in the
entry point group `rayrnn.sources`. One that runs programs of its own on the hosts may also offer what they need there
(rayrnn/cluster/programs.py) and checks for `rayrnn doctor` (rayrnn/cluster/doctor.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from warnings import warn

import ray.data

from rayrnn.data.rows import Needs
from rayrnn.recipe.sources import HasSection


@dataclass(frozen=True)
class Wanted:
    """What is asked of a source beside its section."""

    #: what the task needs of a row
    needs: Needs
    #: sequences of the same kind at another path (or table, or query) than the section's own
    where: str | None = None
    #: where the labels of these sequences are, if they lie beside them and the section does not say where
    labels: str | None = None
    #: without it labels are left alone, whether they are there or not
    labelled: bool = True
    #: how many columns the model learned from, where there is one
    num_columns: int | None = None
    #: what the columns were called that the model learned from, where there is a model and they had names
    column_names: tuple[str, ...] = ()
    #: how the user is told of what lies there and is not read
    say: Callable[[str], None] = warn

    @property
    def weighed(self) -> bool:
        """Whether weights are wanted."""
        return self.labelled and self.needs.weighed


class Source(HasSection, Protocol):
    """One kind of place that sequences come from."""

    def read(self, data: Any, wanted: Wanted) -> ray.data.Dataset:
        """The sequences of a section, in the row schema (see rayrnn/data/rows.py).

        Args:
            data: an object of the class `section`.

        Raises:
            DataError: there are no sequences there, or they are malformed.
        """
