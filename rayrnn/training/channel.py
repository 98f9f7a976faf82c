"""Both ends of the one channel of events: a worker's outbox, and the driver's inbox; the coordinator lies between.

No event is lost on the way, whoever dies but its sender: a batch stays with its worker until the driver has it, and
the events of one worker come in their order.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from queue import Empty, SimpleQueue

import ray
from ray.actor import ActorHandle

from rayrnn.training.messages import Batch, Event, News, Orders, Receipt

#: for an answer. A coordinator that is starting again answers later; one whose node is gone never does
WAIT_SECONDS = 2.0
#: between two questions whether the driver has everything
POLL_SECONDS = 0.05


class Outbox:
    """Sends a worker's events at once, keeps them until the driver has them, and never waits unless it is told to.

    Args:
        sender: a name that no other process has.
    """

    def __init__(self, coordinator: ActorHandle, sender: str) -> None:
        self._coordinator = coordinator
        self._sender = sender
        self._number = 0
        #: what the driver may not have
        self._kept: list[Batch] = []
        self._incarnation = ""
        self._receipt: ray.ObjectRef | None = None

    def put(self, *events: Event) -> None:
        """Send these."""
        if not events:
            return
        self._number += 1
        batch = Batch(self._sender, self._number, events)
        self._kept.append(batch)
        receipt = self._coordinator.post.remote(batch)
        if self._receipt is None:
            self._receipt = receipt
        elif ray.wait([self._receipt], timeout=0)[0]:
            self._take(ray.get(self._receipt))
            self._receipt = receipt

    def finish(self) -> None:
        """Wait until the driver has everything."""
        while self._kept:
            self._take(ray.get(self._coordinator.post.remote(Batch(self._sender, self._number, ()))))
            time.sleep(POLL_SECONDS if self._kept else 0.0)

    def _take(self, receipt: Receipt) -> None:
        """Forget what the driver has; send the rest again to a coordinator that was started again."""
        self._kept = [batch for batch in self._kept if batch.number > receipt.taken]
        if self._incarnation and receipt.incarnation != self._incarnation:
            for batch in self._kept:
                self._coordinator.post.remote(batch)
        self._incarnation = receipt.incarnation


class Inbox:
    """The driver's view of the coordinator: events come, orders go."""

    def __init__(self, coordinator: ActorHandle) -> None:
        self._coordinator = coordinator
        #: the numbers of the workers that take part, by the last answer
        self.members: tuple[int, ...] = ()
        self._orders = Orders()
        #: the newest generation that an event told of
        self._newest = 0
        self._own: SimpleQueue[Event] = SimpleQueue()
        self._incarnation = ""
        self._taken = 0
        #: sender -> the number of its next batch, and those that came too early
        self._next: dict[str, int] = {}
        self._early: dict[str, dict[int, Batch]] = {}
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
        batches = [ready for batch in news.batches for ready in self._in_order(batch)] if news else []
        events = [event for batch in batches for event in batch.events]
        self._newest = max([self._newest, *(getattr(event, "generation", 0) for event in events)])
        return events + self._take_own()

    def give(self, **changes: object) -> None:
        """Change the orders; see `Orders`."""
        self._orders = replace(self._orders, number=self._orders.number + 1, generation=self._newest, **changes)  # type: ignore[arg-type]
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
            self._coordinator.give.remote(replace(self._orders, generation=self._newest))
        self._incarnation, self._taken, self.members = news.incarnation, news.count, news.members
        return news

    def _in_order(self, batch: Batch) -> Iterator[Batch]:
        """A coordinator that dies may have had a batch twice, or a later one first, which then waits for the others."""
        early = self._early.setdefault(batch.sender, {})
        early[batch.number] = batch
        number = self._next.get(batch.sender, 1)
        while number in early:
            yield early.pop(number)
            number += 1
        self._next[batch.sender] = number
        self._early[batch.sender] = {later: kept for later, kept in early.items() if later > number}

    def _take_own(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events.append(self._own.get_nowait())
            except Empty:
                return events
