"""ORC files: read by stripe, and only the columns that are used."""

from collections.abc import Sequence

import pyarrow as pa
import ray.data
from pyarrow import fs, orc

from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.table_files import Inside, Unit, read_files
from rayrnn.recipe.row_conditions import Condition
from rayrnn.recipe.table_sections import OrcData


class Orc:
    """ORC files, whose rows are sequences or steps."""

    section = OrcData

    def read(self, data: OrcData, wanted: Wanted) -> ray.data.Dataset:
        """The sequences of a section; see `read_files`.

        Raises:
            DataError: a file is no ORC file, or lacks a column that the recipe names.
        """
        return read_files(_OrcFiles(), data, wanted)


class _OrcFiles:
    name = "ORC"
    errors: tuple[type[Exception], ...] = (OSError, ValueError)

    def look(self, filesystem: fs.FileSystem, path: str) -> Inside:
        with filesystem.open_input_file(path) as file:
            inside = orc.ORCFile(file)
            count = inside.nstripes
            rows = [inside.nrows] if count == 1 else [inside.read_stripe(at, []).num_rows for at in range(count)]
            units = [Unit(number, inside.content_length // count) for number in rows]
            return Inside(inside.schema, units)

    def read(
        self,
        filesystem: fs.FileSystem,
        path: str,
        units: Sequence[int],
        columns: Sequence[str],
        conditions: Sequence[Condition],
    ) -> pa.Table:
        with filesystem.open_input_file(path) as file:
            inside = orc.ORCFile(file)
            batches = [inside.read_stripe(unit, list(columns)) for unit in units]
        return pa.Table.from_batches(batches).select(list(columns))
