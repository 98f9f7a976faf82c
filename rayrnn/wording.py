"""Numbers as people read them."""


def counted(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`, `3 classes`."""
    plural = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def size(num_bytes: float) -> str:
    """Bytes in decimal units, to three digits: `114 kB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:  # which three digits make 1000 of
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
