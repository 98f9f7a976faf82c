"""The thread that computes, and what becomes of it."""

import threading
from pathlib import Path

import pytest

from rayrnn.background import deaths_told
from rayrnn.generation import Drawing
from rayrnn.runs.directory import Run, open_run
from rayrnn.runs.model import load_network
from rayrnn.runs.store import Store
from rayrnn.serving.engine import Engine, Servable
from rayrnn.serving.serve import follow, servable_of, version_of
from rayrnn.serving.text_writer import Text
from tests.s3_store import Store as Server

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_texts_are_written_and_news_are_told(served_runs: dict[str, Run]) -> None:
    told, ended = threading.Event(), threading.Event()
    engine = Engine(on_news=told.set, on_death=lambda _: ended.set())
    served = engine.put(servable_of("text", served_runs["text"]))
    text = Text([0, 1], 30, Drawing(), 0)
    assert served.writer is not None
    served.writer.add(text)
    engine.wake()
    assert told.wait(60)
    while text.ended is None:
        told.clear()
        told.wait(1)
    assert len(text.news()) == 30
    engine.close()
    assert not ended.is_set()


def test_a_newer_model_takes_what_comes_and_the_one_before_finishes_what_it_began(served_runs: dict[str, Run]) -> None:
    engine = Engine(on_news=lambda: None, on_death=lambda _: None)
    before = engine.put(servable_of("text", served_runs["text"]))
    text = Text([0, 1], 3000, Drawing(), 0)
    assert before.writer is not None
    before.writer.add(text)
    engine.wake()
    after = engine.put(servable_of("text", served_runs["text"]))
    assert engine.served == {"text": after}
    waiting = threading.Event()
    while text.ended is None:
        waiting.wait(0.05)
    assert text.ended == "length"
    engine.close()


def test_what_ends_the_thread_is_told(served_runs: dict[str, Run]) -> None:
    deaths: list[BaseException] = []
    died = threading.Event()

    def hear(error: BaseException) -> None:
        deaths.append(error)
        died.set()

    engine = Engine(on_news=lambda: None, on_death=hear)
    served = engine.put(servable_of("text", served_runs["text"]))
    assert served.writer is not None
    served.writer.add(Text([10**6], 3, Drawing(), 0))  # no symbol has this number
    engine.wake()
    assert died.wait(60)
    assert isinstance(deaths[0], IndexError | RuntimeError)


def test_a_thread_that_follows_and_dies_is_told_of(served_runs: dict[str, Run]) -> None:
    heard: list[str] = []
    run = served_runs["text"]

    def put(servable: Servable) -> None:
        raise MemoryError("no room")

    with deaths_told(lambda words, _: heard.append(words)):
        thread = follow({"text": run}, {"text": "another"}, put, lambda _: None, threading.Event())
        thread.join(60)
    assert heard == ["the thread 'follow' has died: MemoryError: no room"]


def test_a_model_that_cannot_be_read_is_said_and_the_one_before_stays(
    served_runs: dict[str, Run], tmp_path: Path
) -> None:
    said: list[str] = []
    stop = threading.Event()

    def say(words: str) -> None:
        said.append(words)
        stop.set()

    run = Run(tmp_path)
    thread = follow({"text": run}, {"text": "another"}, lambda _: None, say, stop)
    thread.join(60)
    assert "text: the newer model is not served" in said[0]


def test_a_newer_model_in_a_store_is_served(served_runs: dict[str, Run], s3_environment: Server) -> None:
    place = f"s3://{s3_environment.bucket}/followed/text"
    store, files = Store(place), Path(served_runs["text"].path)
    for name in ("recipe.yaml", "vocabulary.json", "model.safetensors"):
        store.write(name, (files / name).read_bytes())
    run, stop, taken = open_run(place), threading.Event(), list[Servable]()

    def put(servable: Servable) -> None:
        taken.append(servable)
        stop.set()

    thread = follow({"text": run}, {"text": version_of(run)}, put, lambda _: None, stop)
    weights = {name: tensor * 2 for name, tensor in load_network(run).state_dict().items()}
    newer = Run(files.parent / "newer")
    newer.path.mkdir()
    newer.write_model(weights)
    store.write("model.safetensors", (newer.path / "model.safetensors").read_bytes())
    thread.join(60)
    assert taken
    assert taken[0].version == version_of(run)
