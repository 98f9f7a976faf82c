"""`rayrnn train --report`, `rayrnn report`, and what a notebook shows, with runs that really learn."""

import io
import math
from pathlib import Path

import nbclient
import nbformat
import pytest
import torch
from rich.console import Console

from rayrnn.errors import UsageError
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import REPORT
from rayrnn.training.driver import train
from rayrnn.training.layer_norms import LayerNorms
from rayrnn.training.live_page import LivePage
from rayrnn.training.messages import Evaluated, RoundLearned, WorkerRound, from_json, to_json
from rayrnn.training.screen import Screen
from rayrnn.training.summary import Summary
from tests.chaos.faults import Fault
from tests.chaos.story import recipe as chaotic
from tests.chaos.story import run_under
from tests.reporting.pages import Page, line, written
from tests.training.recipes import small
from tests.typed import said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Summary, str]:
    screen = io.StringIO()
    out = tmp_path_factory.mktemp("live") / "run"
    return train(small(), out=out, console=Console(file=screen, width=200), report=True), screen.getvalue()


def page_in(run: Run) -> Page:
    return Page((run.path / REPORT).read_text(encoding="utf-8"))


def test_a_run_keeps_a_page_that_reloads_no_more_when_it_is_over(trained: tuple[Summary, str]) -> None:
    summary, screen = trained
    page = page_in(summary.run)
    assert f"a page of the run, kept fresh: {summary.run.path / REPORT}" in screen
    assert "Finished." in page.text
    assert "http-equiv" not in page.content
    assert all(heading in page.text for heading in ("Curves", "Workers", "Communication", "Layers", "Versions"))


def test_how_a_run_ended_shows_itself_in_a_notebook(trained: tuple[Summary, str]) -> None:
    shown = Page(trained[0]._repr_html_())
    assert "Finished." in shown.text
    assert f"best, round {trained[0].best_round}" in shown.text


def test_layers_are_recorded_where_a_round_is_evaluated(trained: tuple[Summary, str]) -> None:
    metrics = trained[0].run.metrics()
    assert [line["round"] for line in metrics if "layers" in line] == [2, 4, 6]
    first, *_, last = (line["layers"] for line in metrics if "layers" in line)
    assert [layer["name"] for layer in last] == ["layers.0.recurrence", "projection"]
    assert all(layer["update"] is None for layer in first), "nobody has looked before"
    assert all(0 < layer["update"] < 10 * layer["parameters"] for layer in last)


@pytest.mark.slow
def test_the_beginning_of_a_run_is_recorded_once_and_a_resumed_one_again(tmp_path: Path, ray_cluster: None) -> None:
    quiet = Console(quiet=True)
    train(small(averaging={"rounds": 2}), out=tmp_path / "run", console=quiet)
    run = train(small(averaging={"rounds": 4}), out=tmp_path / "run", resume=True, console=quiet).run
    sessions = [(line["round"], line["session"]) for line in run.metrics() if "session" in line]
    assert [number for number, _ in sessions] == [1, 3]
    assert {"rayrnn", "torch", "ray", "python"} == set(sessions[0][1]["versions"])
    assert sessions[0][1]["parameters"] == sum(tensor.numel() for tensor in model_of(run).values())
    assert not (run.path / REPORT).exists(), "nobody asked for a page"


def model_of(run: Run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.path / "model.safetensors")


def test_norms_are_those_of_the_parameters_and_of_their_change() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1, bias=False))
    norms = LayerNorms(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    state = torch.random.get_rng_state()
    (first, last) = norms.look()
    assert torch.equal(torch.random.get_rng_state(), state), "nobody draws another number because of it"
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert (first.name, last.name, last.update) == ("0", "2", None)
    assert first.parameters == pytest.approx(math.hypot(*before[0].flatten().tolist(), *before[1].tolist()))
    with torch.no_grad():
        model[2].weight += 3.0
    assert [layer.update for layer in norms.look()] == pytest.approx([0.0, 3.0 * math.sqrt(2)])
    with torch.no_grad():
        model[2].weight.fill_(math.nan)
    assert norms.look()[1].parameters is None


def test_layers_are_the_same_after_their_way_through_json() -> None:
    event = learned(3)
    assert "layers" not in to_json(event)
    told = RoundLearned(**(vars(event) | {"layers": LayerNorms(torch.nn.Linear(2, 2)).look()}))
    assert from_json(to_json(told)).layers == told.layers  # type: ignore[union-attr]


def learned(number: int) -> RoundLearned:
    workers = tuple(WorkerRound(worker, 45, 1, 45.0, 0.5, 0.1, 0.1, 0.1) for worker in (0, 1))
    return RoundLearned(number, 0, 2.0, 0.1, 90, 0.0, 1.0, 100, (), workers)


def live(run: Run) -> tuple[LivePage, io.StringIO]:
    words = io.StringIO()
    return LivePage(run, run.recipe, Screen(Console(file=words, width=200), run.recipe)), words


def test_a_page_under_way_reloads_itself(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(1), line(2)], small())
    page, _ = live(run)
    page.start(0)
    assert "In training, round 2 of 6." in page_in(run).text
    (refresh,) = [meta for meta in page_in(run).named("meta") if meta.get("http-equiv") == "refresh"]
    assert int(refresh["content"]) >= 5
    page.stop()
    assert "http-equiv" not in page_in(run).content


def test_a_page_before_the_first_round_is_there(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [], small())
    page, _ = live(run)
    page.start(0)
    assert "In training, before its first round, of 6." in page_in(run).text


def test_a_page_that_cannot_be_written_is_told_of_once_and_the_run_goes_on(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(1)], small())
    page, words = live(run)
    (run.path / "metrics.jsonl").write_text('{"round": "none"}\n')
    page.start(0)
    for number in (1, 2):
        page.round(learned(number))
        page.evaluation(Evaluated(number, 0, 0.5, None))
    page.stop()
    assert words.getvalue().count("report.html cannot be written") == 1
    assert "training goes on" in words.getvalue()


def test_a_file_of_the_pages_name_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [line(1)], small())
    (run.path / REPORT).write_text("my own")
    with pytest.raises(UsageError, match=r"report.html is there, and is no report of rayrnn's: move it away"):
        live(run)
    (run.path / REPORT).unlink()
    (run.path / REPORT).mkdir()
    with pytest.raises(UsageError, match=r"report.html cannot be replaced"):
        live(run)


@pytest.mark.slow
def test_a_worker_that_is_killed_stands_in_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kill = Fault(worker=1, round=6, act="kill", where="1")
    story = run_under([kill], tmp_path, chaotic(rounds=20))
    out = tmp_path / "report.html"
    told = said(capsys, "report", story.out, "--no-answers", "--out", out)
    assert told == f"{out}\n", "stdout has the page's place, and nothing else"
    page = Page(out.read_text(encoding="utf-8"))
    assert "worker 1 was lost (killed" in page.text
    assert [one for one in page.named("span") if one.get("class") == "event lost"]


@pytest.mark.parametrize(
    ("arguments", "exits", "says"),
    [
        (["nowhere"], 2, "nowhere is no run: it has no recipe.yaml"),
        (["RUN", "--out", "page.pdf"], 2, "--out is page.pdf: its name must end in .html"),
        (["RUN", "RUN"], 2, "is given twice"),
        (["RUN", "--no-answers", "--address", "here:1"], 2, "--no-answers leaves them out"),
    ],
)
def test_what_a_user_gets_wrong_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], exits: int, says: str
) -> None:
    run = written(tmp_path / "run", [line(1)])
    typed = [str(run.path) if word == "RUN" else word for word in arguments]
    assert says in said(capsys, "report", *typed, exits=exits)


def test_a_page_of_a_run_on_other_hosts_is_made_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "train", "recite", "--cluster", tmp_path / "cluster.yaml", "--report", exits=2)
    assert "rayrnn report RUN" in told


CELLS = (
    "from rayrnn import load_recipe, train\nfrom tests.training.recipes import small",
    "outcome = train(small(), out=PLACE)\noutcome",
    "outcome.run",
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_notebook_shows_a_curve_that_changes_in_its_place(tmp_path: Path) -> None:
    place = str(tmp_path / "run")
    cells = [nbformat.v4.new_code_cell(cell.replace("PLACE", repr(place))) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    outputs = notebook.cells[1].outputs
    displays = [one for one in outputs if one.output_type == "display_data" and "text/html" in one.data]
    assert len(displays) == 1, "the figure is drawn again in its place"
    shown = Page(displays[0].data["text/html"])
    assert "Round 6 of 6." in shown.text
    assert [one for one in shown.named("path") if one.get("class", "").startswith("curve")]
    words = "".join(one.text for one in outputs if one.output_type == "stream")
    assert "\x1b" not in words, "no orders for a terminal"
    assert "steps/s each" not in words, "the figure says it"
    assert "held-out" in words
    (result,) = [one for one in outputs if one.output_type == "execute_result"]
    (run,) = [one for one in notebook.cells[2].outputs if one.output_type == "execute_result"]
    assert "Finished." in Page(result.data["text/html"]).text
    assert "Finished." in Page(run.data["text/html"]).text
