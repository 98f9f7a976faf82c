"""The recipe's `detect` section: what is taken for an anomaly in sequences that a trained network reads."""

from collections.abc import Sequence
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from rayrnn.recipe.data_sections import Column
from rayrnn.recipe.section import Section

#: of steps
Steps = Annotated[int, Field(ge=0, le=10**9)]


def score_kind(settings: "Detect", kinds: Sequence[str]) -> str:
    """What steps are scored by: of the kinds that a task has, the first is the default."""
    return kinds[0] if settings.score == "auto" else settings.score


def judges_sequences(settings: "Detect", kind: str) -> bool:
    """Whether whole sequences are judged: because the settings say so, or by default, where symbols are scored."""
    return settings.decide == "sequences" or (settings.decide == "auto" and kind != "error")


class Detect(Section):
    """What `rayrnn detect` takes for an anomaly, in runs of forecasts (`data.horizon`) and of language models."""

    #: what a step is scored by: the `error` of its forecast, in multiples of the normal error; or of a symbol its
    #: `surprise`, -ln p in nats, or its `rank` by likelihood among all symbols. `auto` is error, or surprise
    score: Literal["auto", "error", "surprise", "rank"] = "auto"
    #: the numbers of a forecast that count, by name or by place, such as `[{place: 0}]`; without a word all
    channels: tuple[Column, ...] | None = None
    #: what is judged: every step; or whole sequences, by the sum of their steps' scores. `auto` is steps for forecasts,
    #: sequences for symbols
    decide: Literal["auto", "steps", "sequences"] = "auto"
    #: decide `steps`: so many first steps of a sequence are not judged, for the network has seen little before them
    warmup: Steps = 10
    #: the span, in steps, of the exponentially weighted mean that a step's score becomes; 0 = off
    smoothing: Steps = 0
    #: with score `rank` and decide `sequences`: the symbols that are not among so many likeliest are counted
    top: int = Field(9, ge=1, le=10**9)
    #: `together`: the held-out sequences have one threshold; `each`: one each, for a sequence of the same name
    fit: Literal["together", "each"] = "together"
    #: `quantile` of the held-out scores; or `dynamic`, chosen anew for each window of the sequence that is judged, but
    #: never below that quantile
    threshold: Literal["quantile", "dynamic"] = "quantile"
    #: the share of the held-out scores that must not be above the threshold
    quantile: float = Field(0.999, gt=0, le=1)
    #: the quantile is multiplied by this
    margin: float = Field(1.0, gt=0)
    #: threshold `dynamic`: the scores that it is chosen from
    window: int = Field(2100, gt=0, le=10**9)
    #: threshold `dynamic`: it lies so many standard deviations above the window's mean, at least
    lowest_z: float = Field(2.5, gt=0)
    #: and at most
    highest_z: float = Field(12.0, gt=0)
    #: threshold `dynamic`: events are sorted by their largest scores, and those after the last fall by more than this
    #: share (to the next one, or to the rest of the scores) are dropped
    pruning: float = Field(0.13, ge=0, lt=1)
    #: decide `steps`: fewer steps in a row above the threshold are no event
    shortest: int = Field(1, gt=0, le=10**9)
    #: decide `steps`: so many steps before and after belong to an event; events that touch are one
    buffer: Steps = 0

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Detect":
        if self.lowest_z > self.highest_z:
            raise ValueError(
                f"lowest_z is {self.lowest_z:g} and highest_z is {self.highest_z:g}: lowest_z must not be above it"
            )
        if self.channels is not None and not self.channels:
            raise ValueError("detect.channels names none: leave it out, and all numbers of the forecast count")
        return self
