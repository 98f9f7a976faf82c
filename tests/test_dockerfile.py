"""The Dockerfile: judged by a linter; and what it installs learns, in a bare environment in the image's place."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parent.parent
FILE = ROOT / "Dockerfile"


def steps() -> list[dict[str, str]]:
    return [step for step in DockerfileParser(str(FILE)).structure if step["instruction"] != "COMMENT"]


def values(instruction: str) -> list[str]:
    return [step["value"] for step in steps() if step["instruction"] == instruction]


def copied() -> list[str]:
    """What comes out of the sources."""
    return [word for value in values("COPY") for word in value.split()[1:-1]]


def test_a_linter_has_nothing_to_say() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "hadolint"  # beside this Python, which may not be in PATH
    ended = subprocess.run([linter, str(FILE)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_base_has_the_ray_that_is_tested() -> None:
    assert values("ARG")[0] == f"BASE=rayproject/ray:{version('ray')}-py311"
    text = FILE.read_text()
    assert f"BASE=rayproject/ray:{version('ray')}-py311-gpu" in text
    assert text.count(f"rayrnn:{version('rayrnn')} ") == 3


def test_what_is_copied_is_there_and_let_through() -> None:
    through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == through
    assert all((ROOT / name).exists() for name in copied())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_its_steps_install_a_rayrnn_that_learns(tmp_path: Path) -> None:
    """In the place of the base is an environment that has nothing, and less than Ray's image."""
    sources, venv = tmp_path / "sources", tmp_path / "venv"
    sources.mkdir()
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, sources / name)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
    kept |= {"PATH": f"{venv / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), "EXTRAS": "serve"}
    for command in values("RUN"):
        ended = subprocess.run(
            ["sh", "-c", command], cwd=sources, env=kept, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert version("rayrnn") in ended.stdout
    train = ["rayrnn", "train", "recite", "--set", "averaging.rounds=3"]
    ended = subprocess.run(train, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs" / "recite" / "model.safetensors").exists()
