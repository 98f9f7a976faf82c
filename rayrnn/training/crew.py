"""Keeps a run's workers: those that die are replaced, and more are taken on while there is room for them."""

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.training.assignment import Assignment
from rayrnn.training.room import Need, free_places
from rayrnn.training.solo import SETTINGS, Solo

#: between two looks whether there is room for another worker
LOOK_SECONDS = 1.0
#: for Ray Train to let go of the workers
CLOSING_SECONDS = 5.0


def start_crew(assignment: Assignment, *, need: Need, begin_with: int, settings: Mapping[str, str]) -> ActorHandle:
    """Start a run's workers; they live no longer than the caller.

    Args:
        need: what one worker takes of its host.
        begin_with: workers to start now; up to `averaging.workers` more follow when there is room.
        settings: of Ray Train, as environment variables.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here, "max_concurrency": 4}
    crew = ray.remote(**options)(Crew).remote(assignment, need, dict(settings))
    ray.get(crew.start.remote(begin_with))
    return crew


class Crew:
    """One a run, beside the driver. Every worker has a thread here that follows its Ray Train run."""

    def __init__(self, assignment: Assignment, need: Need, settings: dict[str, str]) -> None:
        os.environ.update(SETTINGS | settings)
        self._assignment = assignment
        self._need = need
        self._most = assignment.recipe.averaging.most
        self._folder = tempfile.TemporaryDirectory(prefix="rayrnn-train-")
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        #: where each worker is, or is about to be; and the workers that have their place
        self._nodes: dict[int, str] = {}
        self._places: dict[int, PlacementGroup] = {}
        self._waiting: set[int] = set()
        #: nobody is taken on any more
        self._closing = False

    def start(self, count: int) -> None:
        """Start so many workers, and look for room for more."""
        for number in range(count):
            self._employ(number)
        if count < self._most:
            threading.Thread(target=self._grow, name="grow", daemon=True).start()

    def running(self) -> bool:
        """Whether there are workers, or will be."""
        return any(thread.is_alive() for thread in list(self._threads.values()))

    def close(self) -> None:
        """End the workers that are left, and give back their places."""
        self._closing = True
        for place in list(self._places.values()):
            with suppress(RayError):
                remove_placement_group(place)
        deadline = time.monotonic() + CLOSING_SECONDS
        for thread in list(self._threads.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
        self._folder.cleanup()

    def choose_node(self, number: int) -> str | None:
        """The node with room that has the fewest of this run's workers; see `Employer`."""
        with self._lock:
            self._nodes.pop(number, None)
            self._places.pop(number, None)
            free = self._free_places()
            if not free:
                return None
            taken = list(self._nodes.values())
            chosen = min(free, key=lambda node: (taken.count(node), -free[node], node))
            self._nodes[number] = chosen
            return chosen

    def take_in(self, number: int, placement_group: PlacementGroup) -> None:
        """Remember a place that must be given back; see `Employer`."""
        with self._lock:
            self._places[number] = placement_group
            self._waiting.discard(number)
        if self._closing:
            remove_placement_group(placement_group)

    def find_no_room(self, number: int) -> bool:
        """Say it once, and try again; see `Employer`."""
        if number not in self._waiting:
            self._waiting.add(number)
            self._post({"kind": "no room", "worker": number})
        return not self._closing

    def see_failure(self, number: int, error: Exception) -> bool:
        """The driver counts them; see `Employer`."""
        if not self._closing:
            self._post({"kind": "restart", "worker": number, "error": f"{type(error).__name__}: {error}"})
        return not self._closing

    def _employ(self, number: int) -> None:
        name = f"worker-{number}"
        self._threads[number] = threading.Thread(target=self._follow, args=(number,), name=name, daemon=True)
        self._threads[number].start()

    def _follow(self, number: int) -> None:
        """One worker after another under the same number, until one ends its work well."""
        while not self._closing:
            solo = Solo(self._assignment, number, need=self._need, folder=self._folder.name, employer=self)
            try:
                solo.fit()
                return
            except Exception as error:  # Ray Train gave up, which is not its place: say so, and start anew
                self.see_failure(number, error)
                time.sleep(LOOK_SECONDS)

    def _grow(self) -> None:
        """Take on another worker when there was room in two looks on end: what is free for a moment is not room."""
        seen = False
        while not self._closing and self.running():
            room = self._room_for_another()
            if room and seen:
                self._employ(min(set(range(self._most)) - self._threads.keys()))
            seen = room and not seen
            time.sleep(LOOK_SECONDS)

    def _room_for_another(self) -> bool:
        with self._lock:
            settled = self._threads.keys() == self._places.keys()
            return settled and len(self._threads) < self._most and bool(self._free_places())

    def _free_places(self) -> dict[str, int]:
        """Without the places of workers that are just starting: Ray still counts those as free."""
        free = free_places(self._need)
        for number, node in self._nodes.items():
            if number not in self._places and node in free:
                free[node] -= 1
        return {node: places for node, places in free.items() if places > 0}

    def _post(self, event: dict[str, object]) -> None:
        self._assignment.mailbox.post.remote(event)
