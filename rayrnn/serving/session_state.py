"""A session as JSON, so that it can be kept, and go on at another server of the same run."""

import base64
import binascii
from dataclasses import replace
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from rayrnn.data.rows import CONTENTS
from rayrnn.errors import UsageError
from rayrnn.models.state import leaves, with_leaves
from rayrnn.prediction.given_rows import rows_of_given
from rayrnn.prediction.live_steps import Session
from rayrnn.prediction.output import plain_rows
from rayrnn.runs.model import Trained

VERSION = 1
_OUTPUTS = "outputs"


class StoredSession(BaseModel):
    """What `GET /sessions/ID/state` gives and `PUT` takes."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(VERSION, ge=VERSION, le=VERSION)
    model: str
    key: str = "session"
    num_steps: int = Field(ge=0)
    num_scored: int = Field(0, ge=0)
    total: float = Field(0.0, allow_inf_nan=False)
    weight: float = Field(0.0, allow_inf_nan=False)
    before: dict[str, Any] | None = Field(None, description="The last steps, in the row schema.")
    tensors: str | None = Field(None, description="What the network carries on: safetensors, in base64.")


def stored(session: Session, model: str) -> dict[str, Any]:
    """A session, as JSON takes it."""
    tensors = {str(place): leaf.contiguous().cpu() for place, leaf in enumerate(leaves(session.state))}
    if session.outputs is not None:
        tensors[_OUTPUTS] = session.outputs.contiguous()
    before = None if session.before is None else plain_rows(session.before)[0]
    return StoredSession(
        model=model,
        key=session.key,
        num_steps=session.num_steps,
        num_scored=session.num_scored,
        total=session.total,
        weight=session.weight,
        before=before and {name: before[name] for name in CONTENTS if name in before},
        tensors=base64.b64encode(safetensors.torch.save(tensors)).decode() if tensors else None,
    ).model_dump()


def restored(values: Any, model: Trained, like: Any) -> Session:
    """The session that such JSON tells of.

    Args:
        like: a state of the network that is to go on with it.

    Raises:
        UsageError: it is none, or of another network.
        DataError: its last steps are none of this run's.
    """
    try:
        told = StoredSession.model_validate(values)
        tensors = safetensors.torch.load(base64.b64decode(told.tensors, validate=True)) if told.tensors else {}
    except ValidationError as error:
        raise UsageError(f"this is no state of a session: {error.errors()[0]['msg']}") from None
    except (binascii.Error, SafetensorError, ValueError) as error:
        raise UsageError(f"this is no state of a session: `tensors` cannot be read: {error}") from None
    outputs = tensors.pop(_OUTPUTS, None)
    session = Session(None, told.num_steps, told.key, None, None, told.total, told.weight, told.num_scored)
    if not tensors:
        return session
    before: pa.Table | None = None if told.before is None else rows_of_given(told.before, model)
    return replace(session, state=_state(tensors, like), before=before, outputs=_checked(outputs, model))


def _state(tensors: dict[str, torch.Tensor], like: Any) -> Any:
    due = list(leaves(like))
    own = [tensors.get(str(place)) for place in range(len(due))]
    fits = len(own) == len(tensors) and all(
        one is not None and (one.shape, one.dtype) == (leaf.shape, leaf.dtype) and bool(one.isfinite().all())
        for one, leaf in zip(own, due, strict=True)
    )
    if not fits:
        raise UsageError("this state is of another network: its tensors are others than those that this run carries")
    return with_leaves(like, [one.to(leaf.device) for one, leaf in zip(own, due, strict=True) if one is not None])


def _checked(outputs: torch.Tensor | None, model: Trained) -> torch.Tensor | None:
    if outputs is not None and (outputs.dim() != 2 or outputs.shape[1] != model.encoding.num_outputs):
        raise UsageError("this state is of another network: it answers with other numbers")
    return outputs
