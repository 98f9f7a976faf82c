"""Answers with a length of their own: what a decoder learns, what beam search finds, what CTC adds up."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrnn.data.encoding import Encoding
from rayrnn.data.symbols import Symbols
from rayrnn.data.units import WORDS
from rayrnn.data.vocabulary import END, Vocabulary
from rayrnn.models.decoder import EncoderDecoder
from rayrnn.models.network import Network
from rayrnn.tasks import Search, beam_search
from rayrnn.tasks.ctc import BLANK, Ctc
from rayrnn.tasks.prefix_search import prefix_search
from rayrnn.tasks.transduction import Transduction

WORDS_READ = Symbols(Vocabulary.from_counts({"x": 2, "y": 2, "z": 2}, unknown=True), WORDS)
WORDS_WRITTEN = Symbols(Vocabulary.from_counts({"a": 1, "b": 1, END: 1}, unknown=True), WORDS, longest=3)
ENCODING = Encoding(WORDS_READ, WORDS_WRITTEN, per_step=False)


def rows(*pairs: tuple[str, str | None]) -> pa.Table:
    lists = pa.list_(pa.string())
    targets = [None if target is None else target.split() for _, target in pairs]
    return pa.table(
        {
            "key": [f"row {number}" for number in range(len(pairs))],
            "symbols": pa.array([text.split() for text, _ in pairs], lists),
            "target": pa.array(targets, lists),
        }
    )


def network(*, attention: str = "dot", feeding: bool = True, cell: str = "lstm", layers: int = 1) -> EncoderDecoder:
    torch.manual_seed(3)
    encoder = Network(
        num_inputs=WORDS_READ.size,
        num_outputs=0,
        symbols=True,
        cell=cell,
        hidden_size=6,
        num_layers=1,
        embedding_size=5,
        bidirectional="concat",
    )
    return EncoderDecoder(
        encoder,
        num_outputs=WORDS_WRITTEN.size,
        end=WORDS_WRITTEN.vocabulary.end,
        cell=cell,
        hidden_size=7,
        num_layers=layers,
        embedding_size=4,
        attention=attention,
        input_feeding=feeding,
    ).eval()


ALL_KINDS = pytest.mark.parametrize(
    ("attention", "feeding", "cell", "layers"),
    [
        ("dot", True, "lstm", 1),
        ("additive", True, "gru", 2),
        ("dot", False, "graves_lstm", 1),
        ("additive", False, "rnn", 2),
    ],
)


@ALL_KINDS
def test_learning_a_target_at_once_answers_as_writing_it_symbol_by_symbol(
    attention: str, feeding: bool, cell: str, layers: int
) -> None:
    made = network(attention=attention, feeding=feeding, cell=cell, layers=layers)
    minibatch = Transduction().minibatch(rows(("x y z", "a b a"), ("y", "b")), ENCODING)
    logits_BUV, _ = made(minibatch.inputs, None, minibatch.mask, minibatch.targets)
    memory, writing = made.read(minibatch.inputs, minibatch.mask)
    symbols_B = torch.full((2,), WORDS_WRITTEN.vocabulary.end)
    for step in range(minibatch.targets.shape[1]):
        logits_BV, writing, weights_BT = made.write(symbols_B, writing, memory)
        torch.testing.assert_close(logits_BV, logits_BUV[:, step])
        torch.testing.assert_close(weights_BT.sum(-1), torch.ones(2))
        symbols_B = minibatch.targets[:, step]
    assert weights_BT[1, 1:].eq(0).all(), "padding is not looked at"


@ALL_KINDS
def test_a_row_is_answered_the_same_alone_and_beside_a_longer_one(
    attention: str, feeding: bool, cell: str, layers: int
) -> None:
    made, task = network(attention=attention, feeding=feeding, cell=cell, layers=layers), Transduction()
    both = task.minibatch(rows(("x y z x", "a b a"), ("y z", "b")), ENCODING)
    alone = task.minibatch(rows(("y z", "b")), ENCODING)
    torch.testing.assert_close(task.call(made, both, None)[0][1:, :2], task.call(made, alone, None)[0])


def test_every_symbol_of_a_target_and_its_end_count_and_padding_does_not() -> None:
    minibatch = Transduction().minibatch(rows(("x y", "a b"), ("y", "b"), ("z", None)), ENCODING)
    outputs = torch.zeros(3, 3, WORDS_WRITTEN.size)
    loss, count = Transduction().loss(outputs, minibatch)
    assert count.item() == 3 + 2
    assert loss.item() == pytest.approx(5 * math.log(WORDS_WRITTEN.size))


def _score(made: EncoderDecoder, text: str, symbols: tuple[int, ...], exponent: float) -> float:
    """The log-probability of a target and its end, over the length penalty."""
    end, unknown = WORDS_WRITTEN.vocabulary.end, WORDS_WRITTEN.vocabulary.unknown
    minibatch = Transduction().minibatch(rows((text, None)), ENCODING)
    targets = torch.tensor([[*symbols, end]])
    logits, _ = made(minibatch.inputs, None, minibatch.mask, targets)
    chances = logits[0].double().log_softmax(-1)
    total = sum(float(chances[place, symbol]) for place, symbol in enumerate(targets[0].tolist()))
    assert unknown not in symbols
    return total / beam_search.length_penalty(len(symbols) + 1, exponent)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
@torch.inference_mode()
def test_a_wide_beam_finds_what_trying_all_answers_finds(exponent: float) -> None:
    made, end = network(), WORDS_WRITTEN.vocabulary.end
    written = [number for number in range(WORDS_WRITTEN.size) if number not in (end, WORDS_WRITTEN.vocabulary.unknown)]
    most = 4
    every = [symbols for length in range(most + 1) for symbols in itertools.product(written, repeat=length)]
    minibatch = Transduction().minibatch(rows(("x y z", None), ("y", None)), ENCODING)

    class Writer:
        def __init__(self) -> None:
            self.memory, self.writing = made.read(minibatch.inputs, minibatch.mask)

        def step(self, symbols_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, self.writing, weights = made.write(symbols_N, self.writing, self.memory)
            return logits, weights

        def keep(self, rows_N: torch.Tensor) -> None:
            self.writing = made.rows_of(self.writing, rows_N)
            if len(self.memory.mask) != len(rows_N):
                self.memory = made.rows_of(self.memory, rows_N)

    symbols = beam_search.Writable(end, WORDS_WRITTEN.never_written, most)
    found = beam_search.beam_search(Writer(), symbols, Search(beam=40, length_penalty=exponent), num_rows=2)
    for text, hypotheses in zip(("x y z", "y"), found, strict=True):
        due = sorted(every, key=lambda one: -_score(made, text, one, exponent))
        assert [one.symbols for one in hypotheses[:5]] == due[:5]
        assert hypotheses[0].score == pytest.approx(_score(made, text, due[0], exponent), rel=1e-5)


def test_a_beam_of_one_takes_the_likeliest_symbol_each_time() -> None:
    made, task = network(), Transduction()
    minibatch = task.minibatch(rows(("x y z", None)), ENCODING)
    ((found,),) = task.search(made, minibatch, ENCODING, Search(beam=1, keep_weights=True))
    with torch.inference_mode():
        targets = torch.tensor([[*found.symbols, WORDS_WRITTEN.vocabulary.end]])
        logits, _ = made(minibatch.inputs, None, minibatch.mask, targets)
    logits = logits.clone()
    logits[..., WORDS_WRITTEN.vocabulary.unknown] = -torch.inf
    longest = WORDS_WRITTEN.most_written
    assert logits[0].argmax(-1).tolist()[:longest] == targets[0].tolist()[:longest]
    assert len(found.weights) == len(found.symbols) + 1


def test_an_answer_ends_however_little_the_network_wants_it_to() -> None:
    made, task = network(), Transduction()
    with torch.no_grad():
        made.projection.bias[WORDS_WRITTEN.vocabulary.end] = -1e4
    for beam in (1, 3):
        best = task.search(made, task.minibatch(rows(("x", None)), ENCODING), ENCODING, Search(beam=beam))[0][0]
        assert len(best.symbols) in (0, WORDS_WRITTEN.most_written)


def _said(path: tuple[int, ...]) -> tuple[int, ...]:
    merged = [symbol for symbol, _ in itertools.groupby(path)]
    return tuple(symbol for symbol in merged if symbol != BLANK)


def _all_sums(chances_TV: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every sequence with the probability of all ways in which the steps can say it."""
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(chances_TV.shape[1]), repeat=len(chances_TV)):
        chance = math.exp(sum(chances_TV[step, symbol] for step, symbol in enumerate(path)))
        sums[_said(path)] = sums.get(_said(path), 0.0) + chance
    return sums


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 5))
def test_prefix_search_finds_what_adding_up_all_ways_finds(seed: int, steps: int) -> None:
    torch.manual_seed(seed)
    chances_TV = (2 * torch.randn(steps, 3)).log_softmax(-1).numpy()
    sums = _all_sums(chances_TV)
    found = prefix_search(chances_TV, beam=1000, blank=BLANK)
    best = max(sums, key=lambda one: sums[one])
    assert found[0].score == pytest.approx(math.log(sums[best]), rel=1e-5)
    for one in found:
        assert math.exp(one.score) == pytest.approx(sums[one.symbols], rel=1e-4)


def test_ctc_adds_up_all_ways_in_which_the_steps_can_say_a_target_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    task = Ctc()
    a, b = (WORDS_WRITTEN.vocabulary.symbols.index(symbol) for symbol in "ab")
    minibatch = task.minibatch(rows(("x y z x y", "a b"), ("y z x", "b b"), ("x", None)), ENCODING)
    logits_BTV = torch.randn(3, 5, WORDS_WRITTEN.size)
    logits_BTV[..., WORDS_WRITTEN.vocabulary.end] = -1e4  # which ctc never says

    class Fixed(torch.nn.Module):
        def forward(self, inputs: torch.Tensor, state: object, mask: torch.Tensor) -> tuple[torch.Tensor, None]:
            return logits_BTV, None

    outputs, _ = task.call(Fixed(), minibatch, None)
    loss, count = task.loss(outputs, minibatch)
    chances = logits_BTV.log_softmax(-1).numpy()
    due = -math.log(_all_sums(chances[0])[(a, b)]) - math.log(_all_sums(chances[1, :3])[(b, b)])
    assert loss.item() == pytest.approx(due, rel=1e-4)
    assert count.item() == 4
    greedy = task.search(Fixed(), minibatch, ENCODING, Search(beam=1))
    assert greedy[1][0].symbols == _said(tuple(chances[1, :3].argmax(-1).tolist()))


@pytest.mark.parametrize(
    ("text", "target", "fits"),
    [("x y", "a b", True), ("x y", "a a", False), ("x", "a b", False), ("x y z", "a a", True)],
)
def test_a_target_that_has_too_few_steps_is_told_with_its_sequence_and_both_lengths(
    text: str, target: str, fits: bool
) -> None:
    faults = Ctc().faults_of(rows(("x y z x", "a"), (text, target)), ENCODING)
    assert (faults == []) == fits
    if not fits:
        steps, symbols = len(text.split()), len(target.split())
        assert f"sequence 'row 1' has {steps} steps to answer in and a target of {symbols} symbols" in faults[0]


def test_what_has_too_few_steps_counts_for_nothing_and_what_nobody_knows_takes_none() -> None:
    task = Ctc()
    table = rows(("x y z", "a b"), ("x", "b a"), ("x y", "a unheard b"))
    assert len(task.faults_of(table, ENCODING)) == 1
    minibatch = task.minibatch(table, ENCODING)
    assert minibatch.target_mask.sum(1).tolist() == [2, 0, 2]

    def fixed(inputs: torch.Tensor, state: object, mask: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.zeros(*mask.shape, WORDS_WRITTEN.size), None

    outputs, _ = task.call(fixed, minibatch, None)  # type: ignore[arg-type]
    loss, count = task.loss(outputs, minibatch)
    assert count.item() == 4
    alone = task.minibatch(rows(("x y z", "a b"), ("x y", "a b")), ENCODING)
    expected, _ = task.loss(task.call(fixed, alone, None)[0], alone)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected.item())


def test_error_rates_and_overlaps_are_those_of_other_programs() -> None:
    jiwer, sacrebleu = pytest.importorskip("jiwer"), pytest.importorskip("sacrebleu")
    answers = ["the cat sat on the mat", "there is a house", "a b c d e", "x"]
    truths = ["the cat sat on a mat", "there was a small house here", "a b c d e", "x y"]
    task = Transduction()
    one, other = task.metrics(ENCODING), task.metrics(ENCODING)
    for metrics, part in ((one, slice(0, 2)), (other, slice(2, 4))):
        task.count_answers(metrics, answers[part], truths[part])
        metrics.add_loss(torch.tensor(2.0), torch.tensor(1))
    one.merge([other])
    results = task.results(one)
    assert results["exact_match"] == 0.25
    assert results["word_error_rate"] == pytest.approx(jiwer.wer(truths, answers))
    assert results["character_error_rate"] == pytest.approx(jiwer.cer(truths, answers))
    assert results["bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [truths]).score, rel=1e-4)
    assert results["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [truths]).score, rel=1e-4)


@pytest.mark.parametrize(
    ("answers", "truths"),
    [
        (["K AH T"], ["K AH T"]),
        (["x y"], ["a b"]),
        (["the cat sat on it", "a b c d"], ["the dog sat on it", "a b d c"]),
        (["a b c d e"], ["a c b e d"]),
        ([""], ["a b"]),
        (["", "", "the cat"], ["a house", "x", "the cat"]),
        (["le\xa0chat :\u202foui", "z"], ["le\xa0chat\u202f: oui", "qqqq q"]),
    ],
)
def test_overlaps_of_short_texts_are_those_of_sacrebleu(answers: list[str], truths: list[str]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    task = Transduction()
    metrics = task.metrics(ENCODING)
    task.count_answers(metrics, answers, truths)
    metrics.add_loss(torch.tensor(2.0), torch.tensor(1))
    results = task.results(metrics)
    assert results["bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [truths]).score, abs=1e-3)
    assert results["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [truths]).score, abs=1e-3)


def test_the_states_of_stacked_decoder_layers_are_contiguous_as_cudnn_needs_them() -> None:
    made = network(layers=2)
    _, writing = made.read(torch.ones(3, 4, dtype=torch.long), None)
    assert all(part.is_contiguous() for state in writing.layers for part in state)
