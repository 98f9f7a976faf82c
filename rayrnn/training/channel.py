"""Both ends of the one channel of events: a worker's outbox, and the driver's inbox; the coordinator lies between.

No event is lost on the way, whoever dies but its sender: a batch stays with its worker until the driver has it.
"""

import time
from dataclasses import replace
from queue import Empty, SimpleQueue

import ray
from ray.actor import ActorHandle

from rayrnn.training.messages import Batch, Event, News, Orders

#: for an answer. A coordinator that is starting again answers later; one whose node is gone never does
WAIT_SECONDS = 2.0


class Outbox:
    """Sends a worker's events, one batch at a time, and never waits unless it is told to.

    Args:
        sender: a name that no other process has.
    """

    def __init__(self, coordinator: ActorHandle, sender: str) -> None:
        self._coordinator = coordinator
        self._sender = sender
        self._waiting: list[Event] = []
        self._number = 0
        self._under_way: ray.ObjectRef | None = None

    def put(self, *events: Event) -> None:
        """Send these with the next batch: now, unless the driver does not have the last one yet."""
        self._waiting += events
        if self._under_way is None or ray.wait([self._under_way], timeout=0)[0]:
            self._send()

    def finish(self) -> None:
        """Wait until the driver has everything."""
        while self._under_way is not None or self._waiting:
            self._send()

    def _send(self) -> None:
        if self._under_way is not None:
            ray.get(self._under_way)
            self._under_way = None
        if self._waiting:
            self._number += 1
            batch = Batch(self._sender, self._number, tuple(self._waiting))
            self._under_way, self._waiting = self._coordinator.post.remote(batch), []


class Inbox:
    """The driver's view of the coordinator: events come, orders go."""

    def __init__(self, coordinator: ActorHandle) -> None:
        self._coordinator = coordinator
        #: the numbers of the workers that take part, by the last answer
        self.members: tuple[int, ...] = ()
        self._orders = Orders()
        self._own: SimpleQueue[Event] = SimpleQueue()
        self._incarnation = ""
        self._taken = 0
        #: sender -> its newest batch
        self._newest: dict[str, int] = {}
        self._asked: ray.ObjectRef | None = None
        self._answered = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """How long the coordinator has owed an answer; 0 when it owes none."""
        return time.monotonic() - self._answered if self._asked is not None else 0.0

    def put(self, event: Event) -> None:
        """An event of the driver's own threads."""
        self._own.put(event)

    def events(self) -> list[Event]:
        """What has happened since the last call, oldest first."""
        news = self._ask()
        events = [event for batch in news.batches if self._is_new(batch) for event in batch.events] if news else []
        return events + self._take_own()

    def give(self, **changes: object) -> None:
        """Change the orders; see `Orders`."""
        self._orders = replace(self._orders, number=self._orders.number + 1, **changes)  # type: ignore[arg-type]
        self._coordinator.give.remote(self._orders)

    def _ask(self) -> News | None:
        """None while there is no answer; it is waited for again the next time, and not lost."""
        if self._asked is None:
            self._asked = self._coordinator.collect.remote(self._incarnation, self._taken)
        if not ray.wait([self._asked], timeout=WAIT_SECONDS)[0]:
            return None
        news: News = ray.get(self._asked)
        self._asked, self._answered = None, time.monotonic()
        if news.incarnation != self._incarnation:
            self._coordinator.give.remote(self._orders)
        self._incarnation, self._taken, self.members = news.incarnation, news.count, news.members
        return news

    def _is_new(self, batch: Batch) -> bool:
        """A batch comes twice when the coordinator died between giving it away and hearing that it arrived."""
        before, self._newest[batch.sender] = self._newest.get(batch.sender, -1), batch.number
        return batch.number > before

    def _take_own(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events.append(self._own.get_nowait())
            except Empty:
                return events
