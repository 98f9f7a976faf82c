"""docs/source-map.md: every file of the packages with the sentence that it opens with."""

import ast
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = Path(__file__).parent.parent / "source-map.md"
PACKAGES = (ROOT / "rayrnn", ROOT / "plugins" / "rayrnn_spark")
INTRODUCTION = """\
# Source map

Every file of the packages, with the sentence that it opens with. This page is made from the files (`make docs`).
[Architecture](architecture.md) says how the folders depend on each other.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for folder, files in groupby(_files(), key=lambda file: file.parent):
        rows = [f"| `{file.name}` | {_first_sentence(file)} |" for file in files]
        title = folder.relative_to(ROOT).as_posix()
        parts.append("\n".join([f"## {title}/\n", "| file | what it is |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _files() -> Iterator[Path]:
    """Folder by folder, and a folder's own file first."""
    for package in PACKAGES:
        yield from sorted(package.rglob("*.py"), key=lambda file: (file.parent.as_posix(), file.name))


def _first_sentence(file: Path) -> str:
    """The first paragraph of its docstring, on one line, as it can stand in a table."""
    described = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(described.partition("\n\n")[0].split()).replace("|", "\\|").replace("<", "&lt;")
