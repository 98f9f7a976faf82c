"""A network of one's own is found by its name, and again in a process that has neither its file nor its folder."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rayrnn.errors import RecipeError, UsageError
from rayrnn.models.own import OwnNetwork, files_of, find_own, name_of
from tests.models.test_contract import Good

MODULE = """
import torch

class Net(torch.nn.Module):
    size = {size}

def make():
    return Net()

number = 3
"""
#: of the modules that these tests write
NAMES = {"mine", "theirs", "broken", "ends"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, which Python does not look into by itself; its modules are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    yield tmp_path
    for module in [module for module in sys.modules if module.partition(".")[0] in NAMES]:
        del sys.modules[module]


def elsewhere(own: OwnNetwork, folder: Path, program: str) -> str:
    """What `program` prints, in a process of another directory to which the network `own` has travelled."""
    (folder / "own").write_bytes(pickle.dumps(own))
    before = "import pickle, sys; own = pickle.load(open('own', 'rb'));"
    ended = subprocess.run([sys.executable, "-c", before + program], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_module_of_the_current_directory_travels(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (here / "mine.py").write_text(MODULE.format(size=7))
    own = find_own("mine:Net")
    (here / "mine.py").unlink()
    program = "net = own.maker(); import inspect; print(net.size, net.__module__, 'size = 7' in inspect.getsource(net))"
    assert elsewhere(own, tmp_path_factory.mktemp("there"), program) == "7 mine True"


@pytest.mark.parametrize("init", [True, False])
def test_a_package_travels_whole(here: Path, tmp_path_factory: pytest.TempPathFactory, init: bool) -> None:
    (here / "mine" / "parts").mkdir(parents=True)
    if init:
        (here / "mine" / "__init__.py").write_text("")
        (here / "mine" / "parts" / "__init__.py").write_text("half = 4\n")
    (here / "mine" / "parts" / "net.py").write_text("from ..size import size\n" + MODULE.format(size="size"))
    (here / "mine" / "size.py").write_text("size = 8\n")
    own = find_own("mine.parts.net:make")
    for file in (here / "mine").rglob("*.py"):
        file.unlink()
    assert elsewhere(own, tmp_path_factory.mktemp("there"), "print(own.maker()().size)") == "8"


def test_a_package_in_several_folders_travels_from_all_of_them(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    monkeypatch.syspath_prepend(other)
    for folder, name, size in ((here, "net", 4), (other, "size", 3), (other, "net", 5)):
        (folder / "mine").mkdir(exist_ok=True)
        (folder / "mine" / f"{name}.py").write_text(MODULE.format(size=size))
    files = files_of("mine.net")
    assert files is not None
    assert (files.folder, sorted(files.content)) == (str(here), ["mine/net.py", "mine/size.py"])
    assert b"size = 4" in files.content["mine/net.py"]


def test_a_module_that_travelled_comes_before_one_that_is_there(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = tmp_path_factory.mktemp("there")
    (here / "mine.py").write_text(MODULE.format(size=7))
    (there / "mine.py").write_text(MODULE.format(size=1))
    own = find_own("mine:Net")
    assert elsewhere(own, there, "import mine; print(mine.Net.size, own.maker().size)") == "1 7"


def test_a_process_that_has_an_older_state_of_the_module_takes_the_new_one(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = tmp_path_factory.mktemp("there")
    (here / "mine.py").write_text(MODULE.format(size=7))
    (there / "older").write_bytes(pickle.dumps(find_own("mine:Net")))
    del sys.modules["mine"]
    (here / "mine.py").write_text(MODULE.format(size=88))
    program = "older = pickle.load(open('older', 'rb')); print(older.maker().size, own.maker().size, own.maker().size)"
    assert elsewhere(find_own("mine:Net"), there, program) == "7 88 88"


def test_what_is_installed_does_not_travel_and_its_lack_is_told(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files_of("torch.nn") is None
    assert files_of("rayrnn.models.network") is None
    packages = here / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "theirs.py").write_text(MODULE.format(size=5))
    monkeypatch.syspath_prepend(packages)
    own = find_own("theirs:Net")
    assert own.files is None
    there = tmp_path_factory.mktemp("there")
    program = "\ntry:\n    own.maker()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    told = elsewhere(own, there, program)
    assert told.startswith("RecipeError model.network is theirs:Net, and there is no module theirs on ")
    assert "install it" in told


def test_finding_the_files_of_a_module_runs_none_of_its_code(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "__init__.py").write_text("raise SystemExit('run')\n")
    files = files_of("mine.net")
    assert files is not None
    assert files.content.keys() == {"mine/__init__.py"}


def test_a_network_has_the_name_that_a_package_gave_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "theirs.py").write_text(MODULE.format(size=5))
    information = here / "theirs-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[rayrnn.networks]\nquick = theirs:Net\n")
    monkeypatch.syspath_prepend(here)
    own = find_own("quick")
    assert (own.name, own.place) == ("quick", "theirs:Net")
    with pytest.raises(RecipeError, match=r"model\.network 'slow' is unknown: the installed packages offer quick"):
        find_own("slow")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.net:Net", r"there is no module nowhere on .* current directory .* install it"),
        ("mine.net:Net", r"there is no module mine\.net on "),
        ("mine:Ned", r"module mine has no Ned; its networks are Net"),
        ("mine:Net.inner", r"module mine has no Net\.inner"),
        ("mine:number", r"mine:number is 3; it must be a class of torch\.nn\.Module, or a function"),
        ("os:system", r"os:system is <built-in function system>; it must be"),
        ("subprocess:Popen", r"subprocess:Popen is <class 'subprocess\.Popen'>; it must be"),
        ("broken:Net", r"its module broken cannot be imported on .*: ModuleNotFoundError: No module named 'helper'"),
        ("ends:Net", r"its module ends cannot be imported on .*: SystemExit: 3"),
        ("__main__:Net", r"it was defined in a script or notebook, and can be found only there"),
    ],
)
def test_what_cannot_be_found_is_told(here: Path, name: str, words: str) -> None:
    (here / "mine.py").write_text(MODULE.format(size=7))
    (here / "broken.py").write_text("import helper\n")
    (here / "ends.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(RecipeError, match=words):
        find_own(name)


def test_a_class_has_a_name_only_where_it_is_found_again() -> None:
    class Inner(torch.nn.Module):
        pass

    assert name_of(Good) == "tests.models.test_contract:Good"
    for nameless in (Inner, lambda: Good(1, 1), Good(1, 1)):
        with pytest.raises(UsageError, match="cannot be found again by a name"):
            name_of(nameless)
