"""Keeps Ray Data silent and its blocks in order."""

import logging

from ray.data import DataContext, Dataset


def quiet_ray_data() -> None:
    """No progress bars, no notes on execution: Ray Data's own log file has them. Blocks keep their order."""
    _settle(DataContext.get_current())
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)


def settle(dataset: Dataset) -> Dataset:
    """The same for a dataset that somebody else made."""
    quiet_ray_data()
    _settle(dataset.context)
    return dataset


def _settle(context: DataContext) -> None:
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # the order of the blocks decides which sequence has which number, and so what is learned in which round
    context.execution_options.preserve_order = True
