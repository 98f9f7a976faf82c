"""Somebody who types what a page shows, in a folder and a home of their own, and compares what comes back."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.documents.pages import ROOT, Block

#: for one command; a page that needs more says `slow`
SECONDS = 280
SLOW_SECONDS = 900

_NUMBER = re.compile(r"\d+(?:,\d{3}\b)*(?:[.:]\d+)*(?:e-?\d+)?")


class Reader:
    """One page's reader.

    Args:
        folder: where the page's files lie and its commands run; it stands for the clone, and has its tests.
        home: whose token and state are used.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        if not (folder / "tests").exists():
            (folder / "tests").symlink_to(ROOT / "tests")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_", "JAVA_"))}
        programs = Path(sys.executable).parent
        self._environment = kept | {
            "HOME": str(home),
            "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
            # what is typed is this checkout's rayrnn, wherever it is typed
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "plugins"))),
            "COLUMNS": "80",
        }
        self._printed = ""

    def follow(self, block: Block) -> None:
        """Do what a reader does with a block: save it, type it, or compare it with what came."""
        if block.file is not None:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.is_output:
            _compare(block.text.splitlines(), self._printed, str(block))
        elif not block.is_run:
            return
        elif block.language == "console":
            self._type(block)
        elif block.language == "python":
            program = self.folder / "block.py"
            program.write_text(block.text, encoding="utf-8")
            self.run(f"{shlex.quote(sys.executable)} block.py", block)
        else:
            self.run(f"set -eu\n{block.text}", block)

    def _type(self, block: Block) -> None:
        *_, last = block.commands
        for command, shown in block.commands:
            if block.train_with and command.startswith("rayrnn train "):
                command = f"{command} {block.train_with}"
            self.run(command, block, exit_code=block.exit_code if command == last[0] else 0)
            if not block.other_output and not block.train_with:
                _compare(shown, self._printed, f"{block}: {command}")

    def run(self, command: str, block: Block | str, *, exit_code: int = 0) -> None:
        """Run a shell's command to its end.

        Raises:
            AssertionError: it ended with another exit code.
        """
        seconds = SLOW_SECONDS if isinstance(block, Block) and block.slow else SECONDS
        ended = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        self._printed = ended.stdout
        assert ended.returncode == exit_code, f"{block}: exit code {ended.returncode}\n$ {command}\n{ended.stdout}"


def _compare(shown: list[str], printed: str, where: str) -> None:
    """Every line that is shown was printed, in this order; numbers may differ, `...` stands for any words or lines."""
    lines = iter([_shape(line) for line in printed.splitlines()])
    for line in shown:
        if line.strip() in ("...", ""):
            continue
        pattern = re.compile(".*".join(map(re.escape, _shape(line).split("..."))))
        assert any(pattern.fullmatch(there) for there in lines), (
            f"{where} does not print (in this order)\n{line}\nbut\n{printed}"
        )


def _shape(line: str) -> str:
    return " ".join(_NUMBER.sub("0", line).split())
