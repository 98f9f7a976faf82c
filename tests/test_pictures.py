"""Images out: a language model over pixels draws a sheet of images, or completes one."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rayrnn import generation
from rayrnn.cli import main
from rayrnn.data.prepare import prepare
from rayrnn.data.vocabulary import BEGIN
from rayrnn.errors import UsageError
from rayrnn.generation import Drawing, generate
from rayrnn.pictures import Begun, draw_images, sheet_of
from rayrnn.recipe import task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network
from tests.media import picture, write
from tests.untrained import make_run

HEIGHT, WIDTH = 4, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    images = {f"{n}.png": picture(random.integers(0, 256, (HEIGHT, WIDTH), np.uint8)) for n in range(6)}
    return write(tmp_path_factory.mktemp("pictures"), images)


def pixel_run(place: Path, folder: Path, **keys: Any) -> Run:
    data = {"source": "images", "path": str(folder), "as": "pixels", "levels": 2, "size": [HEIGHT, WIDTH]} | keys
    return make_run(place / "run", "language_model", data)


@pytest.fixture(scope="module")
def run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Run:
    return pixel_run(tmp_path_factory.mktemp("runs"), folder)


def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rayrnn generate ...`."""
    monkeypatch.setattr(sys, "argv", ["rayrnn", "generate", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return int(ended.value.code or 0), said.out, said.err


def test_drawn_images_have_the_size_of_the_learned_ones_and_two_levels_are_black_and_white(run: Run) -> None:
    drawn = draw_images(run, samples=5, drawing=Drawing(), seed=3)
    assert (drawn.shape, drawn.dtype) == ((5, HEIGHT, WIDTH, 1), np.uint8)
    assert set(np.unique(drawn).tolist()) == {0, 255}
    assert np.array_equal(drawn, draw_images(run, samples=5, drawing=Drawing(), seed=3))
    assert not np.array_equal(drawn, draw_images(run, samples=5, drawing=Drawing(), seed=4))


def test_colours_are_three_symbols_a_pixel(ray_cluster: None, tmp_path: Path, folder: Path) -> None:
    coloured = pixel_run(tmp_path, folder, channels="rgb", levels=4)
    drawn = draw_images(coloured, samples=2, drawing=Drawing())
    assert drawn.shape == (2, HEIGHT, WIDTH, 3)
    assert set(np.unique(drawn).tolist()) <= {0, 85, 170, 255}


def test_the_first_pixel_is_drawn_from_what_was_learned_of_first_pixels_and_the_begin_never_is(run: Run) -> None:
    """With a network that says the begin is likeliest, then 1, whatever it has read."""
    assert BEGIN in run.encoding.vocabulary.symbols
    state = {name: torch.zeros_like(tensor) for name, tensor in _weights(run).items()}
    bias = max((name for name in state if state[name].shape == (3,)), key=len)
    order = [run.encoding.vocabulary.symbols.index(symbol) for symbol in ("0", "1", BEGIN)]
    state[bias][order] = torch.tensor([0.0, math.log(9), 20.0])
    run.write_model(state)
    drawn = draw_images(run, samples=400, drawing=Drawing(), seed=1)
    assert np.mean(drawn[:, 0, 0] == 255) == pytest.approx(0.9, abs=0.05)
    assert np.mean(drawn == 255) == pytest.approx(0.9, abs=0.02)
    begun, *_ = list(generate(run, prime=None, length=1, samples=2, drawing=Drawing()))
    assert begun == ["", ""]


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(load_network(run).state_dict())


def test_every_pixel_counts_in_the_loss_the_first_one_too(run: Run) -> None:
    recipe = run.recipe
    prepared = prepare(recipe)
    steps = prepared.training.sequences.steps.tolist()
    assert steps == [HEIGHT * (WIDTH + 1) - 1] * 6  # each row with its begin, and nothing predicts the first of them
    assert task_of(recipe).generates


def test_an_image_is_completed_from_its_first_rows(run: Run, folder: Path) -> None:
    path = folder / "0.png"
    due = np.asarray(Image.open(path)) >= 128
    for keep, rows in ((None, 2), (1, 1), (0, 0), (HEIGHT, HEIGHT)):
        drawn = draw_images(run, samples=3, drawing=Drawing(), seed=2, begun=Begun(str(path), keep))
        assert np.array_equal(drawn[:, :rows, :, 0] == 255, np.stack([due[:rows]] * 3))
    with pytest.raises(UsageError, match="--keep is 5, and an image has 4 rows"):
        draw_images(run, samples=1, drawing=Drawing(), begun=Begun(str(path), 5))


def test_what_is_drawn_has_seen_what_training_sees_a_begin_before_every_row(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits of each pixel are those of the whole image, read at once as the source gives it."""
    seen: list[torch.Tensor] = []
    drawn_from = generation.draw_symbols
    monkeypatch.setattr(
        generation, "draw_symbols", lambda logits, *chance: (seen.append(logits), drawn_from(logits, *chance))[1]
    )
    symbols = run.encoding.vocabulary.symbols
    begin, *pixels = (symbols.index(symbol) for symbol in (BEGIN, "0", "1"))
    for begun in (None, Begun(str(folder / "1.png"), keep=3)):
        seen.clear()
        drawn_HW = draw_images(run, samples=1, drawing=Drawing(), begun=begun)[0, :, :, 0] // 255
        assert 0 < drawn_HW.sum() < drawn_HW.size
        read = torch.tensor([[begin, *(pixels[pixel] for pixel in row)] for row in drawn_HW.tolist()]).reshape(1, -1)
        logits_TV = load_network(run)(read, None, torch.ones_like(read, dtype=torch.bool))[0][0][:, pixels]
        due_NV = logits_TV.reshape(HEIGHT, WIDTH + 1, 2)[:, :-1].reshape(-1, 2)[-len(seen) :]
        torch.testing.assert_close(torch.cat(seen)[:, pixels], due_NV)


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (2, (1, 2)), (5, (2, 3)), (64, (8, 8)), (65, (8, 9))])
def test_a_sheet_is_nearly_square_and_every_image_is_on_it(count: int, grid: tuple[int, int]) -> None:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 3, 5, 1), np.uint8)
    sheet, found = sheet_of(images)
    assert found == grid
    scale = (sheet.shape[0] - 2) // grid[0] // 3
    assert sheet.shape == (2 + grid[0] * (3 * scale + 2), 2 + grid[1] * (5 * scale + 2))
    counted = [int(np.sum(sheet == number)) for number in range(count) if number != 128]
    assert counted == [15 * scale * scale] * len(counted)


def test_the_command_writes_a_sheet_and_says_so(
    run: Run, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    code, out, err = command(monkeypatch, capfd, run.path, "--samples", 5, "--to", sheet)
    assert (code, out) == (0, "")
    assert "5 images in" in err
    with Image.open(sheet) as image:
        assert (image.format, image.mode) == ("PNG", "L")
    prime = ["--prime", folder / "1.png", "--keep", 3]
    completed = tmp_path / "completed.png"
    code, out, err = command(monkeypatch, capfd, run.path, "--samples", 2, "--to", completed, *prime, "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 1
    assert completed.exists()


def test_what_does_not_fit_is_told(
    run: Run, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = make_run(tmp_path / "text", "language_model", {"text": "to be or not to be " * 9, "length": 20})
    (tmp_path / "there.png").write_bytes(b"")
    (tmp_path / "no image.png").write_text("a text")
    sheet = tmp_path / "sheet.png"
    for words, code, says in (
        ([run.path], 2, "has learned pixels: say where its images are to be written, such as --to sheet.png"),
        ([text.path, "--to", sheet], 2, "has learned no pixels (data.source is text), and --to writes images"),
        ([text.path, "--keep", 3], 2, "--keep goes with --to and --prime"),
        ([run.path, "--to", sheet, "--keep", 3], 2, "--keep goes with --prime"),
        ([run.path, "--to", sheet, "--length", 3], 2, "--length is 3: an image has as many symbols as it has pixels"),
        ([run.path, "--to", tmp_path / "sheet.jpg"], 2, "its name must end in .png"),
        ([run.path, "--to", tmp_path / "there.png"], 2, "is there already: remove it, or choose another --to"),
        ([run.path, "--to", sheet, "--samples", 0], 2, "samples 0"),
        ([run.path, "--to", sheet, "--prime", "nowhere.png"], 3, "there is no nowhere.png"),
        ([run.path, "--to", sheet, "--prime", folder], 2, "which is 6 files: give one image"),
        ([run.path, "--to", sheet, "--prime", tmp_path / "no image.png"], 3, "is no image that can be read"),
    ):
        found, out, err = command(monkeypatch, capfd, *words)
        assert (found, out) == (code, ""), words
        assert says in " ".join(err.split()), words
        assert not sheet.exists()
