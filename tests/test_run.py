"""The run directory: who may write to it, and what a kill leaves there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rayrnn.errors import UsageError
from rayrnn.layout import METRICS
from rayrnn.run import Run, create_run

HOLD = """
import sys, time
from pathlib import Path
from rayrnn.run import Run
with Run(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run")


def test_only_one_process_trains_in_a_directory_and_a_killed_one_lets_go(run: Run) -> None:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UsageError, match=rf"trained by another process \(number {holder.pid}\)"), run.held():
                pass
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    with run.held():
        pass


def test_a_directory_is_free_after_its_training(run: Run) -> None:
    for _ in range(2):
        with run.held():
            assert (run.path / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize(
    "torn", [b'{"round": 3, "lo', b"\x00\x00\x00\n", b'{"round": 3, "lo\n', b"\xff\xfe\n", b"[]\n"]
)
def test_lines_that_a_kill_tore_are_passed_over(run: Run, torn: bytes) -> None:
    for number in (1, 2):
        run.append_metrics({"round": number})
    with (run.path / METRICS).open("ab") as file:
        file.write(torn)
    assert [line["round"] for line in run.metrics()] == [1, 2]
    run.cut_metrics(1)
    run.append_metrics({"round": 2, "again": True})
    assert run.metrics() == [{"round": 1}, {"round": 2, "again": True}]
