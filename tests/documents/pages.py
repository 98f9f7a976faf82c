"""README and docs/*.md as what a reader would type: their blocks, in order, with what the comments above them say.

A block of `console`, `bash` or `python` is run, unless the HTML comment above its fence says why not. Comments:

    <!-- not run: REASON -->           the block is left alone; the reason names the test that runs the same
    <!-- run: slow -->                 only in the slow suite, and so what needs it further down the page
    <!-- run: train with ARGUMENTS --> every `rayrnn train` gets these arguments too (fewer rounds)
    <!-- run: exit NUMBER -->          the last command ends with this exit code
    <!-- run: other output -->         what the block shows is an example: another run says something else
    <!-- file: NAME -->                the block is saved under this name where the page's commands run
    <!-- output -->                    the block is what the one before it prints
    <!-- before: SCRIPT -->            no block: a script that is run at this place (data for the page)

Several words of one comment stand with `;` between them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = (
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
RUNNABLE = ("console", "bash", "python")
SHOWN = ("text", "yaml", "json", "csv", "toml", "java")

_PARTS = re.compile(
    r"^<!--(?P<comment>.*?)-->[ \t]*$|^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_WORDS = re.compile(r"(?P<name>slow|other output|train with (?P<arguments>.+)|exit (?P<code>\d+))")


@dataclass(frozen=True)
class Block:
    """One fence, or a `before` script (language `before`)."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None
    file: str | None = None
    is_output: bool = False
    slow: bool = False
    train_with: str = ""
    exit_code: int = 0
    other_output: bool = False

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.not_run is None and self.file is None and self.language in (*RUNNABLE, "before")

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """A console's commands, each with the lines that are shown as its output."""
        commands: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append((line.removeprefix("$ "), []))
            elif commands and commands[-1][0].endswith("\\") and not commands[-1][1]:
                commands[-1] = (f"{commands[-1][0]}\n{line}", [])
            else:
                assert commands, f"{self}: a console begins with a command: `$ ...`"
                commands[-1][1].append(line)
        return commands


def blocks_of(page: Path) -> list[Block]:
    """Every fence and every `before` of a page.

    Raises:
        ValueError: a comment says something that is not known, or stands above no fence.
    """
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    above: tuple[int, str] | None = None
    for part in _PARTS.finditer(text):
        line = text.count("\n", 0, part.start()) + 1
        if part["comment"] is not None:
            name, _, rest = part["comment"].strip().partition(":")
            if name not in ("before", "not run", "run", "file", "output"):
                continue
            if name == "before":
                blocks.append(Block(page, line, "before", rest.strip() + "\n"))
            else:
                above = (part.end(), part["comment"].strip())
            continue
        indent = part["indent"]
        body = "".join(row.removeprefix(indent) for row in part["text"].splitlines(keepends=True))
        said = {}
        if above is not None and not text[above[0] : part.start()].strip():
            said = _read(above[1], f"{page.name}:{line}")
        blocks.append(Block(page, line, part["language"], body, **said))  # type: ignore[arg-type]
        above = None
    return blocks


def _read(comment: str, where: str) -> dict[str, object]:
    name, _, rest = (word.strip() for word in comment.partition(":"))
    if name == "not run":
        return {"not_run": rest}
    if name == "file":
        return {"file": rest}
    if name == "output":
        return {"is_output": True}
    said: dict[str, object] = {}
    for words in rest.split(";"):
        known = _WORDS.fullmatch(words.strip())
        if known is None:
            raise ValueError(f"{where}: {words.strip()!r} is not known; see tests/documents/pages.py")
        if known["arguments"]:
            said["train_with"] = known["arguments"]
        elif known["code"]:
            said["exit_code"] = int(known["code"])
        else:
            said[known["name"].replace(" ", "_")] = True
    return said
