"""An array as ND4J writes it: a buffer that tells its shape, then one with its values, all of it big-endian.

A buffer is a UTF string (two bytes of length before it) that names how it was held, the number of its values, a UTF
string that names their type, and the values. Every size is compared with the bytes that are there before anything is
made of it.
"""

import math
import struct
from dataclasses import dataclass

import numpy as np

from rayrnn.errors import DataError
from rayrnn.wording import counted

#: how a buffer was held -> the type of its number of values; ND4J from 1.0 on counts in 64 bits
_COUNTS = {
    **dict.fromkeys(("DIRECT", "HEAP", "JAVACPP"), ">i"),
    **dict.fromkeys(("LONG_SHAPE", "MIXED_DATA_TYPES"), ">q"),
}
_TYPES = {"FLOAT": ">f4", "DOUBLE": ">f8", "HALF": ">f2", "INT": ">i4", "LONG": ">i8"}
#: of a buffer's name, and of an array's axes
_MOST_NAME, _MOST_RANK = 64, 32
#: of ND4J's 1.0: an array of float32
_FLAGS_OF_FLOAT = 8192


class Reader:
    """Bytes that are read from the front.

    Args:
        content: all of them.
        what: the file as messages call it.
    """

    def __init__(self, content: bytes, what: str) -> None:
        self._content = content
        self._place = 0
        self.what = what

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._content) - self._place

    def take(self, count: int, name: str) -> bytes:
        """The next bytes.

        Raises:
            DataError: there are fewer.
        """
        if not 0 <= count <= self.left:
            raise self.fault(f"{name} has {count:,} bytes, and {self.left:,} are left")
        self._place += count
        return self._content[self._place - count : self._place]

    def number(self, form: str, name: str) -> float:
        """One number of this struct format."""
        (found,) = struct.unpack(form, self.take(struct.calcsize(form), name))
        return float(found) if isinstance(found, float) else int(found)

    def text(self, name: str) -> str:
        """A UTF string as Java's DataOutputStream writes it.

        Raises:
            DataError: it is no short word of ASCII, so that something else stands here.
        """
        length = int(self.number(">H", name))
        if length > _MOST_NAME:
            raise self.fault(f"{name} is to have {length:,} characters, and it is one word")
        found = self.take(length, name)
        if not found.isascii():
            raise self.fault(f"{name} is {found[:20]!r}, and it is one word")
        return found.decode()

    def end(self) -> None:
        """
        Raises:
            DataError: something is left.
        """
        if self.left:
            raise self.fault(f"after what it is to hold there are {counted(self.left, 'byte')} more")

    def fault(self, words: str) -> DataError:
        """An error that says where."""
        return DataError(f"{self.what} cannot be read, at byte {self._place:,}: {words}; write the zip anew")


@dataclass(frozen=True)
class Values:
    """A vector and how it was kept."""

    #: float32, in ND4J's order
    numbers: np.ndarray
    #: FLOAT, DOUBLE or HALF
    kept_as: str


def read_array(reader: Reader, name: str) -> Values:
    """The next array, of which all but one axis have one place: a vector of finite numbers.

    Raises:
        DataError: it is none, a size in it contradicts another, or a number is not finite or beyond float32.
    """
    shape = _shape(reader, name)
    kind, values = _buffer(reader, f"the values of {name}", ("FLOAT", "DOUBLE", "HALF"))
    if len(values) != math.prod(shape):
        raise reader.fault(
            f"{name} is to have the shape {list(shape)}, {math.prod(shape):,} values, and has {len(values):,}"
        )
    if len(shape) and math.prod(shape) != max(shape):
        raise reader.fault(f"{name} has the shape {list(shape)}, and a vector is due")
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        place = int(np.argmin(np.isfinite(numbers)))
        raise reader.fault(
            f"value {place:,} of {len(numbers):,} of {name} is {values[place]}, and a network has finite numbers"
            + ("" if math.isinf(values[place]) or math.isnan(values[place]) else " that float32 holds")
        )
    return Values(numbers, kind)


def _shape(reader: Reader, name: str) -> tuple[int, ...]:
    """The axes of an array, of which its information tells: rank, shape, strides, flags, element stride and order."""
    _, told = _buffer(reader, f"the shape of {name}", ("INT", "LONG"))
    rank = int(told[0]) if len(told) else -1
    if not 0 <= rank <= _MOST_RANK or len(told) != 2 * rank + 4:
        raise reader.fault(f"the shape of {name} is told by {len(told)} numbers, the first of which is {rank}")
    shape = tuple(map(int, told[1 : 1 + rank]))
    if any(size < 1 for size in shape):
        raise reader.fault(f"{name} has the shape {list(shape)}")
    if int(told[-1]) not in (ord("c"), ord("f")):
        raise reader.fault(f"the order of {name} is {int(told[-1])}, which is neither c nor f")
    return shape


def _buffer(reader: Reader, name: str, kinds: tuple[str, ...]) -> tuple[str, np.ndarray]:
    held = reader.text(name)
    if held not in _COUNTS:
        raise reader.fault(f"{name} is held as {held!r}; known are {', '.join(_COUNTS)}")
    count = int(reader.number(_COUNTS[held], name))
    kind = reader.text(name)
    if kind not in kinds:
        raise reader.fault(f"{name} are of type {kind!r}; known are {', '.join(kinds)}")
    size = np.dtype(_TYPES[kind]).itemsize
    if not 0 <= count <= reader.left // size:
        raise reader.fault(f"{name} are to be {count:,} of {size} bytes, and {reader.left:,} bytes are left")
    return kind, np.frombuffer(reader.take(count * size, name), _TYPES[kind])


def write_array(numbers: np.ndarray, *, rank: int = 1) -> bytes:
    """A vector as ND4J 1.0 writes it.

    Args:
        numbers: float32 [n].
        rank: of the array that it becomes: [n], or [1, n].
    """
    n = len(numbers)
    shape, strides = ((n,), (1,)) if rank == 1 else ((1, n), (1, 1))
    told = np.array([rank, *shape, *strides, _FLAGS_OF_FLOAT, 1, ord("c")], ">i8")
    return _written("LONG", told) + _written("FLOAT", numbers.astype(">f4"))


def written_text(text: str) -> bytes:
    """A UTF string as Java's DataOutputStream writes it."""
    return struct.pack(">H", len(text.encode())) + text.encode()


def _written(kind: str, values: np.ndarray) -> bytes:
    held = written_text("MIXED_DATA_TYPES") + struct.pack(">q", len(values))
    return held + written_text(kind) + values.tobytes()
