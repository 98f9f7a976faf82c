"""The network: steps and whole sequences agree, padding is nothing, both directions and poolings mean what they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrnn.models import CELLS
from rayrnn.models.network import Network, pool, reverse
from rayrnn.models.state import detached
from rayrnn.tasks.losses import cross_entropy

ALL_CELLS = pytest.mark.parametrize("cell", CELLS)


def network(*, symbols: bool = False, **options: object) -> Network:
    """Two small layers; four outputs; three features, or five symbols."""
    torch.manual_seed(1)
    settings = {"num_inputs": 5 if symbols else 3, "num_outputs": 4, "cell": "graves_lstm", "num_layers": 2}
    return Network(**{**settings, "hidden_size": 6, "symbols": symbols, **options})  # type: ignore[arg-type]


def mask_of(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


@ALL_CELLS
@pytest.mark.parametrize("embedding_size", [0, 3])
def test_step_by_step_is_the_whole_sequence(cell: str, embedding_size: int) -> None:
    net = network(cell=cell, symbols=True, embedding_size=embedding_size)
    symbols = torch.randint(5, (2, 7))
    whole, end = net(symbols)
    state, steps = None, []
    for step in symbols.split(1, dim=1):
        outputs, state = net(step, state)
        steps.append(outputs)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    torch.testing.assert_close(state, end)


@ALL_CELLS
@pytest.mark.parametrize("bidirectional", ["none", "sum", "concat"])
@pytest.mark.parametrize("pooling", [None, "last", "mean", "max"])
def test_padding_contributes_nothing_whatever_stands_there(cell: str, bidirectional: str, pooling: str | None) -> None:
    net = network(cell=cell, bidirectional=bidirectional, pooling=pooling).double()
    lengths = (5, 2, 4)
    inputs = torch.randn(3, 5, 3, dtype=torch.float64)

    def loss_and_gradients(padding: float, extra: int) -> list[torch.Tensor]:
        mask = torch.nn.functional.pad(mask_of(*lengths), (0, extra))
        padded = torch.nn.functional.pad(inputs, (0, 0, 0, extra)).masked_fill(~mask.unsqueeze(-1), padding)
        outputs, _ = net(padded, None, mask)
        target_mask = mask if pooling is None else torch.ones(3, dtype=torch.bool)
        targets = torch.arange(outputs.shape[1] if pooling is None else 3).expand(target_mask.shape) % 4
        loss, _ = cross_entropy(outputs, targets, target_mask)
        return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]

    expected = loss_and_gradients(padding=0.0, extra=0)
    for padding, extra in ((7.5, 0), (float("nan"), 0), (-3.0, 4)):
        torch.testing.assert_close(loss_and_gradients(padding, extra), expected)


def test_a_row_of_padding_alone_gives_no_gradient() -> None:
    for pooling in ("last", "mean", "max"):
        net = network(pooling=pooling, bidirectional="sum")
        inputs = torch.randn(2, 4, 3, requires_grad=True)
        mask = torch.tensor([[True] * 4, [False] * 4])
        net(inputs, None, mask)[0].sum().backward()
        assert inputs.grad is not None
        assert inputs.grad[0].ne(0).any()
        assert inputs.grad[1].eq(0).all()


@ALL_CELLS
@pytest.mark.parametrize("how", ["sum", "concat"])
def test_two_directions_are_each_row_read_from_both_ends(cell: str, how: str) -> None:
    net = network(cell=cell, bidirectional=how, num_layers=1)
    lengths = (6, 1, 4)
    inputs = torch.randn(3, 6, 3)
    outputs, state = net(inputs, None, mask_of(*lengths))
    assert state is None
    ahead, back = net.layers[0].forwards, net.layers[0].backwards
    for row, length in enumerate(lengths):
        steps = inputs[row : row + 1, :length]
        there, again = ahead(steps)[0], back(steps.flip(1))[0].flip(1)
        hidden = there + again if how == "sum" else torch.cat([there, again], dim=-1)
        torch.testing.assert_close(outputs[row : row + 1, :length], net.projection(hidden))


@ALL_CELLS
def test_pooling_the_last_step_takes_the_step_at_which_each_direction_has_read_everything(cell: str) -> None:
    net = network(cell=cell, bidirectional="concat", num_layers=1, pooling="last")
    lengths = (6, 1, 4)
    inputs = torch.randn(3, 6, 3)
    outputs, _ = net(inputs, None, mask_of(*lengths))
    for row, length in enumerate(lengths):
        steps = inputs[row : row + 1, :length]
        ends = [net.layers[0].forwards(steps)[1][0], net.layers[0].backwards(steps.flip(1))[1][0]]
        torch.testing.assert_close(outputs[row : row + 1], net.projection(torch.cat(ends, dim=-1)))


def test_pooling_looks_at_existing_steps_alone() -> None:
    steps = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]], [[-1.0, -1.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert pool(steps, mask, "last").tolist() == [[3, -2], [-1, -1]]
    assert pool(steps, mask, "last", backward=True).tolist() == [[1, -4], [-1, -1]]
    assert pool(steps, mask, "mean").tolist() == [[2, -3], [-1, -1]]
    assert pool(steps, mask, "max").tolist() == [[3, -2], [-1, -1]]
    assert pool(steps, None, "max").tolist() == [[9, 9], [9, 9]]
    assert pool(steps, None, "last").tolist() == [[9, 9], [9, 9]]


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_reversing_turns_each_row_around_within_its_length_and_twice_is_nothing(lengths: list[int]) -> None:
    T = max([*lengths, 1])
    mask = torch.arange(T) < torch.tensor(lengths).unsqueeze(1)
    steps = torch.arange(len(lengths) * T * 2).view(len(lengths), T, 2)
    turned = reverse(steps, mask)
    for row, length in enumerate(lengths):
        assert turned[row, :length].equal(steps[row, :length].flip(0))
        assert turned[row, length:].equal(steps[row, length:])
    assert reverse(turned, mask).equal(steps)
    assert reverse(steps, torch.ones_like(mask)).equal(reverse(steps, None))


def test_a_network_of_both_directions_refuses_to_go_on_from_a_state() -> None:
    inputs = torch.randn(2, 4, 3)
    _, state = network()(inputs)
    with pytest.raises(ValueError, match="cannot go on from a state"):
        network(bidirectional="sum")(inputs, state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bidirectional": "both"}, "bidirectional is 'both'; it can be none, sum, concat"),
        ({"pooling": "first"}, "pooling is 'first'; it can be None, last, mean, max"),
        ({"embedding_size": 4}, "embedding_size is 4, the inputs are numbers"),
        ({"cell": "lstn"}, "cell 'lstn' is unknown"),
    ],
)
def test_a_word_the_network_does_not_know_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_dropout_stands_between_layers_and_only_in_training() -> None:
    inputs = torch.randn(2, 4, 3)
    one_layer, two_layers = network(dropout=0.5, num_layers=1), network(dropout=0.5)
    assert one_layer(inputs)[0].equal(one_layer(inputs)[0])
    assert not two_layers(inputs)[0].equal(two_layers(inputs)[0])
    two_layers.eval()
    assert two_layers(inputs)[0].equal(two_layers(inputs)[0])


def test_a_detached_state_has_the_same_values_and_no_graph() -> None:
    _, state = network()(torch.randn(2, 4, 3))
    assert state is not None
    cut = detached(state)
    assert cut is not None
    torch.testing.assert_close(cut, [tuple(part.detach() for part in layer) for layer in state])
    assert not any(part.requires_grad for layer in cut for part in layer)
    assert detached(None) is None


def test_the_same_seed_gives_the_same_network_and_values_can_be_written_in_place() -> None:
    one, other = network(), network()
    inputs = torch.randn(2, 4, 3)
    assert one(inputs)[0].equal(other(inputs)[0])
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.copy_(2 * parameter)
    assert not one(inputs)[0].equal(other(inputs)[0])


def copy_across_a_segment(cell: str, carried: bool) -> float:
    """Train on rows that show a symbol in one segment and are asked for it in the next; the share of right answers."""
    torch.manual_seed(1)
    net = Network(num_inputs=5, num_outputs=4, symbols=True, cell=cell, hidden_size=32, num_layers=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    everywhere = torch.ones(32, 3, dtype=torch.bool)
    right = 0.0
    for _ in range(150):
        shown = torch.randint(4, (32, 1))
        blank = torch.full((32, 3), 4)
        _, state = net(torch.cat([shown, blank], dim=1))
        outputs, _ = net(blank, detached(state) if carried else None)
        loss, count = cross_entropy(outputs, shown.expand(32, 3), everywhere)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
        right = (outputs.argmax(-1) == shown).float().mean().item()
    return right


# a plain rnn forgets within a segment unless the gradient crosses it
@pytest.mark.parametrize("cell", ["lstm", "gru", "graves_lstm"])
def test_what_was_shown_one_segment_back_is_learned_with_the_carried_state(cell: str) -> None:
    assert copy_across_a_segment(cell, carried=True) > 0.95


@ALL_CELLS
def test_what_was_shown_one_segment_back_is_not_learned_without_the_carried_state(cell: str) -> None:
    assert copy_across_a_segment(cell, carried=False) < 0.6


@pytest.mark.parametrize("bidirectional", ["none", "sum", "concat"])
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_without_outputs_the_answers_are_what_would_be_projected(bidirectional: str, pooling: str | None) -> None:
    projected = network(bidirectional=bidirectional, pooling=pooling)
    bare = network(bidirectional=bidirectional, pooling=pooling, num_outputs=0)
    inputs, mask = torch.randn(2, 5, 3), mask_of(5, 3)
    torch.testing.assert_close(projected.projection(bare(inputs, None, mask)[0]), projected(inputs, None, mask)[0])
    kept = {name for name in projected.state_dict() if not name.startswith("projection.")}
    assert set(bare.state_dict()) == kept
