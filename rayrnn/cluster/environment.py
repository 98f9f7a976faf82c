"""The environment that Ray and its processes need: the token, the loopback, silence."""

import getpass
import logging
import os
import resource
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from rayrnn.cluster.on_host import facts
from rayrnn.cluster.programs import settings_of_programs
from rayrnn.cluster.ray_internals import lines_of_others_taken, read_settings_again
from rayrnn.durable import replace_durably
from rayrnn.errors import ClusterError

#: the loggers that Ray, its libraries and Python's warnings write to
TALKATIVE = ("ray", "ray.data", "ray.serve", "ray.train", "ray.tune", "py.warnings")
#: of one process, open at once: a head with a few workers, and what Ray itself asks for
FEWEST_FILES = 128
MOST_FILES = 65_536


def ensure_token() -> Path | None:
    """The path of this user's Ray token, created with mode 0600 or narrowed to it (Ray itself would write it 0644).

    None when RAY_AUTH_TOKEN carries the token: then no file has it.

    Raises:
        ClusterError: the file can be neither read nor written.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    path = token_path()
    try:
        if not _has_token(path):
            _create(path)
        path.chmod(0o600)
    except OSError as error:
        raise ClusterError(
            f"Ray's token file {path} cannot be used: {error}; set HOME to a directory where you may write, or "
            "RAY_AUTH_TOKEN_PATH to a file of your own"
        ) from None
    return path


def token_path() -> Path:
    """Where Ray looks for the token: RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else home() / facts.TOKEN


def home() -> Path:
    """The user's directory.

    Raises:
        ClusterError: there is none.
    """
    path = Path(os.path.expanduser("~"))
    if not path.is_absolute():  # in a container, say, that was told a number as its user
        raise ClusterError(
            f"user number {os.getuid()} has no home directory: HOME is {os.environ.get('HOME', 'not set')!r} and the "
            "system does not know the user; set HOME to a directory where this user may write"
        )
    return path


def user_name() -> str:
    """The name of the user; the number, where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _has_token(path: Path) -> bool:
    return path.exists() and bool(path.read_text(encoding="utf-8").strip())


def _create(path: Path) -> None:
    """Write a token, unless another process has done so meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not _has_token(path):
            replace_durably(path, secrets.token_hex(32).encode(), mode=0o600)


def prepare_environment() -> None:
    """Set what Ray and the workers it starts read from the environment; what the user has set stays.

    Raises:
        ClusterError: the token file cannot be used, or too few files can be open at once.
    """
    ensure_token()
    _allow_files()
    for name, value in (settings_for_hosts() | settings_of_programs(sys.executable)).items():
        os.environ.setdefault(name, value)
    read_settings_again()


def _allow_files() -> None:
    """Have this process, and those that it starts, open as many files at once as they may; of few of them Ray dies."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if allowed < FEWEST_FILES:
        raise ClusterError(
            f"this process may have {allowed} files open at once, and Ray needs {FEWEST_FILES} at least: say "
            "`ulimit -n 8192` before; where that is refused, raise `nofile` in /etc/security/limits.conf"
        )
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def settings_for_hosts() -> dict[str, str]:
    """What Ray must find in its environment, on this host and on every other."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # the coming default, and without it a warning in every worker that has no GPU
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # who joins waits for worker processes here, for ever where none can start: rayrnn/cluster/connection.py asks
        "RAY_prestart_worker_first_driver": "0",
    }


@contextmanager
def quiet_ray(log_file: Path | None = None) -> Iterator[None]:
    """Inside, Ray's messages and Python's warnings in this process go to `log_file` (None: nowhere), not to the screen.

    ray.data sets up its own logging when it is imported: import it before.
    """
    handler = _handler(log_file)
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    before = [logger.handlers[:] for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        _redirect(logger, handler)
    try:
        with lines_of_others_taken(logging.getLogger("ray").info):
            yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
        handler.close()


def _handler(log_file: Path | None) -> logging.Handler:
    if log_file is None:
        return logging.NullHandler()
    handler = logging.FileHandler(log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


def _redirect(logger: logging.Logger, handler: logging.Handler) -> None:
    """Take the handlers that write to the screen away; a logger that passes its messages on needs no other."""
    logger.handlers[:] = [kept for kept in logger.handlers if not _writes_to_screen(kept)]
    if not (logger.propagate and logger.name.startswith("ray.")):
        logger.addHandler(handler)


def _writes_to_screen(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
