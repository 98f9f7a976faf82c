"""One local Ray for the whole test session, started when the first test asks for it and stopped at the end."""

import signal
from collections.abc import Iterator

import hypothesis
import pytest
import ray

from tests.s3_store import s3_environment, s3_store

__all__ = ["ray_cluster", "s3_environment", "s3_store"]

# a shell's background job ignores SIGINT, one under nohup SIGHUP, and hands that on to every process a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# how long an example takes says more about the machine than about the code
hypothesis.settings.register_profile("rayrnn", deadline=None)
hypothesis.settings.load_profile("rayrnn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=600, help="how long tests/test_fuzz.py takes, all of it")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray with four logical CPUs, so that two workers and the data's tasks fit on any machine."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="warning")
    yield
    ray.shutdown()
