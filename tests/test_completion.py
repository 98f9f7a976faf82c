"""TAB in bash, with the script that `rayrnn --show-completion` prints, in a bash of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rayrnn.recipe import shipped_recipes
from tests.test_cli import run_rayrnn

#: types the words into bash's completion as readline does, and prints what it is offered
PRESS_TAB = """
source completion.bash
COMP_WORDS=(%s)
COMP_CWORD=%d
_rayrnn_completion rayrnn
printf '%%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with recipes, a cluster file and runs; `rayrnn` is a program of it."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    for path in ("mine.yaml", "cluster.yml", "text.txt", "more/other.yaml", "runs/python/recipe.yaml", ".hidden.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    program = tmp_path / "bin" / "rayrnn"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom rayrnn.cli import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "completion.bash").write_text(in_bash(tmp_path, "rayrnn --show-completion; true"))
    return tmp_path


def in_bash(folder: Path, script: str) -> str:
    """What a script prints in a bash that finds `rayrnn`."""
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    ended = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.stderr == ""
    return ended.stdout


def offered(folder: Path, *words: str) -> list[str]:
    """What TAB offers behind these words, the last of them only begun."""
    typed = " ".join(f"'{word}'" for word in ("rayrnn", *words))
    return in_bash(folder, PRESS_TAB % (typed, len(words))).split()


def test_commands_and_options_are_offered(folder: Path) -> None:
    assert offered(folder, "tr") == ["train"]
    assert offered(folder, "train", "--res") == ["--resume"]


def test_recipes_and_yaml_files_are_offered_to_train(folder: Path) -> None:
    assert offered(folder, "train", "") == [*shipped_recipes(), "cluster.yml", "mine.yaml", "more/other.yaml"]
    assert offered(folder, "train", "m") == ["moving", "mine.yaml", "more/other.yaml"]
    assert offered(folder, "train", "more/") == ["more/other.yaml"]
    assert offered(folder, "train", "sh") == ["shakespeare"]


def test_only_shipped_recipes_are_offered_to_recipes(folder: Path) -> None:
    assert offered(folder, "recipes", "") == list(shipped_recipes())


@pytest.mark.parametrize("command", ["generate", "evaluate", "predict", "logs"])
def test_run_directories_are_offered_to_the_commands_that_use_them(folder: Path, command: str) -> None:
    assert offered(folder, command, "r") == ["runs/python"]


def test_cluster_files_are_offered(folder: Path) -> None:
    assert offered(folder, "up", "c") == ["cluster.yml"]
    assert offered(folder, "train", "recite", "--cluster", "c") == ["cluster.yml"]


def test_files_are_left_to_the_shell_where_nothing_is_known(folder: Path) -> None:
    assert offered(folder, "train", "nowhere/") == []
    assert "complete -o default" in (folder / "completion.bash").read_text()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_of_their_own(tmp_path: Path, shell: str) -> None:
    said = run_rayrnn(home=tmp_path, _RAYRNN_COMPLETE=f"source_{shell}")
    assert said.returncode == 0, said.stderr
    assert "_RAYRNN_COMPLETE=complete_" in said.stdout


def test_completion_is_installed_for_the_shell_in_which_it_is_asked_for(folder: Path) -> None:
    assert "bash completion installed" in in_bash(folder, "rayrnn --install-completion; true")
    assert "rayrnn" in (folder / ".bashrc").read_text()


def test_completing_loads_neither_torch_nor_ray(folder: Path) -> None:
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(sorted({'torch', 'ray', 'pyarrow'} & set(sys.modules)), file=sys.stderr))\n"
        "from rayrnn.cli import main\nmain()\n"
    )
    variables = {"_RAYRNN_COMPLETE": "complete_bash", "COMP_WORDS": "rayrnn train sh", "COMP_CWORD": "2"}
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'rayrnn'\n{program}"],
        env=os.environ | variables,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert ended.stdout.split() == ["shakespeare"]
    assert ended.stderr == "[]\n"
