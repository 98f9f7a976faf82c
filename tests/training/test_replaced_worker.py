"""A worker that was cut off, and comes back when another process has its number."""

import time

import ray

from rayrnn.data.prepare import prepare
from rayrnn.training.channel import Inbox
from rayrnn.training.coordinator import start_coordinator
from rayrnn.training.learner import WorkerSpec
from rayrnn.training.messages import Event, Failed, Member, Report, RoundLearned
from rayrnn.training.worker import train_worker
from tests.training.recipes import small

ENDLESS = 10**6


def test_a_worker_that_was_replaced_ends_and_the_run_does_not(ray_cluster: None) -> None:
    recipe = small(averaging={"workers": 1, "rounds": ENDLESS}, training={"checkpoint_every": ENDLESS})
    prepared = prepare(recipe)
    coordinator = start_coordinator(expected=1, patience=30)
    inbox, seen = Inbox(coordinator), list[Event]()
    spec = WorkerSpec(recipe, prepared.encoding, prepared.training, prepared.held_out)
    inbox.give(spec=(ray.put(spec),))
    work = ray.remote(train_worker).remote({"coordinator": coordinator, "number": 0})
    successor, deadline = None, time.monotonic() + 120
    while not ray.wait([work], timeout=0)[0]:
        assert time.monotonic() < deadline
        seen += inbox.events()
        if successor is None and any(isinstance(event, RoundLearned) for event in seen):
            claim = Report(Member(0, "its successor", None), "join", 0, None, 0.0, ())
            successor = coordinator.report.remote(claim)
        time.sleep(0.05)
    ray.get(work)
    seen += inbox.events()
    assert not [event for event in seen if isinstance(event, Failed)]
    ray.kill(coordinator)
