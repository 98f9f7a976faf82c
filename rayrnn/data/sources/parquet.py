"""Parquet files: read by row group, and only the columns that are used."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet
import ray.data
from pyarrow import fs
from pyarrow.dataset import ParquetFileFormat

from rayrnn.data.files import list_files
from rayrnn.data.sources.conditions import filter_of
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.table_files import Inside, Unit, first_schema, read_files
from rayrnn.recipe.data_sections import ParquetData
from rayrnn.recipe.row_conditions import Condition


class Parquet:
    """Parquet files, whose rows are sequences or steps."""

    section = ParquetData

    def read(self, data: ParquetData, wanted: Wanted) -> ray.data.Dataset:
        """The sequences of a section; see `read_files`.

        Raises:
            DataError: a file is no Parquet file, or lacks a column that the recipe names.
        """
        return read_files(_ParquetFiles(), data, wanted)


def columns_of(where: str, *, endpoint: str | None = None) -> list[str]:
    """The columns of the first file.

    Raises:
        DataError: there is no file, or it is no Parquet file.
    """
    return list(first_schema(_ParquetFiles(), list_files(where, endpoint=endpoint)).names)


class _ParquetFiles:
    name = "Parquet"
    errors: tuple[type[Exception], ...] = (OSError, ValueError)

    def look(self, filesystem: fs.FileSystem, path: str) -> Inside:
        with filesystem.open_input_file(path) as file:
            footer = pyarrow.parquet.read_metadata(file)
        groups = (footer.row_group(number) for number in range(footer.num_row_groups))
        units = [Unit(group.num_rows, group.total_byte_size) for group in groups]
        return Inside(footer.schema.to_arrow_schema(), units)

    def read(
        self,
        filesystem: fs.FileSystem,
        path: str,
        units: Sequence[int],
        columns: Sequence[str],
        conditions: Sequence[Condition],
    ) -> pa.Table:
        with filesystem.open_input_file(path) as file:
            parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=True)
            stored = parquet.schema_arrow
            # a UUID is compared as its text, of which the footer has none
            seen = [one for one in conditions if not isinstance(stored.field(one.column).type, pa.UuidType)]
            if (condition := filter_of(seen, stored)) is not None:
                # by the least and the largest of each row group, which its footer has
                fragment = ParquetFileFormat().make_fragment(path, filesystem, row_groups=list(units))
                units = [group.id for group in fragment.subset(condition).row_groups]
            return parquet.read_row_groups(list(units), list(columns), use_threads=False)
