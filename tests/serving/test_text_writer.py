"""Many texts are written at once, and each is what it would be alone."""

from pathlib import Path

import pytest
import torch

from rayrnn.data.symbols import Symbols
from rayrnn.errors import RunError
from rayrnn.generation import Drawing
from rayrnn.runs.model import trained
from rayrnn.serving.text_writer import MOST_READ, Text, TextWriter
from tests.untrained import make_run

pytestmark = pytest.mark.usefixtures("ray_cluster")

LETTERS = "abcdefghij \n"


@pytest.fixture(scope="module", params=["rnn", "gru", "lstm", "graves_lstm"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Symbols]:
    """A network with large weights, so that what it says depends on all that it has read."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "text.txt").write_text(LETTERS * 60)
    data = {"source": "text", "path": str(folder / "text.txt"), "length": 40}
    run = make_run(folder / "run", "language_model", data, {"cell": request.param, "layers": 2, "hidden": 12})
    model = trained(run)
    network = model.network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    assert isinstance(model.encoding.inputs, Symbols)
    return network, model.encoding.inputs


def text(symbols: Symbols, begin: str, length: int, seed: int = 0, **drawing: float) -> Text:
    return Text(symbols.numbers_of(begin).tolist(), length, Drawing(**drawing), seed)  # type: ignore[arg-type]


def write(writer: TextWriter) -> None:
    while not writer.is_idle:
        writer.step()


def told(text: Text) -> str:
    return "".join(written.text for written in text.news())


def stepwise(network: torch.nn.Module, symbols: Symbols, begin: str, length: int) -> str:
    """The likeliest symbols, each after reading the whole text again."""
    numbers = symbols.numbers_of(begin).tolist()
    never = [number for number in (symbols.vocabulary.begin, symbols.vocabulary.unknown) if number >= 0]
    for _ in range(length):
        with torch.no_grad():
            logits = network(torch.tensor([numbers]), None, torch.ones(1, len(numbers), dtype=torch.bool))[0][0, -1]
        logits[never] = -torch.inf
        numbers.append(int(logits.argmax()))
    return symbols.text_of(numbers)[len(begin) :]


def test_texts_that_come_and_go_are_each_what_they_are_alone(parts: tuple[torch.nn.Module, Symbols]) -> None:
    network, symbols = parts
    writer = TextWriter(network, symbols)
    begins = ["a", "abc", "hij\nab", "c", "jjjj"]
    texts = [text(symbols, begin, 10 + 7 * place, temperature=0) for place, begin in enumerate(begins)]
    for one in texts:
        writer.add(one)
        for _ in range(3):
            writer.step()
    write(writer)
    for place, (begin, one) in enumerate(zip(begins, texts, strict=True)):
        assert one.ended == "length"
        assert told(one) == stepwise(network, symbols, begin, 10 + 7 * place)


def test_the_same_seed_draws_the_same_text_whoever_writes_beside_it(parts: tuple[torch.nn.Module, Symbols]) -> None:
    network, symbols = parts
    alone, beside = text(symbols, "ab", 60, seed=7), text(symbols, "ab", 60, seed=7)
    writer = TextWriter(network, symbols)
    writer.add(alone)
    write(writer)
    for seed in range(20):
        writer.add(text(symbols, LETTERS[: 1 + seed % 9], 5 + seed, seed=seed))
    writer.add(beside)
    write(writer)
    assert told(alone) == told(beside)


def test_other_seeds_draw_other_texts_by_the_probabilities_of_the_model(
    parts: tuple[torch.nn.Module, Symbols],
) -> None:
    network, symbols = parts
    count = 2000
    writer = TextWriter(network, symbols)
    texts = [text(symbols, "abc", 1, seed=seed, temperature=2.0) for seed in range(count)]
    for one in texts:
        writer.add(one)
    write(writer)
    with torch.no_grad():
        logits = network(torch.tensor([symbols.numbers_of("abc").tolist()]), None, torch.ones(1, 3).bool())[0][0, -1]
    drawn = [told(one) for one in texts]
    for number, chance in enumerate((logits / 2).softmax(-1).tolist()):
        share = drawn.count(symbols.appended(number)) / count
        # five standard deviations
        assert abs(share - chance) <= 5 * (chance * (1 - chance) / count) ** 0.5 + 1e-9


def test_top_k_and_top_p_hold_for_their_own_text_only(parts: tuple[torch.nn.Module, Symbols]) -> None:
    network, symbols = parts
    writer = TextWriter(network, symbols)
    narrow = [text(symbols, "abc", 1, seed=seed, temperature=50, top_p=0.01) for seed in range(40)]
    two = [text(symbols, "abc", 1, seed=seed, temperature=50, top_k=2) for seed in range(40)]
    wide = [text(symbols, "abc", 1, seed=seed, temperature=50) for seed in range(40)]
    for one in (*narrow, *two, *wide):
        writer.add(one)
    write(writer)
    assert len({told(one) for one in narrow}) == 1
    assert len({told(one) for one in two}) == 2
    assert len({told(one) for one in wide}) > 4


def test_a_long_begin_is_read_in_pieces_while_others_write(parts: tuple[torch.nn.Module, Symbols]) -> None:
    network, symbols = parts
    writer = TextWriter(network, symbols)
    begin = (LETTERS * 300)[: 3 * MOST_READ + 17]
    writing, reading = text(symbols, "a", 50, temperature=0), text(symbols, begin, 5, temperature=0)
    writer.add(writing)
    writer.step()
    writer.add(reading)
    counts = []
    while not writer.is_idle and reading.ended is None:
        writer.step()
        counts.append((len(told(writing)), len(told(reading))))
    assert counts[0] == (2, 0), "the symbol of the first step, and one beside the first piece"
    assert [mine for _, mine in counts[:3]] == [0, 0, 0]
    with torch.no_grad():
        numbers = symbols.numbers_of(begin)
        logits = network(torch.from_numpy(numbers).unsqueeze(0), None, torch.ones(1, len(numbers)).bool())[0][0, -1]
    assert symbols.appended(int(logits.argmax())) == told_first(network, symbols, begin)


def told_first(network: torch.nn.Module, symbols: Symbols, begin: str) -> str:
    writer = TextWriter(network, symbols)
    one = text(symbols, begin, 1, temperature=0)
    writer.add(one)
    write(writer)
    return told(one)


def test_a_text_that_nobody_waits_for_makes_room(parts: tuple[torch.nn.Module, Symbols]) -> None:
    network, symbols = parts
    writer = TextWriter(network, symbols)
    stays, leaves = text(symbols, "ab", 20, temperature=0), text(symbols, "abc", 10**9)
    unread = text(symbols, "a" * 10 * MOST_READ, 10**9)
    for one in (stays, leaves, unread):
        writer.add(one)
    writer.step()
    leaves.left = unread.left = True
    write(writer)
    assert stays.ended == "length"
    assert told(stays) == stepwise(network, symbols, "ab", 20)


def test_probabilities_are_the_models_own(parts: tuple[torch.nn.Module, Symbols]) -> None:
    network, symbols = parts
    writer = TextWriter(network, symbols)
    one = Text(symbols.numbers_of("abc").tolist(), 1, Drawing(temperature=0), 0, logprobs=3)
    silent = Text(symbols.numbers_of("abc").tolist(), 1, Drawing(temperature=0), 0)
    writer.add(one)
    writer.add(silent)
    write(writer)
    with torch.no_grad():
        logits = network(torch.tensor([symbols.numbers_of("abc").tolist()]), None, torch.ones(1, 3).bool())[0][0, -1]
    values, numbers = logits.log_softmax(-1).topk(3)
    (written,) = one.news()
    assert [name for name, _ in written.likeliest] == [symbols.vocabulary.symbols[number] for number in numbers]
    assert [chance for _, chance in written.likeliest] == pytest.approx(values.tolist(), abs=1e-5)
    assert written.logprob == pytest.approx(written.likeliest[0][1])
    assert silent.news()[0].likeliest == ()


class Diverged(torch.nn.Module):
    """Its state grows until it is no number."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(num_outputs))

    def forward(
        self, inputs: torch.Tensor, state: torch.Tensor | None, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        before = torch.ones(len(inputs)) if state is None else state
        after = before * torch.where(inputs[:, -1] == 0, torch.inf, 1.0)
        return (after - after + 1).reshape(-1, 1, 1) * self.scale, after


def test_a_text_whose_outputs_are_no_numbers_ends_alone(parts: tuple[torch.nn.Module, Symbols]) -> None:
    _, symbols = parts
    writer = TextWriter(Diverged(symbols.size), symbols)
    broken = Text([0], 5, Drawing(), 0)
    good = Text([1], 1, Drawing(), 0)
    writer.add(broken)
    writer.add(good)
    write(writer)
    assert isinstance(broken.ended, RunError)
    assert "diverged" in str(broken.ended)
    assert good.ended == "length"


@pytest.fixture
def ends(tmp_path: Path) -> tuple[torch.nn.Module, Symbols]:
    """A model that knows where texts end."""
    (tmp_path / "texts").mkdir()
    for number in range(8):
        (tmp_path / "texts" / f"{number}.txt").write_text("ab" * (number + 1))
    data = {"source": "text", "path": str(tmp_path / "texts"), "length": 0, "held_out": 0.25}
    model = trained(make_run(tmp_path / "run", "language_model", data))
    assert isinstance(model.encoding.inputs, Symbols)
    return model.network(), model.encoding.inputs


def test_a_text_ends_where_the_model_says_so(ends: tuple[torch.nn.Module, Symbols]) -> None:
    network, symbols = ends
    assert symbols.vocabulary.end >= 0
    writer = TextWriter(network, symbols)
    texts = [text(symbols, "a", 1000, seed=seed) for seed in range(20)]
    for one in texts:
        writer.add(one)
    write(writer)
    assert {one.ended for one in texts} == {"end"}
    assert all(set(told(one)) <= {"a", "b"} for one in texts)
