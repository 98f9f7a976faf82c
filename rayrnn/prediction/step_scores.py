"""A run's network reads sequences -> the scores of their steps, before they are scaled and smoothed.

B batch, T time, K scores of a step, S steps of a sequence that have a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from rayrnn.anomalies.scores import MOST_SURPRISE
from rayrnn.data.arrow_lists import flat, unwrap, wrap
from rayrnn.data.encoding import Encoding, Numbers
from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import Needs, step_counts
from rayrnn.data.vocabulary import UNKNOWN
from rayrnn.errors import UsageError
from rayrnn.recipe import needs_of, scores_of, task_of
from rayrnn.recipe.data_sections import Column, Place
from rayrnn.recipe.detect_section import judges_sequences, score_kind
from rayrnn.runs.model import Trained, answer
from rayrnn.tasks import Detectable
from rayrnn.wording import counted, listed


@dataclass(frozen=True)
class Scorer:
    """How the steps of a run's sequences are scored; small enough to travel."""

    model: Trained
    #: a name of `Detectable.scores`
    kind: str
    #: of the scores of a step those that count, [K]; None: all. Of several horizons those of the nearest
    places: tuple[int, ...] | None
    #: steps at the begin of a sequence that nothing foretells
    ahead: int

    @property
    def width(self) -> int:
        """K."""
        if not isinstance(self.model.encoding.targets, Numbers):
            return 1
        return self.model.encoding.targets.size if self.places is None else len(self.places)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers whose forecasts count; none where they have none."""
        names = forecast_names(self.model.encoding)
        return names if self.places is None else tuple(names[place] for place in self.places if names)

    @property
    def needs(self) -> Needs:
        """What is read of a row: of the steps after the last nothing is foretold, and nothing need be known."""
        return replace(needs_to_read(self.model.recipe, self.model.encoding), told_ahead=0)

    def shown_numbers(self, rows: pa.Table) -> np.ndarray:
        """The numbers of canonical rows whose forecasts count, in the data's own units: float64 [all steps, K]."""
        inputs, columns = self.model.encoding.inputs, _columns(self.model.encoding)
        assert isinstance(inputs, Numbers)
        scaled = inputs.read(rows)[:, list(columns)]
        values = np.asarray(inputs.scaling.of(columns).undo(scaled), np.float64)
        return values if self.places is None else values[:, list(self.places)]


def scorer_of(model: Trained, name: str) -> Scorer:
    """How the steps of a run's sequences are scored, as its recipe says.

    Args:
        name: the run's.

    Raises:
        UsageError: nothing in its sequences shows how wrong its answers are; or a channel is not among its forecasts.
    """
    kinds, settings = scores_of(model.recipe), model.recipe.detection
    if not kinds:
        raise UsageError(
            f"{name} learned {model.recipe.task}, whose answers a sequence does not show to be right or wrong: "
            "anomalies are detected with a forecast (task: regression with data.horizon) or a language model"
        )
    kind = score_kind(settings, kinds)
    if kind == "rank" and judges_sequences(settings, kind) and settings.top > model.encoding.num_outputs:
        raise UsageError(
            f"detect.top is {settings.top} and {name} knows {counted(model.encoding.num_outputs, 'symbol')}: none "
            f"could ever be unlikely; set it lower, --set detect.top={max(1, model.encoding.num_outputs // 3)}"
        )
    forecast, places = model.encoding.foretold, None
    if settings.channels is not None:
        places = _places(settings.channels, model.encoding)
    elif forecast is not None and len(forecast.horizons) > 1:
        places = tuple(range(len(forecast.columns)))
    return Scorer(model, kind, places, needs_of(model.recipe).ahead)


def forecast_names(encoding: Encoding) -> tuple[str, ...]:
    """The columns that are forecast, whatever the horizons; none where they have no names."""
    names = encoding.inputs.names if isinstance(encoding.inputs, Numbers) else ()
    return tuple(names[place] for place in _columns(encoding)) if names else ()


def _columns(encoding: Encoding) -> tuple[int, ...]:
    """Places among the numbers of a step of those that are forecast."""
    return tuple(range(encoding.targets.size)) if encoding.foretold is None else encoding.foretold.columns


def _places(channels: Sequence[Column], encoding: Encoding) -> tuple[int, ...]:
    """Where the channels stand among the numbers of a forecast, each once."""
    if not isinstance(encoding.targets, Numbers):
        raise UsageError("detect.channels is for forecasts of numbers; this run reads symbols: leave it out")
    names, count = forecast_names(encoding), len(_columns(encoding))
    places = []
    for channel in channels:
        place = channel.place if isinstance(channel, Place) else _place_of(channel, names)
        if place is None or not -count <= place < count:
            said = listed(names) if names else f"{count} numbers without names: give {{place: 0}} .. {count - 1}"
            called = f"place {channel.place}" if isinstance(channel, Place) else repr(channel)
            raise UsageError(f"detect.channels names {called}, which this run does not forecast; it forecasts {said}")
        places.append(place % count)
    return tuple(dict.fromkeys(places))


def _place_of(channel: str, names: Sequence[str]) -> int | None:
    if channel in names:
        return names.index(channel)
    return int(channel) if channel.removeprefix("-").isdecimal() else None


def raw_scores(rows: pa.Table, scorer: Scorer, network: torch.nn.Module) -> list[np.ndarray]:
    """The scores of every canonical row's steps from the first that is foretold on: float64 [S, K] each.

    A symbol that was never learned is as surprising, and has as high a rank, as can be.
    """
    model, task = scorer.model, task_of(scorer.model.recipe)
    assert isinstance(task, Detectable)
    rows, unknown = _without_unknown(rows, model.encoding)
    sizes = np.maximum(step_counts(rows) - scorer.ahead, 0)
    found = [np.zeros((0, scorer.width))] * len(rows)
    for chosen in model.minibatches(sizes):
        minibatch = task.minibatch(rows.take(pa.array(chosen)), model.encoding)
        segments = answer(network, minibatch, task=task, truncate=model.recipe.training.truncate)
        pieces = [task.score(scorer.kind, outputs, segment) for segment, outputs in segments]
        scores_BTK = np.concatenate(pieces, axis=1)
        if scorer.places is not None:
            scores_BTK = scores_BTK[..., list(scorer.places)]
        for place, row in enumerate(chosen.tolist()):
            found[row] = scores_BTK[place, : sizes[row]]
    most = MOST_SURPRISE if scorer.kind == "surprise" else model.encoding.num_outputs + 1
    for row, unknown_S in enumerate(unknown):
        found[row][unknown_S[scorer.ahead :]] = most
    return found


def _without_unknown(rows: pa.Table, encoding: Encoding) -> tuple[pa.Table, list[np.ndarray]]:
    """The rows with a known symbol in the place of those that the vocabulary lacks, and where these were, a row each.

    Where the vocabulary has the unknown symbol, the network has learned what it means, and nothing is replaced.
    """
    if not encoding.symbols or UNKNOWN in encoding.vocabulary.symbols:
        return rows, []
    symbols = pa.array(encoding.vocabulary.symbols, pa.string())
    is_text = "text" in rows.column_names
    name = "text" if is_text else "symbols"
    if name not in rows.column_names:
        return rows, []
    sizes, items = (_characters if is_text else unwrap)(flat(rows[name]))
    known = pc.is_in(items, value_set=symbols)
    if pc.all(known).as_py() is not False:
        return rows, []
    replaced = wrap(pc.if_else(known, items, symbols[0]), sizes)
    cells = pc.binary_join(replaced, "") if is_text else replaced
    unknown = np.split(~np.asarray(known), np.cumsum(sizes)[:-1])
    return rows.set_column(rows.column_names.index(name), name, cells), unknown


def _characters(texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """How many characters every text has, and all of them."""
    every = [list(text) for text in texts.to_pylist()]
    sizes = np.array([len(own) for own in every], np.int64)
    return sizes, pa.array([character for own in every for character in own], pa.string())
