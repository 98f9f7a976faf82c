"""Sequences from Spark sessions that rayrnn did not start: standalone and Spark Connect, Spark 3.5 and 4."""

import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from rayrnn_spark.connect import connected
from rayrnn_spark.preflight import find_java, java_options
from rayrnn_spark.section import SparkData

from rayrnn.errors import ClusterError, UsageError

ROOT = Path(__file__).parent.parent.parent
SPARK4 = ROOT / ".venv" / "spark4"


def spark4_python() -> Path:
    if not (SPARK4 / "installed").exists():
        pytest.skip("there is no Spark 4: `make check-all` installs one in .venv/spark4")
    return SPARK4 / "bin" / "python"


def check(python: str | Path, session: str, folder: Path, *, only: str = "") -> None:
    """Run foreign_checks.py against a session, in a process of its own; or those of its tests that match."""
    java = find_java()
    settings = {"SESSION": session, "WAREHOUSE": str(folder / "warehouse"), "JAVA_HOME": str(java)}
    own = os.environ | settings | {"PYSPARK_PYTHON": str(python), "JDK_JAVA_OPTIONS": java_options()}
    own.pop("SPARK_REMOTE", None)
    command = [python, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "--rootdir", ROOT]
    command += ["-c", ROOT / "pyproject.toml", f"--basetemp={folder / 'tests'}", ROOT / "tests/spark/foreign_checks.py"]
    command += ["-k", only] if only else []
    ended = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_a_standalone_session_that_rayrnn_did_not_start(tmp_path: Path) -> None:
    check(sys.executable, "local-cluster[2,1,640]", tmp_path, only="however or one_row or dies")


@pytest.mark.slow
def test_all_that_a_standalone_session_must_give(tmp_path: Path) -> None:
    check(sys.executable, "local-cluster[2,1,640]", tmp_path)


@pytest.mark.slow
def test_a_session_of_spark_4(tmp_path: Path) -> None:
    check(spark4_python(), "local[2]", tmp_path)


@contextmanager
def connect_server(folder: Path) -> Iterator[str]:
    """A real Spark Connect server, of Spark 4, which alone has its jars."""
    ask = [spark4_python(), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    settings = {
        "spark.master": "local[2]",
        "spark.app.name": "connect",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    java = [str(find_java() / "bin" / "java"), "-Xmx1g", *java_options().split()]
    java += ["--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED", "-Dio.netty.tryReflectionSetAccessible=true"]
    java += [f"-D{name}={value}" for name, value in settings.items()]
    java += ["-cp", f"{packages}/pyspark/jars/*", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(java, cwd=folder, stdout=log, stderr=log)
    try:
        give_up = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "server.log").read_text()[-3000:]
                assert time.monotonic() < give_up
                time.sleep(0.5)
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with connect_server(tmp_path_factory.mktemp("connect")) as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("client", ["3.5", "4"])
def test_spark_connect(client: str, server: str, tmp_path: Path) -> None:
    check(sys.executable if client == "3.5" else spark4_python(), server, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["address", "variable"])
def test_a_recipe_reads_by_spark_connect(named: str, server: str, tmp_path: Path) -> None:
    where = server if named == "address" else "SPARK_REMOTE"
    query = "select id % 20 device, id moment, sin(id) x, if(id % 2 = 0, 'even', 'odd') kind from range(400)"
    (tmp_path / "recipe.yaml").write_text(
        f"""
name: by-connect
task: classification
data: {{source: spark, connect: "{where}", sql: "{query}", key: device, order_by: moment, features: [x], label: kind}}
model: {{hidden: 8}}
averaging: {{rounds: 2}}
"""
    )
    command = [Path(sysconfig.get_path("scripts")) / "rayrnn"]
    own = os.environ | ({"SPARK_REMOTE": server} if named == "variable" else {})
    for arguments in (["train", "recipe.yaml"], ["evaluate", "runs/by-connect"]):
        ended = subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
    assert "accuracy" in ended.stdout


def test_a_server_that_is_away_is_told_at_once() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with (
        pytest.raises(ClusterError, match=rf"no Spark Connect server answers at 127\.0\.0\.1:{port}"),
        connected(f"sc://127.0.0.1:{port}"),
    ):
        pass


def test_an_address_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no address of Spark Connect"), connected("http://somewhere"):
        pass
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    with pytest.raises(UsageError, match="the environment has no such variable"), connected("SPARK_REMOTE"):
        pass


SHAPE = {"key": "a", "order_by": "b"}


def test_sql_is_short_for_a_format_and_a_query() -> None:
    asked = SparkData.model_validate({"connect": "sc://host", "sql": "select 1", **SHAPE})
    assert (asked.format, asked.query) == ("sql", "select 1")
    assert SparkData.model_validate(asked.model_dump()) == asked


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"connect": "sc://host", "executors": 2}, "data.executors are of one that is started"),
        ({"connect": "sc://host/;token=abc"}, "the run would keep"),
        ({"connect": "host:15002"}, "data.connect is sc://HOST"),
        ({"staging": "s3://bucket/x"}, "data.staging goes with data.connect"),
        ({"connect": "sc://host", "format": "sql"}, "leave format out"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SparkData.model_validate({"sql": "select 1", **SHAPE, **values})
