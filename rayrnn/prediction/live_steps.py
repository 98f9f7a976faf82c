"""Sequences that grow while they are read: a session keeps what the network carries, each new step is answered at once.

B sessions, T new steps, V numbers of an answer, K scores of a step, S steps that are scored.
"""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayrnn.anomalies.detector import Detector
from rayrnn.anomalies.scores import surprises
from rayrnn.data.arrow_lists import flat, unwrap, wrap
from rayrnn.data.batches import inputs_of
from rayrnn.data.rows import CONTENTS, step_counts
from rayrnn.errors import RunError
from rayrnn.models.state import joined, rows_of
from rayrnn.prediction.output import plain_rows
from rayrnn.prediction.step_scores import scorer_of
from rayrnn.recipe import scores_of, task_of
from rayrnn.recipe.detect_section import score_kind
from rayrnn.runs.detectors import stored_detector
from rayrnn.runs.directory import Run
from rayrnn.runs.model import Trained
from rayrnn.tasks import Detectable, Searching

#: of the next symbols those that a language model's answer names
MOST_LIKELY = 5


@dataclass(frozen=True)
class Session:
    """One sequence that grows."""

    #: what the network carries on; None before the first step
    state: Any = None
    num_steps: int = 0
    #: names the sequence, for a threshold of its own (detect.fit: each)
    key: str = "session"
    #: the last steps, and what the network answered at them, that the next steps are compared with
    before: pa.Table | None = None
    outputs: torch.Tensor | None = None
    #: the sums of the smoothed mean of scores, and of what they weigh; or the sum of a sequence's scores
    total: float = 0.0
    weight: float = 0.0
    num_scored: int = 0


@dataclass(frozen=True)
class Steps:
    """New steps of a session, one canonical row."""

    session: Session
    rows: pa.Table
    #: the answers, one a step, and the session after them
    answers: "Future[tuple[list[dict[str, Any]], Session]]" = field(default_factory=Future)


class LiveSteps:
    """All sessions of one network. Used by one thread; `add` may be called by any.

    Args:
        detector: scores steps as well, where there is one.
    """

    def __init__(self, model: Trained, network: torch.nn.Module, detector: Detector | None) -> None:
        self._model = model
        self._network = network
        self._device = next(network.parameters()).device
        self._detector = detector
        self._scorer = None if detector is None else scorer_of(model, "the run")
        self._waiting: deque[Steps] = deque()

    def add(self, steps: Steps) -> None:
        """Have new steps answered."""
        self._waiting.append(steps)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to answer."""
        return not self._waiting

    @torch.inference_mode()
    def step(self) -> None:
        """Answer sessions that have as many new steps as the one that came first."""
        taken = self._take()
        if not taken:
            return
        try:
            results = self._answer(taken)
        except Exception as error:
            for steps in taken:
                steps.answers.set_exception(error)
            return
        for steps, result in zip(taken, results, strict=True):
            steps.answers.set_result(result)

    def _take(self) -> list[Steps]:
        taken: list[Steps] = []
        others: list[Steps] = []
        while self._waiting:
            steps = self._waiting.popleft()
            if not taken or _form(steps) == _form(taken[0]):
                if steps.answers.set_running_or_notify_cancel():
                    taken.append(steps)
            else:
                others.append(steps)
        self._waiting.extendleft(reversed(others))
        return taken

    def _answer(self, taken: list[Steps]) -> list[tuple[list[dict[str, Any]], Session]]:
        inputs = [inputs_of(steps.rows, self._model.encoding)[0] for steps in taken]
        inputs_BT = torch.from_numpy(np.ascontiguousarray(np.concatenate(inputs))).to(self._device)
        state = joined([steps.session.state for steps in taken])
        outputs_BTV, state = self._outputs(inputs_BT, state)
        if not outputs_BTV.isfinite().all():
            raise RunError("the network's outputs are no finite numbers: the run has diverged")
        results = []
        for row, steps in enumerate(taken):
            own = rows_of(state, torch.tensor([row]))
            results.append(self._result(steps, outputs_BTV[row], own))
        return results

    def _outputs(self, inputs_BT: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """BTV, also of a network that answers a sequence: what it would say if it ended at each step."""
        mask_BT = torch.ones(inputs_BT.shape[:2], dtype=torch.bool, device=self._device)
        if self._model.encoding.per_step:
            outputs_BTV, state = self._network(inputs_BT, state, mask_BT)
            return outputs_BTV.float().cpu(), state
        pieces = []
        for step in range(inputs_BT.shape[1]):
            outputs_BV, state = self._network(inputs_BT[:, step : step + 1], state, mask_BT[:, :1])
            pieces.append(outputs_BV.float().cpu())
        return torch.stack(pieces, dim=1), state

    def _result(self, steps: Steps, outputs_TV: torch.Tensor, state: Any) -> tuple[list[dict[str, Any]], Session]:
        before, num_new = steps.session, len(outputs_TV)
        answers = [{"step": before.num_steps + place} for place in range(num_new)]
        told = self._of_symbols(steps, outputs_TV) if self._generates else self._of_rows(outputs_TV)
        after = replace(before, state=state, num_steps=before.num_steps + num_new)
        for answer, more in zip(answers, told, strict=True):
            answer |= more
        if self._scorer is not None or self._generates:
            after = self._remember(after, steps, outputs_TV)
        if self._scorer is not None:
            scores_SK = self._raw_scores(before, steps, outputs_TV)
            after = self._judge(after, scores_SK, answers[num_new - len(scores_SK) :])
        return answers, after

    @property
    def _generates(self) -> bool:
        return task_of(self._model.recipe).generates

    def _of_rows(self, outputs_TV: torch.Tensor) -> list[dict[str, Any]]:
        columns = task_of(self._model.recipe).answers(outputs_TV.numpy(), self._model.encoding)
        return plain_rows(pa.table(columns))

    def _of_symbols(self, steps: Steps, outputs_TV: torch.Tensor) -> list[dict[str, Any]]:
        """What comes next after every step, by the likeliest symbols; and how surprising the step itself was."""
        names = self._model.encoding.vocabulary.symbols
        chances, numbers = outputs_TV.softmax(-1).topk(min(MOST_LIKELY, outputs_TV.shape[-1]))
        told: list[dict[str, Any]] = []
        for own, places in zip(chances.tolist(), numbers.tolist(), strict=True):
            told.append({"next": {names[place]: chance for place, chance in zip(places, own, strict=True)}})
        read_T = inputs_of(steps.rows, self._model.encoding)[0][0]
        earlier = [] if steps.session.outputs is None else [steps.session.outputs[-1:]]
        foretold_SV = torch.cat([*earlier, outputs_TV[:-1]]).numpy()
        first = len(told) - len(foretold_SV)
        for place, surprise in enumerate(surprises(foretold_SV, read_T[first:]).tolist(), start=first):
            told[place] = {"surprise": surprise} | told[place]
        return told

    def _remember(self, session: Session, steps: Steps, outputs_TV: torch.Tensor) -> Session:
        """With the steps that the next ones are compared with."""
        ahead = 1 if self._scorer is None else self._scorer.ahead
        rows = _appended(session.before, steps.rows)
        outputs = outputs_TV if session.outputs is None else torch.cat([session.outputs, outputs_TV])
        return replace(session, before=_last(rows, ahead), outputs=outputs[-ahead:].clone())

    def _raw_scores(self, before: Session, steps: Steps, outputs_TV: torch.Tensor) -> np.ndarray:
        """Of the new steps that were foretold, float64 [S, K]."""
        scorer, task = self._scorer, task_of(self._model.recipe)
        assert scorer is not None
        assert isinstance(task, Detectable)
        rows = _appended(before.before, steps.rows)
        outputs = outputs_TV if before.outputs is None else torch.cat([before.outputs, outputs_TV])
        num_scored = max(0, len(outputs) - scorer.ahead)
        if not num_scored:
            return np.zeros((0, scorer.width))
        minibatch = task.minibatch(rows, self._model.encoding)
        outputs_1TV = outputs[: minibatch.inputs.shape[1]].unsqueeze(0)
        scores_SK = task.score(scorer.kind, outputs_1TV, minibatch)[0, :num_scored]
        return scores_SK if scorer.places is None else scores_SK[:, list(scorer.places)]

    def _judge(self, session: Session, raw_SK: np.ndarray, answers: list[dict[str, Any]]) -> Session:
        """Put the score of every step into its answer, and whether it is out of the ordinary."""
        detector = self._detector
        assert detector is not None
        normal, settings = detector.normal(session.key), detector.settings
        decay = 0.0 if settings.smoothing <= 1 else 1 - 2 / (settings.smoothing + 1)
        total, weight, count = session.total, session.weight, session.num_scored
        for error, answer in zip((raw_SK / np.array(normal.scales)).mean(axis=1).tolist(), answers, strict=True):
            count += 1
            if detector.by_sequence:
                total += float(error > settings.top) if detector.kind == "rank" else error
                score = total
            elif count <= settings.warmup:
                continue
            else:
                total, weight = decay * total + error, decay * weight + 1
                score = total / weight
            answer |= {"score": score, "threshold": normal.threshold, "anomaly": score > normal.threshold}
        return replace(session, total=total, weight=weight, num_scored=count)


def why_not(model: Trained, network: torch.nn.Module) -> str | None:
    """Why sequences cannot be followed step by step, in words."""
    task, recipe = task_of(model.recipe), model.recipe
    if isinstance(task, Searching):
        return f"{recipe.task} answers a whole sequence by a text"
    if not model.encoding.per_step and (recipe.model.network is not None or recipe.model.pooling != "last"):
        return f"there is one answer a sequence, pooled from all of its steps (model.pooling: {recipe.model.pooling})"
    if model.encoding.forecast is not None and model.encoding.forecast.known:
        return (
            "each answer reads what is known of the steps to come (data.known_ahead), and a step says nothing of them"
        )
    if first_state(model, network) is None:
        return "the network reads whole sequences (both directions, or convolutions over steps)"
    return None


def detector_of(run: Run, model: Trained) -> Detector | None:
    """What judges the steps of a run, where `rayrnn detect` has fitted it.

    Raises:
        RunError: the file that keeps it cannot be read.
    """
    kinds, settings = scores_of(model.recipe), model.recipe.detection
    fitted = stored_detector(run, score_kind(settings, kinds), settings) if kinds else None
    return None if fitted is None else fitted.detector


@torch.inference_mode()
def first_state(model: Trained, network: torch.nn.Module) -> Any:
    """What the network carries after one step: its form is that of every session's state."""
    device = next(network.parameters()).device
    encoding = model.encoding
    shape = (1, 1) if encoding.symbols else (1, 1, encoding.num_inputs)
    inputs = torch.zeros(shape, dtype=torch.long if encoding.symbols else torch.float32, device=device)
    return network(inputs, None, torch.ones(1, 1, dtype=torch.bool, device=device))[1]


def _form(steps: Steps) -> tuple[int, bool, tuple[str, ...]]:
    """What sessions have in common that are answered together."""
    return int(step_counts(steps.rows)[0]), steps.session.state is None, tuple(steps.rows.column_names)


def _appended(first: pa.Table | None, rows: pa.Table) -> pa.Table:
    """One row with the steps of both."""
    if first is None:
        return rows
    columns: dict[str, pa.Array] = {"key": rows["key"]}
    for name in _contents(rows):
        one, other = flat(first[name]), flat(rows[name])
        if name == "text":
            columns[name] = pa.array([one[0].as_py() + other[0].as_py()])
        else:
            items = pa.concat_arrays([unwrap(one)[1], unwrap(other)[1]])
            columns[name] = wrap(items, np.array([len(items)]))
    return pa.table(columns, schema=rows.select(list(columns)).schema)


def _last(rows: pa.Table, count: int) -> pa.Table:
    """The row with its last steps only."""
    columns: dict[str, pa.Array] = {"key": rows["key"]}
    for name in _contents(rows):
        cells = flat(rows[name])
        if name == "text":
            columns[name] = pa.array([cells[0].as_py()[-count:]])
        else:
            items = unwrap(cells)[1]
            items = items.slice(max(0, len(items) - count))
            columns[name] = wrap(items, np.array([len(items)]))
    return pa.table(columns, schema=rows.select(list(columns)).schema)


def _contents(rows: pa.Table) -> list[str]:
    return [name for name in rows.column_names if name in CONTENTS]
