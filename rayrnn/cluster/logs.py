"""Keeps what Ray says off the user's screen, in a file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray._private.worker as ray_worker

#: the loggers that Ray, its libraries and Python's warnings write to
TALKATIVE = ("ray", "ray.data", "ray.train", "ray.tune", "py.warnings")


@contextmanager
def quiet_ray(log_file: Path | None = None) -> Iterator[None]:
    """Inside, Ray's messages and Python's warnings in this process go to `log_file` (None: nowhere), not to the screen.

    ray.data sets up its own logging when it is imported: import it before.
    """
    handler = _handler(log_file)
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    before = [logger.handlers[:] for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        _redirect(logger, handler)
    printed = ray_worker.print_to_stdstream
    ray_worker.print_to_stdstream = _log_lines
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = printed
        logging.captureWarnings(False)
        for logger, handlers in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
        handler.close()


def _log_lines(batch: dict[str, Any], ignore_prefix: bool) -> None:
    """Ray prints what happens on other nodes (a worker died) to stdout, whatever its logging is told."""
    for line in batch["lines"]:
        logging.getLogger("ray").info(line)


def _handler(log_file: Path | None) -> logging.Handler:
    if log_file is None:
        return logging.NullHandler()
    handler = logging.FileHandler(log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


def _redirect(logger: logging.Logger, handler: logging.Handler) -> None:
    """Take the handlers that write to the screen away; a logger that passes its messages on needs no other."""
    logger.handlers[:] = [kept for kept in logger.handlers if not _writes_to_screen(kept)]
    if not (logger.propagate and logger.name.startswith("ray.")):
        logger.addHandler(handler)


def _writes_to_screen(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
