"""YAML as recipes mean it: `true` and `false` are the only booleans; `yes`, `off`, `007` and `12:30` are text.

YAML 1.1, which PyYAML reads, takes `no` for a boolean, `12:30` for 750 and a date for a date. A recipe names classes,
columns and files, so what is written stays what it is: a number is one only where nothing of its writing is lost. Where
a number is due, the recipe's schema makes one of the text.
"""

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
#: whole text -> tag
_PLAIN = {
    f"{_TAG}null": r"~|null|Null|NULL|",
    f"{_TAG}bool": r"true|false",
    f"{_TAG}float": r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    f"{_TAG}merge": r"<<",
}


def parse_yaml(text: str) -> Any:
    """The values of a YAML text. Its keys are text; below `model.options`, which no schema knows, every number is one.

    Raises:
        yaml.YAMLError: it is no YAML, builds objects, or a key stands twice in one mapping.
    """
    values = yaml.load(text, _Faithful)
    if isinstance(values, dict) and isinstance(model := values.get("model"), dict) and "options" in model:
        model["options"] = parse_typed(text)["model"]["options"]
    return values


def parse_typed(text: str) -> Any:
    """The same, with every number as a number, however it is written.

    Raises:
        yaml.YAMLError: as above.
    """
    return yaml.load(text, _Typed)


def write_yaml(values: Any) -> str:
    """A YAML text that is read as the same values, also as YAML 1.1."""
    return yaml.dump(values, Dumper=_Quoting, sort_keys=False, allow_unicode=True)


class _Typed(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}  # noqa: RUF012, PyYAML declares it so

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse a key that stands twice, of which YAML takes the last."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.tag != f"{_TAG}merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            key.tag = f"{_TAG}str"
        return super().construct_mapping(node, deep=deep)


class _Faithful(_Typed):
    pass


class _Quoting(yaml.SafeDumper):
    """Quotes what either kind of YAML takes for something else than text."""


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = str(node.value)
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else float(re.sub(r"\.(?=[in])", "", text.lower()))


def _number_or_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    """`12` and `0.5` are numbers; a class called `2.50` or `1e3` would come out of one as `2.5` or `1000.0`."""
    value, text = _number(loader, node), str(node.value)
    is_finite = text[-1].isdigit()
    return text if is_finite and str(value) != text else value


def _boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    return bool(node.value == "true")


for _tag, _texts in _PLAIN.items():
    for _reader in (_Typed, _Quoting):
        _reader.add_implicit_resolver(_tag, re.compile(rf"(?:{_texts})\Z", re.ASCII), None)
_Typed.add_constructor(f"{_TAG}float", _number)
_Typed.add_constructor(f"{_TAG}bool", _boolean)
_Faithful.add_constructor(f"{_TAG}float", _number_or_text)
