"""Waits for Ray tasks over data, and brings their errors home as our own."""

from collections.abc import Sequence
from typing import Any

import ray

from rayrnn.errors import RayrnnError


def results(references: Sequence[ray.ObjectRef]) -> list[Any]:
    """The tasks' results in order.

    Raises:
        RayrnnError: what the first task to fail raised, without Ray's wrapping around it.
    """
    try:
        return list(ray.get(list(references)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayrnnError):
            raise error.cause from None
        raise
