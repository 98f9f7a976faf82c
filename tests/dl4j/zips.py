"""Zips as DL4J writes them, of small networks."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rayrnn.dl4j.description import Description, Updater
from rayrnn.dl4j.written_configuration import written_configuration
from rayrnn.dl4j.zip_file import count_parameters, write_zip

#: a character model as many of DL4J's users have one
CHARACTERS = Description(
    version="1.0.0",
    cell="graves_lstm",
    num_inputs=4,
    hidden=(6, 6),
    num_outputs=4,
    answers="softmax",
    updater=Updater("RmsProp", 0.05, decay=0.95),
    truncate=5,
    iteration=7,
)


def entries_of(found: Description, *, seed: int = 1) -> dict[str, bytes]:
    """The entries of a network's zip with random numbers."""
    rng = np.random.default_rng(seed)
    count = count_parameters(found)
    state = rng.random(count * len(found.updater.states)).astype(np.float32) * 1e-3
    content = write_zip(
        written_configuration(found),
        rng.normal(scale=0.3, size=count).astype(np.float32),
        state if found.updater.states else None,
        None,
    )
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path: Path, entries: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def changed(entries: Mapping[str, bytes], change: Callable[[Any], None]) -> dict[str, bytes]:
    """The same with another configuration."""
    values = json.loads(entries["configuration.json"])
    change(values)
    return {**entries, "configuration.json": json.dumps(values).encode()}
