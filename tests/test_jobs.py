"""What travels with a job, what is said at a distance, and what another host keeps: without a cluster."""

import io
import json
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rayrnn.errors import DataError, Interrupted, RunError, UsageError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.remote.fetch import Record, load_record, new_job_name, path_on_head
from rayrnn.remote.job import SPEC, JobSpec
from rayrnn.remote.replica import files_of, write_files
from rayrnn.remote.screen_log import ScreenLog, show, summary_of
from rayrnn.remote.server import is_running
from rayrnn.remote.upload import LIMIT, gather
from rayrnn.runs.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from rayrnn.runs.directory import Run, create_run, taken
from rayrnn.training.messages import Culprit, Evaluated, Lost
from rayrnn.training.screen import Screen
from rayrnn.training.summary import Summary
from tests.crashing import progress_of
from tests.test_cli import environment_of
from tests.training.recipes import small
from tests.training.test_screen import learned
from tests.typed import typed

UNREACHABLE = """
cluster_name: c
provider: {type: local, head_ip: 127.0.0.1, worker_ips: []}
auth: {ssh_user: nobody, ssh_proxy_command: 'false'}
"""


def recipe(**data: object) -> Recipe:
    return validate_recipe({"name": "small", "data": {"source": "text", "length": 10} | data})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a text in it and one beside it."""
    (tmp_path / "here" / "texts").mkdir(parents=True)
    (tmp_path / "here" / "texts" / "one.txt").write_text("one " * 100)
    (tmp_path / "here" / "texts" / "two.txt").write_text("two " * 100)
    (tmp_path / "beside.txt").write_text("beside " * 100)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_files_below_the_current_directory_keep_their_names(here: Path) -> None:
    upload = gather(recipe(path="texts/*.txt"))
    assert upload.inside == ("texts/one.txt", "texts/two.txt")
    assert (upload.outside, upload.num_bytes) == ((), 800)
    assert upload.recipe == recipe(path="texts/*.txt")
    assert str(upload) == "2 local files, 800 bytes"


def test_files_from_elsewhere_travel_under_a_name_of_their_own(here: Path) -> None:
    upload = gather(recipe(path=["texts/one.txt", "../beside.txt"], held_out=str(here / "texts" / "two.txt")))
    beside = (here.parent / "beside.txt").as_posix()
    assert upload.outside == (beside.removeprefix("/"),)
    assert upload.recipe.data.path == ("texts/one.txt", f"_outside_{beside}")
    assert upload.recipe.data.held_out == "texts/two.txt"
    assert set(upload.inside) == {"texts/one.txt", "texts/two.txt"}


def test_what_a_network_begins_with_travels(here: Path) -> None:
    (here / "run").mkdir()
    for name in ("recipe.yaml", "vocabulary.json", "model.safetensors", "metrics.jsonl"):
        (here / "run" / name).write_text("ten bytes\n")
    (here.parent / "w.safetensors").write_text("five\n")

    def begun(where: str) -> Recipe:
        values = recipe(text="a text of its own").model_dump(mode="json")
        return validate_recipe(values | {"training": {"start_from": where}})

    upload = gather(begun(str(here / "run")))
    assert set(upload.inside) == {"run/recipe.yaml", "run/vocabulary.json", "run/model.safetensors"}
    assert (upload.num_bytes, upload.recipe.training.start_from) == (30, "run")
    beside = (here.parent / "w.safetensors").as_posix()
    upload = gather(begun("../w.safetensors"))
    assert upload.outside == (beside.removeprefix("/"),)
    assert upload.recipe.training.start_from == f"_outside_{beside}"
    assert gather(begun("s3://bucket/run")).num_bytes == 0
    with pytest.raises(UsageError, match="is no run"):
        gather(begun("absent"))
    with pytest.raises(DataError, match="there is no such file on this machine"):
        gather(begun("absent.safetensors"))


def test_what_is_no_local_file_does_not_travel(here: Path) -> None:
    for path in ("s3://bucket/texts", "sysconfig:stdlib/*.py", "file:///data/texts"):
        assert gather(recipe(path=path)).num_bytes == 0
    assert gather(recipe(text="a text of its own")).inside == ()


def test_too_much_local_data_is_refused_with_advice(here: Path) -> None:
    with (here / "large.txt").open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(DataError, match=r"large\.txt\) is 2\.15 GB on this machine; at most 2\.15 GB.*s3://.*spark"):
        gather(recipe(path="large.txt"))


def test_a_missing_file_is_told_before_anything_travels(here: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*three\.txt"):
        gather(recipe(path="texts/three.txt"))


def test_a_run_shown_from_its_screen_log_looks_as_if_it_were_here(tmp_path: Path) -> None:
    event = replace(learned(4, 0), culprit=Culprit(worker=0, update=2))
    evaluation = Evaluated(1, 1, held_out_loss=2.5, held_out_accuracy=None, model=b"stays there")
    outcome = Summary(Run(tmp_path), "finished", 1, 2.0, 2.5, 1, 90.0, 1.0)
    spoken = recipe(path="texts")
    here, there = io.StringIO(), io.StringIO()
    log = ScreenLog(tmp_path / "screen.jsonl")
    screen = Screen(Console(file=here, width=100), spoken, clock=lambda: 0.0)
    for talk in (log, screen):
        talk.say("reading the data ...")
        talk.start(0)
        talk.evaluation(evaluation)
        talk.round(event)
        talk.membership(Lost(worker=1, reason="killed", detail="", time=0.0))
        talk.stop()
    log.finish(outcome, [])
    log.end(RunError("no more"))
    words = [json.loads(line) for line in (tmp_path / "screen.jsonl").read_text().splitlines()]
    distant = Screen(Console(file=there, width=100), spoken, clock=lambda: 0.0)
    for word in words:
        show(word, distant, Run(tmp_path))
    assert there.getvalue() == here.getvalue()
    assert "4/200 loss 2.000 held-out 2.500" in there.getvalue()
    assert summary_of(words[-2], outcome.run) == outcome
    assert (words[-1]["exit_code"], words[-1]["message"]) == (1, "no more")


def test_a_job_says_what_its_run_says_and_each_checkpoint_when_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / ".rayrnn" / "runs" / "small-0000"
    (folder / "work").mkdir(parents=True)
    (folder / SPEC).write_text(JobSpec(small().model_dump(mode="json"), "runs/small", False, "0.1.0").to_json())
    command = [sys.executable, "-m", "rayrnn.remote.job", folder.name]
    ended = subprocess.run(command, env=environment_of(tmp_path), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    said = [json.loads(line) for line in (folder / "screen.jsonl").read_text().splitlines()]
    checkpoints = [entry["name"] for entry in said if entry["word"] == "checkpoint"]
    assert checkpoints == ["round-000002", "round-000004", "round-000006"]
    assert [entry["word"] for entry in said[-2:]] == ["summary", "end"]
    warnings = [entry["message"] for entry in said if entry["word"] == "warn"]
    assert sum("no other host keeps a copy" in warning for warning in warnings) == 1


def test_how_to_go_on_after_an_interruption_is_left_to_the_users_side(tmp_path: Path) -> None:
    log = ScreenLog(tmp_path / "screen.jsonl")
    log.end(Interrupted("stopped after round 3", resume="rayrnn train here --resume"))
    log.end(Interrupted("stopped before a round was learned"))
    first, second = [json.loads(line) for line in (tmp_path / "screen.jsonl").read_text().splitlines()]
    assert (first["message"], first["resumable"]) == ("stopped after round 3", True)
    assert (second["message"], second["resumable"]) == ("stopped before a round was learned", False)


def test_what_another_host_keeps_is_a_whole_run_to_go_on_from(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run")
    run.append_metrics({"round": 20})
    for number in (10, 20):
        write_checkpoint(run.checkpoints, number, Checkpoint({}, {}, ({},), progress_of(number)))
    for name in ("round-000010", "round-000020"):
        write_files(tmp_path / "kept", files_of(run.path, name))
    checkpoint, damages = newest_checkpoint(tmp_path / "kept" / "checkpoints")
    assert (checkpoint.progress, damages) == (progress_of(20), [])
    assert Run(tmp_path / "kept").metrics() == [{"round": 20}]


def test_a_run_remembers_its_cluster(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = create_run(tmp_path / "run")
    assert load_record(run) is None
    record = Record(new_job_name("small"), path_on_head(Path("runs/small")))
    assert record.file() is None
    record.save(run, Path("cluster.yaml"))
    assert load_record(run) == record
    assert record.file() == here / "cluster.yaml"
    assert record.out == "runs/small"
    assert path_on_head(tmp_path / "run") == "runs/run"
    spec = JobSpec(recipe(path="texts").model_dump(mode="json"), record.out, True, "0.1.0")
    assert JobSpec.from_json(spec.to_json()) == spec
    assert not is_running(record.job)


@pytest.mark.parametrize(
    ("job", "out"),
    [
        ("../..", "runs/small"),
        ("small; touch pwned -01234567", "runs/small"),
        ("small-01234567", "../../.ssh"),
        ("small-01234567", "/etc"),
        ("small-01234567", "s3://bucket/run"),
        ("small-01234567", ""),
        (7, "runs/small"),
        ("small-01234567", ["runs"]),
    ],
)
def test_a_record_that_would_become_another_command_is_refused(tmp_path: Path, job: object, out: object) -> None:
    run = create_run(tmp_path / "run")
    (run.path / "cluster.json").write_text(json.dumps({"cluster": "cluster.yaml", "job": job, "out": out}))
    with pytest.raises(RunError, match=r"cluster\.json cannot be used"):
        load_record(run)


@pytest.fixture
def foreign_run(tmp_path: Path) -> Path:
    """A run directory that somebody else has made, of the current directory `tmp_path`."""
    run = create_run(tmp_path / "run")
    run.write_recipe(recipe(path="texts"))
    for place in (tmp_path, run.path):
        (place / "c.yaml").write_text(UNREACHABLE.replace("'false'", "'touch executed'"))
    return run.path


@pytest.mark.parametrize("file", ["run/c.yaml", "c.yaml", "../run/../c.yaml"])
def test_what_a_run_directory_says_is_never_executed(tmp_path: Path, foreign_run: Path, file: str) -> None:
    for name in (file, str(tmp_path / file)):
        record = {"cluster": name, "file": name, "job": "small-01234567", "out": "runs/small"}
        (foreign_run / "cluster.json").write_text(json.dumps(record))
        ended = typed("logs", "run", home=tmp_path)
        assert ended.returncode == 2, ended.stderr
        assert "name the file of its cluster with --cluster" in ended.stderr
    assert not list(tmp_path.rglob("executed"))


def test_the_cluster_file_of_a_run_is_the_one_that_its_user_began_it_with(
    tmp_path: Path, foreign_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".local" / "state"))
    Record("small-01234567", "runs/small").save(Run(foreign_run), tmp_path / "mine.yaml")
    ended = typed("logs", "run", home=tmp_path)
    assert ended.returncode == 4
    assert f"there is no cluster file {tmp_path / 'mine.yaml'}" in "".join(ended.stderr.splitlines())
    named = typed("logs", "run", "--cluster", "another.yaml", home=tmp_path)
    assert "there is no cluster file another.yaml" in named.stderr


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    detached = typed("train", "recite", "--detach", home=tmp_path)
    assert detached.returncode == 2
    assert "--detach goes with --cluster" in detached.stderr
    both = typed("train", "recite", "--cluster", "c.yaml", "--address", "127.0.0.1:1", home=tmp_path)
    assert both.returncode == 2
    assert typed("logs", "nowhere", home=tmp_path).returncode == 2


def test_a_run_that_is_fetched_writes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(UNREACHABLE)
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "run" / "screen.jsonl").symlink_to(tmp_path / "outside")
    (tmp_path / "run" / "recipe.yaml").write_text(typed("recipes", "recite", home=tmp_path).stdout)
    ended = typed("train", "recite", "--cluster", "c.yaml", "--out", "run", "--resume", home=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert "run/screen.jsonl is a link to" in ended.stderr
    assert (tmp_path / "outside").read_text() == "mine"


def test_two_runs_on_clusters_do_not_go_into_one_directory(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(UNREACHABLE)
    with taken(tmp_path / "run", small(), resume=False):
        ended = typed("train", "recite", "--cluster", "c.yaml", "--out", "run", home=tmp_path)
        assert ended.returncode == 2, ended.stderr
        assert "run is being trained by another process" in ended.stderr


def test_a_run_that_was_trained_between_two_looks_at_its_directory_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Run.held

    def late(run: Run) -> AbstractContextManager[None]:
        run.write_recipe(small())  # by another process, which has ended meanwhile
        return held(run)

    monkeypatch.setattr(Run, "held", late)
    with (
        pytest.raises(UsageError, match=r"holds a run already: .*--resume.*in Python: resume=True"),
        taken(tmp_path / "run", small(), resume=False),
    ):
        pytest.fail("two runs in one directory")


def test_a_head_that_cannot_be_reached_is_a_cluster_error(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(UNREACHABLE)
    ended = typed("train", "recite", "--cluster", "c.yaml", home=tmp_path)
    assert ended.returncode == 4, ended.stderr
    assert "nobody@127.0.0.1" in ended.stderr
    assert "is not reached" in ended.stderr


def test_the_modules_that_a_recipe_names_travel_with_the_job(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(here)  # undone after the test
    (here / "pieces").mkdir()
    (here / "pieces" / "source.py").write_text(
        "from rayrnn.recipe.data_sections import Data\n"
        "class Section(Data):\n    path: str\n"
        "class Source:\n    section = Section\n"
    )
    (here / "question.py").write_text(
        "from rayrnn.tasks.language_model import LanguageModel\nclass Question(LanguageModel):\n    pass\n"
    )
    names = {"task": "question:Question", "data": {"source": "pieces.source:Source", "path": "texts/one.txt"}}
    upload = gather(validate_recipe({"name": "small", "model": {"network": "pieces.net:Net"}} | names))
    assert upload.inside == ("texts/one.txt",)
    assert {path for code in upload.code for path in code.content} == {"question.py", "pieces/source.py"}
    assert {code.folder for code in upload.code} == {str(here)}
    assert gather(recipe(path="texts/one.txt")).code == ()
