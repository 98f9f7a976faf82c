"""A store's copy of a run directory: complete whenever it says so, and no hindrance when the store does not answer."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rayrnn.errors import RunError, UsageError
from rayrnn.runs import mirror as mirroring
from rayrnn.runs.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from rayrnn.runs.directory import Run
from rayrnn.runs.mirror import Mirror
from rayrnn.runs.store import Store
from tests.crashing import checkpoint
from tests.s3_store import Store as Server


class Watched(Store):
    """A real store that remembers what was done to it, and does not answer while `away`."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.done: list[tuple[str, str, bytes]] = []
        self.away = False
        self.accident: Exception | None = None

    def write(self, name: str, content: bytes) -> None:
        self._answer("write", name, content)
        super().write(name, content)

    def remove(self, name: str) -> None:
        self._answer("remove", name)
        super().remove(name)

    def remove_empty_folder(self, name: str) -> None:
        self._answer("remove empty folder", name)
        super().remove_empty_folder(name)

    def _answer(self, what: str, name: str, content: bytes = b"") -> None:
        if self.away:
            raise UsageError(f"{self.address} cannot be written: no answer")
        if self.accident is not None:
            raise self.accident
        self.done.append((what, name, content))


@pytest.fixture
def store(s3_environment: Server, tmp_path: Path) -> Watched:
    return Watched(f"s3://{s3_environment.bucket}/mirrored/{tmp_path.name}")


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: small\n")
    (tmp_path / "run" / ".lock").write_text("1")
    return tmp_path / "run"


@pytest.fixture
def run(folder: Path) -> Run:
    return Run(folder)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def learn(run: Run, round_number: int) -> None:
    """What a run writes after a round that makes a checkpoint."""
    run.append_metrics({"round": round_number})
    (run.path / "model.safetensors").write_bytes(b"model %d" % round_number)
    run.write_checkpoint(round_number, checkpoint(round_number))


def local(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def stored(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.sizes()}


def states(store: Watched, folder: Path) -> Iterator[Path]:
    """The store's content after each thing that was done to it, as a local directory."""
    content: dict[str, bytes] = {}
    for number, (what, name, data) in enumerate(store.done):
        if what == "write":
            content[name] = data
        else:
            content = {
                known: kept for known, kept in content.items() if known != name and not known.startswith(f"{name}/")
            }
        place = folder / str(number)
        for known, kept in content.items():
            (place / known).parent.mkdir(parents=True, exist_ok=True)
            (place / known).write_bytes(kept)
        yield place


def test_the_store_has_a_complete_checkpoint_at_every_moment(
    store: Watched, folder: Path, run: Run, warnings: list[str], tmp_path: Path
) -> None:
    mirror = Mirror(run, store, warnings.append)
    for number in (1, 2, 3, 3, 4):  # the third is made again
        learn(run, number)
        name = f"checkpoints/round-{number:06d}/MANIFEST.json"
        before = len(store.done)
        wait_for(lambda name=name, before=before: ("write", name) in [done[:2] for done in store.done[before:]])
    mirror.close()
    assert stored(store) == local(folder)
    assert warnings == []
    newest = 0
    for place in states(store, tmp_path / "states"):
        found, damages = newest_checkpoint(place / "checkpoints") if newest else (None, [])
        with_manifest = sorted(place.glob("checkpoints/*/MANIFEST.json"))
        if not newest and with_manifest:
            found, damages = newest_checkpoint(with_manifest[0].parent.parent)
        if found is not None:
            newest = found.progress["round"]
            assert (place / "model.safetensors").read_bytes() >= b"model %d" % newest
            assert f'{{"round": {newest}}}' in (place / "metrics.jsonl").read_text()
            # a checkpoint that is on its way has no manifest; one with a manifest is whole
            assert all("MANIFEST.json" in damage and "incomplete" in damage for damage in damages)
        else:
            assert newest == 0
    assert newest == 4


def test_a_new_checkpoint_is_copied_because_the_run_tells_of_it(
    store: Watched, run: Run, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "GROWING_SECONDS", 1000.0)  # nobody comes by without a word
    mirror = Mirror(run, store, warnings.append)
    wait_for(lambda: "recipe.yaml" in store.sizes())
    learn(run, 1)
    wait_for(lambda: "checkpoints/round-000001/MANIFEST.json" in store.sizes())
    mirror.close()
    assert warnings == []


def test_training_goes_on_without_the_store_and_it_catches_up(
    store: Watched, folder: Path, run: Run, warnings: list[str]
) -> None:
    mirror = Mirror(run, store, warnings.append)
    learn(run, 1)
    wait_for(lambda: "checkpoints/round-000001/MANIFEST.json" in store.sizes())
    store.away = True
    for number in (2, 3, 4):
        learn(run, number)
    wait_for(lambda: warnings)
    assert "checkpoints/round-000001/MANIFEST.json" in store.sizes()
    store.away = False
    wait_for(lambda: len(warnings) == 2)
    mirror.close()
    assert stored(store) == local(folder)
    assert "no answer; training goes on" in warnings[0]
    assert warnings[1].endswith("takes the run again")


def test_a_store_that_is_slower_than_the_checkpoints_never_loses_its_last_whole_one(
    store: Watched, folder: Path, run: Run, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(run, 1)
    mirror = Mirror(run, store, warnings.append)
    wait_for(lambda: "checkpoints/round-000001/MANIFEST.json" in store.sizes())
    write = Watched.write

    def slowly(self: Watched, name: str, content: bytes) -> None:
        if name.startswith("checkpoints"):
            time.sleep(0.3)
        write(self, name, content)

    monkeypatch.setattr(Watched, "write", slowly)
    for number in range(2, 14):  # each is gone before the store has taken it
        learn(run, number)
        time.sleep(0.3)
        assert any(name.endswith("MANIFEST.json") for name in store.sizes())
    mirror.close()
    assert stored(store) == local(folder)
    assert warnings == []


def test_a_store_that_is_away_at_the_end_is_an_error_that_names_what_is_kept(
    store: Watched, folder: Path, run: Run, warnings: list[str]
) -> None:
    mirror = Mirror(run, store, warnings.append)
    store.away = True
    learn(run, 1)
    with pytest.raises(RunError, match=rf"no answer.*all of it is in {folder}.*--resume"):
        mirror.close(patience=1.0)


def test_a_checkpoint_that_is_removed_while_it_is_looked_at_is_nothing_to_speak_of(
    store: Watched, folder: Path, run: Run, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        learn(run, number)
    scandir = os.scandir
    removed = []

    def too_late(path: object) -> object:
        if str(path).endswith("round-000001") and not removed:
            removed.append(path)
            shutil.rmtree(folder / "checkpoints" / "round-000001")
        return scandir(path)

    mirror = Mirror(run, store, warnings.append)
    monkeypatch.setattr(os, "scandir", too_late)
    wait_for(lambda: removed)
    learn(run, 3)
    mirror.close()
    assert stored(store) == local(folder)
    assert warnings == []


def test_an_accident_in_the_copy_is_told_of_and_the_copy_goes_on(
    store: Watched, folder: Path, run: Run, warnings: list[str]
) -> None:
    mirror = Mirror(run, store, warnings.append)
    store.accident = ValueError("no such thing")
    learn(run, 1)
    wait_for(lambda: warnings)
    assert warnings == ["the copy failed, ValueError: no such thing; training goes on"]
    store.accident = None
    wait_for(lambda: len(warnings) == 2)
    learn(run, 2)
    mirror.close()
    assert stored(store) == local(folder)


def test_an_accident_that_lasts_fails_the_run(store: Watched, folder: Path, run: Run, warnings: list[str]) -> None:
    mirror = Mirror(run, store, warnings.append)
    store.accident = ValueError("no such thing")
    learn(run, 1)
    with pytest.raises(RunError, match=rf"ValueError: no such thing.*all of it is in {folder}.*--resume") as caught:
        mirror.close(patience=1.0)
    assert caught.value.exit_code == 1


def test_what_has_gone_from_the_store_meanwhile_is_brought_again_at_the_end(
    store: Watched, folder: Path, run: Run, warnings: list[str]
) -> None:
    mirror = Mirror(run, store, warnings.append)
    learn(run, 1)
    wait_for(lambda: "checkpoints/round-000001/MANIFEST.json" in store.sizes())
    for name in ("model.safetensors", "checkpoints/round-000001/progress.json"):
        Store(store.address).remove(name)
    mirror.close()
    assert stored(store) == local(folder)


def test_a_store_that_takes_everything_and_keeps_nothing_fails_the_run(
    store: Watched, folder: Path, run: Run, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "write", lambda *_: None)
    with pytest.raises(RunError, match=r"lacks recipe\.yaml"):
        Mirror(run, store, warnings.append).close(patience=1.0)


def test_what_the_store_has_does_not_travel_again_and_what_is_left_over_goes(
    store: Watched, folder: Path, run: Run, warnings: list[str]
) -> None:
    for number in (1, 2):
        learn(run, number)
    Mirror(run, store, warnings.append).close()
    store.write("checkpoints/round-000003/model.safetensors", b"of a driver that died")
    store.done.clear()
    Mirror(run, store, warnings.append).close()
    assert stored(store) == local(folder)
    assert [name for what, name, _ in store.done if what == "write" and name.startswith("checkpoints")] == []


def test_a_file_of_somebody_else_beside_a_checkpoint_outlives_it(
    store: Watched, folder: Path, run: Run, warnings: list[str]
) -> None:
    mirror = Mirror(run, store, warnings.append)
    learn(run, 1)
    wait_for(lambda: "checkpoints/round-000001/MANIFEST.json" in store.sizes())
    foreign = ("checkpoints/round-000001/notes.txt", "checkpoints/notes.txt", "notes/metrics.jsonl")
    for name in foreign:
        store.write(name, b"mine")
    for number in (2, 3):
        learn(run, number)
    mirror.close()
    assert stored(store) == local(folder) | dict.fromkeys(foreign, b"mine")
    assert warnings == []


def test_a_checkpoint_that_is_made_again_by_fewer_workers_is_whole_in_the_store(
    store: Watched, folder: Path, run: Run, warnings: list[str]
) -> None:
    one = checkpoint(1)
    write_checkpoint(folder / "checkpoints", 1, Checkpoint(one.model, one.outer, one.optimizers * 2, one.progress))
    Mirror(run, store, warnings.append).close()
    write_checkpoint(folder / "checkpoints", 1, one)
    Mirror(run, store, warnings.append).close()
    assert stored(store) == local(folder)


def test_nothing_travels_before_there_is_a_run(store: Watched, folder: Path, run: Run, warnings: list[str]) -> None:
    (folder / "recipe.yaml").unlink()
    (folder / "train.log").write_text("reading the data")
    Mirror(run, store, warnings.append).close()
    assert store.sizes() == {}
    (folder / "recipe.yaml").write_text("name: small")
    Mirror(run, store, warnings.append).close()
    assert [name for _, name, _ in store.done] == ["recipe.yaml", "train.log"]


def test_what_lies_behind_a_link_stays_here(
    store: Watched, folder: Path, run: Run, warnings: list[str], tmp_path: Path
) -> None:
    learn(run, 1)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "checkpoints" / "round-000001").rename(tmp_path / "elsewhere")
    (folder / "checkpoints" / "round-000001").symlink_to(tmp_path / "elsewhere")
    (folder / "train.log").symlink_to(tmp_path / "secret")
    Mirror(run, store, warnings.append).close()
    assert set(store.sizes()) == {"recipe.yaml", "metrics.jsonl", "model.safetensors"}


def test_hidden_files_stay_here(store: Watched, folder: Path, run: Run, warnings: list[str]) -> None:
    (folder / "checkpoints" / ".round-000007.unfinished").mkdir(parents=True)
    (folder / "checkpoints" / ".round-000007.unfinished" / "model.safetensors").write_bytes(b"half")
    Mirror(run, store, warnings.append).close()
    assert set(store.sizes()) == {"recipe.yaml"}


def test_a_bucket_that_is_not_there_is_told(s3_environment: Server) -> None:
    with pytest.raises(UsageError, match="there is no bucket nowhere; make it first"):
        Store("s3://nowhere/runs/x").check_bucket()
    with pytest.raises(UsageError, match="names no directory"):
        Store("s3://nowhere/")
