"""Each thread and helper of a run elsewhere, and what comes of it when it fails."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import ray

from rayrnn.cluster import status
from rayrnn.cluster.ending import stop_runs
from rayrnn.cluster.on_host import verify
from rayrnn.cluster.ssh import side_by_side
from rayrnn.cluster.status import Heartbeat
from rayrnn.errors import ClusterError
from rayrnn.remote import follow, replica
from rayrnn.remote.fetch import Fetcher, Record
from rayrnn.remote.follow import Listener
from rayrnn.remote.replica import Replica, kept_folder, recover
from rayrnn.remote.screen_log import ScreenLog, words_of
from rayrnn.remote.submit import ask_to_stop
from rayrnn.runs.checkpoints import Checkpoint, name_of, newest_round
from rayrnn.runs.directory import Run, create_run
from tests.crashing import progress_of

PATIENCE = 60


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Head:
    """A head whose link does as a test says."""

    target = "user@head"

    def __init__(self, error: Exception | None = None, command: list[str] | None = None) -> None:
        self.error = error
        self.asked = 0
        self.said = command or []
        self.shell = self

    def command(self, script: str) -> list[str]:
        return self.said

    def run(self, script: str, *, input: str = "") -> str:
        return self._answer()

    def fetch(self, there: str, folder: Path, *, exclude: tuple[str, ...] = ()) -> None:
        self._answer()

    def _answer(self) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return ""


# What fetches checkpoints


def test_a_link_that_breaks_is_for_the_next_checkpoint_and_is_not_told_of(tmp_path: Path) -> None:
    head, told = Head(ClusterError("the link is broken")), []
    fetcher = Fetcher(head, Record("job-00000000", "runs/small"), create_run(tmp_path / "run"), told.append)
    for number in (1, 2):
        fetcher.want(name_of(number))
        wait_until(lambda number=number: head.asked == number)
    fetcher.close()
    assert told == []


def test_fetching_that_ends_of_anything_else_says_so(tmp_path: Path) -> None:
    head, told = Head(ValueError("broken")), []
    fetcher = Fetcher(head, Record("job-00000000", "runs/small"), create_run(tmp_path / "run"), told.append)
    fetcher.want(name_of(1))
    wait_until(lambda: told)
    fetcher.want(name_of(2))
    fetcher.close()
    assert told == ["no checkpoint is fetched any more until the run ends: ValueError: broken"]
    assert head.asked == 1


# What listens, and what asks to stop


def listen(command: str, transcript: Path, heard: Sequence[str] = ()) -> list[object]:
    """What a listener hears who knows of `heard` already."""
    listener = Listener(Head(command=["sh", "-c", command]), "job", transcript, patience=1)
    assert [word["word"] for word in listener.known()] == list(heard)
    return words_to_come(listener)


def words_to_come(listener: Listener) -> list[object]:
    return [word for word in listener.words(cut=lambda: None, mended=lambda: None) if word is not None]


def test_what_a_run_says_is_heard_to_its_end(tmp_path: Path) -> None:
    assert listen('echo \'{"word": "say"}\'; exit 0', tmp_path / "screen.jsonl") == [{"word": "say"}]


def test_a_reader_that_fails_ends_the_listening_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="could not be read: UnicodeDecodeError"):
        listen("printf '\\377\\n'; sleep 60", tmp_path / "screen.jsonl")


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 137", "exit 255"])
def test_a_link_that_is_killed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(follow, "RETRY_SECONDS", 0.01)
    mark = tmp_path / "second"
    twice = f"if [ -e {mark} ]; then {say('end')}; else touch {mark}; {say('say')}; {end}; fi"
    assert listen(twice, tmp_path / "screen.jsonl") == [{"word": "say"}, {"word": "end"}]


def say(*names: str) -> str:
    return "printf '%s\\n' " + " ".join(f"""'{{"word": "{name}"}}'""" for name in names)


@pytest.mark.parametrize("torn", ['{"word": "li', '{"word": "link', "\udcff", "nothing", '{"word": "link"}'])
def test_a_line_that_a_dead_listener_has_half_written_is_taken_again(tmp_path: Path, torn: str) -> None:
    transcript = tmp_path / "screen.jsonl"
    transcript.write_bytes(b'{"word": "say"}\n' + torn.encode(errors="surrogateescape"))
    assert listen(say("link", "end"), transcript, heard=["say"]) == [{"word": "link"}, {"word": "end"}]
    assert transcript.read_text() == '{"word": "say"}\n{"word": "link"}\n{"word": "end"}\n'


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "7",
        "[1]",
        '{"wo',
        "\\0\\0",
        '{"message": "x"}',
        '{"word": 1}',
        '{"word": "a", "time": "x"}',
        "[" * 9999,
    ],
)
def test_a_line_that_is_no_word_is_passed_over(tmp_path: Path, line: str) -> None:
    transcript = tmp_path / "screen.jsonl"
    heard = listen(f"{say('say')}; printf '{line}\\n'; {say('end')}", transcript)
    assert heard == [{"word": "say"}, {"word": "end"}]
    assert listen("true", transcript, heard=["say", "end"]) == []


def test_two_who_listen_to_one_run_write_it_down_once(tmp_path: Path) -> None:
    transcript = tmp_path / "screen.jsonl"
    many = [f"word {number}" for number in range(200)]
    listeners = [Listener(Head(command=["sh", "-c", say(*many)]), "job", transcript, patience=1) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        heard = list(pool.map(words_to_come, listeners))
    assert heard == [[{"word": name} for name in many]] * 4
    assert [json.loads(line)["word"] for line in transcript.read_text().splitlines()] == many
    assert listen(say("last"), transcript, heard=many) == [{"word": "last"}]


def test_a_run_that_was_killed_amid_a_word_begins_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "screen.jsonl").write_bytes(b'{"word": "say"}\n{"word": "wa')
    ScreenLog(tmp_path / "screen.jsonl").stop()
    ScreenLog(tmp_path / "screen.jsonl").stop()
    words = words_of((tmp_path / "screen.jsonl").read_text().splitlines())
    assert [word["word"] for word in words] == ["say", "stop", "stop"]


@pytest.mark.parametrize("error", [ClusterError("the link is broken"), ValueError("broken")])
def test_a_run_that_was_not_told_to_stop_is_said_so(error: Exception) -> None:
    told: list[str] = []
    ask_to_stop(Head(error), "job", told.append)
    assert len(told) == 1
    assert told[0].startswith("the run was not told to stop")
    assert str(error) in told[0]


# What keeps a copy on another host


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run")


@pytest.fixture
def job() -> Iterator[str]:
    """A name under which nothing is kept, neither before nor after."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    assert not kept_folder(name).is_dir()


def write(run: Run, number: int) -> str:
    run.write_checkpoint(number, Checkpoint({}, {}, ({},), progress_of(number)))
    return name_of(number)


def kept(job: str, name: str) -> bool:
    return (kept_folder(job) / "checkpoints" / name).is_dir()


def test_where_there_is_no_other_host_the_user_hears_of_it_once(ray_cluster: None, run: Run, job: str) -> None:
    told: list[str] = []
    copies = Replica(run, job, told.append)
    copies.keep(write(run, 1))
    wait_until(lambda: told)
    copies.keep(write(run, 2))
    copies.close(finished=True)
    assert told == [
        "no other host keeps a copy of the run (there is no other): if the head's disk is lost, so is the run"
    ]


def here() -> list[str]:
    """This machine's own node, in the place of another."""
    return [ray.get_runtime_context().get_node_id()]


def test_where_no_other_host_has_room_the_reason_is_said_once(
    ray_cluster: None, run: Run, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "other_nodes", here)
    kept_folder(job).parent.mkdir(parents=True, exist_ok=True)
    kept_folder(job).touch()  # no directory can be made there
    told: list[str] = []
    copies = Replica(run, job, told.append)
    copies.keep(write(run, 1))
    wait_until(lambda: told)
    copies.keep(write(run, 2))
    copies.close(finished=True)
    kept_folder(job).unlink()
    assert len(told) == 1
    assert "NotADirectoryError" in told[0] or "FileExistsError" in told[0]


def test_a_host_that_dies_is_replaced(ray_cluster: None, run: Run, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "other_nodes", here)
    told: list[str] = []
    copies = Replica(run, job, told.append)
    copies.keep(write(run, 1))
    wait_until(lambda: kept(job, name_of(1)))
    (actor,) = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::ReplicaHost")]
    actor.kill()
    copies.keep(write(run, 2))
    wait_until(lambda: kept(job, name_of(2)))
    copies.close(finished=True)
    assert told == []


def test_a_damaged_checkpoint_here_hides_no_good_one_of_another_host(
    ray_cluster: None, run: Run, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "other_nodes", here)
    copies = Replica(run, job, pytest.fail)
    copies.keep(write(run, 1))
    wait_until(lambda: kept(job, name_of(1)))
    assert recover(run, job) is None
    (run.checkpoints / name_of(1) / "model.safetensors").write_bytes(b"damaged")
    assert recover(run, job) == ray.util.get_node_ip_address()
    assert newest_round(run.checkpoints) == 1
    copies.close(finished=True)


def test_copying_that_ends_of_anything_else_says_so(ray_cluster: None, run: Run, job: str) -> None:
    told: list[str] = []
    copies = Replica(run, job, told.append)
    name = write(run, 1)
    (run.checkpoints / name / "no file").mkdir()
    copies.keep(name)
    wait_until(lambda: told)
    copies.close(finished=True)
    assert told[0].startswith("no other host gets copies of the run any more: IsADirectoryError")


# What tells the head of the run


def test_a_run_tells_the_head_of_itself_and_takes_it_back(ray_cluster: None) -> None:
    told: list[str] = []
    address, job = ray.get_runtime_context().gcs_address, ray.get_runtime_context().get_job_id()
    heartbeat = Heartbeat("runs/small", rounds=5, workers=2, warn=told.append)
    assert heartbeat.is_due()
    heartbeat.beat(3, [0, 1])
    wait_until(lambda: status.read_runs(address, [job]))
    (live,) = status.read_runs(address, [job])
    assert (live.run, live.round, live.rounds, live.members) == ("runs/small", 3, 5, (0, 1))
    assert not heartbeat.is_due()
    heartbeat.end()
    assert status.read_runs(address, [job]) == ()
    assert told == []


def test_a_run_hears_that_it_is_to_stop_and_the_next_of_its_program_does_not(ray_cluster: None) -> None:
    address, job = ray.get_runtime_context().gcs_address, ray.get_runtime_context().get_job_id()
    first = Heartbeat("runs/small", rounds=5, workers=2, warn=lambda _: None)
    first.beat(1, [0])
    wait_until(lambda: status.read_runs(address, [job]))
    assert not first.stop_asked
    assert [run.run for run in stop_runs(address, [job], patience=0)] == ["runs/small"]
    first.beat(2, [0])
    wait_until(lambda: first.stop_asked)
    first.end()
    assert stop_runs(address, ["no job"], patience=0) == ()
    second = Heartbeat("runs/small", rounds=5, workers=2, warn=lambda _: None)
    second.beat(1, [0])
    wait_until(lambda: status.read_runs(address, [job]) and not second.unanswered_seconds)
    second.end()
    assert not second.stop_asked


@pytest.mark.parametrize(
    ("error", "is_told"), [(RuntimeError("the head is away"), False), (ValueError("broken"), True)]
)
def test_a_head_that_is_away_is_told_again_and_any_other_error_is_said(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, error: Exception, is_told: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    told: list[str] = []
    monkeypatch.setattr(status, "put_in_head_store", fail)
    heartbeat = Heartbeat("runs/small", rounds=5, workers=2, warn=told.append)
    heartbeat.beat(1, [0])
    wait_until(lambda: told or not (is_told or heartbeat.unanswered_seconds))
    heartbeat.end()
    assert told == (["`rayrnn status` does not see this run any more: ValueError: broken"] if is_told else [])
    assert heartbeat.unanswered_seconds == 0


def test_a_head_that_does_not_answer_is_seen_by_how_long_it_has_not(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "END_SECONDS", 0.01)
    monkeypatch.setattr(status, "put_in_head_store", lambda *_: time.sleep(2))
    heartbeat = Heartbeat("runs/small", rounds=5, workers=2, warn=lambda _: None)
    heartbeat.beat(1, [0])
    wait_until(lambda: heartbeat.unanswered_seconds > 0.1)
    assert not heartbeat.is_due()
    heartbeat.end()


# What is done on all hosts at once, and what measures the way between two


def test_what_goes_wrong_on_one_host_does_not_keep_the_others_from_their_work() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 1:
            raise ClusterError("unreachable")
        done.append(number)
        return number

    first, second, third = side_by_side([0, 1, 2], work)
    assert (first, str(second), third) == (0, "unreachable", 2)
    assert sorted(done) == [0, 2]


def test_a_mistake_of_ours_on_one_host_is_raised_when_the_others_are_done() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            raise ValueError("broken")
        time.sleep(0.05)
        done.append(number)

    # more than can be done at once: some have not begun when the first has failed
    with pytest.raises(ValueError, match="broken"):
        side_by_side(range(40), work)
    assert sorted(done) == list(range(1, 40))


def test_who_does_not_know_the_secret_is_hung_up_on(ray_cluster: None) -> None:
    port, secret = verify.Prober().listen()
    with pytest.raises(OSError, match=r"hung up|reset|Broken pipe"):
        verify.Prober().measure(ray.util.get_node_ip_address(), port, bytes(len(secret)))


def test_a_measurement_ends_when_the_listening_side_goes(ray_cluster: None) -> None:
    with socket.create_server((ray.util.get_node_ip_address(), 0)) as server:
        program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))"
        address, port = server.getsockname()
        subprocess.run([sys.executable, "-c", program, address, str(port)], check=True)
    with pytest.raises(OSError, match=r"hung up|reset|refused|Broken pipe"):
        verify.Prober().measure(address, port, b"secret")


class Dying(verify.Prober):
    def compute(self) -> str:
        os._exit(1)


def test_a_host_on_which_the_verification_dies_is_a_fault_with_its_name(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "Prober", Dying)
    (node,) = ray.nodes()
    address = node["NodeManagerAddress"]
    assert verify.prove({address: node["NodeID"]}) == (1, False)
    assert f'{{"fault": [["{address}"], "does not compute: ' in capsys.readouterr().out


def test_a_host_that_has_gone_meanwhile_is_waited_for_again(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "Prober", Dying)
    gone = "0" * 56
    assert verify.prove({"192.0.2.1": gone}) == (0, True)
