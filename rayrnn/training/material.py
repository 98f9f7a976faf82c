"""The sequences of a run, ready for the workers: read, gathered, split, their encoding fitted."""

from dataclasses import dataclass

from rayrnn.data.encoding import Encoding
from rayrnn.training.assignment import Part


@dataclass(frozen=True)
class Material:
    """What a run learns from."""

    #: what the user calls it
    name: str
    training: Part
    held_out: Part
    encoding: Encoding
