"""docs/recipe-reference.md: every key of a recipe, read from the classes that check it.

Names, types, defaults and allowed values come from pydantic's JSON schema, so that the page cannot say anything that is
not checked. What a key means is the comment above its field, `#: ...`.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from rayrnn.recipe import Recipe
from rayrnn.recipe.sources import OWN, section_named, source_names

PAGE = Path(__file__).parent.parent / "recipe-reference.md"
INTRODUCTION = """\
# Recipe reference

Every key of a recipe, its type, its default and its meaning. This page is made from the classes that check recipes
(`make docs`). [Recipes](recipes.md) explains how to write one.

A key without a default is required. A **fraction** is at least 0 and less than 1. Where `null` is the default, the key
may be left out.
"""
#: of the whole recipe, in the order of a recipe file
SECTIONS = ("model", "training", "averaging", "search", "detect")
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## The recipe\n\n" + _table(Recipe, leave_out=("data", *SECTIONS))]
    parts.append("## data\n\nThe keys depend on `source`.\n")
    parts += [_section(f"data, source: {name}", kind) for name, kind in _sources()]
    parts += [_section(name, class_of(name)) for name in SECTIONS]
    return "\n".join(parts)


def _section(title: str, kind: type[BaseModel]) -> str:
    level = "###" if title.startswith("data,") else "##"
    described = _own_docstring(kind)
    nested = "".join(f"\n{_nested(inner)}" for inner in _inner_classes(kind))
    return f"{level} {title}\n\n{described}\n\n{_table(kind)}{nested}"


def _nested(kind: type[BaseModel]) -> str:
    return f"{_own_docstring(kind)}\n\n{_table(kind)}"


def _own_docstring(kind: type[BaseModel]) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def class_of(section: str) -> type[BaseModel]:
    annotation = Recipe.model_fields[section].annotation
    # a section that may be left out is its class, or None
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    (kind,) = (kind for kind in kinds if issubclass(kind, BaseModel))
    return kind


def _sources() -> Iterator[tuple[str, type[BaseModel]]]:
    """The sources by their names: rayrnn's own, then those of plugins."""
    for name in dict.fromkeys((*OWN, *source_names())):
        yield name, section_named(name, trusted=False)


def _subclasses(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _inner_classes(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Models that are values of a key, such as the bounds of the workers; a tuple is told where its key is."""
    names = re.findall(r"#/\$defs/(\w+)", json.dumps(kind.model_json_schema()))
    for name in dict.fromkeys(names):
        yield from (inner for inner in _subclasses(BaseModel) if inner.__name__ == name)


def _table(kind: type[BaseModel], *, leave_out: tuple[str, ...] = ()) -> str:
    schema = kind.model_json_schema()
    properties = _resolved(schema["properties"], schema.get("$defs", {}))
    meanings = field_meanings(kind)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        if name in leave_out:
            continue
        default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
        key = field.alias or name
        rows.append(f"| `{key}` | {_type(properties[key])} | {default} | {meanings.get(name, '')} |")
    return "\n".join(rows) + "\n"


def _resolved(described: Any, definitions: Mapping[str, Any]) -> Any:
    """The same schema with each definition in the place of its name."""
    if isinstance(described, list):
        return [_resolved(item, definitions) for item in described]
    if not isinstance(described, dict):
        return described
    if "$ref" in described:
        return _resolved(definitions[described["$ref"].rpartition("/")[2]], definitions)
    return {name: _resolved(value, definitions) for name, value in described.items()}


def _yaml(value: object) -> str:
    """A default as a recipe would say it."""
    if isinstance(value, str):
        return value
    return json.dumps(value.model_dump() if isinstance(value, BaseModel) else value, ensure_ascii=False)


def _type(described: Mapping[str, Any]) -> str:
    """A key's type in words."""
    if "const" in described:
        return f"`{described['const']}`"
    if "enum" in described:
        return " or ".join(f"`{value}`" for value in described["enum"])
    union = described.get("anyOf", described.get("oneOf"))
    if union is not None:
        return " or ".join(dict.fromkeys(_type(kind) for kind in union if kind.get("type") != "null"))
    kind = described.get("type")
    if kind == "array":
        return f"list of {_several(_type(described['items']))}" if "items" in described else "list"
    if kind == "object":
        return f"`{{{', '.join(described['properties'])}}}`" if "properties" in described else "mapping"
    return f"{WORDS.get(str(kind), 'any value')}{_bounds(described)}"


def _several(kind: str) -> str:
    """A type's words for many of it; its bounds stay."""
    words, comma, bounds = kind.partition(",")
    return f"{words.replace(' or ', 's or ')}s{comma}{bounds}"


def _bounds(described: Mapping[str, Any]) -> str:
    if described.get("minimum") == 0 and described.get("exclusiveMaximum") == 1:
        return " (a fraction)"
    words = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}"}
    bounds = [said.format(f"{described[name]:,}") for name, said in words.items() if name in described]
    if described.get("minLength") == described.get("maxLength") == 1:
        bounds = ["one character"]
    if "pattern" in described:
        # a bar would end the table's cell
        bounds = ["matches `" + described["pattern"].replace("|", "\\|") + "`"]
    return f", {' and '.join(bounds)}" if bounds else ""


def field_meanings(kind: type[BaseModel]) -> dict[str, str]:
    """What stands above each field as `#: ...`, of the class and of those that it is made from."""
    meanings: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        if issubclass(ancestor, BaseModel) and ancestor is not BaseModel:
            meanings |= _meanings_of(ancestor)
    return meanings


def _meanings_of(kind: type[BaseModel]) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    [body] = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    meanings = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#:"):
                    break
                above.append(line.strip().removeprefix("#:").strip())
            if above:
                meanings[node.target.id] = " ".join(reversed(above)).replace("|", "\\|")
    return meanings
