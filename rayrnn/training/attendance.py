"""What the driver asks the roll, without ever waiting for it long."""

from typing import Any

import ray
from ray.actor import ActorHandle

from rayrnn.training.roll import Event

#: for an answer. A roll that is starting again answers later; one whose node is gone never does, and Ray ends a driver
#: that has lost its node about ten seconds later
WAIT_SECONDS = 2.0


class Attendance:
    """The driver's view of the roll."""

    def __init__(self, roll: ActorHandle) -> None:
        self._roll = roll
        self._asked: dict[str, ray.ObjectRef] = {}

    def events(self) -> list[Event]:
        """What has happened since the last call, oldest first."""
        return self._answer("collect") or []

    def members(self) -> list[int] | None:
        """The numbers of the workers that take part; None when the roll does not answer now."""
        answer: list[int] | None = self._answer("members")
        return answer

    def _answer(self, question: str) -> Any:
        """None while there is none; it is waited for again the next time, and not lost."""
        if question not in self._asked:
            self._asked[question] = getattr(self._roll, question).remote()
        if not ray.wait([self._asked[question]], timeout=WAIT_SECONDS)[0]:
            return None
        return ray.get(self._asked.pop(question))
