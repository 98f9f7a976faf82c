"""The command line as a user meets it: its own process, its two streams, its exit code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rayrnn.recipe import shipped_recipes


def run_rayrnn(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a home of its own."""
    return subprocess.run(
        [sys.executable, "-m", "rayrnn.cli", *arguments],
        env=environment_of(home) | environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )


def environment_of(home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_"))}
    return ours | {"HOME": str(home), "COLUMNS": "100"}


def test_help_names_every_command_and_loads_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys, rayrnn.cli\n"
        "sys.argv = ['rayrnn', '--help']\n"
        "try:\n    rayrnn.cli.main()\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'ray', 'pydantic', 'numpy', 'pyarrow', 'pyspark'} & set(sys.modules)\n"
        "    print('heavy:', sorted(heavy))\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path).stdout
    assert "heavy: []" in said
    assert all(f" {command} " in said for command in ("recipes", "up", "down", "status", "train", "generate"))


def test_version_is_printed(tmp_path: Path) -> None:
    ended = run_rayrnn("--version", home=tmp_path)
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "rayrnn")


def test_recipes_are_listed_with_one_line_each(tmp_path: Path) -> None:
    ended = run_rayrnn("recipes", home=tmp_path)
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_recipes())
    assert all(len(line.split()) > 1 for line in lines)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_is_printed_as_it_is(tmp_path: Path, name: str) -> None:
    assert run_rayrnn("recipes", name, home=tmp_path).stdout == shipped_recipes()[name]


def test_a_mistake_is_one_message_on_stderr_and_an_exit_code(tmp_path: Path) -> None:
    ended = run_rayrnn("recipes", "pyton", home=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: there is no recipe 'pyton'")
    assert "Traceback" not in ended.stderr


def test_debug_shows_the_traceback_as_well(tmp_path: Path) -> None:
    ended = run_rayrnn("recipes", "pyton", "--debug", home=tmp_path)
    assert ended.returncode == 2
    assert "Traceback" in ended.stderr
    assert "error: there is no recipe 'pyton'" in ended.stderr


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    ended = run_rayrnn("recipe", home=tmp_path)
    assert ended.returncode == 2
    assert "Did you mean 'recipes'?" in ended.stderr


def test_a_size_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    ended = run_rayrnn("up", "--memory", "much", home=tmp_path)
    assert ended.returncode == 2
    assert "'much'" in ended.stderr


@pytest.mark.slow
def test_interrupting_up_exits_130_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rayrnn.cli", "up", "--cpus", "1"]
    with subprocess.Popen(command, env=environment_of(tmp_path), stderr=subprocess.DEVNULL) as process:
        wait_for_grandchildren(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert not [other for other in psutil.process_iter() if home_of(other) == str(tmp_path)]


def wait_for_grandchildren(pid: int) -> None:
    """Until `up` has a `ray start`, and that has started something."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(psutil.Process(pid).children(recursive=True)) > 1:
            return
        time.sleep(0.05)
    raise AssertionError("`ray start` never came")


def home_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HOME")
    except psutil.Error:
        return None
