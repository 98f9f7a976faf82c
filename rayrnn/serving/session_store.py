"""What the replicas of a server share: the runs' newest models, and the sessions. One actor; it ends with its driver.

A session is lent to one request at a time: its steps are read in their order. A replica that dies with a session gives
it back by itself, after LEASE_SECONDS, as it was before the request.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

#: how long a request may keep a session
LEASE_SECONDS = 60.0
#: how long a request waits for the one before it
WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Refusal:
    """Why there is no session: none of that name, too many, or another request has it."""

    kind: str
    words: str


@dataclass
class _Kept:
    model: str
    session: Any
    used: float
    #: who has it, and until when
    holder: str | None = None
    until: float = 0.0
    returned: asyncio.Event = field(default_factory=asyncio.Event)


class Store:
    """See the module.

    Args:
        most_sessions: that are kept at once.
        idle_seconds: after which a session that nobody uses is forgotten.
    """

    def __init__(self, *, most_sessions: int, idle_seconds: float) -> None:
        self._most = most_sessions
        self._idle = idle_seconds
        self._models: dict[str, tuple[str, ray.ObjectRef]] = {}
        self._sessions: dict[str, _Kept] = {}

    async def put_model(self, name: str, version: str, boxed: list[ray.ObjectRef]) -> None:
        """Keep a Servable, in a list so that Ray does not fetch it here."""
        self._models[name] = (version, boxed[0])

    async def models(self, known: Mapping[str, str]) -> dict[str, list[ray.ObjectRef]]:
        """The Servables that are not of the version that is known, boxed, by name."""
        return {name: [ref] for name, (version, ref) in self._models.items() if known.get(name) != version}

    async def create(self, model: str, session: Any, name: str | None = None) -> str | Refusal:
        """Keep a session, under a new name or in the place of the one of this name; its name."""
        self._forget()
        if name is None and len(self._sessions) >= self._most:
            return Refusal("full", f"there are {len(self._sessions):,} sessions, as many as are kept: end some")
        if name is not None and name not in self._sessions:
            return _nobody(name)
        name = name or secrets.token_urlsafe(16)
        self._sessions[name] = _Kept(model, session, time.monotonic())
        return name

    async def look(self, name: str) -> tuple[str, Any] | Refusal:
        """A session's model, and the session as it is after the last request."""
        self._forget()
        kept = self._sessions.get(name)
        if kept is None:
            return _nobody(name)
        kept.used = time.monotonic()
        return kept.model, kept.session

    async def borrow(self, name: str) -> tuple[str, str, Any] | Refusal:
        """Take a session; who has it now, its model, and the session."""
        self._forget()
        give_up = time.monotonic() + WAIT_SECONDS
        while (kept := self._sessions.get(name)) is not None:
            now = time.monotonic()
            if kept.holder is None or now >= kept.until:
                kept.holder, kept.until, kept.used = secrets.token_hex(8), now + LEASE_SECONDS, now
                kept.returned.clear()
                return kept.holder, kept.model, kept.session
            if now >= give_up:
                return Refusal("busy", f"another request has session {name!r}: send steps one request after another")
            try:
                await asyncio.wait_for(kept.returned.wait(), min(give_up, kept.until) - now)
            except TimeoutError:
                continue
        return _nobody(name)

    async def give_back(self, name: str, holder: str, session: Any = None) -> bool:
        """Return a session, changed or as it was; whether it was still lent to this holder."""
        kept = self._sessions.get(name)
        if kept is None or kept.holder != holder:
            return False
        if session is not None:
            kept.session = session
        kept.holder, kept.used = None, time.monotonic()
        kept.returned.set()
        return True

    async def end(self, name: str) -> bool:
        """Forget a session; whether there was one."""
        kept = self._sessions.pop(name, None)
        if kept is not None:
            kept.returned.set()
        return kept is not None

    def _forget(self) -> None:
        """Forget those that nobody uses: those that were used last stand anywhere, so all are looked at."""
        now = time.monotonic()
        for name in [n for n, kept in self._sessions.items() if now - kept.used > self._idle and now >= kept.until]:
            del self._sessions[name]


def _nobody(name: str) -> Refusal:
    return Refusal(
        "unknown",
        f"there is no session {name!r}: it was ended, was idle for too long, or the server has begun anew; "
        "POST /sessions makes one, and PUT /sessions/ID/state goes on with a state that was kept",
    )
