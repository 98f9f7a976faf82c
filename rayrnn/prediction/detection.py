"""What `rayrnn detect` tells: how scores were made and judged, what was found, and how good that is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rayrnn.anomalies.detector import Normal
from rayrnn.anomalies.measures import Measures, shown
from rayrnn.prediction.judged_rows import Found
from rayrnn.recipe.detect_section import Detect
from rayrnn.runs.detectors import Fitted
from rayrnn.wording import counted

#: what the scores of a kind are
UNITS = {"error": "multiples of the normal error", "surprise": "nats", "rank": "rank among all symbols"}
#: events that people are told of
MOST_EVENTS = 20
_WIDTH = 15


@dataclass(frozen=True)
class Event:
    """Steps of a sequence that are out of the ordinary."""

    series: str
    #: the first step and the last, both in it; the first of a sequence is 0
    start: int
    end: int
    #: the largest in it
    score: float


@dataclass(frozen=True)
class Detection:
    """What was found in some sequences."""

    #: what the user calls them
    data: str
    kind: str
    settings: Detect
    #: whether whole sequences were judged, not steps
    by_sequence: bool
    num_sequences: int
    #: of steps that were judged; 0 where sequences were
    num_steps: int
    num_scored: int
    num_anomalous: int
    #: that have an event, or are anomalous as a whole
    num_flagged: int
    events: tuple[Event, ...]
    #: what is normal in all held-out sequences together, and in how many each
    normal: Normal
    num_each: int
    #: sequences that were judged by what is normal in those of their name
    num_by_own: int
    held_out: str
    num_held_out: int
    #: None where nobody said what is known
    measures: Measures | None = None
    figures: tuple[str, ...] = ()
    #: what the user should know
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        data: str,
        fitted: Fitted,
        found: Sequence[Found],
        measures: Measures | None,
        figures: Sequence[Path],
        notes: tuple[str, ...],
    ) -> Self:
        detector = fitted.detector
        return cls(
            data=data,
            kind=detector.kind,
            settings=detector.settings,
            by_sequence=detector.by_sequence,
            num_sequences=len(found),
            num_steps=sum(one.num_steps for one in found),
            num_scored=sum(one.num_scored for one in found),
            num_anomalous=sum(one.num_anomalous for one in found),
            num_flagged=sum(one.is_anomalous for one in found),
            events=tuple(Event(one.key, *event) for one in found for event in one.events),
            normal=detector.together,
            num_each=len(detector.each),
            num_by_own=sum(one.key in detector.each for one in found),
            held_out=fitted.held_out,
            num_held_out=fitted.num_sequences,
            measures=measures,
            figures=tuple(map(str, figures)),
            notes=notes,
        )

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        values: dict[str, Any] = {
            "data": self.data,
            "score": self.kind,
            "decided": "sequences" if self.by_sequence else "steps",
            "sequences": self.num_sequences,
            "flagged": self.num_flagged,
            "threshold": self.normal.threshold,
            "fitted_on": {"held_out": self.held_out, "sequences": self.num_held_out, "scores": self.normal.num_scores},
            "judged_by_own_threshold": self.num_by_own,
            "settings": self.settings.model_dump(mode="json"),
        }
        if not self.by_sequence:
            steps = {"steps": self.num_steps, "scored": self.num_scored, "anomalous": self.num_anomalous}
            values |= steps | {"events": [asdict(event) for event in self.events]}
        if self.measures is not None:
            values["measures"] = self.measures
        return values | ({"figures": list(self.figures)} if self.figures else {})

    def to_text(self) -> str:
        """What is printed without `--json`."""
        lines = [("data", self._describe_data()), ("score", self._describe_score())]
        lines += [("threshold", self._describe_threshold()), ("found", self._describe_found())]
        text = "".join(f"{title:<{_WIDTH}}{value}\n" for title, value in lines)
        if self.measures is not None:
            text += "\n" + "".join(f"{title + ' ':<{_WIDTH + 5}}{value}\n" for title, value in shown(self.measures))
        elif self.events:
            text += "\n" + self._list_events()
        return text

    def __repr__(self) -> str:
        return self.to_text().rstrip("\n")

    def _describe_data(self) -> str:
        steps = "" if self.by_sequence else f", {counted(self.num_steps, 'step')}"
        return f"{self.data}: {counted(self.num_sequences, 'sequence')}{steps}"

    def _describe_score(self) -> str:
        if self.by_sequence and self.kind == "rank":
            return f"symbols of a sequence that are not among the {self.settings.top} likeliest"
        what = f"{self.kind} ({UNITS[self.kind]})"
        if self.by_sequence:
            return f"the sum of a sequence's {what}"
        return what + (f", smoothed over {counted(self.settings.smoothing, 'step')}" if self.settings.smoothing else "")

    def _describe_threshold(self) -> str:
        value = f"{self.normal.threshold:.4g}"
        if self.settings.fit == "each":
            value = f"its own for {self.num_by_own:,} of {counted(self.num_sequences, 'sequence')}, {value} for others"
        if self.settings.threshold == "dynamic":
            value = f"dynamic (of the sequence's own scores, {self.settings.window:,} at a time), never below {value}"
        scores = counted(self.normal.num_scores, "sequence" if self.by_sequence else "step")
        return f"{value}; fitted on {self.held_out} ({scores})"

    def _describe_found(self) -> str:
        if self.by_sequence:
            return f"{counted(self.num_flagged, 'sequence')} of {self.num_sequences:,} out of the ordinary"
        share = f", {self.num_anomalous / self.num_steps:.2%} of the steps" if self.num_anomalous else ""
        return f"{counted(len(self.events), 'event')} in {counted(self.num_flagged, 'sequence')}{share}"

    def _list_events(self) -> str:
        """Those with the largest scores, in the order of the sequences."""
        largest = sorted(self.events, key=lambda event: -event.score)[:MOST_EVENTS]
        shown_events = [event for event in self.events if event in largest][:MOST_EVENTS]
        width = max(len(event.series) for event in shown_events)
        lines = [
            f"{event.series:<{width}}  steps {event.start} to {event.end}, score {event.score:.4g}\n"
            for event in shown_events
        ]
        more = len(self.events) - len(shown_events)
        return "".join(lines) + (f"and {more:,} with lower scores: --json has all\n" if more else "")
