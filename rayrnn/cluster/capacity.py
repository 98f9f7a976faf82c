"""What fits on hosts."""

from collections.abc import Mapping


def places(there: Mapping[str, float], each: Mapping[str, float]) -> int:
    """How many of something fit on one host.

    Args:
        there: what the host has of each resource, by Ray's names.
        each: what every one of them takes; nothing is shared between two.
    """
    return min(int(there.get(name, 0) // amount) for name, amount in each.items())
