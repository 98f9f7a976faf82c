"""Who owns an address of a store: one attempt at a run at a time, and all others see whose it is and that it lives.

lease.json at the address names the attempt, who made it, and counts signs of life. pyarrow knows no condition on a
write to a store: whoever wants the lease writes it, waits, and reads again whose it is. Of several the last to write
has it; the others find out before they write the next manifest, and stop. No clock is compared with another machine's.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rayrnn.cluster.environment import user_name
from rayrnn.durable import replace_durably
from rayrnn.errors import RunError, UsageError
from rayrnn.runs.layout import LEASE, UNSENT
from rayrnn.runs.schema import StoredLease, StoredUnsent, checked, read_stored
from rayrnn.runs.store import Store

#: between two signs of life
BEAT_SECONDS = 10.0
#: without a sign of life an owner is dead
EXPIRED_SECONDS = 35.0
#: between a write and the look whether it stands; longer than another's way from its own look to its own write
SETTLE_SECONDS = 1.0
LOOK_SECONDS = 1.0
#: an owner whose sign of life crosses with a take-over writes over it once; more only where the store is slow
TAKE_OVER_WRITES = 5
MOST_LEASE = 10_000


class Taken(RunError):
    """The address is another attempt's now."""


class Lease:
    """This attempt's hold on an address, kept by a thread that gives a sign of life now and then.

    The thread never ends of an error: while the store is away there is no sign; afterwards either the lease is still
    this attempt's, or `lost` hears whose it is.

    Args:
        folder: stands for the address on this machine, and is held by this process alone.
        take_over: do not ask whether the owner lives; it will find out, and stop.
        say: takes what the user must know.
        lost: hears, once and from any thread, that the address is another's now.

    Raises:
        UsageError: another attempt has the address; says who and since when.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        take_over: bool,
        say: Callable[[str], None],
        lost: Callable[[Taken], None],
    ) -> None:
        self._store = store
        self._folder = folder
        self._say = say
        self._lost = lost
        self._lock = threading.Lock()
        self._lease = StoredLease(
            attempt=uuid.uuid4().hex,
            user=user_name()[:100],
            host=socket.gethostname()[:200],
            process=os.getpid(),
            since=int(time.time()),
            beats=0,
            over=False,
        )
        self._taken: Taken | None = None
        #: what was there before: whose rounds the store has
        self.previous = self._read()
        self._claim(self.previous, take_over=take_over)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)
        self._thread.start()

    @property
    def attempt(self) -> str:
        return self._lease.attempt

    def check(self) -> None:
        """See that the address is still this attempt's; a lease that somebody has removed is put there again.

        Raises:
            Taken: it is another's.
            UsageError: the store does not answer.
        """
        with self._lock:
            self._check()

    def release(self) -> None:
        """Leave word that this attempt is over; where the store does not take it, the heartbeats cease all the same.

        Raises:
            UsageError: it does not.
        """
        self._end()
        found = self._read()
        if found is not None and found.attempt == self.attempt:
            self._lease = self._lease.model_copy(update={"over": True})
            self._write()

    def give_back(self) -> None:
        """Leave everything as it was: this attempt has not begun.

        Raises:
            UsageError: the store does not take it.
        """
        self._end()
        if (found := self._read()) is None or found.attempt != self.attempt:
            return
        if self.previous is None:
            self._store.remove(LEASE)
        else:
            self._store.write(LEASE, self.previous.model_dump_json().encode())

    def _end(self) -> None:
        self._closed.set()
        with self._lock:  # a sign of life that is on its way comes first
            pass

    def _claim(self, found: StoredLease | None, *, take_over: bool) -> None:
        if not (found is None or found.over or take_over or self._is_of_here(found)):
            self._wait_for_sign(found)
        for _ in range(TAKE_OVER_WRITES):
            self._write()
            time.sleep(SETTLE_SECONDS)
            if (winner := self._read()) is not None and winner.attempt == self.attempt:
                return
            crossed = take_over and found is not None and winner is not None and winner.attempt == found.attempt
            if not crossed:  # else a sign of life was on its way when this was written; the owner reads before the next
                break
        raise self._refusal(winner)

    def _is_of_here(self, found: StoredLease) -> bool:
        """Whether this directory's last attempt had the lease: it ended with its process, which had the directory."""
        unsent = Unsent.load(self._folder)
        return unsent is not None and (found.attempt, found.host) == (unsent.attempt, self._lease.host)

    def _wait_for_sign(self, found: StoredLease) -> None:
        """
        Raises:
            UsageError: the owner gives one.
        """
        self._say(
            f"{self._store.address} belongs to {_who(found)}: waiting {EXPIRED_SECONDS:.0f} seconds at most for a sign "
            "of life"
        )
        deadline = time.monotonic() + EXPIRED_SECONDS
        while time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            now = self._read()
            if now is None or now.over:
                return
            if now != found:
                raise self._refusal(now)
        self._say("there was none: going on in its place")

    def _refusal(self, owner: StoredLease | None) -> UsageError:
        whose = "somebody else, who has just ended" if owner is None else _who(owner)
        return UsageError(
            f"{self._store.address} is being trained by {whose}: wait for its end or stop it there; or take the run "
            "over with --resume --take-over, at which the other ends with an error (nothing that it has is lost)"
        )

    def _live(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            try:
                self._beat()
            except Taken:
                return
            except Exception:  # the store is away, of which the mirror tells; the next beat comes
                continue

    def _beat(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            self._check()
            self._lease = self._lease.model_copy(update={"beats": self._lease.beats + 1})
            self._write()

    def _check(self) -> None:
        if self._taken is not None:
            raise self._taken
        found = self._read()
        if found is None:
            self._write()
        elif found.attempt != self.attempt:
            self._taken = Taken(
                f"{self._store.address} was taken over by {_who(found)}: nothing more of this run goes there, "
                f"and all of it is in {self._folder}"
            )
            self._lost(self._taken)
            raise self._taken

    def _write(self) -> None:
        self._store.write(LEASE, self._lease.model_dump_json().encode())

    def _read(self) -> StoredLease | None:
        """
        Raises:
            UsageError: the store does not answer, or has another file of this name.
        """
        content = self._store.find(LEASE, most=MOST_LEASE)
        if content is None:
            return None
        try:
            return checked(content, StoredLease, f"{self._store.address}/{LEASE}")
        except RunError as error:
            raise UsageError(f"{error}; move it away, or choose another --out") from None


@dataclass(frozen=True)
class Unsent:
    """What a directory that stands for an address remembers while the store may lack something of it."""

    #: the attempt that wrote the directory; empty where rayrnn 0.1 did
    attempt: str = ""
    #: the newest checkpoint that the store took from it; -1 for none
    sent: int = -1

    def save(self, folder: Path) -> None:
        """
        Raises:
            OSError: it cannot be written.
        """
        replace_durably(folder / UNSENT, json.dumps({"attempt": self.attempt, "sent": self.sent}).encode())

    @classmethod
    def load(cls, folder: Path) -> "Unsent | None":
        """None where the store has all of it.

        Raises:
            RunError: the file is damaged.
        """
        try:
            if (folder / UNSENT).stat().st_size == 0:
                return cls()
            return cls(**read_stored(folder, UNSENT, StoredUnsent).model_dump())
        except FileNotFoundError:
            return None


def _who(lease: StoredLease) -> str:
    since = datetime.fromtimestamp(lease.since, UTC).astimezone()
    return f"{lease.user}@{lease.host} (process {lease.process}, since {since:%Y-%m-%d %H:%M:%S %Z})"
