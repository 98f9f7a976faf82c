"""`data.ignore`: columns that are no features, where they are there."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.recipe.data_sections import CsvData, Data, ParquetData
from tests.asked import needs


def features_of(data: Data) -> list[list[float]]:
    """The features at every step of the first sequence."""
    sequences = gather(read(data, needs("regression")), needs("regression", 1))
    values: list[list[float]] = take(sequences, np.array([0]))["values"][0].as_py()
    return values


@pytest.mark.parametrize("ignore", [("when",), (0,), ("when", "nowhere"), (0, 7), (-3, 12)])
def test_ignored_columns_of_files_are_no_features(ray_cluster: None, tmp_path: Path, ignore: tuple[str | int]) -> None:
    (tmp_path / "a.csv").write_text("when,x,y\nmonday,1,2\ntuesday,3,4\n")
    assert features_of(CsvData(path=str(tmp_path), skip_lines=1, ignore=ignore, horizon=1)) == [[1, 2], [3, 4]]


def test_ignored_columns_of_tables_with_a_row_a_step_are_no_features(ray_cluster: None, tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "a"], "at": [0, 1], "note": ["u", "v"], "x": [1.0, 2.0]})
    pq.write_table(table, tmp_path / "steps.parquet")
    data = ParquetData(
        path=str(tmp_path / "steps.parquet"), key="id", order_by="at", ignore=("note", "nowhere"), horizon=1
    )
    assert features_of(data) == [[1], [2]]
