"""A state is any tree of tensors."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch

from rayrnn.models.state import detached, leaves


class Memory(NamedTuple):
    keys: torch.Tensor
    values: torch.Tensor


@pytest.mark.parametrize(
    "shape",
    [
        lambda a, b: a,
        lambda a, b: None,
        lambda a, b: (a, [b, None]),
        lambda a, b: {"fast": a, "slow": {"deep": (b,)}},
        lambda a, b: OrderedDict(x=b, y=a),
        lambda a, b: [Memory(a, b)],
    ],
)
def test_a_detached_state_has_the_same_form_and_values_and_no_graph(shape: Any) -> None:
    first, second = torch.ones(2, requires_grad=True) * 2, torch.zeros(3, requires_grad=True) * 2
    state = shape(first, second)
    cut = detached(state)
    assert type(cut) is type(state)
    assert str(cut) == str(shape(first.detach(), second.detach()))
    for before, after in zip(leaves(state), leaves(cut), strict=True):
        assert before.requires_grad
        assert not after.requires_grad


def test_what_is_no_tensor_is_named() -> None:
    with pytest.raises(TypeError, match="float is neither a tensor nor a tuple, list or dict"):
        list(leaves((torch.ones(1), [0.5])))
