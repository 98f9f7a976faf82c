"""The pictures in docs/pictures: what a terminal shows while `rayrnn train python` runs, recorded from such a run.

python -m docs.make.pictures    (three minutes or more on two cores; from the checkout's folder)

The command runs in a terminal of its own. A terminal emulator reads what it writes, as a user's terminal would, and its
screen is drawn twice: in the middle of the run, and at its end. Nothing is invented, and nothing is loaded from the
network when the pictures are shown.
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

PICTURES = Path(__file__).parent.parent / "pictures"
COLUMNS, LINES = 110, 70
COMMAND = "rayrnn train python"
#: the rounds are 56
MIDDLE = " 42/56 "
#: the emulator's names for colours -> rich's
COLOURS = {"default": "default", "brown": "yellow"}


def main() -> None:
    """Record the run, and draw it twice."""
    screen = pyte.Screen(COLUMNS, LINES)
    middle: Text | None = None
    for _ in _run(screen):
        if middle is None and any(MIDDLE in line for line in screen.display):
            middle = _drawn(screen)
    assert middle is not None, "\n".join(screen.display)
    _save("training.svg", middle)
    _save("finished.svg", _drawn(screen))


def _run(screen: pyte.Screen):  # type: ignore[no-untyped-def]
    """Yield after every change of the screen."""
    stream = pyte.ByteStream(screen)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    variables = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    variables.pop("COLUMNS", None)
    stream.feed(f"\x1b[1m$ {COMMAND}\x1b[0m\r\n".encode())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rayrnn.cli", *COMMAND.split()[1:]]
        with subprocess.Popen(command, cwd=folder, env=variables, stdin=follower, stdout=follower, stderr=follower):
            os.close(follower)
            while data := _read(leader):
                stream.feed(data)
                yield


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # the last process with this terminal has ended
        return b""


def _drawn(screen: pyte.Screen) -> Text:
    """The screen's lines with their colours, without the empty ones at the end."""
    last = max(number for number, line in enumerate(screen.display) if line.strip())
    lines = []
    for row in range(last + 1):
        line = Text()
        for column in range(screen.columns):
            character = screen.buffer[row][column]
            style = Style(color=_colour(character.fg), bold=character.bold, italic=character.italics)
            line.append(character.data, style)
        line.rstrip()
        lines.append(line)
    return Text("\n").join(lines)


def _colour(name: str) -> str:
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return COLOURS.get(name, name.replace("bright", "bright_"))


def _save(name: str, text: Text) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(text)
    svg = console.export_svg(title=COMMAND, theme=DIMMED_MONOKAI, unique_id=name.partition(".")[0])
    svg = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace")
    (PICTURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
