"""A run goes on with the table that it began with, although the table has grown meanwhile."""

from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog

from rayrnn.errors import UsageError
from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.directory import open_run
from rayrnn.training.driver import train
from tests.data.test_stored_tables import catalog_at, catalog_of


def steps(first: int, count: int) -> pa.Table:
    device, at = np.repeat(np.arange(first, first + count), 6), np.tile(np.arange(6), count)
    state = np.where(device % 2, "run", "walk")
    return pa.table({"device": device, "at": at, "x": at * 0.5 + device % 2, "state": state})


def recipe_of(rounds: int, **data: Any) -> Recipe:
    return validate_recipe(
        {
            "name": "tables",
            "task": "classification",
            "data": {"key": "device", "order_by": "at", "label": "state", "held_out": 0.25, **data},
            "model": {"hidden": 4, "layers": 1},
            "averaging": {"workers": 1, "frequency": 1, "rounds": rounds},
        }
    )


def test_a_delta_table_is_learned_and_measured_at_the_version_that_the_run_began_with(
    ray_cluster: None, tmp_path: Path
) -> None:
    table, run = tmp_path / "table", tmp_path / "run"
    deltalake.write_deltalake(str(table), steps(0, 8))
    deltalake.write_deltalake(str(table), steps(8, 4), mode="append")
    data = {"source": "delta", "path": str(table), "where": [["device", "<", 100]]}
    train(recipe_of(2, **data), out=run)
    assert open_run(run).stored_data.versions == {"version": 1}  # type: ignore[union-attr]
    before = evaluate(open_run(run)).to_json()
    assert before["sequences"] == 3
    deltalake.write_deltalake(str(table), steps(50, 4), mode="append")
    deltalake.DeltaTable(str(table)).optimize.compact()
    assert evaluate(open_run(run)).to_json() == before
    train(recipe_of(3, **data), out=run, resume=True)
    assert open_run(run).stored_data.versions == {"version": 1}  # type: ignore[union-attr]
    assert evaluate(open_run(run)).to_json()["sequences"] == 3
    assert evaluate(open_run(run), path=table).num_sequences == 16  # what is named by hand is read as it is now


@pytest.mark.slow
def test_an_iceberg_table_is_learned_at_the_snapshot_that_the_run_began_with(ray_cluster: None, tmp_path: Path) -> None:
    catalog, run = catalog_of(tmp_path / "lake"), tmp_path / "run"
    table = catalog.create_table("plant.sensors", steps(0, 1).schema)
    table.append(steps(0, 8))
    others = catalog.create_table("plant.others", steps(0, 1).schema)
    others.append(steps(100, 3))
    snapshots = {"version": snapshot(tmp_path, "sensors"), "held_out_version": snapshot(tmp_path, "others")}
    snapshots |= {"schema": 0, "held_out_schema": 0}
    data = {"source": "iceberg", "table": "plant.sensors", "catalog": catalog_at(tmp_path / "lake")}
    recipe = recipe_of(2, **{**data, "held_out": "plant.others"})
    train(recipe, out=run)
    assert open_run(run).stored_data.versions == snapshots  # type: ignore[union-attr]
    table.append(steps(8, 4))
    with table.update_schema() as update:
        update.rename_column("x", "speed")
    others.append(steps(103, 3))
    with pytest.raises(UsageError, match=r"has data\.catalog for iceberg, by which whoever wrote it"):
        train(recipe, out=run, resume=True)
    train(recipe, out=run, resume=True, trust=True)
    assert open_run(run).stored_data.versions == snapshots  # type: ignore[union-attr]
    assert evaluate(open_run(run, trust=True)).num_sequences == 3


def snapshot(place: Path, name: str) -> int:
    found = load_catalog(**catalog_at(place / "lake")).load_table(f"plant.{name}").current_snapshot()
    assert found is not None
    return found.snapshot_id
