"""CSV and Parquet from a real S3 server, read by workers whose own environment has no credentials."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import CsvData, Data, ParquetData
from rayrnn.recipe.media_sections import AudioData, ImageData
from tests.asked import needs
from tests.media import picture, sine, sound, write
from tests.s3_store import ENVIRONMENT, Store


@pytest.fixture
def store(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return s3_store


def sequences(data: Data) -> list[dict[str, object]]:
    found = gather(read(data, needs("classification")), needs("classification"))
    return sorted(take(found, np.arange(len(found))).to_pylist(), key=lambda row: row["key"])


def test_csv_files_in_a_bucket_read_as_local_ones_do(ray_cluster: None, store: Store, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        lines = [f"{random.normal():.4f},{random.normal():.4f},{number % 3}" for _ in range(1 + number % 7)]
        (tmp_path / f"{number:02d}.csv").write_text("\n".join(lines))
    store.upload(tmp_path, "csv")
    keys = {"label_column": 2, "num_classes": 3, "endpoint": store.endpoint}
    local = sequences(CsvData(path=str(tmp_path), **keys))
    assert len(local) == 40
    assert sequences(CsvData(path=f"s3://{store.bucket}/csv", **keys)) == local
    assert sequences(CsvData(path=f"s3://{store.bucket}/csv/1?.csv", **keys)) == local[10:20]


def test_labels_in_a_bucket_read_as_local_ones_do(ray_cluster: None, store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1\n2\n")
    (tmp_path / "labels.csv").write_text("a.csv,up\n")
    store.upload(tmp_path, "labelled")
    place = f"s3://{store.bucket}/labelled"
    (row,) = sequences(CsvData(path=place, labels=f"{place}/labels.csv", endpoint=store.endpoint))
    assert row == {"key": "a.csv", "values": [[1], [2]], "label": "up"}


def test_sounds_and_images_in_a_bucket_read_as_local_ones_do(ray_cluster: None, store: Store, tmp_path: Path) -> None:
    images = {f"frames/{walk}/{n}.png": picture(np.full((2, 2), 9 * n, np.uint8)) for walk in "ab" for n in range(3)}
    sounds = {f"sounds/{name}.wav": sound(sine(hertz, 0.1)) for name, hertz in (("low", 300), ("high", 3000))}
    write(tmp_path, images | sounds | {"labels.csv": "low.wav,l\nhigh.wav,h\n"})
    store.upload(tmp_path, "media")
    place, endpoint = f"s3://{store.bucket}/media", store.endpoint
    found = sequences(AudioData(path=f"{place}/sounds", labels=f"{place}/labels.csv", endpoint=endpoint))
    assert [row["label"] for row in found] == ["h", "l"]
    assert found == sequences(AudioData(path=f"{tmp_path}/sounds", labels=f"{tmp_path}/labels.csv"))
    walks = {"frames": True, "size": [2, 2], "label_pattern": "([ab])"}
    found = sequences(ImageData(path=f"{place}/frames", endpoint=endpoint, **walks))
    assert [(row["key"], len(row["values"]), row["label"]) for row in found] == [("a", 3, "a"), ("b", 3, "b")]
    assert found == sequences(ImageData(path=f"{tmp_path}/frames", **walks))


@pytest.mark.parametrize("shape", ["sequences", "steps"])
def test_tables_in_a_bucket_read_as_local_ones_do(ray_cluster: None, store: Store, tmp_path: Path, shape: str) -> None:
    nested = {"id": ["a", "b"], "series": [[1.0, 2.0], [3.0]], "kind": ["up", "down"]}
    steps = {"id": ["a", "b", "a"], "at": [1, 1, 0], "x": [2.0, 3.0, 1.0], "kind": ["up", "down", "up"]}
    for name in ("one", "two"):
        table = {
            column: ([f"{name}{v}" for v in cells] if column == "id" else cells)
            for column, cells in (nested if shape == "sequences" else steps).items()
        }
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    store.upload(tmp_path, shape)
    keys = {"key": "id", "label": "kind"} | ({"values": "series"} if shape == "sequences" else {"order_by": "at"})
    local = sequences(ParquetData(path=str(tmp_path), **keys))
    assert [(row["key"], row["values"]) for row in local][:2] == [("onea", [[1], [2]]), ("oneb", [[3]])]
    assert sequences(ParquetData(path=f"s3://{store.bucket}/{shape}", endpoint=store.endpoint, **keys)) == local


def test_a_bucket_or_file_that_is_not_there_is_told(ray_cluster: None, store: Store) -> None:
    with pytest.raises(DataError, match=r"there is no s3://nowhere/a\.csv"):
        read(CsvData(path="s3://nowhere/a.csv", endpoint=store.endpoint), needs("classification"))
    with pytest.raises(DataError, match="s3://"):
        read(CsvData(path=f"s3://{store.bucket}/absent/*.csv", endpoint=store.endpoint), needs("classification"))


def test_wrong_credentials_are_told(ray_cluster: None, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(DataError, match=r"s3://tests/csv cannot be (listed|reached)"):
        read(CsvData(path=f"s3://{store.bucket}/csv", endpoint=store.endpoint), needs("classification"))


def test_a_store_that_does_not_answer_is_told(ray_cluster: None, store: Store) -> None:
    with pytest.raises(DataError, match=r"s3://tests/csv cannot be (listed|reached)"):
        read(CsvData(path="s3://tests/csv", endpoint="http://127.0.0.1:9"), needs("classification"))
