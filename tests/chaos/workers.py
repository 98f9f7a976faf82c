"""The processes in which a run's workers learn."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


def workers_among(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that Ray Train has made workers; passes over what ends meanwhile."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found
