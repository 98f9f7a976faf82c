"""The recipe's `data` sections of texts: a text to go on with, and pairs of a text and its answer."""

from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import BeforeValidator, Field

from rayrnn.recipe.data_sections import Column, Data, Place, TargetUnits, TextUnits, one_character


class TextData(TextUnits, Data):
    """Plain text, cut into sequences of `length` symbols."""

    source: Literal["text"] = "text"
    #: a file, a directory, a glob pattern, or several of them; `sysconfig:stdlib` names Python's own sources
    path: str | tuple[str, ...] | None = None
    #: the text itself, instead of a path
    text: str | None = None
    #: symbols in one sequence (with units `pieces` characters, cut at a blank); 0 keeps every file whole
    length: int = Field(1000, ge=0, le=10**12)
    #: `normalize` reads a carriage return, with a line feed behind it or alone, as one line feed; `keep` as it is
    line_ends: Literal["normalize", "keep"] = "normalize"

    @pydantic.model_validator(mode="after")
    def _one_origin(self) -> "TextData":
        if (self.path is None) == (self.text is None):
            raise ValueError("give data.path or data.text, one of the two (set the other to null)")
        if self.length == 1:
            raise ValueError("data.length must be 0 (whole files) or at least 2")
        return self

    def describe(self) -> str:
        return super().describe() if self.text is None else f"a text of {len(self.text):,} symbols"


class PairsData(TextUnits, TargetUnits, Data):
    """Pairs of a text and its answer: two columns of a table of text, or the lines of two files side by side."""

    file_keys: ClassVar[tuple[str, ...]] = ("path", "held_out", "vectors", "targets", "held_out_targets")

    source: Literal["pairs"] = "pairs"
    #: files, directories or glob patterns: local, s3://, gs:// or hdfs://; a line is a pair, or with `targets` a text
    path: str | tuple[str, ...]
    #: a file whose line i is the answer to line i of `path`
    targets: str | None = None
    #: the same for the texts of `held_out`, where that is a path of its own
    held_out_targets: str | None = None
    #: the column of the text, by its place or by its name (the last line skipped, or the first one, has the names)
    input: Column = Place(place=0)
    #: the column of the answer
    target: Column = Place(place=1)
    #: between two columns; without a word a tabulator in files called .tsv or .txt, and else a comma
    delimiter: Annotated[str, BeforeValidator(one_character), Field(min_length=1, max_length=1)] | None = None
    #: lines before the first pair in every file; the last of them may name the columns
    skip_lines: int = Field(0, ge=0, le=10**9)
    #: what a line does that is no pair: end the run, or be left out and listed in the run directory
    on_error: Literal["stop", "skip"] = "stop"

    @pydantic.model_validator(mode="after")
    def _targets_go_together(self) -> "PairsData":
        if self.held_out_targets is not None and not (self.targets is not None and isinstance(self.held_out, str)):
            raise ValueError("data.held_out_targets goes with data.targets and a path in data.held_out")
        if self.targets is not None and isinstance(self.held_out, str) and self.held_out_targets is None:
            raise ValueError("data.held_out is a path of its own: give its answers too, data.held_out_targets")
        for key in ("input", "target", "delimiter") if self.targets is not None else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"with data.targets, whose lines are the answers, every line of data.path is a text: leave "
                    f"data.{key} out, or have both in the columns of one file, without data.targets"
                )
        return self
