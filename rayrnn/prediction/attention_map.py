"""A picture of what a network looked at while it wrote an answer."""

import io

from matplotlib.figure import Figure

from rayrnn.prediction.ask import Attention

#: inches of a symbol
_CELL = 0.34
#: of a picture's side; more is more pixels than are drawn
_MOST_INCHES = 300


def picture_of(looked: Attention, kind: str) -> bytes:
    """The weights as a picture: a row a symbol that was written, a column a symbol that was read.

    Args:
        kind: svg or png.
    """
    rows, columns = len(looked.weights), len(looked.weights[0])
    cell = min(_CELL, _MOST_INCHES / max(rows, columns))
    figure = Figure(figsize=(1.6 + cell * columns, 1.2 + cell * rows), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(looked.weights, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    middles = [place + 0.5 for place in range(max(rows, columns))]
    read, written = ([_shown(symbol) for symbol in symbols] for symbols in (looked.read, looked.written))
    axes.set_xticks(middles[:columns], read, rotation=_rotation(looked.read))
    axes.set_yticks(middles[:rows], written)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    picture = io.BytesIO()
    # without a date, so that the same picture is the same file
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if kind == "svg" else None
    figure.savefig(picture, format=kind, dpi=150, metadata=nothing)
    return picture.getvalue()


def _shown(symbol: str) -> str:
    return {"\n": "line end", " ": "blank"}.get(symbol, symbol).replace("$", r"\$")


def _rotation(symbols: tuple[str, ...]) -> int:
    return 90 if max(map(len, symbols), default=0) > 2 else 0
