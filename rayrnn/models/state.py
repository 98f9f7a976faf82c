"""What a network carries from one segment to the next: any tree of tensors in tuples, lists and dicts, or nothing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch


def detached(state: Any) -> Any:
    """The same state, cut from the graph of the segment that computed it."""
    return _mapped(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, state)


def rows_of(state: Any, index: torch.Tensor) -> Any:
    """The same state of these rows of the batch, which is the first axis of every tensor."""
    return _mapped(lambda leaf: leaf[index.to(leaf.device)] if isinstance(leaf, torch.Tensor) else leaf, state)


def joined(states: Sequence[Any]) -> Any:
    """The rows of several states of one network as those of one batch, in this order."""
    first = states[0]
    if len(states) == 1 or first is None:
        return first
    if isinstance(first, torch.Tensor):
        return torch.cat(list(states))
    if isinstance(first, dict):
        return type(first)((key, joined([state[key] for state in states])) for key in first)
    parts = [joined(part) for part in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


def leaves(state: Any) -> Iterator[torch.Tensor]:
    """The tensors of a state.

    Raises:
        TypeError: something in it is no tensor.
    """
    found: list[Any] = []
    _mapped(found.append, state)
    for leaf in found:
        if not isinstance(leaf, torch.Tensor):
            raise TypeError(f"{type(leaf).__name__} is neither a tensor nor a tuple, list or dict of tensors")
        yield leaf


def with_leaves(state: Any, tensors: Iterable[torch.Tensor]) -> Any:
    """A state of the same form, with these tensors in the order of `leaves`."""
    given = iter(tensors)
    return _mapped(lambda _: next(given), state)


def _mapped(do: Callable[[Any], Any], state: Any) -> Any:
    if state is None:
        return None
    if isinstance(state, dict):
        return type(state)((key, _mapped(do, value)) for key, value in state.items())
    if isinstance(state, tuple | list):
        parts = [_mapped(do, part) for part in state]
        # a named tuple takes its parts one by one
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return do(state)
