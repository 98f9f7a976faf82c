"""Rows of many requests are answered as one minibatch."""

from collections import deque
from concurrent.futures import Future

import pyarrow as pa
import torch

from rayrnn.data.rows import step_counts
from rayrnn.prediction.predict import answers_to
from rayrnn.recipe import search_of
from rayrnn.runs.model import Trained

#: steps that are answered at once, about: who comes meanwhile waits for them
MOST_STEPS = 100_000


class RowAnswers:
    """All rows that one network answers. Used by one thread; `add` may be called by any."""

    def __init__(self, model: Trained, network: torch.nn.Module) -> None:
        self._model = model
        self._network = network
        self._search = search_of(model.recipe, model.encoding.num_outputs)
        self._waiting: deque[tuple[pa.Table, Future[pa.Table]]] = deque()

    def add(self, rows: pa.Table) -> "Future[pa.Table]":
        """Have canonical rows answered; the answers are the columns of prediction/output.py, in the rows' order."""
        answers: Future[pa.Table] = Future()
        self._waiting.append((rows, answers))
        return answers

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to answer."""
        return not self._waiting

    def step(self) -> None:
        """Answer the rows that came first, with those behind them that fit in beside them."""
        taken = self._take()
        if not taken:
            return
        try:
            together = pa.concat_tables([rows for rows, _ in taken])
            pieces = [answers_to(p, self._model, self._network, self._search) for p in self._model.slices(together)]
            answers = pa.concat_tables(pieces)
        except Exception as error:
            for _, future in taken:
                future.set_exception(error)
            return
        start = 0
        for rows, future in taken:
            future.set_result(answers.slice(start, len(rows)))
            start += len(rows)

    def _take(self) -> list[tuple[pa.Table, Future[pa.Table]]]:
        taken: list[tuple[pa.Table, Future[pa.Table]]] = []
        steps = 0
        while self._waiting:
            rows, answers = self._waiting[0]
            steps += int(step_counts(rows).sum())
            if taken and (steps > MOST_STEPS or not rows.schema.equals(taken[0][0].schema, check_metadata=True)):
                break
            self._waiting.popleft()
            if answers.set_running_or_notify_cancel():
                taken.append((rows, answers))
        return taken
