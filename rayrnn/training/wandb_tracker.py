"""A run at Weights & Biases, or (WANDB_MODE=offline) in a directory of its own that `wandb sync` sends later."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from rayrnn.training.tracking import About, Point

#: where WANDB_PROJECT says no other
PROJECT = "rayrnn"
#: seconds for the service to answer
PATIENCE = 8.0
_EXIT_CODES = {"finished": 0, "stopped": 255, "failed": 1}


class Wandb:
    """The account and the project of the environment (WANDB_API_KEY, WANDB_PROJECT, WANDB_MODE)."""

    def __init__(self) -> None:
        self._run: Any = None

    def begin(self, about: About, known: str | None) -> str:
        settings = wandb.Settings(
            init_timeout=PATIENCE, console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True
        )
        name = known or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=settings.project or PROJECT,
            id=name,
            resume="allow",
            name=about.name,
            config=dict(about.recipe),
            tags=[about.tags["rayrnn.task"][:60]],
            notes=None,
            dir=str(about.folder),
            settings=settings,
        )
        self._run.config.update(dict(about.tags), allow_val_change=True)
        self._run.define_metric("*", step_metric="round")
        return name

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log({"round": point.round, **point.values})

    def end(self, state: str, files: Sequence[Path]) -> None:
        for file in files:
            self._run.save(str(file), base_path=str(file.parent), policy="now")
        self._run.finish(exit_code=_EXIT_CODES[state])
