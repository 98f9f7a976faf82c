"""What a forecast answers at every step, and what its network reads of the steps to come.

B batch, T time, F numbers that are forecast, H horizons, K numbers that are known ahead, L steps of the past and of
what is known of the future.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Forecast:
    """Answers H horizons at every step: number h * F + f is the f-th column, the h-th horizon later."""

    #: steps ahead, ascending
    horizons: tuple[int, ...]
    #: places, among the numbers of a step, of those that are forecast
    columns: tuple[int, ...]
    #: of those that are known ahead
    known: tuple[int, ...] = ()

    @property
    def nearest(self) -> int:
        """The least of the horizons."""
        return self.horizons[0]

    @property
    def furthest(self) -> int:
        """The largest of the horizons."""
        return self.horizons[-1]

    @property
    def num_told(self) -> int:
        """Numbers of the steps to come that the network reads at a step: K * H."""
        return len(self.known) * len(self.horizons)

    def is_plain(self, width: int) -> bool:
        """Whether it is one horizon of all the `width` numbers of a step, none of which is known ahead."""
        return len(self.horizons) == 1 and not self.known and self.columns == tuple(range(width))

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """What the answers are called, `load+24`; as their columns where there is one horizon.

        Args:
            columns: the names of all numbers of a step; none where they have none.
        """
        own = [columns[place] if columns else str(place) for place in self.columns]
        if len(self.horizons) == 1:
            return tuple(own) if columns else ()
        return tuple(f"{name}+{horizon}" for horizon in self.horizons for name in own)

    def targets(self, numbers_BTF: np.ndarray, mask_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is due at every step, B T H*F, and where there is any of it.

        Of several horizons those beyond a sequence's end are NaN.

        Args:
            numbers_BTF: all numbers of the steps, of which `columns` are forecast.
        """
        wanted_BTF = numbers_BTF[..., list(self.columns)]
        parts = [_later(wanted_BTF, mask_BT, horizon) for horizon in self.horizons]
        if len(parts) == 1:
            return parts[0]
        there_BT = parts[0][1]
        due = [np.where(there[..., None] | ~there_BT[..., None], later, np.float32(np.nan)) for later, there in parts]
        return np.concatenate(due, axis=-1), there_BT

    def told(self, known_BLK: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """What the network reads at every step of the steps to come, B T H*K: those at the horizons.

        Args:
            known_BLK: of the steps from the first on, `furthest` more than T; 0 where nobody knows.
        """
        length = mask_BT.shape[1]
        parts = [known_BLK[:, horizon : horizon + length] for horizon in self.horizons]
        return np.where(mask_BT[..., None], np.concatenate(parts, axis=-1), np.float32(0))

    def describe(self) -> str:
        """As people read it: `1, 6 and 24 steps ahead`."""
        first, last, count = self.nearest, self.furthest, len(self.horizons)
        if count == 1:
            return f"{first} step{'' if first == 1 else 's'} ahead"
        if count > 2 and last - first == count - 1:
            return f"{first} to {last} steps ahead"
        return f"{', '.join(map(str, self.horizons[:-1]))} and {last} steps ahead"

    def beyond(self, longest: int) -> list[str]:
        """A word where the longest sequence to learn from has so few steps that some horizons are never learned."""
        learned = [horizon for horizon in self.horizons if horizon < longest]
        if len(learned) == len(self.horizons):
            return []
        first = self.horizons[len(learned)]
        which = f"{first} steps" if first == self.furthest else f"{first} to {self.furthest} steps"
        return [
            f"the longest sequence has {longest:,} steps: forecasts of {which} ahead are never learned, and what "
            "answers there means nothing; lower data.horizon, or give longer sequences"
        ]

    def to_json(self) -> dict[str, Any]:
        return {name: list(places) for name, places in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Forecast":
        return cls(**{name: tuple(places) for name, places in values.items()})


def _later(numbers_BTF: np.ndarray, mask_BT: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps `horizon` later, where there are such."""
    later, there = np.zeros_like(numbers_BTF), np.zeros_like(mask_BT)
    later[:, :-horizon] = numbers_BTF[:, horizon:]
    there[:, :-horizon] = mask_BT[:, horizon:]
    return later, there
