"""Work beside the caller in a thread of its own, whose end is always told of."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


@contextmanager
def deaths_told(tell: Callable[[str, str], None]) -> Iterator[None]:
    """Inside, `tell` hears of any thread of this process that ends by an exception, also of those of other libraries.

    Args:
        tell: takes one sentence, and the traceback.
    """

    def hear(death: threading.ExceptHookArgs) -> None:
        if death.exc_type is SystemExit or death.exc_value is None:
            return
        name = death.thread.name if death.thread is not None else "unknown"
        words = next(iter(str(death.exc_value).splitlines()), "")[:500]
        trace = "".join(traceback.format_exception(death.exc_value))
        tell(f"the thread {name!r} has died: {death.exc_type.__name__}: {words}", trace)

    before, threading.excepthook = threading.excepthook, hear
    try:
        yield
    finally:
        threading.excepthook = before


class NewestOnly(Generic[T]):
    """Does one thing at a time; of several that were asked for meanwhile only the newest.

    `work` handles what may go wrong. An exception that it lets through ends the thread: `on_death` hears of it there,
    and what is asked for later is not done.
    """

    def __init__(self, work: Callable[[T], None], *, name: str, on_death: Callable[[BaseException], None]) -> None:
        self._work = work
        self._on_death = on_death
        self._asked: list[T] = []
        self._since: float | None = None
        self._ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Have this done soon, in the place of what has not begun yet; never waits."""
        with self._changed:
            self._asked = [item]
            self._changed.notify()

    @property
    def busy_seconds(self) -> float:
        """How long it has been at what it does now; 0 when it does nothing."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def close(self, patience: float | None = None) -> bool:
        """Finish what was asked for, within so many seconds; whether that was enough."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (asked := self._take()) is not None:
                self._work(asked[0])
                self._since = None
        except BaseException as error:
            self._on_death(error)
        finally:
            self._since = None

    def _take(self) -> list[T] | None:
        """What is to be done next; None when that was all."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked or self._ending)
            if not self._asked:
                return None
            asked, self._asked = self._asked, []
            self._since = time.monotonic()
            return asked
