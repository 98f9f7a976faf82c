"""Texts as OpenAI's completions ask for them and tell of them: requests, answers, and server-sent events.

The form is that of https://platform.openai.com/docs/api-reference/completions, so that its clients work unchanged.
"""

import json
import time
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayrnn.data.symbols import Symbols
from rayrnn.errors import DataError, UsageError
from rayrnn.generation import Drawing
from rayrnn.serving.text_writer import Text, Written

#: symbols of a text, and texts, that one request may ask for
MOST_TOKENS = 100_000
MOST_CHOICES = 128
MOST_STOPS = 16

#: of one text where it may end
Stop = Annotated[str, Field(min_length=1)]


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """What is to be written."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The run; it may be left out where only one is served.")
    prompt: str | list[str] = Field("", description="What the text begins with, or what several begin with.")
    max_tokens: int = Field(16, ge=1, le=MOST_TOKENS, description="Symbols to write, at most.")
    temperature: float = Field(1.0, ge=0, le=100, description="0 takes the likeliest symbol.")
    top_p: float = Field(1.0, gt=0, le=1, description="Only the likeliest symbols that together reach this share.")
    top_k: int = Field(0, ge=0, description="Only so many of the likeliest symbols; 0 = all.")
    n: int = Field(1, ge=1, le=MOST_CHOICES, description="Texts for each prompt.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="The same seed draws the same text.")
    stop: Stop | list[Stop] | None = Field(None, description="Where a text ends; it is not part of it.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=20, description="Tell the probabilities of so many symbols.")
    echo: Literal[False] = False
    suffix: None = None
    best_of: int | None = None
    presence_penalty: Literal[0] = 0
    frequency_penalty: Literal[0] = 0
    logit_bias: dict[str, float] | None = None
    user: str | None = None

    @property
    def prompts(self) -> list[str]:
        """What texts begin with, one or several."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def stops(self) -> tuple[str, ...]:
        """Where texts end."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def check(self) -> None:
        """What pydantic does not look at.

        Raises:
            UsageError: something is asked for that there is not, or too much at once.
        """
        if self.best_of not in (None, self.n):
            raise UsageError("best_of is not there: ask for n texts and choose among them")
        if self.logit_bias:
            raise UsageError("logit_bias is not there: leave it out")
        if not self.prompts:
            raise UsageError("prompt is an empty list: give a text, or leave it out")
        if (count := len(self.prompts) * self.n) > MOST_CHOICES:
            raise UsageError(f"{count} texts are asked for, {MOST_CHOICES} can be at once: send several requests")
        if len(self.stops) > MOST_STOPS:
            raise UsageError(f"there are {len(self.stops)} stops; {MOST_STOPS} can be given")
        if self.stream_options is not None and not self.stream:
            raise UsageError("stream_options goes with stream: true")


def validated(given: Any) -> CompletionRequest:
    """
    Raises:
        UsageError: it is no such request; names the first key that is wrong.
    """
    if isinstance(given, dict):  # in OpenAI's interface null is the default
        given = {name: value for name, value in given.items() if value is not None}
    try:
        asked = CompletionRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        if first["type"] in ("literal_error", "none_required", "extra_forbidden"):
            raise UsageError(f"{where} is not there: leave it out") from None
        raise UsageError(f"{where}: {first['msg']}") from None
    asked.check()
    return asked


class Choice:
    """One of the texts of an answer: what was written of it, up to where it is to stop."""

    def __init__(self, index: int, text: Text, stops: tuple[str, ...]) -> None:
        self.index = index
        self.text = text
        self.num_tokens = 0
        self.finish_reason: str | None = None
        self._stops = stops
        #: what may become a stop
        self._held = ""
        self._symbols: list[tuple[int, Written]] = []
        self._num_characters = 0

    def take(self) -> tuple[str, list[tuple[int, Written]]]:
        """What can be told since the last call: text, and its symbols with their places in it."""
        ended = self.text.ended  # before the news: nothing comes after it
        if isinstance(ended, Exception):
            raise ended
        ready: list[str] = []
        news = self.text.news()
        if not self._stops and self.text.logprobs is None:
            # neither is a stop looked for, nor does anybody ask where in the text a symbol stands
            self.num_tokens += len(news)
            ready, news = [written.text for written in news], []
        for written in news:
            if self.finish_reason is not None:
                break
            self.num_tokens += 1
            self._symbols.append((self._num_characters, written))
            self._num_characters += len(written.text)
            ready.append(self._passed(written.text))
        if ended is not None and self.finish_reason is None:
            ready.append(self._held)
            self._held = ""
            self.finish_reason = {"end": "stop", "length": "length"}[ended]
        symbols, self._symbols = self._symbols, []
        return "".join(ready), symbols

    def _passed(self, piece: str) -> str:
        """What of the text so far cannot be part of a stop any more."""
        if not self._stops:
            return piece
        self._held += piece
        places = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            ready, self._held = self._held[: min(places)[0]], ""
            self.finish_reason = "stop"
            self.text.left = True
            return ready
        kept = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - kept
        ready, self._held = self._held[:cut], self._held[cut:]
        return ready


def _overlap(text: str, stop: str) -> int:
    """How long the longest end of the text is that a stop begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def texts_of(request: CompletionRequest, symbols: Symbols, *, default_seed: int) -> list[Text]:
    """The texts that a request asks for, those of one prompt together.

    Raises:
        UsageError: there is nothing in a prompt where something is due.
        DataError: a prompt holds a symbol that was not learned, where unknown ones were not either.
    """
    drawing = Drawing(request.temperature, request.top_k, request.top_p)
    texts: list[Text] = []
    for place, prompt in enumerate(request.prompts):
        begin = _begin(prompt, symbols, where="prompt" if isinstance(request.prompt, str) else f"prompt[{place}]")
        for _ in range(request.n):
            seed = (default_seed if request.seed is None else request.seed) + len(texts)
            texts.append(Text(begin, request.max_tokens, drawing, seed, request.logprobs))
    return texts


def _begin(prompt: str, symbols: Symbols, *, where: str) -> list[int]:
    try:
        numbers: list[int] = symbols.numbers_of(prompt).tolist()
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    begin = symbols.vocabulary.begin
    if begin >= 0:
        return [begin, *numbers]
    if not numbers:
        raise UsageError(f"{where} is empty, and this model begins with what it is given: give it a text")
    return numbers


class Answer:
    """What is told of a request: whole, or in events."""

    def __init__(self, request: CompletionRequest, model: str, choices: list[Choice]) -> None:
        self._request = request
        self._choices = choices
        self._num_read = sum(len(choice.text.begin) for choice in choices[:: request.n])
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, pieces: dict[int, tuple[str, list[tuple[int, Written]]]]) -> dict[str, Any]:
        """The answer to a request without `stream`; `pieces` by the choices' index."""
        choices = [self._choice(choice, *pieces[choice.index]) for choice in self._choices]
        return self._head | {"choices": choices, "usage": self._usage()}

    def events(self, told: Iterable[tuple[Choice, str, list[tuple[int, Written]]]]) -> str:
        """Server-sent events of what is new."""
        return "".join(_event(self._head | {"choices": [self._choice(*news)]}) for news in told)

    def end(self) -> str:
        """The events that end a stream."""
        options = self._request.stream_options
        told = options is not None and options.include_usage
        usage = _event(self._head | {"choices": [], "usage": self._usage()}) if told else ""
        return usage + "data: [DONE]\n\n"

    def _choice(self, choice: Choice, text: str, symbols: list[tuple[int, Written]]) -> dict[str, Any]:
        return {
            "text": text,
            "index": choice.index,
            "logprobs": None if self._request.logprobs is None else _logprobs(symbols),
            "finish_reason": choice.finish_reason,
        }

    def _usage(self) -> dict[str, int]:
        written = sum(choice.num_tokens for choice in self._choices)
        return {
            "prompt_tokens": self._num_read,
            "completion_tokens": written,
            "total_tokens": self._num_read + written,
        }


def _logprobs(symbols: list[tuple[int, Written]]) -> dict[str, Any]:
    return {
        "tokens": [written.text for _, written in symbols],
        "token_logprobs": [written.logprob for _, written in symbols],
        "top_logprobs": [dict(written.likeliest) for _, written in symbols],
        "text_offset": [place for place, _ in symbols],
    }


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values, ensure_ascii=False)}\n\n"


def error_event(message: str) -> str:
    """The event that ends a stream that broke."""
    return _event({"error": {"message": message, "type": "server_error", "param": None, "code": None}})
