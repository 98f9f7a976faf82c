"""Networks that DL4J itself has trained, and what it has answered; they lie beside the project, or the tests skip."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayrnn.data.encoding import Classes, Encoding

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "dl4j"
#: the features of its two sequences, and the steps that a mask leaves of the second
STEPS, LEFT = 12, 8

golden = pytest.mark.skipif(not FOLDER.is_dir(), reason="the networks that DL4J has trained are not on this machine")


def array(value: Any) -> np.ndarray:
    """One of the arrays of a case."""
    return np.array(value["data"], np.float64).reshape(value["shape"])


@dataclass(frozen=True)
class Golden:
    """One network, and what DL4J made of it."""

    path: Path

    def __str__(self) -> str:
        return f"{self.version} {self.path.name}"

    @property
    def version(self) -> str:
        return self.path.parent.name

    @property
    def values(self) -> Any:
        return json.loads((self.path / "case.json").read_text())

    @property
    def ways(self) -> tuple[str, ...]:
        return tuple(way for way in ("plain", "masked") if way in self.values)

    def zip(self, name: str = "fresh") -> Path:
        return self.path / f"{name}.zip"

    def rows(self, way: str, encoding: Encoding) -> list[dict[str, Any]]:
        """Its two sequences in the row schema; masked steps at the end are no steps."""
        values = self.values
        inputs, labels = array(values["features"]).transpose(0, 2, 1), array(values["labels"])
        rows = []
        for number, length in enumerate((STEPS, LEFT if way == "masked" else STEPS)):
            own = labels[number].T[:length] if labels.ndim == 3 else labels[number]
            label: Any = own.tolist()
            if isinstance(encoding.targets, Classes):
                names = np.array(encoding.targets.names)
                label = names[own.argmax(-1)].tolist()
            rows.append({"key": str(number), "values": inputs[number, :length].tolist(), "label": label})
        return rows

    def due(self, way: str, values: Any) -> list[np.ndarray]:
        """Of each sequence what DL4J answers, at its own steps or once."""
        found = array(values)
        lengths = (STEPS, LEFT if way == "masked" else STEPS)
        if found.ndim == 2:
            return list(found)
        return [own.T[:length] for own, length in zip(found, lengths, strict=True)]


CASES = [Golden(path.parent) for path in sorted(FOLDER.glob("*/*/case.json"))]
LEARNED = [case for case in CASES if "plain" in case.values] if CASES else []
