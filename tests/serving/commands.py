"""`rayrnn serve` as its users start it, and what speaks to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

#: for a server to start, on a machine that is busy
START_SECONDS = 240


@dataclass(frozen=True)
class Started:
    """A server that runs."""

    url: str
    token: str | None
    process: "subprocess.Popen[str]"
    errors: Path

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Send JSON, with the token."""
        options = {"headers": {"Authorization": f"Bearer {self.token}"}, "timeout": 120} | options
        if body is not None:
            options["json"] = body
        return httpx.request(method, f"{self.url}{path}", **options)

    def told(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """What comes back, with the status that is due."""
        answer = self.ask(method, path, body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def refused(self, method: str, path: str, body: Any, status: int) -> str:
        """The words of an error."""
        words = self.told(method, path, body, status)["error"]["message"]
        assert isinstance(words, str)
        return words


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rayrnn.cli", "serve", *arguments]


@contextmanager
def started(home: Path, *arguments: str, port: int = 0) -> Iterator[Started]:
    """Inside, the server runs; it is asked to end, and if it does not its process is killed."""
    home.mkdir(exist_ok=True)
    errors = home / f"errors-{time.monotonic_ns()}.txt"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with errors.open("w") as stderr:
        where = () if "--cluster" in arguments else ("--address", "local")
        process = subprocess.Popen(
            command(*arguments, "--port", str(port), "--json", *where),
            env=kept | {"HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        told = json.loads(line)
        yield Started(told["url"], told["token"], process, errors)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def refused(home: Path, *arguments: str) -> str:
    """What a server says that does not start because of what it was asked."""
    home.mkdir(exist_ok=True)
    ended = subprocess.run(
        command(*arguments), env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, timeout=START_SECONDS
    )
    assert ended.returncode in (1, 2, 3, 4), (ended.returncode, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stderr
