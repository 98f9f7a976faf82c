"""Whatever works beside its caller is in a table of docs/architecture.md, with who notices its death, and its test."""

import ast
import io
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import WorkerCrashedError

from rayrnn.background import deaths_told
from rayrnn.cli.talk import console
from rayrnn.cluster import bring_up, launcher
from rayrnn.data.sequences import results
from rayrnn.errors import ClusterError

ROOT = Path(__file__).parent.parent
SOURCES = {
    file.relative_to(place).as_posix(): file
    for place, package in ((ROOT / "rayrnn", ROOT / "rayrnn"), (ROOT / "plugins", ROOT / "plugins"))
    for file in sorted(package.rglob("*.py"))
}
#: what begins a thread, a task of asyncio, or a process
BEGINNINGS = {
    *("Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "NewestOnly", "Popen", "Live", "status"),
    *("ensure_future", "create_task", "call_later", "call_soon", "fork", "start_job"),
    *("ray.remote", "subprocess.run", "subprocess.check_output", "asyncio.run"),
}


def rows() -> Iterator[tuple[list[str], str, str]]:
    """The files, the policy and the test of each row."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Which thread or helper may die")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            where, _, who, policy, test = (cell.strip() for cell in line.strip("| ").split(" | "))
            assert who
            yield re.findall(r"`([^`]+)`", where), policy, test.strip("`")


def names_begun_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    decorators = [each for node in ast.walk(tree) for each in getattr(node, "decorator_list", [])]
    names = [ast.unparse(name) for name in (*called, *decorators)]
    return {name for name in names if name in BEGINNINGS or name.rpartition(".")[2] in BEGINNINGS}


def test_every_file_that_begins_something_has_a_row() -> None:
    listed = {file for files, _, _ in rows() for file in files}
    assert listed <= SOURCES.keys()
    assert {name for name, file in SOURCES.items() if names_begun_in(file)} - listed == set()


@pytest.mark.parametrize(
    ("files", "policy", "test"), list(rows()), ids=lambda value: value[0] if isinstance(value, list) else ""
)
def test_every_row_has_a_policy_and_a_test(files: list[str], policy: str, test: str) -> None:
    assert re.match(r"again|said|error|another|the worker is replaced|Ray takes them back|-$", policy)
    file, _, name = test.partition("::")
    functions = [node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]
    assert name in functions


def test_a_thread_of_anybodys_that_dies_is_told_of() -> None:
    told: list[tuple[str, str]] = []

    def die() -> None:
        raise ValueError("broken\nand more")

    with deaths_told(lambda *words: told.append(words)):
        thread = threading.Thread(target=die, name="theirs")
        thread.start()
        thread.join()
    ((words, trace),) = told
    assert words == "the thread 'theirs' has died: ValueError: broken"
    assert "in die" in trace


class BreaksElsewhere(io.StringIO):
    """A terminal that only the thread that made it can write to."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no way out")
        return super().write(text)


def test_a_spinner_that_dies_is_told_of_and_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", BreaksElsewhere())
    told: list[str] = []
    with deaths_told(lambda words, _: told.append(words)), console().status("measuring ..."):
        deadline = time.monotonic() + 30
        while not told:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert told[0].endswith("RuntimeError: no way out")


@pytest.mark.usefixtures("ray_cluster")
def test_a_task_whose_process_is_killed_is_done_again(tmp_path: Path) -> None:
    @ray.remote
    def survey(marks: Path) -> int:
        (marks / str(os.getpid())).touch()
        if len(list(marks.iterdir())) < 3:
            os._exit(1)
        return 7

    assert results([survey.remote(tmp_path)]) == [7]
    (tmp_path / "dead").mkdir()
    with pytest.raises(WorkerCrashedError):
        results([survey.options(max_retries=0).remote(tmp_path / "dead")])


def test_a_launcher_that_is_killed_is_an_error_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho starting the head\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(launcher.sys, "executable", str(program))
    said: list[str] = []
    file = SimpleNamespace(provider="local", path="cluster.yaml")
    with pytest.raises(ClusterError, match=r"could not bring up cluster\.yaml.*\n  starting the head"):
        launcher.run_launcher("up", file, tmp_path / "launch.yaml", said.append)  # type: ignore[arg-type]
    assert said == ["starting the head"]


def test_a_verification_that_is_killed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """echo '{"joined": ["192.0.2.1"]}'; echo out of memory >&2; kill -9 $$"""
    head = SimpleNamespace(address="192.0.2.1", command=lambda _: ["sh", "-c", script])
    monkeypatch.setattr(bring_up, "shell_of_head", lambda _: head)
    with pytest.raises(ClusterError, match=r"192\.0\.2\.1 could not verify the hosts:\n  out of memory"):
        bring_up.verify_hosts(SimpleNamespace(name="small"), ("192.0.2.1",), lambda _: None)  # type: ignore[arg-type]
