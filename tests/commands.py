"""A command as somebody types it, in this process: what it prints, and how it ends."""

import sys

import pytest

from rayrnn.cli import main


def said(capsys: pytest.CaptureFixture[str], *arguments: object, exits: int = 0) -> str:
    """What a command prints on stdout, or with another exit code than 0 on stderr."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rayrnn", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == exits, err
    return err if exits else out
