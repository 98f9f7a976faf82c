"""A zip of DL4J's ModelSerializer: what is in it, checked and bounded before it is read; and one that is written."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rayrnn.data.encoding import Scaling
from rayrnn.dl4j.arrays import Reader, Values, read_array, write_array, written_text
from rayrnn.dl4j.configuration import read_configuration
from rayrnn.dl4j.description import Description
from rayrnn.dl4j.parameters import all_tensors, parameters_of
from rayrnn.errors import DataError
from rayrnn.models.network import Network
from rayrnn.wording import counted, listed, size

CONFIGURATION, COEFFICIENTS, STATE = "configuration.json", "coefficients.bin", "updaterState.bin"
NORMALIZER, NO_PARAMETERS = "normalizer.bin", "noParams.marker"
#: bytes of a configuration, of a thousand layers; and of an array beside its values
_MOST_CONFIGURATION, _MOST_HEAD = 16 * 2**20, 2048
_NOT_KERAS = (
    "and zips of DL4J's ModelSerializer are read: in DL4J, import the Keras model and write it with "
    "ModelSerializer.writeModel"
)
#: entries of a zip
_MOST_ENTRIES = 1000


@dataclass(frozen=True)
class Normalizer:
    """What DL4J takes from its data before a network sees it, as rayrnn's scaling."""

    features: Scaling
    #: of the labels, where they are normalized too
    labels: Scaling | None = None


@dataclass(frozen=True)
class Model:
    """All that a zip holds."""

    description: Description
    #: float32, the vector of parameters
    parameters: np.ndarray
    #: float32, what the updater keeps; None where it keeps nothing, or nothing was written
    state: np.ndarray | None
    normalizer: Normalizer | None
    #: what the user should know of it
    notes: tuple[str, ...] = ()


def count_parameters(description: Description) -> int:
    """Numbers in the vector of a network like this; no memory is taken for it."""
    with torch.device("meta"):
        return sum(parameter.size for parameter in parameters_of(_network(description)))


def _network(found: Description) -> Network:
    """A fresh one, which reads numbers."""
    return Network(
        num_inputs=found.num_inputs,
        num_outputs=found.num_outputs,
        symbols=False,
        cell=found.cell,
        hidden_size=found.hidden,
        num_layers=len(found.hidden),
        bidirectional=found.bidirectional,
        pooling=found.pooling,
    )


def network_of(model: Model) -> Network:
    """A network with the zip's numbers, which reads numbers (one-hot, where they stand for symbols), to answer with."""
    network = _network(model.description)
    network.load_state_dict(all_tensors(model.parameters, network))
    return network.eval()


def read_zip(path: Path, content: bytes | None = None) -> Model:
    """Read a zip; nothing of it is written anywhere, and no entry is taken in that is larger than it can be.

    Args:
        content: the bytes of the file, where they are at hand.

    Raises:
        DataError: it cannot be read, or holds another model than rayrnn has a counterpart for; says which part.
    """
    with _opened(path) if content is None else zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = _entries(file, path)
        if NO_PARAMETERS in entries:
            raise DataError(f"{path} is of a network without parameters ({NO_PARAMETERS}): there is nothing to import")
        if "model.weights.h5" in entries:
            raise DataError(f"{path} is a model of Keras, {_NOT_KERAS}")
        for name in (CONFIGURATION, COEFFICIENTS):
            if name not in entries:
                raise DataError(
                    f"{path} has no {name}, and holds {listed(sorted(entries)) or 'nothing'}: a zip that DL4J's "
                    "ModelSerializer.writeModel wrote has one"
                )
        description = read_configuration(
            _read(file, CONFIGURATION, _MOST_CONFIGURATION, path), f"{path}: {CONFIGURATION}"
        )
        due, notes = count_parameters(description), list[str]()
        parameters = _vector(file, COEFFICIENTS, due, path)
        notes += _rounded(COEFFICIENTS, parameters)
        state = None
        if STATE in entries and (kept := len(description.updater.states)):
            found = _vector(file, STATE, kept * due, path)
            notes += _rounded(STATE, found)
            state = found.numbers
        normalizer = None
        if NORMALIZER in entries:
            most = 8 * (_MOST_HEAD + 8 * max(description.num_inputs, description.num_outputs))
            content = _read(file, NORMALIZER, most, path)
            normalizer = _normalizer(Reader(content, f"{path}: {NORMALIZER}"), description)
        return Model(description, parameters.numbers, state, normalizer, tuple(notes))


def write_zip(configuration: str, parameters: np.ndarray, state: np.ndarray | None, normalizer: bytes | None) -> bytes:
    """The bytes of a zip that DL4J 1.0.0 restores.

    Args:
        parameters: float32 [n].
        state: what the updater keeps, float32.
        normalizer: see `written_normalizer`.
    """
    entries = {CONFIGURATION: configuration.encode(), COEFFICIENTS: write_array(parameters)}
    entries |= {} if state is None else {STATE: write_array(state)}
    entries |= {} if normalizer is None else {NORMALIZER: normalizer}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            # the same run gives the same bytes
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def written_normalizer(features: Scaling, labels: Scaling | None) -> bytes | None:
    """normalizer.bin for a scaling; None for one that leaves all as it is."""
    if features.kind == "none":
        return None
    kind = {"standardize": "STANDARDIZE", "min_max": "MIN_MAX"}[features.kind]
    parts = [written_text("NORMALIZER"), (1).to_bytes(4, "big"), written_text(kind), bytes([labels is not None])]
    if kind == "MIN_MAX":
        parts.append(np.array([0.0, 1.0], ">f8").tobytes())
    for scaling in (features, labels):
        if scaling is not None:
            shift, scale = np.array(scaling.shift), np.array(scaling.scale)
            second = scale if kind == "STANDARDIZE" else shift + scale
            parts += [write_array(one.astype(np.float32), rank=2) for one in (shift, second)]
    return b"".join(parts)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith(b"\x89HDF"):
            raise DataError(f"{path} is a file of Keras (HDF5), {_NOT_KERAS}")
        return zipfile.ZipFile(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # names that are no text are ValueErrors
        raise DataError(f"{path} is no zip, as DL4J's ModelSerializer writes one: {error}") from None


def _entries(file: zipfile.ZipFile, path: Path) -> Mapping[str, zipfile.ZipInfo]:
    entries = file.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise DataError(f"{path} has {len(entries):,} entries, and a model of DL4J's has up to five")
    names = [entry.filename for entry in entries]
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise DataError(f"{path} has an entry {name!r}, which leads out of the zip: it is no model of DL4J's")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path} has two entries {twice}, and which of them counts nobody knows")
    return dict(zip(names, entries, strict=True))


def _read(file: zipfile.ZipFile, name: str, most: int, path: Path) -> bytes:
    """An entry of at most so many bytes; what it says of its size is not relied on."""
    entry = file.getinfo(name)
    if entry.file_size > most:
        raise DataError(f"{path}: {name} has {size(entry.file_size)}, and {size(most)} is the most that it can have")
    try:
        with file.open(entry) as stream:
            content = stream.read(most + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: {name} cannot be read: {error}; write the zip anew") from None
    if len(content) > most:
        raise DataError(f"{path}: {name} has more than {size(most)}, the most that it can have")
    return content


def _vector(file: zipfile.ZipFile, name: str, due: int, path: Path) -> Values:
    """
    Raises:
        DataError: it has not as many numbers as the configuration asks for.
    """
    entry = file.getinfo(name)
    # ten times as much: one of another size is told by its own number
    content = _read(file, name, max(10 * 8 * due, entry.compress_size * 2) + _MOST_HEAD, path)
    reader = Reader(content, f"{path}: {name}")
    values = read_array(reader, name)
    reader.end()
    if len(values.numbers) != due:
        raise DataError(
            f"{path}: {name} has {counted(len(values.numbers), 'number')}, and the network of {CONFIGURATION} "
            f"{'keeps' if name == STATE else 'has'} {due:,}: they are not of one model"
        )
    return values


def _rounded(name: str, values: Values) -> list[str]:
    if values.kept_as != "DOUBLE":
        return []
    return [f"{name} is of double precision, and rayrnn's networks are of single: every number was rounded"]


def _normalizer(reader: Reader, description: Description) -> Normalizer:
    """
    Raises:
        DataError: it is of a kind that rayrnn has no counterpart for, or of other features.
    """
    if (marker := reader.text("the head")) != "NORMALIZER":
        raise reader.fault(f"it begins with {marker!r}, where NORMALIZER is due")
    if (version := int(reader.number(">i", "the version"))) != 1:
        raise reader.fault(f"its version is {version}, and 1 is read")
    kind = reader.text("the kind")
    if kind not in ("STANDARDIZE", "MIN_MAX"):
        raise DataError(
            f"{reader.what} is a normalizer {kind}, and read are STANDARDIZE and MIN_MAX: apply it to the data before, "
            "and give a zip without it"
        )
    with_labels = bool(reader.number(">B", "whether labels are normalized"))
    low, high = (0.0, 1.0)
    if kind == "MIN_MAX":
        low, high = (float(reader.number(">d", "the range")) for _ in range(2))
        if not low < high:
            raise reader.fault(f"its range goes from {low:g} to {high:g}")
    features = _scaling(reader, kind, low, high, description.num_inputs, "features")
    labels = _scaling(reader, kind, low, high, description.num_outputs, "labels") if with_labels else None
    reader.end()
    if labels is not None and description.answers != "identity":
        raise DataError(f"{reader.what} normalizes labels, and this network answers with classes")
    return Normalizer(features, labels)


def _scaling(reader: Reader, kind: str, low: float, high: float, width: int, name: str) -> Scaling:
    first = read_array(reader, f"the first of {name}").numbers.astype(np.float64)
    second = read_array(reader, f"the second of {name}").numbers.astype(np.float64)
    if not len(first) == len(second) == width:
        raise DataError(f"{reader.what} is of {len(first)} and {len(second)} {name}, and the network has {width}")
    if kind == "STANDARDIZE":
        scale, shift = second, first
    else:
        scale = (second - first) / (high - low)
        shift = first - low * scale
    # of a feature that never changes DL4J divides by 1
    scale = np.where(scale == 0, 1.0, scale)
    if (scale < 0).any():
        raise reader.fault(f"a spread of {name} is negative")
    return Scaling("standardize" if kind == "STANDARDIZE" else "min_max", tuple(shift.tolist()), tuple(scale.tolist()))
