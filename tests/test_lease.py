"""One owner of an address: who comes second is told whose it is, who is taken over stops, and nothing is lost."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from rayrnn.errors import RunError, UsageError
from rayrnn.runs import lease as leases
from rayrnn.runs import mirror
from rayrnn.runs.checkpoints import newest_round
from rayrnn.runs.copies import folder_for, landed
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import LEASE
from rayrnn.runs.lease import Lease, Taken
from rayrnn.runs.store import Store
from rayrnn.training.driver import train
from tests.crashing import checkpoint
from tests.s3_store import Store as Server
from tests.training.recipes import small

OTHER = {
    "attempt": "0" * 32,
    "user": "ann",
    "host": "gpu-7",
    "process": 1234,
    "since": 1_700_000_000,
    "beats": 3,
    "over": False,
}
WHO = r"ann@gpu-7 \(process 1234, since 2023-11-1\d \d\d:\d\d:\d\d .*\)"


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"SETTLE": 0.3, "LOOK": 0.05, "BEAT": 0.1, "EXPIRED": 1.5}.items():
        monkeypatch.setattr(leases, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(mirror, "OWNED_SECONDS", 0.15)


@pytest.fixture
def address(s3_environment: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a real store, for a machine that has seen nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
    return f"s3://{s3_environment.bucket}/leases/{tmp_path.name}"


@pytest.fixture
def store(address: str) -> Store:
    return Store(address)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be the machine of this name from now on."""
    return lambda name: monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / name))


def put(store: Store, **changes: object) -> None:
    store.write(LEASE, json.dumps(OTHER | changes).encode())


def owner(store: Store) -> dict[str, object]:
    return json.loads(store.read(LEASE))


def learn(run: Run, *rounds: int) -> None:
    run.write_recipe(small())
    for number in rounds:
        run.append_metrics({"round": number})
        run.write_checkpoint(number, checkpoint(number))


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has(store: Store, number: int) -> Callable[[], bool]:
    return lambda: f"checkpoints/round-{number:06d}/MANIFEST.json" in store.sizes()


def test_a_run_that_has_ended_leaves_the_address_free(address: str, store: Store) -> None:
    for number in (1, 2):
        with landed(address, small(), resume=number > 1, warn=pytest.fail) as run:
            assert not owner(store)["over"]
            learn(run, number)
        assert owner(store)["over"]


def test_whoever_comes_second_is_told_whose_the_run_is(
    address: str, store: Store, elsewhere: Callable[[str], None]
) -> None:
    said: list[str] = []
    with landed(address, small(), resume=False, warn=pytest.fail) as run:
        learn(run, 1)
        wait_until(has(store, 1))
        elsewhere("two")
        with (
            pytest.raises(UsageError, match=r"is being trained by \S+@\S+ \(process \d+, since .*--take-over"),
            landed(address, small(), resume=True, warn=said.append),
        ):
            pass
        assert "waiting 2 seconds at most for a sign of life" in said[0]
        learn(run, 2)
    assert has(store, 2)()


def test_of_several_that_begin_at_once_one_has_the_address(store: Store, tmp_path: Path) -> None:
    def begin(number: int) -> Lease | str:
        try:
            return Lease(store, tmp_path / str(number), take_over=False, say=lambda _: None, lost=lambda _: None)
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(5) as pool:
        ends = list(pool.map(begin, range(5)))
    (winner,) = [end for end in ends if isinstance(end, Lease)]
    assert all("is being trained by" in end for end in ends if end is not winner)
    winner.check()
    winner.release()


def test_an_owner_that_gives_no_sign_of_life_is_followed(address: str, store: Store) -> None:
    with landed(address, small(), resume=False, warn=pytest.fail) as run:
        learn(run, 1)
    put(store)
    said: list[str] = []
    with landed(address, small(), resume=True, warn=said.append) as run:
        assert newest_round(run.checkpoints) == 1
    assert said[-1] == "there was none: going on in its place"


def die(address: str, *rounds: int, sent: int) -> None:
    """A run of this machine that is killed when the store has its rounds up to `sent`."""
    with pytest.MonkeyPatch.context() as patch, suppress(RunError):
        learn_and_lose_the_store(address, rounds, sent, patch)


def learn_and_lose_the_store(address: str, rounds: Sequence[int], sent: int, patch: pytest.MonkeyPatch) -> None:
    """What a store that is away at the end leaves is what a kill leaves."""
    store = Store(address)
    patch.setattr(mirror, "PATIENCE_SECONDS", 0.1)
    with landed(address, small(), resume="recipe.yaml" in store.sizes(), warn=lambda _: None) as run:
        learn(run, *[number for number in rounds if number <= sent])
        wait_until(has(store, sent))
        time.sleep(0.3)  # what it remembers of it comes after
        patch.setattr(Store, "write", refuse)
        learn(run, *[number for number in rounds if number > sent])


def refuse(*_: object) -> None:
    raise UsageError("no answer")


def test_the_same_machine_goes_on_at_once_after_a_kill(
    address: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(address, 1, 2, 3, sent=2)
    assert not owner(store)["over"]
    monkeypatch.setattr(leases, "EXPIRED_SECONDS", 1000.0)
    with landed(address, small(), resume=True, warn=pytest.fail) as run:
        assert newest_round(run.checkpoints) == 3
    assert has(store, 3)()


def test_who_is_taken_over_stops_and_has_all_of_its_own(
    address: str, store: Store, elsewhere: Callable[[str], None]
) -> None:
    said: list[str] = []
    first = folder_for(address)
    with pytest.raises(RunError, match=rf"was taken over by \S+@\S+ .*all of it is in {first}") as caught:
        learn_and_be_taken_over(address, elsewhere, said)
    assert caught.value.exit_code == 1
    assert said == []
    assert (has(store, 2)(), has(store, 3)(), has(store, 4)()) == (True, False, False)
    assert newest_round(first / "checkpoints") == 4
    assert owner(store)["over"]


def test_a_sign_of_life_that_crosses_with_the_take_over_does_not_undo_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    write = Store.write
    crossed: list[bytes] = []

    def write_late(self: Store, name: str, content: bytes) -> None:
        write(self, name, content)
        if len(crossed) < 2:
            crossed.append(content)
            write(self, name, json.dumps(OTHER | {"beats": 4}).encode())

    monkeypatch.setattr(Store, "write", write_late)
    lease = Lease(store, tmp_path, take_over=True, say=pytest.fail, lost=pytest.fail)
    assert len(crossed) == 2
    assert owner(store)["attempt"] == lease.attempt
    lease.release()


def learn_and_be_taken_over(address: str, elsewhere: Callable[[str], None], said: list[str]) -> None:
    with landed(address, small(), resume=False, warn=said.append) as run:
        learn(run, 1)
        wait_until(has(Store(address), 1))
        elsewhere("two")
        with landed(address, small(), resume=True, take_over=True, warn=pytest.fail) as other:
            assert newest_round(other.checkpoints) == 1
            learn(run, 2, 3, 4)
            learn(other, 2)
            wait_until(lambda: run.failure)


def test_rounds_that_were_not_sent_are_never_given_up_for_anothers(
    address: str, store: Store, elsewhere: Callable[[str], None]
) -> None:
    die(address, 1, 2, 3, sent=2)
    first = folder_for(address)
    elsewhere("two")
    with landed(address, small(), resume=True, warn=lambda _: None) as run:
        learn(run, 3, 4, 5)
    before, there = content(first), {name: store.read(name) for name in store.sizes()}
    elsewhere("one")
    with (
        pytest.raises(UsageError, match=rf"{first} has learned up to round 3, and .* up to 2; .*up to round 5"),
        landed(address, small(), resume=True, warn=pytest.fail),
    ):
        pass
    assert content(first) == before
    assert {name: store.read(name) for name in store.sizes()} == there
    with landed(first, small(), resume=True, warn=pytest.fail) as run:
        assert newest_round(run.checkpoints) == 3
    first.rename(first.with_name("elsewhere"))
    with landed(address, small(), resume=True, warn=pytest.fail) as run:
        assert newest_round(run.checkpoints) == 5


def test_rounds_that_were_not_sent_go_on_where_nobody_else_has_learned_any(
    address: str, store: Store, elsewhere: Callable[[str], None]
) -> None:
    die(address, 1, 2, 3, sent=2)
    elsewhere("two")
    with landed(address, small(), resume=True, warn=lambda _: None):
        pass
    elsewhere("one")
    with landed(address, small(), resume=True, warn=pytest.fail) as run:
        assert newest_round(run.checkpoints) == 3
    assert has(store, 3)()


def test_a_machine_whose_rounds_were_all_sent_takes_what_others_have_learned_since(
    address: str, store: Store, elsewhere: Callable[[str], None]
) -> None:
    die(address, 1, 2, sent=2)
    elsewhere("two")
    with landed(address, small(), resume=True, warn=lambda _: None) as run:
        learn(run, 3, 4, 5)
    elsewhere("one")
    with landed(address, small(), resume=True, warn=pytest.fail) as run:
        assert newest_round(run.checkpoints) == 5


def test_a_damaged_checkpoint_here_hides_no_good_one_of_the_store(address: str, store: Store) -> None:
    die(address, 1, 2, sent=2)
    for number in (1, 2):
        (folder_for(address) / "checkpoints" / f"round-00000{number}" / "model.safetensors").write_bytes(b"damaged")
    with landed(address, small(), resume=True, warn=pytest.fail) as run:
        assert newest_round(run.checkpoints) == 2


def test_a_damaged_checkpoint_of_the_store_hides_no_good_one_here(address: str, store: Store) -> None:
    die(address, 1, 2, sent=2)
    store.write("checkpoints/round-000002/model.safetensors", b"damaged")
    store.write("checkpoints/round-000003/MANIFEST.json", b"{}")
    with landed(address, small(), resume=True, warn=lambda _: None) as run:
        assert newest_round(run.checkpoints) == 2
        learn(run, 3)
    assert has(store, 3)()
    assert store.read("checkpoints/round-000002/model.safetensors") != b"damaged"


def test_a_store_that_goes_away_while_it_is_fetched_costs_nothing_that_is_here(
    address: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(address, 1, 2, sent=2)
    store.write("checkpoints/round-000003/MANIFEST.json", b"{}")  # newer than what is here
    before = content(folder_for(address))
    with monkeypatch.context() as away:
        away.setattr(Store, "read", refuse)
        with pytest.raises(UsageError, match="no answer"), landed(address, small(), resume=True, warn=pytest.fail):
            pass
    assert content(folder_for(address)).items() >= before.items()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_start_that_is_refused_leaves_the_lease_as_it_was(address: str, store: Store) -> None:
    with landed(address, small(), resume=False, warn=pytest.fail) as run:
        learn(run, 1)
    before = owner(store)
    for recipe, resume in ((small(), False), (small(model={"hidden": 3}), True)):
        with pytest.raises(UsageError), landed(address, recipe, resume=resume, warn=pytest.fail):
            pass
    assert owner(store) == before


def test_a_file_of_that_name_that_is_no_lease_is_left_alone(address: str, store: Store) -> None:
    for mine in (b"rent", b"{}", b"x" * 100_000, json.dumps(OTHER | {"since": 10**30}).encode()):
        store.write(LEASE, mine)
        with (
            pytest.raises(UsageError, match=r"lease\.json cannot be used: .*move it away, or choose another --out"),
            landed(address, small(), resume=False, warn=pytest.fail),
        ):
            pass
        assert store.read(LEASE) == mine


def test_taking_over_is_for_stores(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="--take-over is for a run in a store"),
        landed(tmp_path / "run", small(), resume=True, take_over=True, warn=pytest.fail),
    ):
        pass


# The thread that gives signs of life


def test_signs_of_life_go_on_after_any_accident(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Taken] = []
    lease = Lease(store, tmp_path, take_over=False, say=pytest.fail, lost=lost.append)
    for accident in (UsageError("no answer"), ValueError("broken"), MemoryError()):
        with monkeypatch.context() as broken:
            asked = []

            def fail(*_: object, accident: Exception = accident, asked: list[int] = asked) -> None:
                asked.append(1)
                raise accident

            broken.setattr(Store, "write", fail)
            wait_until(lambda asked=asked: asked)
        before = owner(store)["beats"]
        wait_until(lambda before=before: owner(store)["beats"] != before)
    store.remove(LEASE)
    wait_until(lambda: LEASE in store.sizes())
    lease.check()
    put(store)
    wait_until(lambda: lost)
    with pytest.raises(Taken, match=f"taken over by {WHO}"):
        lease.check()
    lease.release()
    assert owner(store) == OTHER


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_is_taken_over_ends_with_an_error_and_a_checkpoint(address: str, store: Store) -> None:
    def steal() -> None:
        if any(name.endswith("MANIFEST.json") for name in store.sizes()):
            put(store)

    with pytest.raises(RunError, match=f"taken over by {WHO}.* all of it is in {folder_for(address)}") as caught:
        train(small(averaging={"rounds": 3000}), out=address, console=Console(quiet=True), on_written=steal)
    assert caught.value.exit_code == 1
    there = max(int(name.split("/")[1].removeprefix("round-")) for name in store.sizes() if "MANIFEST" in name)
    assert newest_round(folder_for(address) / "checkpoints") > there
    assert owner(store) == OTHER
