"""The driver does not wait for a roll that is busy starting again, and loses nothing of what it says later."""

import asyncio

import pytest
import ray
from ray.exceptions import ActorDiedError

from rayrnn.training import driver
from rayrnn.training.driver import Attendance

EVENT = {"kind": "died", "worker": 1}


@ray.remote(num_cpus=0)
class LateRoll:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self._told = asyncio.Event()

    async def tell(self) -> None:
        self._told.set()

    async def collect(self) -> list[dict[str, object]]:
        await self._told.wait()
        self._told.clear()
        return [EVENT]

    async def members(self) -> list[int]:
        await self._told.wait()
        return [0, 1]


@pytest.mark.usefixtures("ray_cluster")
def test_a_late_answer_is_not_waited_for_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "WAIT_SECONDS", 0.2)
    roll = LateRoll.remote()
    seen = Attendance(roll)
    assert seen.events() == []
    assert seen.members() is None
    ray.get(roll.tell.remote())
    monkeypatch.setattr(driver, "WAIT_SECONDS", 30.0)
    assert seen.events() == [EVENT]
    assert seen.members() == [0, 1]
    monkeypatch.setattr(driver, "WAIT_SECONDS", 0.2)
    assert seen.events() == [], "each event is told once"


@pytest.mark.usefixtures("ray_cluster")
def test_a_roll_that_is_dead_for_good_is_an_error() -> None:
    roll = LateRoll.remote()
    ray.get(roll.tell.remote())
    ray.kill(roll)
    with pytest.raises(ActorDiedError):
        Attendance(roll).events()
