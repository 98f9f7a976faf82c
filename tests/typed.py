"""A command that is typed in the tests' own process: a new one would take seconds to load torch and Ray."""

import io
import os
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from rayrnn.cli import main
from tests.test_cli import environment_of


@dataclass(frozen=True)
class Ended:
    """How a command ended, as `subprocess.run` tells it."""

    returncode: int
    stdout: str
    stderr: str


def typed(*arguments: str, home: Path, **environment: str) -> Ended:
    """What `rayrnn ARGUMENTS` says in a home of its own, and how it ends.

    For what is refused before Ray is asked: a Ray that the tests have started is the command's own.
    """
    before, kept, stdout, stderr = dict(os.environ), environment_of(home), io.StringIO(), io.StringIO()
    os.environ.clear()
    os.environ.update(kept | environment)
    try:
        with chdir(home), redirect_stdout(stdout), redirect_stderr(stderr):
            code = _run(*arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Ended(code, stdout.getvalue(), stderr.getvalue())


def said(capsys: pytest.CaptureFixture[str], *arguments: object, exits: int = 0) -> str:
    """What a command prints on stdout, or with another exit code than 0 on stderr; it uses the Ray of the tests."""
    capsys.readouterr()
    code = _run(*map(str, arguments))
    out, err = capsys.readouterr()
    assert code == exits, err
    return err if exits else out


def _run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rayrnn", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code is None or isinstance(end.value.code, int)
    return end.value.code or 0
