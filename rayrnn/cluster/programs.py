"""What a source needs of the hosts when it runs programs of its own there, such as another engine over Ray."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from rayrnn.recipe.sources import plugin_sources


@runtime_checkable
class RunsOnHosts(Protocol):
    """A source (rayrnn/data/sources/source.py) with programs of its own on the hosts."""

    @property
    def program(self) -> str:
        """What the user calls them; they find the hosts by their names, where training goes by address."""

    def packages(self) -> tuple[str, ...]:
        """What the hosts need beside rayrnn, as pip takes it; nothing where this machine lacks it."""

    def settings(self, python: str) -> dict[str, str]:
        """The variables that Ray's processes must find in their environment.

        Args:
            python: the path of the host's Python.
        """


def sources_on_hosts() -> Iterator[RunsOnHosts]:
    """Those of the plugins that are installed here."""
    return (source for source in plugin_sources() if isinstance(source, RunsOnHosts))


def settings_of_programs(python: str) -> dict[str, str]:
    """The variables that all of them want on a host with this Python."""
    return {name: value for source in sources_on_hosts() for name, value in source.settings(python).items()}
