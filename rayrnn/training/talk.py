"""What a run has to say, and to whom: a screen here, or one at a distance (rayrnn/jobs/relay.py)."""

from typing import Any, Protocol

from rayrnn.training.account import Account
from rayrnn.training.outcome import Outcome


class Talk(Protocol):
    """One run's talk with the user."""

    def say(self, message: str) -> None:
        """A line about what happens now."""

    def warn(self, message: str) -> None:
        """A line that must be seen."""

    def header(self, account: Account, *, data: str, encoding: str, run: str) -> None:
        """What is about to be learned."""

    def start(self, first_round: int) -> None:
        """Training begins now."""

    def round(self, event: dict[str, Any]) -> None:
        """One round was learned."""

    def attendance(self, event: dict[str, Any]) -> None:
        """Somebody died, left, was late, went on or joined."""

    def evaluation(self, event: dict[str, Any]) -> None:
        """The held-out loss after a round."""

    def stop(self) -> None:
        """Training is over."""

    def finish(self, outcome: Outcome, metrics: list[dict[str, Any]]) -> None:
        """How it ended."""
