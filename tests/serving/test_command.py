"""`rayrnn serve`: what it says, how it ends, and what becomes of it when it is killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import torch

from rayrnn.runs.directory import Run
from rayrnn.runs.model import build_network
from tests.serving.commands import command, refused, started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_ctrl_c_lets_a_stream_end_and_leaves_nothing_behind(served_runs: dict[str, Run], tmp_path: Path) -> None:
    with started(tmp_path, served_runs["text"].name) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0)
        stream = client.completions.create(model="text", prompt="abc", max_tokens=3000, stream=True)
        pieces = [next(iter(stream)).choices[0].text]
        server.process.send_signal(signal.SIGINT)
        events = list(stream)
        pieces += [choice.text for event in events for choice in event.choices]
        assert len("".join(pieces)) == 3000
        assert events[-1].choices[0].finish_reason == "length"
        assert server.process.wait(60) == 0
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone
    assert not [process for process in alive if process.is_running()]


@pytest.mark.slow
def test_a_server_that_was_killed_starts_again_on_the_same_port(served_runs: dict[str, Run], tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, served_runs["text"].name, port=port) as server:
        assert server.told("GET", "/v1/models")
        server.process.kill()
        server.process.wait()
        wait_until_free(port)
    with started(tmp_path, served_runs["text"].name, port=port) as server:
        assert server.url.endswith(f":{port}")
        assert server.told("POST", "/v1/completions", {"prompt": "abc"})["choices"]


def wait_until_free(port: int) -> None:
    """Ray's processes end by themselves when the command that started them is gone."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"something still listens at {port}")


@pytest.mark.slow
def test_a_newer_model_is_served_without_a_dropped_request(served_runs: dict[str, Run], tmp_path: Path) -> None:
    shutil.copytree(served_runs["text"].path, tmp_path / "run")
    run = Run(tmp_path / "run")
    with started(tmp_path / "home", str(tmp_path / "run"), "--follow") as server:
        before = server.told("GET", "/v1/models")["data"][0]["version"]
        asked = {"prompt": "abc", "max_tokens": 300, "temperature": 0}
        first = server.told("POST", "/v1/completions", asked)["choices"][0]["text"]
        statuses: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                statuses.append(server.ask("POST", "/v1/completions", asked).status_code)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        torch.manual_seed(1)
        run.write_model(build_network(run.recipe, run.encoding).state_dict())
        for _ in range(300):
            if server.told("GET", "/v1/models")["data"][0]["version"] != before:
                break
            time.sleep(0.2)
        stop.set()
        for thread in asking:
            thread.join()
        assert server.told("GET", "/v1/models")["data"][0]["version"] != before
        assert set(statuses) == {200}
        assert server.told("POST", "/v1/completions", asked)["choices"][0]["text"] != first
        assert "a newer model is served" in server.errors.read_text()


@pytest.mark.slow
def test_no_token_lets_everybody_in_and_a_file_names_ones_own(served_runs: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("my-own-token\n")
    with started(tmp_path / "a", served_runs["text"].name, "--token-file", str(tmp_path / "token")) as server:
        assert server.token == "my-own-token"
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        assert server.told("GET", "/v1/models")
    with started(tmp_path / "b", served_runs["text"].name, "--no-token") as server:
        assert server.token is None
        assert httpx.get(f"{server.url}/v1/models").status_code == 200


@pytest.mark.slow
def test_more_requests_than_there_is_room_for_are_told_to_wait(served_runs: dict[str, Run], tmp_path: Path) -> None:
    with started(tmp_path, served_runs["text"].name, "--max-requests", "2") as server:
        asked = {"prompt": "abc", "max_tokens": 100_000, "stream": True}
        headers = {"Authorization": f"Bearer {server.token}"}
        with httpx.Client(timeout=60) as client:
            streams = [
                client.send(
                    client.build_request("POST", f"{server.url}/v1/completions", json=asked, headers=headers),
                    stream=True,
                )
                for _ in range(2)
            ]
            # kept: a stream is closed when nobody holds what iterates over it
            told = [stream.iter_text() for stream in streams]
            assert all(next(one) for one in told)
            answer = server.ask("GET", "/v1/models")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            for stream in streams:
                stream.close()
        for _ in range(100):
            if server.ask("GET", "/v1/models").status_code == 200:
                break
            time.sleep(0.1)
        assert server.told("GET", "/v1/models")


@pytest.mark.slow
def test_a_replica_that_is_killed_is_replaced(served_runs: dict[str, Run], tmp_path: Path) -> None:
    with started(tmp_path, served_runs["text"].name) as server:
        session = server.told("POST", "/sessions", {}, status=201)["id"]
        server.told("POST", f"/sessions/{session}/steps", {"text": "abc"})
        (replica,) = (
            process
            for process in psutil.process_iter(["cmdline", "environ"])
            if "ServeReplica" in " ".join(process.info["cmdline"] or [])
            and (process.info["environ"] or {}).get("HOME") == str(tmp_path)
        )
        replica.kill()
        for _ in range(600):
            with suppress(httpx.HTTPError):
                if server.ask("GET", "/v1/models").status_code == 200:
                    break
            time.sleep(0.2)
        # what the sessions carry on lies elsewhere
        assert server.told("POST", f"/sessions/{session}/steps", {"text": "def"})["num_steps"] == 6


@pytest.mark.slow
def test_more_replicas_answer_as_one(served_runs: dict[str, Run], tmp_path: Path) -> None:
    with started(tmp_path, served_runs["text"].name, "--replicas", "2") as server:
        session = server.told("POST", "/sessions", {}, status=201)["id"]
        steps = [server.told("POST", f"/sessions/{session}/steps", {"text": "ab"})["num_steps"] for _ in range(12)]
        assert steps == list(range(2, 26, 2))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{text}", "{text}"], "two runs are called"),
        (["nosuch"], "nosuch"),
        pytest.param(["{empty}"], "not there", marks=pytest.mark.slow),
        pytest.param(["{text}", "--port", "{used}"], "Address already in use", marks=pytest.mark.slow),
        pytest.param(["{text}", "--port", "70000"], "--port is 70000", marks=pytest.mark.slow),
        pytest.param(["{text}", "--replicas", "0"], "--replicas is 0:0", marks=pytest.mark.slow),
        (["{text}", "--replicas", "3:2"], "--replicas is 3:2"),
        pytest.param(
            ["{text}", "--replicas", "5000", "--address", "local"],
            "5000 replicas take a CPU each",
            marks=pytest.mark.slow,
        ),
        pytest.param(["{text}", "--replicas", "many"], "--replicas is 'many'", marks=pytest.mark.slow),
        pytest.param(["{text}", "--max-body", "0"], "must be above 0", marks=pytest.mark.slow),
        pytest.param(
            ["{text}", "--token-file", "nosuch"], "--token-file nosuch cannot be read", marks=pytest.mark.slow
        ),
        (["{text}", "--token-file", "{blank}"], "first line must be a token"),
        pytest.param(["{text}", "--token-file", "{blank}", "--no-token"], "contradict", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(
    served_runs: dict[str, Run], tmp_path: Path, arguments: list[str], words: str
) -> None:
    shutil.copytree(served_runs["text"].path, tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    (tmp_path / "blank").write_text("\n")
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        places: dict[str, Any] = {
            "text": served_runs["text"].name,
            "empty": tmp_path / "empty",
            "blank": tmp_path / "blank",
            "used": used.getsockname()[1],
        }
        assert words in refused(tmp_path / "home", *(argument.format(**places) for argument in arguments))


@pytest.mark.slow
def test_two_runs_of_one_name_are_served_by_other_names(served_runs: dict[str, Run], tmp_path: Path) -> None:
    text = served_runs["text"].name
    with started(tmp_path, text, f"other={text}") as server:
        assert [model["id"] for model in server.told("GET", "/v1/models")["data"]] == ["text", "other"]
        one, other = (
            server.told("POST", "/v1/completions", {"model": name, "prompt": "abc", "temperature": 0})["choices"]
            for name in ("text", "other")
        )
        assert one == other


def test_without_its_library_the_command_says_what_to_install(served_runs: dict[str, Run], tmp_path: Path) -> None:
    blocked = tmp_path / "fastapi"
    program = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'fastapi' else found(name, *more)\n"
        f"sys.argv = ['rayrnn', 'serve', {served_runs['text'].name!r}]\n"
        "from rayrnn.cli import main\n"
        "main()\n"
    )
    assert not blocked.exists()
    ended = subprocess.run([command()[0], "-c", program], capture_output=True, text=True, env=os.environ)
    assert ended.returncode == 2, ended.stderr
    assert "pip install 'rayrnn[serve]'" in ended.stderr


@pytest.mark.slow
def test_a_person_is_told_where_the_page_is(served_runs: dict[str, Run], tmp_path: Path) -> None:
    arguments = [*command(served_runs["text"].name, "--port", "0", "--address", "local")]
    environment = os.environ | {"HOME": str(tmp_path), "COLUMNS": "100"}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("stop"):
                break
        process.send_signal(signal.SIGINT)
        lines += process.stderr.readlines()
        assert process.wait(60) == 0
    text = "".join(lines)
    assert "/#token=" in text
    assert "INFO" not in text
    assert json.dumps(text).count("Traceback") == 0
