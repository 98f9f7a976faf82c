"""The names in a run directory: what belongs to the run, and so may be copied, replaced and removed with it.

runs/<name>/
  recipe.yaml                  resolved: every default written out
  vocabulary.json              the encoding: symbols, classes, scaling
  metrics.jsonl                one line a round
  skipped.txt                  the sequences that could not be read
  checkpoints/round-000120/    see rayrnn/checkpoints.py
  model.safetensors            the best by held-out loss
  events.out.tfevents.*        the same metrics for TensorBoard
  train.log                    what Ray and the workers said
  identity.txt                 of a run in a store: which one it is
  cluster.json, screen.jsonl   of a run on a cluster: where it is, and what it said
  .lock                        held by the process that trains
  .unsent                      of a directory that stands for an address: the store may lack something
"""

import re

RECIPE = "recipe.yaml"
ENCODING = "vocabulary.json"
METRICS = "metrics.jsonl"
SKIPPED = "skipped.txt"
MODEL = "model.safetensors"
LOG = "train.log"
IDENTITY = "identity.txt"
RECORD = "cluster.json"
SCREEN = "screen.jsonl"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
UNSENT = ".unsent"

_FILES = (RECIPE, ENCODING, METRICS, SKIPPED, MODEL, LOG, IDENTITY, RECORD, SCREEN)
_EVENTS = re.compile(r"events\.out\.tfevents\.[^/]+")
_OF_CHECKPOINT = re.compile(
    CHECKPOINTS + r"/round-\d+/((model|outer|optimizer-\d+)\.safetensors|progress\.json|MANIFEST\.json)"
)


def belongs(name: str) -> bool:
    """Whether a file of this name, relative to the run directory and with slashes, is the run's own.

    What this machine alone has use for, the hidden files, is not.
    """
    return name in _FILES or bool(_EVENTS.fullmatch(name) or _OF_CHECKPOINT.fullmatch(name))
