"""The names in a run directory: what belongs to the run, and so may be copied, replaced and removed with it.

runs/<name>/
  recipe.yaml                  resolved: every default written out
  vocabulary.json              the encoding: symbols, classes, scaling
  data.json                    what was learned from and what was held out, to know it again
  metrics.jsonl                one line a round
  skipped.txt                  the sequences that could not be read
  checkpoints/round-000120/    see rayrnn/runs/checkpoints.py
  model.safetensors            the best by held-out loss
  detect.json                  what is normal, by what was held out: see rayrnn/runs/detectors.py
  report.html                  what `rayrnn train --report` shows of it
  events.out.tfevents.*        the same metrics for TensorBoard
  tracking.json                what a tracker (MLflow, Weights & Biases) calls the run
  train.log                    what Ray and the workers said
  identity.txt                 of a run in a store: which one it is
  cluster.json, screen.jsonl   of a run on a cluster: where it is, and what it said
  .lock                        held by the process that trains
  .unsent                      of a directory that stands for an address: the store may lack something
  lease.json                   in a store alone: who owns the address, see rayrnn/runs/lease.py
"""

import os
import re
from pathlib import Path

from rayrnn.errors import UsageError
from rayrnn.foreign import kind_of
from rayrnn.wording import path_of

RECIPE = "recipe.yaml"
ENCODING = "vocabulary.json"
DATA = "data.json"
METRICS = "metrics.jsonl"
SKIPPED = "skipped.txt"
TRACKED = "tracking.json"
MODEL = "model.safetensors"
DETECT = "detect.json"
REPORT = "report.html"
LOG = "train.log"
IDENTITY = "identity.txt"
RECORD = "cluster.json"
SCREEN = "screen.jsonl"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
UNSENT = ".unsent"
LEASE = "lease.json"
#: what is read of a run that lies in a store, by all that does not go on with it
SHOWN = (RECIPE, ENCODING, DATA, METRICS, MODEL, DETECT)
#: where the files of a store come first
FETCHED = ".fetched"

#: of rsync, between a broken link and the next attempt
PARTIAL = ".rsync-partial"

_FILES = (*(RECIPE, ENCODING, DATA, METRICS, SKIPPED, MODEL, DETECT, REPORT, LOG, TRACKED, IDENTITY, RECORD, SCREEN),)
_EVENTS = re.compile(r"events\.out\.tfevents\.[^/]+")
_OF_CHECKPOINT = re.compile(
    CHECKPOINTS + r"/round-\d+/((model|outer|optimizer-\d+)\.safetensors|progress\.json|MANIFEST\.json)"
)


def is_stored(recipe: str | Path) -> bool:
    """Whether a recipe's file is the one that a run keeps; it may be a stranger's."""
    path, others = path_of(recipe), (ENCODING, MODEL, METRICS, CHECKPOINTS)
    return path.name == RECIPE and any(os.path.exists(path.parent / name) for name in others)


def belongs(name: str) -> bool:
    """Whether a file of this name, relative to the run directory and with slashes, is the run's own.

    What this machine alone has use for, the hidden files, is not.
    """
    return name in _FILES or bool(_EVENTS.fullmatch(name) or _OF_CHECKPOINT.fullmatch(name))


def refuse_links(folder: Path) -> None:
    """Make sure that what is written into the run directory `folder` stays there; it may itself be a link.

    Raises:
        UsageError: something that a run writes or removes there is a symbolic link.
    """
    if not folder.is_dir():
        return
    inside = [path for path in folder.iterdir() if _is_written(path.name)]
    # os.walk follows no links
    walked = [(Path(place), [*folders, *files]) for place, folders, files in os.walk(folder / CHECKPOINTS)]
    inside += [place / name for place, names in walked for name in names]
    for path in inside:
        kind = kind_of(path.lstat().st_mode)
        if kind not in ("a file", "a directory", "a link"):  # who opens a pipe to write waits for whoever reads it
            raise UsageError(f"{path} is {kind}, and a run writes plain files: remove it, or choose another --out")
        if kind == "a link":
            raise UsageError(
                f"{path} is a link to {path.readlink()}, and a run writes only into its own directory: put a file or "
                "directory of that name there, or have the whole run directory elsewhere and link that"
            )


def _is_written(name: str) -> bool:
    """Files are written under a name of their own first, `.recipe.yaml.unfinished`."""
    whole = name.removeprefix(".").removesuffix(".unfinished")
    return name in (CHECKPOINTS, LOCK, UNSENT, FETCHED, PARTIAL) or belongs(whole)
