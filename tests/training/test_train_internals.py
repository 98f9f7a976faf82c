"""A worker's Ray Train run is controlled from a thread, beside others, by what was made for a process of its own."""

import threading
from typing import Any

import pytest
from ray._private.ray_constants import env_bool
from ray.train.v2._internal.constants import (
    DEFAULT_ENABLE_CONTROLLER_LOGGING,
    ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR,
)
from ray.train.v2._internal.logging.logging import LoggingManager

from rayrnn.training import worker_pool
from rayrnn.training.worker_pool import Solo


def test_logging_is_set_up_once_and_before_any_controller_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR, "1")
    monkeypatch.setattr(Solo, "_is_set_up", False)
    said: list[str] = []
    monkeypatch.setattr(LoggingManager, "configure_controller_logger", lambda context: said.append("set up"))

    class Controller:
        """Looks, as Ray Train's own does, whether it has to set up logging."""

        def __init__(self, **_: Any) -> None:
            own = env_bool(ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR, DEFAULT_ENABLE_CONTROLLER_LOGGING)
            said.append("made, and set up" if own else "made")

        async def run(self) -> None: ...

        def get_result(self) -> None: ...

    monkeypatch.setattr(worker_pool, "TrainController", Controller)
    runs = [object.__new__(Solo) for _ in range(8)]
    for number, run in enumerate(runs):
        run._number, run._employer = number, None
    threads = [
        threading.Thread(target=run._initialize_and_run_controller, kwargs={"train_run_context": None}) for run in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["set up"] + 8 * ["made"]
