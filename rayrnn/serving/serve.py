"""Runs -> a server on Ray Serve, until somebody asks it to end."""

import functools
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray import serve
from ray.exceptions import RayError
from rich.console import Console

from rayrnn.cluster import connect
from rayrnn.durable import replace_durably
from rayrnn.errors import ClusterError, RunError, UsageError
from rayrnn.prediction.live_steps import detector_of
from rayrnn.runs.detectors import model_checksum
from rayrnn.runs.directory import Run, open_run
from rayrnn.runs.layout import MODEL
from rayrnn.runs.model import trained
from rayrnn.runs.store import Store as Directory
from rayrnn.serving.app_replica import ReplicaOptions, app_builder
from rayrnn.serving.engine import Servable
from rayrnn.serving.http_guard import Limits
from rayrnn.serving.session_store import Store
from rayrnn.stop_signals import stop_requests
from rayrnn.terminal import Terminal

NAMESPACE = "rayrnn"
STORE = "rayrnn-store"
APPLICATION = "rayrnn"
#: for the first replica to answer
START_SECONDS = 120.0
#: for requests that are being answered at the end
DRAIN_SECONDS = 30.0
#: between two looks for a newer model (`follow`)
FOLLOW_SECONDS = 2.0


@dataclass(frozen=True)
class ServeOptions:
    """How runs are served.

    Args:
        port: 0 takes a free one.
        replicas: the fewest and the most.
        token: that requests must have; None lets everybody in.
        follow: whether a newer model of a run takes the place of the one that is served.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: tuple[int, int] = (1, 1)
    token: str | None = field(default_factory=lambda: secrets.token_urlsafe(24))
    follow: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise UsageError(f"--port is {self.port}; it must be 0 (any that is free) to 65535")
        fewest, most = self.replicas
        if not 1 <= fewest <= most:
            raise UsageError(f"--replicas is {fewest}:{most}; due is a number, or FEWEST:MOST with 1 <= FEWEST <= MOST")


@dataclass(frozen=True)
class Address:
    """Where a server is."""

    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        """Of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def named_runs(arguments: Sequence[str], *, trust: bool = False) -> dict[str, Run]:
    """The runs that are to be served, by what requests call them: the directory's name, or NAME of `NAME=RUN`.

    Raises:
        UsageError: two of them have one name.
        RunError: there is no such run.
    """
    runs: dict[str, Run] = {}
    for argument in arguments:
        name, equals, place = argument.partition("=")
        if not equals or Path(argument).exists():
            name, place = argument.rstrip("/").rpartition("/")[2], argument
        if name in runs:
            raise UsageError(
                f"two runs are called {name!r}, {runs[name].name} and {place}: give one another name, "
                f"such as other={place}"
            )
        runs[name] = open_run(place, trust=trust)
    return runs


@contextmanager
def serving(
    runs: dict[str, Run], options: ServeOptions, *, address: str | None = None, console: Console | None = None
) -> Iterator[Address]:
    """Inside, the runs are served.

    Raises:
        UsageError: the port is in use.
        RunError: a run has no model.
        ClusterError: there is no cluster at `address`, or it serves something already, or no replica starts.
    """
    screen = console or Terminal(stderr=True)
    servables = [servable_of(name, run) for name, run in runs.items()]
    if options.port:
        check_free(options.host, options.port)
    code = [name for run in runs.values() for name in run.recipe.named_code]
    with connect(address, code=code, say=screen.print):
        _make_room()
        _check_cpus(options.replicas[0], screen)
        store = _start_store(options)
        for servable in servables:
            _put(store, servable)
        try:
            port = options.port or check_free(options.host, 0)
            _start(options, port)
            stop = threading.Event()
            versions = {servable.name: servable.version for servable in servables}
            put = functools.partial(_put, store)
            watching = follow(runs, versions, put, screen.print, stop) if options.follow else None
            try:
                yield Address(options.host, port, options.token)
            finally:
                stop.set()
                if watching is not None:
                    watching.join()
        finally:
            _end()
            ray.kill(store)


@contextmanager
def until_stopped() -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Inside, nothing ends by a signal; the function returns when somebody has asked for the end.

    That is Ctrl-C, SIGTERM, or a terminal that is closed. The second one raises KeyboardInterrupt. What the function
    is given is called every half second, and ends it too by True.
    """
    ended = threading.Event()

    def wait(has_ended: Callable[[], bool]) -> None:
        while not ended.wait(0.5) and not has_ended():
            pass

    with stop_requests(ended.set):
        yield wait


def _end() -> None:
    """Let replicas finish what they answer, and only then take away what listens before them."""
    with suppress(RayError, TimeoutError):
        serve.delete(APPLICATION)
    with suppress(RayError, TimeoutError):
        serve.shutdown()


def servable_of(name: str, run: Run) -> Servable:
    """What replicas need of a run.

    Raises:
        UsageError: its network is not rayrnn's, and the run was not opened with `trust`.
        RunError: it has no usable model.
    """
    model = trained(run)
    return Servable(name, version_of(run), model, detector_of(run, model))


def version_of(run: Run) -> str:
    """Tells the model of now from later ones."""
    return model_checksum(run)[:12]


def check_free(host: str, port: int) -> int:
    """The port, if one can listen there; 0 finds one that is free.

    Raises:
        UsageError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"nothing can listen at {host}:{port}: {error.strerror}; choose another --port (0: one that is free)"
            ) from None
        found: int = probe.getsockname()[1]
        return found


def _make_room() -> None:
    """End what is left of a server whose command was killed.

    Raises:
        ClusterError: the cluster serves something else, or runs of another command.
    """
    with suppress(ValueError):
        ray.get_actor(STORE, namespace=NAMESPACE)
        raise ClusterError(
            "this cluster serves runs already: end that command (Ctrl-C), or serve here by itself, --address local"
        )
    applications = serve.status().applications
    if others := sorted(set(applications) - {APPLICATION}):
        raise ClusterError(
            f"Ray Serve runs {', '.join(others)} on this cluster, which is not rayrnn's: serve elsewhere, such as "
            "by --address local"
        )
    serve.shutdown()


def _check_cpus(replicas: int, screen: Console) -> None:
    """
    Raises:
        ClusterError: the cluster could never run so many replicas, each of which takes a CPU.
    """
    there, free = ray.cluster_resources().get("CPU", 0), ray.available_resources().get("CPU", 0)
    if replicas > there:
        raise ClusterError(f"{replicas} replicas take a CPU each, and the cluster has {there:g}: lower --replicas")
    if replicas > free:
        screen.print(f"waiting for CPUs: {replicas} replicas take one each, and {free:g} of {there:g} are free")


def _start_store(options: ServeOptions) -> "ray.actor.ActorHandle":
    make = ray.remote(num_cpus=0, max_concurrency=1000)(Store).options(name=STORE, namespace=NAMESPACE)
    return make.remote(most_sessions=options.limits.sessions, idle_seconds=options.limits.idle)


def _put(store: "ray.actor.ActorHandle", servable: Servable) -> None:
    ray.get(store.put_model.remote(servable.name, servable.version, [ray.put(servable)]))


def _start(options: ServeOptions, port: int) -> None:
    fewest, most = options.replicas
    num_gpus = 1 if ray.cluster_resources().get("GPU") else 0
    scale = (
        {"num_replicas": fewest}
        if fewest == most
        else {
            "autoscaling_config": {
                "min_replicas": fewest,
                "max_replicas": most,
                "target_ongoing_requests": 16,
                "upscale_delay_s": 5,
                "downscale_delay_s": 60,
            }
        }
    )
    replica = ReplicaOptions(STORE, NAMESPACE, options.token, options.limits)
    deployment = serve.deployment(
        serve.ingress(app_builder(replica))(type("Replica", (), {})),
        name="runs",
        max_ongoing_requests=2 * options.limits.requests,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=5,
        ray_actor_options={"num_cpus": 1, "num_gpus": num_gpus},
        **scale,
    )
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": options.host, "port": port})
        serve.run(deployment.bind(), name=APPLICATION, route_prefix="/")
    except (RayError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"the server did not start: {error}") from None


class _InStore:
    """A run of a store, of which a copy is served."""

    def __init__(self, run: Run, address: str) -> None:
        self._run = run
        self._store = Directory(address)
        self._stamp: tuple[int, int] | None = None
        self._told = ""

    def renew(self, say: Callable[[str], None]) -> None:
        """Take over the model that the store has now; a store that does not answer is said once."""
        try:
            stamp = self._store.stamp(MODEL)
            if stamp != self._stamp:
                replace_durably(self._run.path / MODEL, self._store.read(MODEL))
                self._stamp = stamp
        except UsageError as error:
            if str(error) != self._told:
                say(f"no newer model is seen: {error}")
                self._told = str(error)


def follow(
    runs: dict[str, Run],
    versions: dict[str, str],
    put: Callable[[Servable], None],
    say: Callable[[str], None],
    stop: threading.Event,
) -> threading.Thread:
    """Look for newer models from now on, and hand them on; the replicas take them without dropping a request.

    Args:
        versions: of the models that are served.
        stop: ends it.
    """
    known, told = dict(versions), dict[str, str]()
    in_stores = [_InStore(run, run.address) for run in runs.values() if run.address is not None]

    def watch() -> None:
        while not stop.wait(FOLLOW_SECONDS):
            for stored in in_stores:
                stored.renew(say)
            for name, run in runs.items():
                try:
                    if version_of(run) == known[name]:
                        continue
                    servable = servable_of(name, run)
                    put(servable)
                except (RunError, RayError) as error:
                    if told.get(name) != str(error):
                        say(f"{name}: the newer model is not served: {error}")
                        told[name] = str(error)
                    continue
                known[name] = servable.version
                say(f"{name}: a newer model is served, {servable.version}")

    thread = threading.Thread(target=watch, name="follow", daemon=True)
    thread.start()
    return thread
