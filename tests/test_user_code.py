"""A module of the user's own is found here, and again in a process that has neither its file nor its folder."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayrnn.errors import RecipeError
from rayrnn.models.own import find_own
from rayrnn.recipe import validate_recipe
from rayrnn.user_code import PythonFiles, files_of, found_by_workers, load

MODULE = """
from rayrnn.recipe.data_sections import Data
from rayrnn.tasks.language_model import LanguageModel

size = {size}

class Section(Data):
    size: int = size

class Source:
    section = Section

class Task(LanguageModel):
    unit = f"of {{size}}"
"""
#: of the modules that these tests write
NAMES = {"mine", "others", "theirs", "broken", "ends"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, which Python does not look into by itself; its modules are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    yield tmp_path
    for module in [module for module in sys.modules if module.partition(".")[0] in NAMES]:
        del sys.modules[module]


def elsewhere(travels: object, folder: Path, program: str) -> str:
    """What `program` prints, in a process of another directory where `come()` unpickles what has travelled."""
    (folder / "travels").write_bytes(pickle.dumps(travels))
    before = "import pickle, sys\ndef come(name='travels'): return pickle.load(open(name, 'rb'))\n"
    ended = subprocess.run([sys.executable, "-c", before + program], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def recipe_of(**places: str) -> dict[str, object]:
    return {
        "name": "mine",
        "task": places.get("task", "language_model"),
        "data": {"source": places["source"]} if "source" in places else {"text": "a text"},
    }


def test_a_module_of_the_current_directory_travels(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (here / "mine.py").write_text("def made(): return 7\n")
    files = files_of(["mine:made"])
    (here / "mine.py").unlink()
    program = "come(); import mine, inspect; print(mine.made(), 'return 7' in inspect.getsource(mine))"
    assert elsewhere(files, tmp_path_factory.mktemp("there"), program) == "7 True"


@pytest.mark.parametrize("init", [True, False])
def test_a_package_travels_whole(here: Path, tmp_path_factory: pytest.TempPathFactory, init: bool) -> None:
    (here / "mine" / "parts").mkdir(parents=True)
    if init:
        (here / "mine" / "__init__.py").write_text("")
        (here / "mine" / "parts" / "__init__.py").write_text("half = 4\n")
    (here / "mine" / "parts" / "net.py").write_text("from ..size import size\n")
    (here / "mine" / "size.py").write_text("size = 8\n")
    files = files_of(["mine.parts.net:size", "mine.size:size"])
    assert len(files) == 1
    for file in (here / "mine").rglob("*.py"):
        file.unlink()
    program = "come(); from mine.parts.net import size; print(size)"
    assert elsewhere(files, tmp_path_factory.mktemp("there"), program) == "8"


def test_a_package_in_several_folders_travels_from_all_of_them(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    monkeypatch.syspath_prepend(other)
    for folder, name, size in ((here, "net", 4), (other, "size", 3), (other, "net", 5)):
        (folder / "mine").mkdir(exist_ok=True)
        (folder / "mine" / f"{name}.py").write_text(f"size = {size}\n")
    (files,) = files_of(["mine.net:size"])
    assert (files.folder, sorted(files.content)) == (str(here), ["mine/net.py", "mine/size.py"])
    assert files.content["mine/net.py"] == b"size = 4\n"


def test_a_module_that_travelled_comes_before_one_that_is_there(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = tmp_path_factory.mktemp("there")
    (here / "mine.py").write_text("size = 7\n")
    (there / "mine.py").write_text("size = 1\n")
    program = "import mine; print(mine.size); come(); import mine; print(mine.size)"
    assert elsewhere(files_of(["mine:size"]), there, program).split() == ["1", "7"]


def test_a_process_that_has_an_older_state_of_the_module_takes_the_new_one(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = tmp_path_factory.mktemp("there")
    (here / "mine.py").write_text("size = 7\n")
    (here / "others.py").write_text("size = 5\n")
    (there / "older").write_bytes(pickle.dumps(files_of(["mine:size", "others:size"])))
    (here / "mine.py").write_text("size = 88\n")
    program = (
        "come('older'); import mine; print(mine.size); come(); import mine, others; print(mine.size, others.size)\n"
        "come(); print(mine is sys.modules['mine'])"
    )
    assert elsewhere(files_of(["mine:size"]), there, program).split() == ["7", "88", "5", "True"]


def test_a_recipe_brings_its_task_and_its_source_and_goes_on_from_there(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (here / "mine.py").write_text(MODULE.format(size=7))
    (here / "others.py").write_text(MODULE.format(size=8))
    recipe = validate_recipe(recipe_of(task="mine:Task", source="others:Source"))
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    program = (
        "recipe = come(); (here := __import__('pathlib').Path('further')).write_bytes(pickle.dumps(recipe))\n"
        "from rayrnn.recipe import task_of; print(recipe.data.size, task_of(recipe).unit)"
    )
    first, second = tmp_path_factory.mktemp("there"), tmp_path_factory.mktemp("further")
    assert elsewhere(recipe, first, program) == "8 of 7"
    again = pickle.dumps(recipe)
    for file in here.glob("*.py"):
        file.unlink()
    (second / "older").write_bytes(again)
    (second / "further").write_bytes((first / "further").read_bytes())
    assert elsewhere(None, second, "print(come('further').data.size, come('older').data.size)") == "8 8"


def test_what_is_installed_does_not_travel_and_its_lack_is_told(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files_of(["torch.nn:Module", "rayrnn.models.network:Network", "__main__:Net"]) == ()
    packages = here / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "theirs.py").write_text("import torch\nclass Net(torch.nn.Module): pass\n" + MODULE.format(size=5))
    monkeypatch.syspath_prepend(packages)
    assert files_of(["theirs:Task"]) == ()
    travels = find_own("theirs:Net"), validate_recipe(recipe_of(task="theirs:Task"))
    program = """
from rayrnn.recipe import task_of
own, recipe = come()
for ask in (own.maker, lambda: task_of(recipe)):
    try:
        ask()
    except Exception as error:
        print(type(error).__name__, error)
"""
    network, task = elsewhere(travels, tmp_path_factory.mktemp("there"), program).splitlines()
    assert network.startswith("RecipeError model.network is theirs:Net, and there is no module theirs on ")
    assert task.startswith("RecipeError task is theirs:Task, and there is no module theirs on ")
    assert network.partition(", and ")[2] == task.partition(", and ")[2]
    assert "install it" in task


@pytest.mark.parametrize("taken", ["json", "yaml", "types"])
def test_a_file_whose_name_is_taken_is_told_of_with_the_module_that_has_it(here: Path, taken: str) -> None:
    (here / f"{taken}.py").write_text("class Net: pass\n")
    with pytest.raises(RecipeError) as caught:
        find_own(f"{taken}:Net")
    assert f"it is {sys.modules[taken].__file__}" in str(caught.value)
    assert f"{here / taken}.py has a name that is taken: give the file another" in str(caught.value)
    assert sys.modules[taken].__file__ != f"{here / taken}.py"


def test_what_is_named_finds_others_beside_it_but_hides_nothing_that_is_installed(here: Path) -> None:
    (here / "mine.py").write_text("import others, tarfile\nsize = others.size\n")
    (here / "others.py").write_text("size = 3\n")
    for hiding in ("tarfile", "torch"):
        (here / f"{hiding}.py").write_text("raise SystemExit('hides it')\n")
    assert load("mine:size", "a key", "mine:size") == 3


def test_workers_find_what_is_named_and_what_lies_beside_it(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "net.py").write_text("import others\nsize = others.size\n")
    (here / "theirs.py").write_text("size = 4\n")
    (here / "others.py").write_text("size = 3\n")
    (here / "json.py").write_text("raise SystemExit('hides it')\n")
    with found_by_workers(["mine.net:size", "theirs:size", "torch.nn:Module"]) as folders:
        program = f"sys.path[:0] = {folders}; import json, mine.net, theirs; print(mine.net.size, theirs.__file__)"
        said = elsewhere(None, tmp_path_factory.mktemp("there"), program)
    assert said == f"3 {here / 'theirs.py'}"
    with found_by_workers(["torch.nn:Module"]) as folders:
        assert folders == []


def test_finding_the_files_of_a_module_runs_none_of_its_code(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "__init__.py").write_text("raise SystemExit('run')\n")
    (files,) = files_of(["mine.net:Net"])
    assert isinstance(files, PythonFiles)
    assert files.content.keys() == {"mine/__init__.py"}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere.net:Net", r"there is no module nowhere on .* current directory .* install it"),
        ("mine.net:Net", r"there is no module mine\.net on "),
        ("mine:Taks", r"module mine has no Taks; its classes are Section, Source, Task"),
        ("mine:Task.inner", r"module mine has no Task\.inner"),
        ("broken:Net", r"its module broken cannot be imported on .*: ModuleNotFoundError: No module named 'helper'"),
        ("ends:Net", r"its module ends cannot be imported on .*: SystemExit: 3"),
        ("__main__:Net", r"it was defined in a script or notebook, and can be found only there"),
    ],
)
def test_what_cannot_be_found_is_told_in_the_same_words_for_all(here: Path, place: str, words: str) -> None:
    (here / "mine.py").write_text(MODULE.format(size=7))
    (here / "broken.py").write_text("import helper\n")
    (here / "ends.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ValueError, match=rf"^a key is {place}(, and |: ){words}"):
        load(place, "a key", place)
    with pytest.raises(RecipeError, match=f"model.network is {place}(, and |: ){words}"):
        find_own(place)
    with pytest.raises(RecipeError, match=f"task is {place}(, and |: ){words}"):
        validate_recipe(recipe_of(task=place))
    with pytest.raises(RecipeError, match=rf"data\.source is {place}(, and |: ){words}"):
        validate_recipe(recipe_of(source=place))
