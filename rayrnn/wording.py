"""What people read and write: numbers, sizes, paths, commands, the word they meant, the line where a key stands."""

import difflib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

GIBIBYTE = 2**30
#: what a terminal obeys or hides: C0 without tab and line feed, DEL, C1, marks of direction, lone surrogates
_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def counted(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`, `3 classes`."""
    plural = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listed(names: Sequence[str], most: int = 20) -> str:
    """The names with commas between them, the first of them where there are many."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size(num_bytes: float) -> str:
    """Bytes in decimal units, to three digits: `114 kB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:  # which three digits make 1000 of
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def gibibytes(num_bytes: float, digits: int = 1) -> str:
    """Bytes as memory is counted, without the unit: `1.5`."""
    return f"{num_bytes / GIBIBYTE:.{digits}f}"


def parse_size(text: str) -> int | None:
    """Bytes from `8GB`, `512 MiB` or `1000000`; None for what is no size.

    K, M, G and T are powers of 1024, as Ray counts them.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")) if found else None


def duration(seconds: float) -> str:
    """The largest unit is enough: `3 min`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def harmless(text: str) -> str:
    """The text as a terminal may have it: a control character as `\\u001b`, as Python and JSON write it."""
    return _ORDERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(value: object, most: int = 200) -> str:
    """The value as it is written in a program, its middle left out where that is long."""
    words = repr(value)
    return words if len(words) <= most else f"{words[: most // 2]} ... {words[-most // 4 :]}"


def path_of(written: str | Path) -> Path:
    """The file that a path means: `~` is the home directory, also where no shell has seen it."""
    # Path.expanduser raises where there is no such user, or none of this number
    return Path(os.path.expanduser(written))


def command_line(*words: object) -> str:
    """A command that can be pasted into a shell, whatever characters a path in it has."""
    return shlex.join(map(str, words))


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one of the known words that was probably meant."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word; empty where nothing is like it."""
    close = closest(word, known)
    return f'; did you mean "{close}"?' if close else ""


def line_of(keys: Sequence[str | int], text: str) -> int | None:
    """The line, from 1, at which a value stands in a YAML text; None where the text does not have it.

    Args:
        keys: the way down to it: keys of mappings and numbers in lists. Below a plain value there is no way.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader) if text else None
    line = None
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and str(key).isdecimal() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == str(key)]
            if not found:
                return None
            name, node = found[0]
            line = name.start_mark.line + 1
        else:
            return line
    return line
