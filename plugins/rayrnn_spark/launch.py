"""Starts and stops one Spark over RayDP, with the Java, the silence and the bounds in time that RayDP leaves open.

Imports pyspark and raydp at its top: only `session.py` imports it, and late.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import ray
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession
from ray.exceptions import RayError
from raydp.spark.ray_cluster import SparkCluster
from raydp.spark.ray_cluster_master import RAYDP_SPARK_MASTER_SUFFIX, RayDPSparkMaster

from rayrnn.errors import ClusterError

SECONDS_TO_START = 180.0
_SECONDS_TO_STOP = 20.0


class Spark(SparkCluster):  # type: ignore[misc]  # raydp has no types
    """RayDP's cluster for one session, in this process and on a Ray that need not know of any Java.

    Args:
        name: of the Spark application.
        settings: Spark's own, by name.
        java: the home of the Java to use, here and on the hosts.
        log: where Spark's driver writes whatever it has to say.
    """

    def __init__(self, name: str, settings: Mapping[str, str], java: Path, log: Path) -> None:
        self._java = java
        self._log = log
        self._gateway: Any = None
        self._spark_master_handle: Any = None
        executors, cores = int(settings["spark.executor.instances"]), int(settings["spark.executor.cores"])
        self._executors_to_come = executors
        super().__init__(name, executors, cores, settings["spark.executor.memory"], False, dict(settings))

    def start(self) -> SparkSession:
        """Start the driver, and wait for every executor.

        Raises:
            ClusterError: Spark did not start in time; the message names its log.
        """
        try:
            with _environment(self._java), self._log.open("ab") as log:
                self._spark_session = self._open_session(log)
            self.connect_spark_driver_to_ray()
            self._wait_for_executors()
        except (Py4JError, PySparkException, OSError) as error:
            raise self._failure(f"did not start: {_first_line(error)}") from None
        return self._spark_session

    def stop(self, cleanup_data: bool = True) -> None:
        """End the session, the executors and the driver's Java, whatever state they are in."""
        try:
            if self._spark_session is not None:
                self._spark_session._jvm.org.apache.spark.deploy.raydp.RayAppMaster.shutdownRay()
            super().stop(cleanup_data)
        except (Py4JError, PySparkException, RayError, OSError) as error:
            # a Java that is gone cannot be asked to stop what it started
            with self._log.open("a") as log:
                log.write(f"stopping: {error}\n")
            self._abandon()
        finally:
            if self._gateway is not None:
                _end(self._gateway)
                self._gateway = None
            _wait_until_gone(self._app_name)

    def _abandon(self) -> None:
        """End the master, and with it the executors; let pyspark forget the session."""
        if self._spark_master_handle is not None and ray.is_initialized():
            ray.kill(self._spark_master_handle)
        self._spark_master_handle = self._spark_session = None
        SparkContext._active_spark_context = None
        SparkSession._instantiatedSession = None

    def _set_up_master(self, resources: object, kwargs: object) -> None:
        """RayDP's own, in a runtime environment that has the Java, silent, and given up after a while."""
        environment = {"JAVA_HOME": str(self._java), "PATH": f"{self._java / 'bin'}:${{PATH}}"}
        quiet = environment | {"RAY_BACKEND_LOG_LEVEL": "error"}
        # the Java workers belong to a job of their own, which learns its runtime environment from these properties
        options = [f"-Dray.job.runtime-env.env-vars.{name}={value}" for name, value in quiet.items()]
        variables = environment | {"JAVA_OPTS": shlex.join(options)}
        master = RayDPSparkMaster.options(
            name=self._app_name + RAYDP_SPARK_MASTER_SUFFIX, num_cpus=0, runtime_env={"env_vars": variables}
        ).remote(self._configs)
        self._spark_master_handle = master
        silence = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            ray.get(master.start_up.remote(silence), timeout=SECONDS_TO_START)
        except BaseException as error:
            ray.kill(master)
            if isinstance(error, Exception):
                raise self._failure(f"has no application master: {_first_line(error)}") from None
            raise

    def _open_session(self, log: IO[bytes]) -> SparkSession:
        settings = SparkConf(loadDefaults=False).setAll(list(self._configs.items()))
        settings.setMaster(self.get_cluster_url()).setAppName(self._app_name)
        _forget_gateway()
        # what Spark prints while it starts is nothing for the screen
        self._gateway = launch_gateway(settings, {"stdout": log, "stderr": log})
        with bounded(self._gateway.proc), _own_interrupt_handler():
            context = SparkContext(conf=settings, gateway=self._gateway)
        # where Java dies, pyspark's thread beside it would print a stack trace
        context._accumulatorServer.handle_error = lambda *_: None
        return SparkSession(context)

    def _wait_for_executors(self) -> None:
        give_up = time.monotonic() + SECONDS_TO_START
        context = self._spark_session.sparkContext._jsc.sc()
        # the driver counts as one
        while (there := context.getExecutorMemoryStatus().size() - 1) < self._executors_to_come:
            if time.monotonic() > give_up:
                raise self._failure(f"has {there} of {self._executors_to_come} executors after {SECONDS_TO_START:g} s")
            time.sleep(0.1)

    def _failure(self, what: str) -> ClusterError:
        return ClusterError(f"Spark {what}; its log is {self._log}, its executors' are raydp-java-worker-* beside it")


@contextmanager
def _environment(java: Path) -> Iterator[None]:
    """What the driver's Java and pyspark read from the environment, for as long as they start."""
    wanted = {"JAVA_HOME": str(java), "PYSPARK_PYTHON": os.environ.get("PYSPARK_PYTHON", sys.executable)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def bounded(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """A driver that waits for ever (for a name that no host resolves, for one) is ended after a while."""
    timer = threading.Timer(SECONDS_TO_START, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _own_interrupt_handler() -> Iterator[None]:
    """pyspark puts a Ctrl-C handler of its own in place and never takes it away again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _forget_gateway() -> None:
    """pyspark keeps one Java a process, with the first session's options; every session of ours has its own."""
    SparkContext._gateway = None
    SparkContext._jvm = None


def _end(gateway: object) -> None:
    process = gateway.proc  # type: ignore[attr-defined]
    with suppress(Py4JError, OSError):
        gateway.shutdown()  # type: ignore[attr-defined]
    process.stdin.close()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _forget_gateway()


def _wait_until_gone(name: str) -> None:
    """RayDP stops its actors in the background; their CPUs are free only when they are gone."""
    give_up = time.monotonic() + _SECONDS_TO_STOP
    # where Ray is gone, so are they; and asking would start another Ray
    while (
        ray.is_initialized()
        and time.monotonic() < give_up
        and any(_is_ours(actor, name) for actor in ray.util.list_named_actors())
    ):
        time.sleep(0.1)


def _is_ours(actor: str, name: str) -> bool:
    return actor == name + RAYDP_SPARK_MASTER_SUFFIX or actor == "RAY_APP_MASTER" or actor.startswith("raydp-executor-")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
