"""Brings numeric features to one scale: kept with the run, applied the same everywhere (fitted in moments.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scaling:
    """What is taken from every feature, and what it is then divided by."""

    #: none, standardize (mean 0, standard deviation 1) or min_max (0 .. 1)
    kind: str
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scale values [..., F]; computed in float64, returned as float32."""
        if self.kind == "none":
            return values
        return np.asarray((values - np.array(self.shift)) / np.array(self.scale), np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"kind": self.kind, "shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Scaling":
        """The inverse of `to_json`."""
        return cls(values["kind"], tuple(values["shift"]), tuple(values["scale"]))
