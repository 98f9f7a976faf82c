"""Runs that are going on, as they tell of themselves: in the store of the cluster's head, which needs no joining."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

SPACE = b"rayrnn"
#: between two moments at which a run tells of itself
TELL_SECONDS = 1.0
#: for the head to take a sign down; one that is gone would be waited for until Ray ends the process, after a minute
TAKE_IN_SECONDS = 3.0


@dataclass(frozen=True)
class LiveRun:
    """A run at one moment."""

    #: of Ray: the driver's
    job: str
    run: str
    #: rounds learned, of so many
    round: int
    rounds: int
    #: the workers that take part now, by number, of at most so many
    members: tuple[int, ...]
    workers: int


class Sign:
    """What a run's driver hangs out; it goes with the driver's job, however that ends.

    The head may be away: nobody waits for it here.
    """

    def __init__(self, run: str, *, rounds: int, workers: int) -> None:
        self._run = run
        self._rounds = rounds
        self._workers = workers
        self._job = ray.get_runtime_context().get_job_id()
        self._told = 0.0
        self._teller: threading.Thread | None = None

    @property
    def unanswered_seconds(self) -> float:
        """How long the head has been silent; 0 when it answered."""
        return time.monotonic() - self._told if self._teller is not None and self._teller.is_alive() else 0.0

    def is_due(self) -> bool:
        """Whether it is time to show how things are."""
        return time.monotonic() - self._told >= TELL_SECONDS and not self.unanswered_seconds

    def show(self, round_number: int, members: Iterable[int]) -> None:
        """Put this in the place of what was shown."""
        self._told = time.monotonic()
        now = LiveRun(self._job, self._run, round_number, self._rounds, tuple(members), self._workers)
        value = json.dumps(asdict(now)).encode()
        self._tell(lambda: _internal_kv_put(self._job.encode(), value, overwrite=True, namespace=SPACE))

    def take_in(self) -> None:
        """The run is over."""
        if self._teller is not None:
            self._teller.join(TAKE_IN_SECONDS)
        if not self.unanswered_seconds:
            self._tell(lambda: _internal_kv_del(self._job.encode(), namespace=SPACE)).join(TAKE_IN_SECONDS)

    def _tell(self, words: Callable[[], object]) -> threading.Thread:
        def tell() -> None:
            with suppress(RayError, RuntimeError):  # the head is away for a moment
                words()

        self._teller = threading.Thread(target=tell, name="tell", daemon=True)
        self._teller.start()
        return self._teller


def read_runs(address: str, jobs: Iterable[str]) -> tuple[LiveRun, ...]:
    """The runs of these jobs, in their order.

    Args:
        address: of the head, host:port; this process need not have joined it.
    """
    client = GcsClient(address=address)
    told = [client.internal_kv_get(job.encode(), namespace=SPACE) for job in jobs]
    return tuple(live_run(json.loads(text)) for text in told if text)


def live_run(values: dict[str, object]) -> LiveRun:
    """From plain values, as `dataclasses.asdict` gives them."""
    return LiveRun(**(values | {"members": tuple(values["members"])}))  # type: ignore[arg-type]
