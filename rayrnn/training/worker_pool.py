"""Keeps a run's workers: those that die are replaced, and more are taken on while there is room for them.

Every worker is a Ray Train run of its own, which a thread of the driver follows: Ray Train starts it, watches it and
replaces it, and nobody else.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, remove_placement_group

from rayrnn.training.messages import Event, NoRoom, Restarted, Stumbled
from rayrnn.training.placement import Need, free_places
from rayrnn.training.train_actor import RayTrainWorker
from rayrnn.training.train_internals import Solo, adapted
from rayrnn.training.worker import train_worker

#: between two looks whether there is room for another worker
LOOK_SECONDS = 1.0
#: for Ray Train to let go of the workers
CLOSING_SECONDS = 10.0


class WorkerPool:
    """One a run. Use it as a context: the workers end with it.

    A thread that raises, whatever it is, tells of it and begins again. When the pool is closed the threads have a few
    seconds to end, and ask nothing of Ray any more, which may be gone then.

    Args:
        coordinator: knows what the workers learn.
        need: what one worker takes of its host.
        most: no more workers than these.
        tell: takes what happens, from any thread.
    """

    def __init__(self, coordinator: ActorHandle, need: Need, *, most: int, tell: Callable[[Event], None]) -> None:
        self._coordinator = coordinator
        self._need = need
        self.most = most
        self._tell = tell
        self._open = ExitStack()
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        self._runs: dict[int, Solo] = {}
        #: where each worker is, or is about to be; the places asked for; the workers that have theirs
        self._nodes: dict[int, str] = {}
        self._places: dict[int, PlacementGroup] = {}
        self._placed: set[int] = set()
        self._waiting: set[int] = set()
        self._abandoned = False
        #: CPUs of each node that are not for workers
        self._spared_cpus = 0
        self._closing = threading.Event()

    def __enter__(self) -> "WorkerPool":
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="rayrnn-train-"))
        self._open.enter_context(adapted(RayTrainWorker))
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers that are left, and give back their places."""
        self._closing.set()
        for run in list(self._runs.values()):
            run.cancel()
        if not self._abandoned:
            self._let_go()
        self._open.close()

    def abandon(self) -> None:
        """Ray is lost: its places are, too, and there is nobody to wait for."""
        self._abandoned = True

    def start_early(self, count: int) -> None:
        """Start workers, at most so many, where they leave every node a CPU for others."""
        self._spared_cpus = 1
        room = sum(free_places(self._need, spared_cpus=1).values())
        for number in range(min(count, room)):
            self._start(number)

    def start(self, count: int) -> None:
        """Start the rest of so many workers, and look for room for more."""
        self._spared_cpus = 0
        for number in range(count):
            if number not in self._threads:
                self._start(number)
        if count < self.most:
            self._begin("grow", self._grow)

    def running(self) -> bool:
        """Whether there are workers, or will be."""
        return any(thread.is_alive() for thread in list(self._threads.values()))

    def choose_node(self, number: int) -> str | None:
        """The node with room that has the fewest of this run's workers; see `Supervisor`."""
        with self._lock:
            self._nodes.pop(number, None)
            self._places.pop(number, None)
            self._placed.discard(number)
            free = self._free_places()
            if not free:
                return None
            taken = list(self._nodes.values())
            chosen = min(free, key=lambda node: (taken.count(node), -free[node], node))
            self._nodes[number] = chosen
            return chosen

    def see_request(self, number: int, place: PlacementGroup) -> None:
        """Remember a place that must be given back; see `Supervisor`."""
        with self._lock:
            self._places[number] = place
        if self._closing.is_set():
            remove_placement_group(place)

    def see_start(self, number: int) -> None:
        """The place is taken; see `Supervisor`."""
        with self._lock:
            self._placed.add(number)
            self._waiting.discard(number)

    def find_no_room(self, number: int) -> bool:
        """Say it once, and try again; see `Supervisor`."""
        if number not in self._waiting:
            self._waiting.add(number)
            self._tell(NoRoom(number))
        return not self._closing.is_set()

    def see_failure(self, number: int, error: Exception) -> bool:
        """The driver counts them; see `Supervisor`."""
        if self._closing.is_set():
            return False
        self._tell(Restarted(number, f"{type(error).__name__}: {error}"))
        return True

    def _let_go(self) -> None:
        """Give the places back, which ends the workers, and wait for their threads."""
        # the head may be away: nobody waits for it here
        giving_back = threading.Thread(target=self._remove_places, name="give back", daemon=True)
        giving_back.start()
        deadline = time.monotonic() + CLOSING_SECONDS
        for thread in [giving_back, *self._threads.values()]:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _remove_places(self) -> None:
        for place in list(self._places.values()):
            with suppress(Exception):  # each for itself: the places of a run that has ended are Ray's to take back, too
                remove_placement_group(place)

    def _start(self, number: int) -> None:
        self._threads[number] = self._begin(f"worker-{number}", lambda: self._follow(number))

    def _begin(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._persist, args=(name, work), name=name, daemon=True)
        thread.start()
        return thread

    def _persist(self, name: str, work: Callable[[], None]) -> None:
        """Do the work to its end, and begin it anew whatever it raises."""
        while not self._closing.is_set():
            try:
                work()
                return
            except BaseException as error:  # nobody else would see it: the worker would never be replaced
                if not self._closing.is_set():
                    self._tell(Stumbled(name, f"{type(error).__name__}: {error}"))
                self._closing.wait(LOOK_SECONDS)

    def _follow(self, number: int) -> None:
        """One worker after another under the same number, until one ends its work well."""
        self._runs[number] = Solo(
            train_worker,
            {"coordinator": self._coordinator, "number": number},
            number=number,
            resources=self._need.resources(),
            folder=self._folder,
            supervisor=self,
        )
        self._runs[number].fit()

    def _grow(self) -> None:
        """Take on another worker when there was room in two looks on end: what is free for a moment is not room."""
        seen = False
        while not self._closing.is_set() and self.running():
            room = self._room_for_another()
            if room and seen:
                self._start(min(set(range(self.most)) - self._threads.keys()))
            seen = room and not seen
            self._closing.wait(LOOK_SECONDS)

    def _room_for_another(self) -> bool:
        with self._lock:
            settled = self._threads.keys() == self._placed
            return settled and len(self._threads) < self.most and bool(self._free_places())

    def _free_places(self) -> dict[str, int]:
        """Without the places of workers that are just starting: Ray still counts those as free."""
        free = free_places(self._need, spared_cpus=self._spared_cpus)
        for number, node in self._nodes.items():
            if number not in self._placed and node in free:
                free[node] -= 1
        return {node: places for node, places in free.items() if places > 0}
