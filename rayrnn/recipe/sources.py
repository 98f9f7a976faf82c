"""Sources by their names: rayrnn's own, those that plugins bring, and any other class as `package.module:Name`."""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from rayrnn.errors import UsageError
from rayrnn.recipe.data_sections import CsvData, Data, ParquetData
from rayrnn.recipe.media_sections import AudioData, ImageData
from rayrnn.recipe.table_sections import AvroData, DeltaData, GivenData, IcebergData, OrcData, SqlData
from rayrnn.recipe.text_sections import PairsData, TextData
from rayrnn.user_code import make

#: the entry points of plugins: the name is that of the source, the object its class
GROUP = "rayrnn.sources"


class HasSection(Protocol):
    """As much of a source as a recipe needs; rayrnn/data/sources/source.py says how it is read."""

    @property
    def section(self) -> type[Data]:
        """The class of its `data` section."""


class Own(NamedTuple):
    """A source that comes with rayrnn. Its section is known without what reads it, for that imports Ray."""

    section: type[Data]
    #: the class of the source, `package.module:Name`
    source: str
    #: the extra of rayrnn that brings what it reads with, and the module that is then there
    extra: str | None = None
    library: str | None = None


OWN: Mapping[str, Own] = {
    "text": Own(TextData, "rayrnn.data.sources.text:Text"),
    "csv": Own(CsvData, "rayrnn.data.sources.csv:Csv"),
    "parquet": Own(ParquetData, "rayrnn.data.sources.parquet:Parquet"),
    "given": Own(GivenData, "rayrnn.data.sources.given:Given"),
    "delta": Own(DeltaData, "rayrnn.data.sources.delta:Delta", "delta", "deltalake"),
    "iceberg": Own(IcebergData, "rayrnn.data.sources.iceberg:Iceberg", "iceberg", "pyiceberg"),
    "orc": Own(OrcData, "rayrnn.data.sources.orc:Orc"),
    "avro": Own(AvroData, "rayrnn.data.sources.avro:Avro", "avro", "fastavro"),
    "sql": Own(SqlData, "rayrnn.data.sources.sql:Sql", "sql", "sqlalchemy"),
    "pairs": Own(PairsData, "rayrnn.data.sources.pairs:Pairs"),
    "audio": Own(AudioData, "rayrnn.data.sources.audio:Audio", "audio", "soundfile"),
    "images": Own(ImageData, "rayrnn.data.sources.images:Images", "images", "PIL"),
}


def source_names() -> tuple[str, ...]:
    """Every source that is installed here, in order."""
    return tuple(sorted({*OWN, *(point.name for point in entry_points(group=GROUP))}))


def read_by_hosts() -> tuple[str, ...]:
    """Those whose files every host reads for itself."""
    return tuple(name for name in source_names() if section_named(name, trusted=False).read_by_hosts)


def section_named(name: str, *, trusted: bool) -> type[Data]:
    """The class of a source's section.

    Args:
        trusted: whether whoever chose the name may have a module of their own imported.

    Raises:
        ValueError: there is no such source.
        UsageError: it is code that is not installed as a plugin, and is not trusted.
    """
    if name in OWN:
        return OWN[name].section
    source: HasSection = source_named(name, trusted=trusted)
    return source.section


def source_named(name: str, *, trusted: bool) -> Any:
    """A source, imported now.

    Raises:
        ValueError: there is none of this name.
        UsageError: it is code that is not installed as a plugin, and is not trusted; a plugin cannot be imported; or
            what one of rayrnn's own reads with is not installed.
    """
    if name in OWN:
        check_installed(OWN[name], f"data.source {name}")
        return _load(OWN[name].source, name)
    for point in entry_points(group=GROUP, name=name):
        return _of_plugin(point)
    if ":" in name:
        if not trusted:
            raise UsageError(
                f"data.source is {name!r}: code of this recipe's author, neither rayrnn's nor of an installed plugin; "
                "it runs here only if you trust the author (--trust)"
            )
        return _load(name, name)
    raise ValueError(f"data.source {name!r} is unknown; the sources here are {', '.join(source_names())}")


def extra_of(library: str) -> str | None:
    """The extra of rayrnn that brings what a source of its own reads with."""
    return next((own.extra for own in OWN.values() if own.library == library), None)


def check_installed(own: Own, needed_for: str) -> None:
    """
    Raises:
        UsageError: a library that only an extra brings is not there.
    """
    if own.library is not None:
        check_library(own.library, own.extra, needed_for)


def check_library(library: str, extra: str | None, needed_for: str) -> None:
    """
    Raises:
        UsageError: a library that only an extra brings is not there.
    """
    if find_spec(library) is None:
        raise UsageError(f"{needed_for} needs {library}, which is not installed here: pip install 'rayrnn[{extra}]'")


def plugin_sources() -> Iterator[Any]:
    """The sources that plugins bring, imported now.

    Raises:
        UsageError: a plugin cannot be imported.
    """
    yield from map(_of_plugin, entry_points(group=GROUP))


def _of_plugin(point: EntryPoint) -> Any:
    try:
        return _load(point.value, point.name)
    except ValueError as error:
        raise UsageError(f"the plugin for data.source {point.name} cannot be used: {error}") from None


def _load(place: str, name: str) -> Any:
    source = make(place, "data.source", name)
    section = getattr(source, "section", None)
    if not (isinstance(section, type) and issubclass(section, Data)):
        raise ValueError(f"{place} is no source: it has no `section`, a class that is a rayrnn Data")
    return source
