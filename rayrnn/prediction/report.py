"""What an evaluation found: for scripts, and for people."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayrnn.wording import counted

#: a confusion matrix of more classes than this is told by its largest errors
MATRIX_CLASSES = 16
LARGEST_ERRORS = 20

_TITLES = {
    "perplexity": "perplexity",
    "bits_per_symbol": "bits a symbol",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
}
_TITLE_WIDTH = 15


@dataclass(frozen=True)
class Report:
    """How good a model is on some sequences."""

    #: what the user calls them
    data: str
    task: str
    num_sequences: int
    #: without padding
    steps: int
    #: of all steps that were computed
    padding_share: float
    #: see `Metrics.compute`; a regression's in the data's own units
    metrics: dict[str, float | list[list[int]]]
    #: those of the confusion matrix's rows and columns, in order
    classes: tuple[str, ...]
    #: sequences left out: without a step or a label, or (`data.on_error: skip`) unreadable
    num_left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """What `rayrnn evaluate --json` prints; a number that does not exist (R2 of one answer) is null."""
        finite = {name: None if _is_nan(value) else value for name, value in self.metrics.items()}
        values = {
            "data": self.data,
            "task": self.task,
            "sequences": self.num_sequences,
            "left_out": self.num_left_out,
            "steps": self.steps,
            "padding_share": self.padding_share,
            **finite,
        }
        return values | ({"classes": list(self.classes)} if self.classes else {})

    def to_text(self) -> str:
        """What `rayrnn evaluate` prints."""
        unit = {"regression": "(mean squared error)", "language_model": "nats a symbol"}.get(self.task, "nats")
        lines = [("data", self._describe_data()), ("loss", f"{self._show('loss')} {unit}")]
        lines += [(title, self._show(name)) for name, title in _TITLES.items() if name in self.metrics]
        text = "".join(f"{title:<{_TITLE_WIDTH}}{value}\n" for title, value in lines)
        matrix = self.metrics.get("confusion_matrix")
        return text + ("\n" + _confusions(self.classes, matrix) if isinstance(matrix, list) else "")

    def _describe_data(self) -> str:
        left_out = f" ({self.num_left_out:,} left out)" if self.num_left_out else ""
        return (
            f"{self.data}: {counted(self.num_sequences, 'sequence')}{left_out}, {counted(self.steps, 'step')}; "
            f"{self.padding_share:.1%} padding"
        )

    def _show(self, name: str) -> str:
        value = self.metrics[name]
        return f"{value:.4f}" if name in ("accuracy", "macro_f1") else f"{value:.5g}"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _confusions(classes: Sequence[str], matrix: list[list[int]]) -> str:
    if len(classes) > MATRIX_CLASSES:
        return _largest_errors(classes, matrix)
    names = [name if len(name) <= 12 else f"{name[:11]}…" for name in classes]
    rows = [["true \\ answer", *names]]
    rows += [[name, *(f"{n:,}" if n else "." for n in row)] for name, row in zip(names, matrix, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first = widths[0]
    return "".join(
        row[0].ljust(first)
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        + "\n"
        for row in rows
    )


def _largest_errors(classes: Sequence[str], matrix: list[list[int]]) -> str:
    counts = np.array(matrix)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:LARGEST_ERRORS]
    errors = [(int(counts[place]), *place) for place in zip(*np.unravel_index(order, counts.shape), strict=True)]
    lines = [f"{count:>9,}  {classes[true]} taken for {classes[said]}\n" for count, true, said in errors if count]
    return "the most frequent errors (--json has the whole confusion matrix):\n" + "".join(lines) if lines else ""
