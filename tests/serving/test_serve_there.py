"""`rayrnn serve --cluster`: a real sshd is the head, with a Ray of its own; the port comes here through it."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from rayrnn.cluster.ssh import accept_new_hosts
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import MODEL
from rayrnn.runs.model import load_network
from tests.serving.commands import refused, started
from tests.ssh_host import SshHost, make_host
from tests.untrained import make_run


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    """A host on which Ray is up."""
    host = make_host(tmp_path_factory.mktemp("host"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(host.folder / "state"))
        accept_new_hosts(host.file)
        host.head.run("rayrnn up --cpus 2")
        yield host
        host.head.run("rayrnn down")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("abcdefghij \n" * 80)
    data = {"source": "text", "path": str(folder / "text.txt"), "length": 40}
    return make_run(folder / "letters", "language_model", data)


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while any(folder.iterdir()):
        assert time.monotonic() < deadline, list(folder.iterdir())
        time.sleep(0.2)


@pytest.mark.slow
def test_runs_are_served_there_and_asked_here(host: SshHost, run: Run, tmp_path: Path) -> None:
    served = host.home / ".rayrnn" / "served"
    with started(tmp_path, run.name, "--cluster", str(host.cluster), "--follow") as server:
        assert "sending" in server.errors.read_text()
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0)
        told = client.completions.create(model="letters", prompt="abc", max_tokens=9, temperature=0)
        assert told.choices[0].text == run.generate("abc", length=9, temperature=0)[0][3:]
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        (folder,) = served.iterdir()
        assert folder.stat().st_mode & 0o077 == 0, "the token lies there"
        run.write_model({name: -tensor for name, tensor in load_network(run).state_dict().items()})
        wait_for_another(client, told.choices[0].text)
        stream = client.completions.create(model="letters", prompt="abc", max_tokens=2000, stream=True)
        pieces = [next(iter(stream)).choices[0].text]
        server.process.send_signal(signal.SIGINT)
        pieces += [choice.text for event in stream for choice in event.choices]
        assert len("".join(pieces)) == 2000, "what is being answered is finished"
        assert server.process.wait(90) == 0
    wait_until_gone(served)


def wait_for_another(client: openai.OpenAI, before: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        told = client.completions.create(model="letters", prompt="abc", max_tokens=9, temperature=0)
        if told.choices[0].text != before:
            return
        assert time.monotonic() < deadline, "the newer model has not arrived"
        time.sleep(0.5)


@pytest.mark.slow
def test_a_server_there_ends_with_the_command_here(host: SshHost, run: Run, tmp_path: Path) -> None:
    with started(tmp_path, run.name, "--cluster", str(host.cluster)) as server:
        assert server.told("GET", "/v1/models")
        for process in [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children()]:
            process.kill()
        server.process.wait()
    wait_until_gone(host.home / ".rayrnn" / "served")


@pytest.mark.slow
def test_the_end_of_the_server_there_is_told(host: SshHost, run: Run, tmp_path: Path) -> None:
    with started(tmp_path, run.name, "--cluster", str(host.cluster)) as server:
        (folder,) = (host.home / ".rayrnn" / "served").iterdir()
        there = [p for p in psutil.process_iter(["cmdline"]) if "letters=letters" in (p.info["cmdline"] or [])]
        assert there
        for process in there:
            process.kill()
        assert server.process.wait(60) == 4
        assert "has ended by itself" in server.errors.read_text()
    assert folder.parent.exists()


@pytest.mark.slow
def test_what_cannot_be_is_told_before_anything_travels(host: SshHost, run: Run, tmp_path: Path) -> None:
    served = host.home / ".rayrnn" / "served"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = refused(tmp_path, run.name, "--cluster", str(host.cluster), "--port", str(port))
        assert f"nothing can listen at 127.0.0.1:{port}" in told
    told = refused(tmp_path, run.name, "--cluster", str(host.cluster), "--address", "auto")
    assert "two ways to a cluster" in told
    begun = make_run(tmp_path / "begun", "language_model", run.recipe.data.model_dump())
    (begun.path / MODEL).unlink()
    assert "no model yet" in refused(tmp_path, begun.name, "--cluster", str(host.cluster), "--port", "0")
    assert not served.exists() or not list(served.iterdir())
