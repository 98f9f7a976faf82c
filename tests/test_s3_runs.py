"""A run at an address of a store, from the first round to text that it writes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

import rayrnn
from rayrnn.errors import UsageError
from rayrnn.runs import lease
from rayrnn.runs.checkpoints import newest_name, read_checkpoint, write_checkpoint
from rayrnn.runs.copies import folder_for, landed
from rayrnn.runs.directory import open_run
from rayrnn.runs.layout import UNSENT
from rayrnn.runs.store import Store
from rayrnn.training.driver import train
from tests.crashing import checkpoint
from tests.s3_store import Store as Server
from tests.training.recipes import small

QUIET = Console(quiet=True)
RAYRNN = (sys.executable, "-m", "rayrnn.cli")


@pytest.fixture
def address(s3_environment: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a real store, for a machine that has seen nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)
    return f"s3://{s3_environment.bucket}/runs/{tmp_path.name}"


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_a_run_goes_on_at_another_machine_as_if_nothing_had_been(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small(), out=tmp_path / "whole", console=QUIET)
    screen = io.StringIO()
    first = train(small(averaging={"rounds": 3}), out=address, console=Console(file=screen, width=120))
    assert first.to_json()["run"] == address
    assert f"rayrnn generate {address}" in screen.getvalue()
    with pytest.raises(UsageError, match=rf"{address} holds a run already: continue it with --resume"):
        train(small(), out=address, console=QUIET)
    with pytest.raises(UsageError, match=rf"{address} was trained with another recipe"):
        train(small(model={"hidden": 25}), out=address, resume=True, console=QUIET)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    train(small(), out=address, resume=True, console=QUIET)
    there = folder_for(address) / "checkpoints" / "round-000006"
    here = tmp_path / "whole" / "checkpoints" / "round-000006"
    one, other = read_checkpoint(there), read_checkpoint(here)
    # the first part ended with an evaluation, one sum that the whole run has not made
    assert one.progress | {"sums": 0} == other.progress | {"sums": 0}
    assert all(torch.equal(one.model[name], other.model[name]) for name in other.model)
    names = set(Store(address).sizes())
    assert {"recipe.yaml", "vocabulary.json", "metrics.jsonl", "model.safetensors"} <= names
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints")} == {"round-000004", "round-000006"}
    assert [line["round"] for line in open_run(address).metrics()] == [1, 2, 3, 4, 5, 6]

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a third"))
    assert rayrnn.evaluate(open_run(address)).to_text() == rayrnn.evaluate(open_run(tmp_path / "whole")).to_text()


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_a_run_that_another_machine_goes_on_with(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "long.yaml"
    recipe.write_text(small(averaging={"rounds": 3000}).to_yaml())
    command = [*RAYRNN, "train", str(recipe), "--out", address, "--json"]
    environment = os.environ | {"HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 120
        store = Store(address)
        while not any(name.endswith("MANIFEST.json") for name in store.sizes()):
            assert time.monotonic() < give_up
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    environment["XDG_STATE_HOME"] = str(tmp_path / "another machine")
    reached = max(json.loads(line)["round"] for line in store.read("metrics.jsonl").splitlines())
    again = subprocess.run(
        [*command, "--resume", "--set", f"averaging.rounds={reached + 5}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert again.returncode == 0, again.stderr
    assert "going on after round" in again.stderr
    assert json.loads(again.stdout)["rounds"] == reached + 5
    written = subprocess.run(
        [*RAYRNN, "generate", address, "--prime", "the", "--length", "20"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout.startswith("the")


def new_run(address: str, *, resume: bool) -> dict[str, str]:
    """A run of a few files that ends at once; what it found."""
    with landed(address, small(), resume=resume, warn=pytest.fail) as run:
        found = {path.name: path.read_text() for path in run.path.glob("*.txt")}
        run.write_recipe(small())
        write_checkpoint(run.checkpoints, 4, checkpoint(4))
    return found


def test_a_run_whose_store_was_emptied_goes_on_from_what_is_here(address: str) -> None:
    new_run(address, resume=False)
    store = Store(address)
    for name in store.sizes():
        store.remove(name)
    with landed(address, small(), resume=True, warn=pytest.fail) as run:
        assert newest_name(run.checkpoints) == "round-000004"
    assert "checkpoints/round-000004/MANIFEST.json" in store.sizes()


def test_two_runs_at_one_address_are_not_mixed(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_run(address, resume=False)
    (folder_for(address) / UNSENT).touch()  # as if this machine had died
    store = Store(address)
    for name in store.sizes():
        store.remove(name)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
        new_run(address, resume=False)
    with pytest.raises(UsageError, match="another run was begun meanwhile: move one of the two away"):
        new_run(address, resume=True)
    with pytest.raises(UsageError, match="holds a run already"):
        new_run(address, resume=False)


def test_a_run_leaves_all_else_alone_that_lies_at_its_address(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run(f"{address}/another", resume=False)
    new_run(f"{address}2", resume=False)
    store = Store(address.rpartition("/")[0])
    name = address.rpartition("/")[2]
    for path in ("notes.txt", "data/metrics.jsonl", "checkpoints/notes.txt", "checkpoints/round-000004/notes.txt"):
        store.write(f"{name}/{path}", b"mine")
    foreign = {path: store.read(path) for path in store.sizes() if path.startswith(name)}
    new_run(f"{address}/", resume=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    with landed(address, small(), resume=True, warn=pytest.fail) as run:
        for number in (5, 6, 7):
            write_checkpoint(run.checkpoints, number, checkpoint(number))
        here = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert {path: store.read(path) for path in store.sizes() if path in foreign} == foreign
    assert not here & {path.removeprefix(f"{name}/") for path in foreign}
    mine = Store(address).sizes().keys() - {path.removeprefix(f"{name}/") for path in foreign}
    assert {path for path in mine if path.endswith("MANIFEST.json")} == {
        f"checkpoints/round-00000{number}/MANIFEST.json" for number in (6, 7)
    }
    assert {"recipe.yaml", "identity.txt"} <= mine


@pytest.mark.parametrize("resume", [False, True])
def test_files_that_would_be_taken_for_a_runs_are_left_alone_and_told_of(address: str, resume: bool) -> None:
    store = Store(address)
    store.write("metrics.jsonl", b"mine")
    with pytest.raises(UsageError, match=r"holds no run, but files with names of a run's \(metrics\.jsonl\)"):
        new_run(address, resume=resume)
    assert (store.sizes(), store.read("metrics.jsonl")) == ({"metrics.jsonl": 4}, b"mine")


def test_what_a_store_has_is_written_through_no_link(address: str, tmp_path: Path) -> None:
    new_run(address, resume=False)
    recipe = folder_for(address) / "recipe.yaml"
    (tmp_path / "outside").write_text("mine")
    recipe.unlink()
    recipe.symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match=f"{recipe} is a link to"):
        new_run(address, resume=True)
    assert (tmp_path / "outside").read_text() == "mine"


def test_what_is_no_run_is_told(address: str) -> None:
    with pytest.raises(UsageError, match=r"is no run: it has no recipe\.yaml"):
        open_run(address)


def test_a_store_that_refuses_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UsageError, match=f"{address} cannot be"):
        train(small(), out=address, console=QUIET)
