"""A language model writes many texts at once: one step for all of them, and whoever has ended makes room at once.

This is continuous batching (Yu et al., Orca, OSDI 2022), for a recurrent network: what a text carries from step to step
is a row of the state, and begins and ends of texts add and remove rows. B texts, T time, V symbols.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rayrnn.data.symbols import Symbols
from rayrnn.errors import RunError
from rayrnn.generation import Drawing, cooled, drawable, nucleus, only_likeliest
from rayrnn.models.state import joined, rows_of

#: symbols of what texts begin with that are read between two steps, so that whoever writes does not wait long
MOST_READ = 512


@dataclass(frozen=True)
class Written:
    """One symbol of a text."""

    #: what it adds to the text
    text: str
    #: the logarithm of its probability by the model, before the temperature; 0 where nobody asked
    logprob: float = 0.0
    #: the likeliest symbols and the logarithms of their probabilities, as many as were asked for
    likeliest: tuple[tuple[str, float], ...] = ()


@dataclass
class Text:
    """A text that is to be written, and how far it is.

    Args:
        begin: the numbers of the symbols that it begins with, at least one.
        length: symbols to write, at most.
        logprobs: of how many of the likeliest symbols the probabilities are told; None tells of no probability.
    """

    begin: Sequence[int]
    length: int
    drawing: Drawing
    seed: int
    logprobs: int | None = None
    #: nobody waits for it any more
    left: bool = False
    #: `length` or `end` once it is written, or what went wrong
    ended: str | RunError | None = None
    _chance: random.Random = field(init=False, repr=False)
    _news: deque[Written] = field(default_factory=deque, repr=False)
    _num_read: int = 0
    _num_written: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def tell(self, written: Written) -> None:
        """Have one more symbol told."""
        self._news.append(written)

    def news(self) -> list[Written]:
        """The symbols that were written since the last call; another thread may write meanwhile."""
        return [self._news.popleft() for _ in range(len(self._news))]


@dataclass(frozen=True)
class _Drawings:
    """How texts that are written together are drawn: the same from step to step, until one comes or goes."""

    #: over which the logits are divided, B x 1
    temperatures: torch.Tensor
    #: which take the likeliest symbol, B; None where none does
    greedy: torch.Tensor | None
    #: of the rows that look at the likeliest symbols only
    top_k: tuple[tuple[int, int], ...]
    top_p: tuple[tuple[int, float], ...]
    #: whether somebody asked for probabilities
    logprobs: bool

    @classmethod
    def of(cls, texts: Sequence[Text]) -> "_Drawings":
        drawings = [text.drawing for text in texts]
        greedy = [drawing.temperature == 0 for drawing in drawings]
        return cls(
            torch.tensor([[drawing.temperature or 1.0] for drawing in drawings], dtype=torch.float64),
            torch.tensor(greedy) if any(greedy) else None,
            tuple((row, drawing.top_k) for row, drawing in enumerate(drawings) if drawing.top_k),
            tuple((row, drawing.top_p) for row, drawing in enumerate(drawings) if drawing.top_p < 1),
            any(text.logprobs is not None for text in texts),
        )


class TextWriter:
    """All texts that one network writes. Used by one thread; `add` may be called by any."""

    def __init__(self, network: torch.nn.Module, symbols: Symbols) -> None:
        self._network = network
        self._device = next(network.parameters()).device
        self._symbols = symbols
        self._end = symbols.vocabulary.end
        self._waiting: deque[Text] = deque()
        self._reading: list[tuple[Text, Any]] = []
        self._texts: list[Text] = []
        self._state: Any = None
        self._read_B = torch.zeros(0, dtype=torch.long)
        #: of the texts in a list, as long as it is the one that is written
        self._drawings: tuple[list[Text], _Drawings] | None = None
        #: what is told of a symbol where nobody asked for its probability
        self._plain: dict[int, Written] = {}

    def add(self, text: Text) -> None:
        """Have a text written; it takes part from the next step on."""
        self._waiting.append(text)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to write."""
        return not (self._waiting or self._reading or self._texts)

    @property
    def num_writing(self) -> int:
        """Texts that are being written."""
        return len(self._texts)

    @torch.inference_mode()
    def step(self) -> None:
        """Write the next symbol of every text whose begin has been read, and read a piece of the other begins."""
        self._remove([not text.left for text in self._texts])
        self._take_waiting()
        logits, states, texts = [], [], self._texts
        if texts:
            logits_BTV, state = self._call(self._read_B.unsqueeze(1), self._state)
            logits.append(logits_BTV[:, -1])
            states.append(state)
        for begun, logits_BV, state in self._read_begins():
            texts = [*texts, begun]
            logits.append(logits_BV)
            states.append(state)
        if not texts:
            return
        self._texts, self._state = texts, joined(states)
        self._write(torch.cat(logits))
        self._remove([text.ended is None for text in self._texts])

    def _take_waiting(self) -> None:
        self._reading = [(text, state) for text, state in self._reading if not text.left]
        while self._waiting:
            self._reading.append((self._waiting.popleft(), None))

    def _read_begins(self) -> list[tuple[Text, torch.Tensor, Any]]:
        """Read on in what texts begin with; those that are through, with the outputs at their last symbol."""
        through: list[tuple[Text, torch.Tensor, Any]] = []
        room = MOST_READ
        while self._reading and room > 0:
            # alike ones together: all that have not begun, or the first alone
            first = self._reading[0]
            group = [one for one in self._reading if one[1] is None] if first[1] is None else [first]
            count = min(room, *(len(text.begin) - text._num_read for text, _ in group))
            through += self._read_group(group, count)
            room -= count * len(group)
        return through

    def _read_group(self, group: list[tuple[Text, Any]], count: int) -> list[tuple[Text, torch.Tensor, Any]]:
        texts = [text for text, _ in group]
        pieces = [text.begin[text._num_read : text._num_read + count] for text in texts]
        logits_BTV, state = self._call(torch.tensor(pieces), group[0][1])
        through, reading = [], {id(text) for text in texts}
        rest: list[tuple[Text, Any]] = []
        for row, text in enumerate(texts):
            text._num_read += count
            own = rows_of(state, torch.tensor([row])) if len(texts) > 1 else state
            if text._num_read == len(text.begin):
                through.append((text, logits_BTV[row : row + 1, -1], own))
            else:
                rest.append((text, own))
        self._reading = rest + [one for one in self._reading if id(one[0]) not in reading]
        return through

    def _call(self, read_BT: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        mask_BT = torch.ones_like(read_BT, dtype=torch.bool)
        logits_BTV, after = self._network(read_BT.to(self._device), state, mask_BT.to(self._device))
        return logits_BTV.float().cpu(), after

    def _write(self, logits_BV: torch.Tensor) -> None:
        if self._drawings is None or self._drawings[0] is not self._texts:
            self._drawings = self._texts, _Drawings.of(self._texts)
        drawings = self._drawings[1]
        drawn_B = self._draw(logits_BV, drawings)
        told = self._tell(logits_BV, drawn_B, drawings)
        self._read_B = drawn_B
        for text, number, written in zip(self._texts, drawn_B.tolist(), told, strict=True):
            if written is None:
                text.ended = RunError("the network's outputs are no finite numbers: the run has diverged")
                continue
            if number == self._end:
                text.ended = "end"
                continue
            text.tell(written)
            text._num_written += 1
            if text._num_written >= text.length:
                text.ended = "length"

    def _draw(self, logits_BV: torch.Tensor, drawings: _Drawings) -> torch.Tensor:
        """One symbol a text, each by its own settings and its own source of chance."""
        logits_BV = drawable(logits_BV, self._symbols.vocabulary)
        cooled_BV = cooled(logits_BV, drawings.temperatures)
        for row, count in drawings.top_k:
            cooled_BV[row : row + 1] = only_likeliest(cooled_BV[row : row + 1], count)
        chances_BV = cooled_BV.softmax(-1)
        for row, share in drawings.top_p:
            chances_BV[row : row + 1] = nucleus(chances_BV[row : row + 1], share)
        points_B1 = torch.tensor([text._chance.random() for text in self._texts], dtype=torch.float64).unsqueeze(1)
        sums_BV = chances_BV.cumsum(-1)
        drawn_B = (sums_BV <= points_B1 * sums_BV[:, -1:]).sum(-1).clamp(max=chances_BV.shape[-1] - 1)
        return drawn_B if drawings.greedy is None else torch.where(drawings.greedy, logits_BV.argmax(-1), drawn_B)

    def _tell(self, logits_BV: torch.Tensor, drawn_B: torch.Tensor, drawings: _Drawings) -> list[Written | None]:
        """What was written, None where the outputs are no numbers."""
        finite = logits_BV.isfinite().all(-1).tolist()
        logprobs_BV = logits_BV.log_softmax(-1) if drawings.logprobs else logits_BV
        told: list[Written | None] = []
        for row, (text, number) in enumerate(zip(self._texts, drawn_B.tolist(), strict=True)):
            if not finite[row]:
                told.append(None)
            elif text.logprobs is None:
                told.append(self._plain.get(number) or self._plain_of(number))
            else:
                told.append(self._with_logprobs(logprobs_BV[row], number, text.logprobs))
        return told

    def _plain_of(self, number: int) -> Written:
        written = self._plain[number] = Written(self._symbols.appended(number))
        return written

    def _with_logprobs(self, logprobs_V: torch.Tensor, number: int, count: int) -> Written:
        values, numbers = logprobs_V.topk(min(count, len(logprobs_V)))
        names = self._symbols.vocabulary.symbols
        likeliest = tuple((names[place], value) for place, value in zip(numbers.tolist(), values.tolist(), strict=True))
        return Written(self._symbols.appended(number), float(logprobs_V[number]), likeliest)

    def _remove(self, kept: list[bool]) -> None:
        """Let the rows of texts go that are written, or that nobody waits for."""
        if all(kept):
            return
        rows = torch.tensor([row for row, stays in enumerate(kept) if stays], dtype=torch.long)
        self._texts = [text for text, stays in zip(self._texts, kept, strict=True) if stays]
        self._read_B = self._read_B[rows]
        self._state = rows_of(self._state, rows) if self._texts else None
