"""What every section of a recipe is: frozen, without unknown keys, its words as they are written."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pydantic


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    is_named_tuple = isinstance(annotation, type) and issubclass(annotation, tuple)
    for part in get_args(annotation) or (annotation.__annotations__.values() if is_named_tuple else ()):
        yield from _types_in(part)


def _is_never_null(field: Any) -> bool:
    return not field.is_required() and type(None) not in _types_in(field.annotation)


def _with_words(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return [_with_words(part) for part in value] if isinstance(value, list | tuple) else value


class Section(pydantic.BaseModel):
    """A part of the recipe: frozen, no unknown keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """Null stands for a default where it is no value of its own."""
        has_default = {field.alias or name for name, field in cls.model_fields.items() if _is_never_null(field)}
        is_section = isinstance(values, Mapping)
        return {k: v for k, v in values.items() if v is not None or k not in has_default} if is_section else values

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _words(cls, value: object, asked: pydantic.ValidationInfo) -> object:
        """Where a key takes no boolean, `true` and `false` are words, such as the names of classes."""
        taken = list(_types_in(cls.model_fields[str(asked.field_name)].annotation))
        if bool in taken and str not in taken and isinstance(value, str) and value not in ("true", "false"):
            raise ValueError("the booleans are true and false")
        return value if bool in taken or Any in taken else _with_words(value)
