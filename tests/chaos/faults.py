"""Faults at chosen points: a worker kills, stops or breaks itself in a round, at a minibatch or around the average.

`install` runs in every process that Ray starts (Ray's `worker_process_setup_hook`), so that the product needs no hooks.
"""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train

VARIABLE = "RAYRNN_TEST_FAULTS"
#: after so long inside the average: the others are in it too
INSIDE_SECONDS = 0.001
#: one line a minibatch
LEARNED = "learned.jsonl"


@dataclass(frozen=True)
class Fault:
    """What happens to which worker, and when; once in a run."""

    worker: int
    #: from 1
    round: int
    #: `kill`, `stop` (for `seconds`), `raise` or `nan`
    act: str
    #: a minibatch from 0 as text, or `before`, `inside` or `after` the average
    where: str = "0"
    seconds: float = 0.0


def variables(faults: list[Fault], folder: Path, pause: float = 0.0) -> dict[str, str]:
    """What the processes must find in their environment; `folder` remembers what has happened.

    Args:
        pause: seconds that every minibatch takes longer, as on a slower machine.
    """
    planned = [asdict(fault) for fault in faults]
    return {VARIABLE: json.dumps({"folder": str(folder), "faults": planned, "pause": pause})}


def install() -> None:
    """Put the faults around the public functions of the loop."""
    if VARIABLE not in os.environ:
        return
    import rayrnn.training.learner as learner
    from rayrnn.averaging.averager import Averager

    plan = json.loads(os.environ[VARIABLE])
    trap = Trap([Fault(**fault) for fault in plan["faults"]], Path(plan["folder"]), plan["pause"])
    learn_alone, learning_rate = learner.learn_alone, learner.learning_rate
    average, send = Averager.average, Averager.send

    def noted_learning_rate(training: Any, round_number: int, rounds: int, **passed: Any) -> float:
        trap.round = round_number + 1
        return learning_rate(training, round_number, rounds, **passed)

    def faulty_learn_alone(model: Any, optimizer: Any, minibatches: Iterator[Any], **how: Any) -> Any:
        return learn_alone(model, optimizer, trap.watch(model, minibatches), **how)

    def faulty_average(self: Averager, *arguments: Any, **named: Any) -> Any:
        trap.at("before")
        trap.at("inside", delay=INSIDE_SECONDS)
        result = average(self, *arguments, **named)
        trap.at("after")
        return result

    def faulty_send(self: Averager, *arguments: Any, **named: Any) -> None:
        trap.at("before")
        trap.at("inside", delay=INSIDE_SECONDS)
        send(self, *arguments, **named)

    Averager.send = faulty_send  # type: ignore[method-assign]
    Averager.average = faulty_average  # type: ignore[method-assign]
    learner.learning_rate = noted_learning_rate
    learner.learn_alone = faulty_learn_alone


class Trap:
    """Watches one process and springs at the chosen points."""

    def __init__(self, faults: list[Fault], folder: Path, pause: float) -> None:
        self.round = 0
        self._pause = pause
        self._faults = faults
        self._folder = folder

    def watch(self, model: Any, minibatches: Iterator[Any]) -> Iterator[Any]:
        """Write down which sequences are learned, and by whom in which round; then do what is planned."""
        for number, minibatch in enumerate(minibatches):
            self._note(minibatch)
            self.at(str(number), model=model)
            time.sleep(self._pause)
            yield minibatch

    def _note(self, minibatch: Any) -> None:
        rows = [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in minibatch.inputs.cpu()]
        line = json.dumps({"worker": _number(), "round": self.round, "sequences": rows}) + "\n"
        with (self._folder / LEARNED).open("a") as file:
            file.write(line)

    def at(self, where: str, *, delay: float = 0.0, model: Any = None) -> None:
        number = _number()
        for fault in self._faults:
            if (fault.worker, fault.round, fault.where) == (number, self.round, where) and self._first_time(fault):
                if delay:
                    threading.Timer(delay, self._spring, (fault, model)).start()
                else:
                    self._spring(fault, model)

    def _first_time(self, fault: Fault) -> bool:
        mark = self._folder / f"{fault.worker}-{fault.round}-{fault.where}-{fault.act}"
        if mark.exists():
            return False
        mark.write_text(str(time.time()))
        return True

    def _spring(self, fault: Fault, model: Any) -> None:
        if fault.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.act == "stop":
            # somebody else has to wake a stopped process
            os.system(f"(sleep {fault.seconds}; kill -CONT {os.getpid()}) >/dev/null 2>&1 &")
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.act == "nan":
            next(model.parameters()).data.fill_(float("nan"))
        else:
            raise ValueError(f"a fault of the test in round {fault.round}")


def _number() -> int:
    """Which worker this process is."""
    return int(ray.train.get_context().get_experiment_name().removeprefix("worker-"))
