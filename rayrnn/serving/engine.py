"""The thread of a replica that computes: everything its networks are asked for, in turns."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rayrnn.anomalies.detector import Detector
from rayrnn.data.symbols import Symbols
from rayrnn.prediction.live_steps import LiveSteps, first_state, why_not
from rayrnn.recipe import task_of
from rayrnn.recipe.media_sections import ImageData
from rayrnn.runs.model import Trained
from rayrnn.serving.row_answers import RowAnswers
from rayrnn.serving.text_writer import TextWriter

#: seconds between two times that readers of texts hear of new symbols: each time costs each of them a message
NEWS_SECONDS = 0.04
#: texts at once from which on the readers hear less often: as many messages a second as there are for so many
FEW = 10


@dataclass(frozen=True)
class Servable:
    """A run as it travels to the replicas."""

    #: what requests call it
    name: str
    #: of its model: another one has another
    version: str
    model: Trained
    #: judges steps, where `rayrnn detect` has fitted one
    detector: Detector | None = None

    @property
    def writes(self) -> bool:
        """Whether it writes texts; else it answers rows."""
        return task_of(self.model.recipe).generates

    @property
    def draws(self) -> bool:
        """Whether its symbols are an image's pixels."""
        data = self.model.recipe.data
        return self.writes and isinstance(data, ImageData)


class Served:
    """A run's network in this process, and what it is asked for."""

    def __init__(self, servable: Servable) -> None:
        model = servable.model
        self.servable = servable
        network = model.network()
        self.writer: TextWriter | None = None
        self.rows: RowAnswers | None = None
        self.live: LiveSteps | None = None
        if servable.writes:
            assert isinstance(model.encoding.inputs, Symbols), "what is written is symbols"
            self.writer = TextWriter(network, model.encoding.inputs)
        else:
            self.rows = RowAnswers(model, network)
        #: why there are no sessions, in words
        self.no_sessions = why_not(model, network)
        self.first_state: Any = None
        if self.no_sessions is None:
            self.live = LiveSteps(model, network, servable.detector)
            self.first_state = first_state(model, network)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return all(part.is_idle for part in self._parts())

    def work(self) -> None:
        """Do a little of everything that is asked for."""
        for part in self._parts():
            if not part.is_idle:
                part.step()

    def _parts(self) -> Iterable[TextWriter | RowAnswers | LiveSteps]:
        return [part for part in (self.writer, self.rows, self.live) if part is not None]


class Engine:
    """Computes in a thread of its own as long as there is something to do.

    Args:
        on_news: is called from the thread when texts have new symbols or have ended, every NEWS_SECONDS or less
            often.
        on_death: hears of what ended the thread.
    """

    def __init__(self, *, on_news: Callable[[], None], on_death: Callable[[BaseException], None]) -> None:
        self._on_news = on_news
        self._on_death = on_death
        self._served: dict[str, Served] = {}
        #: replaced by newer ones, with work left
        self._leaving: list[Served] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)
        self._thread.start()

    def put(self, servable: Servable) -> Served:
        """Serve a run; in the place of one of the same name, which finishes what it began."""
        served = Served(servable)
        with self._changed:
            if before := self._served.get(servable.name):
                self._leaving.append(before)
            self._served = self._served | {servable.name: served}
        return served

    @property
    def served(self) -> dict[str, Served]:
        """By name."""
        return self._served

    def wake(self) -> None:
        """Have it look for what was asked for."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """End the thread after what it does now."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            told = 0.0
            while busy := self._wait():
                for served in busy:
                    served.work()
                now = time.monotonic()
                many = sum(served.writer.num_writing for served in busy if served.writer is not None)
                pause = NEWS_SECONDS * max(1.0, many / FEW)
                if now - told >= pause or all(served.is_idle for served in busy):
                    self._on_news()
                    told = now
        except BaseException as error:
            self._on_death(error)

    def _wait(self) -> list[Served]:
        """Those that have something to do; none at the end."""
        with self._changed:
            while not self._closing:
                self._leaving = [served for served in self._leaving if not served.is_idle]
                if busy := [served for served in (*self._served.values(), *self._leaving) if not served.is_idle]:
                    return busy
                self._changed.wait()
            return []
