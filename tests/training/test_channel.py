"""Events reach the driver whoever dies on the way, each once; and the driver waits for nobody."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.exceptions import ActorDiedError

from rayrnn.training import channel
from rayrnn.training.channel import Inbox, Outbox
from rayrnn.training.coordinator import start_coordinator
from rayrnn.training.messages import Batch, Event, News, NoRoom, Orders, Started, Unmeasured
from tests.repeating import again_and_again

pytestmark = pytest.mark.usefixtures("ray_cluster")

NEWS = News("one", 1, (Batch("ann", 1, (Started(1),)),), (0, 1))


@ray.remote(num_cpus=0)
class Late:
    """A coordinator that answers when it is told to."""

    def __init__(self) -> None:
        self._told = asyncio.Event()

    async def tell(self) -> None:
        self._told.set()

    async def collect(self, incarnation: str, taken: int) -> News:
        await self._told.wait()
        self._told.clear()
        return NEWS

    async def give(self, orders: Orders) -> None: ...


def test_a_late_answer_is_not_waited_for_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "WAIT_SECONDS", 0.2)
    coordinator = Late.remote()
    inbox = Inbox(coordinator)
    assert inbox.events() == []
    assert inbox.silent_seconds > 0
    ray.get(coordinator.tell.remote())
    monkeypatch.setattr(channel, "WAIT_SECONDS", 30.0)
    assert inbox.events() == [Started(1)]
    assert inbox.members == (0, 1)
    assert inbox.silent_seconds == 0
    ray.get(coordinator.tell.remote())
    assert inbox.events() == [], "what is given again is told once"


def test_what_the_drivers_own_threads_say_comes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "WAIT_SECONDS", 0.0)
    inbox = Inbox(Late.remote())
    inbox.put(NoRoom(2))
    assert inbox.events() == [NoRoom(2)]


def test_a_coordinator_that_is_dead_for_good_is_an_error() -> None:
    coordinator = Late.remote()
    ray.get(coordinator.tell.remote())
    ray.kill(coordinator)
    with pytest.raises(ActorDiedError):
        again_and_again(Inbox(coordinator).events)


def take(inbox: Inbox, count: int) -> list[Event]:
    events: list[Event] = []
    while len(events) < count:
        events += inbox.events()
    return events


def test_events_are_sent_again_and_orders_given_again_when_the_coordinator_dies() -> None:
    coordinator = start_coordinator(expected=1, patience=20)
    inbox, outbox = Inbox(coordinator), Outbox(coordinator, "ann")
    inbox.give(spec=(ray.put("what to learn"),))
    assert inbox.events() == []
    outbox.put(Started(0))
    assert take(inbox, 1) == [Started(0)]
    outbox.put(Unmeasured(1, generation=7))
    assert take(inbox, 1) == [Unmeasured(1, generation=7)]
    outbox.put(NoRoom(1), NoRoom(2))
    ray.get(coordinator.post.remote(Batch("bob", 1, ())))  # it has what came before
    ray.kill(coordinator, no_restart=False)
    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(outbox.finish)
        assert take(inbox, 2) == [NoRoom(1), NoRoom(2)]
        while not finished.done():
            assert inbox.events() == [], "each is told once"
    orders = ray.get(coordinator.orders.remote())
    assert ray.get(orders.spec[0]) == "what to learn"
    assert orders.generation == 7
    ray.kill(coordinator)


def test_a_batch_that_comes_before_an_earlier_one_of_its_sender_waits_for_it() -> None:
    coordinator = start_coordinator(expected=1, patience=20)
    inbox = Inbox(coordinator)
    for number in (2, 3, 1, 1):
        coordinator.post.remote(Batch("ann", number, (NoRoom(number),)))
    assert take(inbox, 3) == [NoRoom(1), NoRoom(2), NoRoom(3)]
    assert inbox.events() == []
    ray.kill(coordinator)
