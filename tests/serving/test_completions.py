"""What is told of a text: where it stops, what its symbols are, and what a request may ask for."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError, RayrnnError, RunError, UsageError
from rayrnn.generation import Drawing
from rayrnn.serving.completions import Answer, Choice, CompletionRequest, texts_of, validated
from rayrnn.serving.text_writer import Text, Written

SYMBOLS = Symbols(Vocabulary(tuple("abc\n")))


def request(**values: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "a"} | values)


def choice(*stops: str) -> Choice:
    return Choice(0, Text([0], 100, Drawing(), 0), stops)


def tell(one: Choice, *pieces: str, ended: str | RunError | None = None) -> str:
    """Write pieces, and take what can be told of them."""
    for piece in pieces:
        one.text.tell(Written(piece))
    one.text.ended = ended
    return one.take()[0]


@pytest.mark.parametrize(
    ("stops", "pieces", "told"),
    [
        ((), ["ab", "c"], ["ab", "c"]),
        (("c",), ["a", "b", "c", "a"], ["a", "b", ""]),
        (("bca",), ["a", "b", "c", "a"], ["a", "", "", ""]),
        (("bca",), ["a", "b", "c", "b"], ["a", "", "", "bc"]),
        (("bb", "abc"), ["a", "b", "b"], ["", "", "a"]),
        (("b", "ab"), ["a", "b"], ["", ""]),
        (("aab",), ["a", "a", "a", "b"], ["", "", "a", ""]),
        (("b c",), ["a b ", "b c d"], ["a ", "b "]),
    ],
)
def test_a_stop_is_not_told_and_what_cannot_become_one_is_told_at_once(
    stops: tuple[str, ...], pieces: list[str], told: list[str]
) -> None:
    one = choice(*stops)
    assert [tell(one, piece) for piece in pieces[: len(told)]] == told


def test_a_text_that_has_stopped_is_not_written_on() -> None:
    one = choice("c")
    assert tell(one, "a", "c", "a") == "a"
    assert (one.finish_reason, one.text.left, one.num_tokens) == ("stop", True, 2)


def test_what_might_have_become_a_stop_is_told_at_the_end() -> None:
    one = choice("bca")
    assert tell(one, "a", "b", "c", ended="length") == "abc"
    assert one.finish_reason == "length"
    other = choice()
    assert tell(other, "a", ended="end") == "a"
    assert other.finish_reason == "stop"


def test_what_went_wrong_is_raised() -> None:
    with pytest.raises(RunError, match="diverged"):
        tell(choice(), ended=RunError("diverged"))


def test_the_places_of_symbols_are_those_in_the_text() -> None:
    one = choice()
    one.text.logprobs = 1
    one.text.tell(Written("ab", -1.0, (("ab", -1.0),)))
    one.text.tell(Written("c", -2.0, (("c", -2.0),)))
    _, symbols = one.take()
    one.text.tell(Written("a", -3.0))
    answer = Answer(request(logprobs=1), "m", [one])
    told = answer.whole({0: ("abca", [*symbols, *one.take()[1]])})
    assert told["choices"][0]["logprobs"]["text_offset"] == [0, 2, 3]
    assert told["choices"][0]["logprobs"]["token_logprobs"] == [-1.0, -2.0, -3.0]


def test_events_are_server_sent_events_that_end_with_done() -> None:
    one = choice()
    answer = Answer(request(stream=True, stream_options={"include_usage": True}), "m", [one])
    events = answer.events([(one, "\u00e4\n\n", [])]) + answer.end()
    *told, done, nothing = events.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    text, usage = (json.loads(event.removeprefix("data: ")) for event in told)
    assert text["choices"][0]["text"] == "\u00e4\n\n"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}
    assert text["id"] == usage["id"]


def test_every_prompt_has_its_texts_with_seeds_of_their_own() -> None:
    texts = texts_of(request(prompt=["a", "bc"], n=2, seed=5, max_tokens=9), SYMBOLS, default_seed=1)
    assert [list(text.begin) for text in texts] == [[0], [0], [1, 2], [1, 2]]
    assert [text.seed for text in texts] == [5, 6, 7, 8]
    assert {text.length for text in texts} == {9}


def test_without_a_prompt_a_model_that_knows_begins_starts_with_one() -> None:
    begins = Symbols(Vocabulary(("<begin>", "a")))
    assert [list(text.begin) for text in texts_of(request(prompt=""), begins, default_seed=1)] == [[0]]
    with pytest.raises(UsageError, match="prompt is empty"):
        texts_of(request(prompt=""), SYMBOLS, default_seed=1)


def test_a_symbol_that_was_not_learned_is_named_with_its_prompt() -> None:
    with pytest.raises(DataError, match=r"prompt\[1\].*'x'"):
        texts_of(request(prompt=["a", "x"]), SYMBOLS, default_seed=1)
    knows = Symbols(Vocabulary(("<unknown>", "a")))
    assert [list(text.begin) for text in texts_of(request(prompt="xa"), knows, default_seed=1)] == [[0, 1]]


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 0},
        {"temperature": -1},
        {"top_p": 0},
        {"n": 0},
        {"echo": True},
        {"presence_penalty": 0.5},
        {"stop": ""},
        {"prompt": [1, 2]},
        {"prompt": None},
        {"max_token": 5},
        {"seed": 2**63},
        {"logprobs": 21},
    ],
)
def test_what_cannot_be_asked_for_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**values)


@pytest.mark.parametrize("values", [{"echo": True}, {"suffix": "x"}, {"presence_penalty": 0.5}, {"max_token": 5}])
def test_what_is_not_there_is_told_to_be_left_out(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(UsageError, match=rf"^{name} is not there: leave it out$"):
        validated(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"best_of": 3}, "best_of"),
        ({"logit_bias": {"5": 1.0}}, "logit_bias"),
        ({"prompt": []}, "empty list"),
        ({"prompt": ["a"] * 65, "n": 2}, "130 texts"),
        ({"stop": list("abcdefghijklmnopq")}, "17 stops"),
        ({"stream_options": {"include_usage": True}}, "stream: true"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RayrnnError, match=words):
        request(**values).check()
