"""The wheel: built without a network, installed into an environment of its own, and used far away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACES = "import rayrnn, rayrnn_spark; print(rayrnn.__file__); print(rayrnn_spark.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", *options, str(ROOT), folder=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and the packages that it needs from this one's."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", str(venv), folder=venv)
    python = venv / "bin" / "python"
    run(str(python), "-m", "pip", "install", "--no-deps", "--no-index", str(wheel), folder=venv)
    place = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=venv).strip()
    # folders of packages in a .pth: the .pth files there, among them that of an editable rayrnn, are not read
    folders = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    Path(place, "packages.pth").write_text("\n".join(folders) + "\n")
    return venv / "bin"


def run(*command: str, folder: Path, **more: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_", "XDG_"))}
    ended = subprocess.run(command, cwd=folder, env=kept | more, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_the_wheel_carries_types_recipes_and_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [about] = [name for name in names if name.endswith("METADATA")]
        metadata = archive.read(about).decode()
    assert {"rayrnn/py.typed", "rayrnn_spark/py.typed"} <= names
    assert [name for name in names if name.endswith("shakespeare.yaml")]
    assert "Classifier: Typing :: Typed" in metadata
    assert not [name for name in names if name.split("/")[0] not in ("rayrnn", "rayrnn_spark", about.split("/")[0])]


def test_the_wheel_says_nothing_of_the_machine_that_built_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        telling = [name for name in archive.namelist() if str(ROOT).encode() in archive.read(name)]
    assert telling == []


def test_an_installed_wheel_trains_a_shipped_recipe_and_recites(programs: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "COLUMNS": "100"}
    places = run(str(programs / "python"), "-c", PLACES, folder=tmp_path).splitlines()
    assert all(place.startswith(str(programs.parent)) for place in places), places
    rayrnn = str(programs / "rayrnn")
    run(rayrnn, "train", "recite", "--set", "averaging.rounds=5", folder=tmp_path, **home)
    assert len((tmp_path / "runs" / "recite" / "metrics.jsonl").read_text().splitlines()) == 5
    said = run(rayrnn, "generate", "runs/recite", "--prime", "D", "--length", "9", folder=tmp_path, **home)
    assert said.startswith("D")
    asked = "from importlib.metadata import entry_points as e; print(e(group='rayrnn.sources').names)"
    assert "spark" in run(str(programs / "python"), "-c", asked, folder=tmp_path)
