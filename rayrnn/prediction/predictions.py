"""A run and sequences -> an answer for every sequence: a file, or a dataset."""

import time
from dataclasses import dataclass
from pathlib import Path

import ray.data
from rich.console import Console

from rayrnn.cluster import connect
from rayrnn.data.destination import open_destination
from rayrnn.data.sources import read, section_at, unlabelled
from rayrnn.errors import UsageError
from rayrnn.prediction.blocks import answered, only_answers
from rayrnn.prediction.trained import Trained, trained
from rayrnn.prediction.writing import SUFFIXES, write
from rayrnn.run import Run


@dataclass(frozen=True)
class Written:
    """What `predict` has done."""

    path: str
    num_sequences: int
    #: why sequences were left out that could not be read (`data.on_error: skip`)
    skipped: tuple[str, ...]
    seconds: float


def predict(
    run: Run, path: str | Path, out: str | Path, *, address: str | None = None, console: Console | None = None
) -> Written:
    """Answer every sequence at `path`, in its order, and write the answers to one file.

    They stream through the cluster: neither this process nor a worker ever holds all of them.

    Args:
        path: read as the run's own data was, with labels or without.
        out: a new file, local, s3://, gs:// or hdfs://, that ends in .jsonl, .csv or .parquet; what it holds is said in
            answers.py and lines.py. It is there whole or, after an error, not at all.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.
        console: shows how far it is; without it stderr does.

    Raises:
        UsageError: the run is a language model, or `out` is there already or ends in something else.
        DataError: there are no sequences, or one of them cannot be used; or `out` cannot be written.
        RunError: the run has no usable model, or a task failed.
        ClusterError: there is no cluster at `address`.
    """
    model = _answering(run)
    recipe, encoding = model.recipe, model.encoding
    section = section_at(recipe.data, str(path))
    destination = open_destination(str(out), suffixes=SUFFIXES, endpoint=section.endpoint)
    num_columns = 1 if encoding.symbols else encoding.num_features + len(encoding.categories)
    section = unlabelled(section, num_columns)
    with connect(address):
        started = time.monotonic()
        sequences = read(section, recipe.task, labelled=False)
        count, skipped = write(answered(sequences, model), destination, console or Console(stderr=True))
        return Written(str(out), count, tuple(skipped), time.monotonic() - started)


def predictions(run: Run, data: ray.data.Dataset) -> ray.data.Dataset:
    """Answers for a dataset of sequences, computed when they are consumed; a `label` it may have is left alone.

    Args:
        data: rows of the row schema (see rayrnn/data/schema.py), such as `rayrnn_spark.sequences` makes.

    Returns:
        a row a sequence, as in answers.py. A sequence that cannot be used ends the consumption.

    Raises:
        UsageError: the run is a language model.
        RunError: it has no usable model.
    """
    return answered(data, _answering(run)).map_batches(only_answers, batch_size=None, batch_format="pyarrow")


def _answering(run: Run) -> Trained:
    if run.recipe.task == "language_model":
        raise UsageError(
            f"{run.name} learned a language model, which has no labels to predict: `rayrnn generate` writes with it, "
            "`rayrnn evaluate --data` measures it on other text"
        )
    return trained(run)
