"""Convolutions: torch's own where nothing is padded, nothing of the padding where something is, and every stride."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from rayrnn.models.contract import Form, check_contract, widest
from rayrnn.models.convolution import ImageConvolutions, Stack, StepConvolutions, StepNorm, fewest_together
from rayrnn.models.network import Network, hide_runs

STEPS = Stack.of((8, 6), (4, 3), (2, 1))
IMAGES = Stack.of((4, 8), (3,), (2,))


def mask_of(*lengths: int, longest: int = 0) -> torch.Tensor:
    return torch.arange(longest or max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def network(**options: object) -> Network:
    """One small GRU over three features, four outputs."""
    torch.manual_seed(1)
    given = {"num_inputs": 3, "num_outputs": 4, "symbols": False, "cell": "gru", "hidden_size": 6, "num_layers": 1}
    return Network(**{**given, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_without_padding_it_is_torchs_convolution_and_group_normalization(width: int, stride: int) -> None:
    torch.manual_seed(1)
    ours = StepConvolutions(3, Stack.of((16,), (width,), (stride,)))
    inputs = torch.randn(2, 11, 3)
    padded = functional.pad(inputs.transpose(1, 2), ((width - 1) // 2, width // 2))
    convolution, norm = ours.convolutions[0], nn.GroupNorm(8, 16)
    expected = norm(functional.conv1d(padded, convolution.weight, convolution.bias, stride=stride)).relu()
    assert expected.shape[2] == -(-11 // stride)
    for mask in (None, mask_of(11, 11)):
        torch.testing.assert_close(ours(inputs, mask), expected.transpose(1, 2))


def test_a_convolution_of_odd_width_over_all_steps_is_torchs_own_same_padding() -> None:
    torch.manual_seed(1)
    ours = StepConvolutions(3, Stack.of((8,), (5,), (1,)))
    theirs = nn.Conv1d(3, 8, 5, padding="same")
    theirs.load_state_dict(ours.convolutions[0].state_dict())
    inputs = torch.randn(2, 9, 3)
    expected = nn.GroupNorm(8, 8)(theirs(inputs.transpose(1, 2))).relu().transpose(1, 2)
    torch.testing.assert_close(ours(inputs, None), expected)


def test_images_are_torchs_convolution_step_by_step() -> None:
    torch.manual_seed(1)
    ours = ImageConvolutions((7, 9, 3), IMAGES)
    inputs = torch.randn(2, 4, 7 * 9 * 3)
    vectors = ours(inputs, None)
    assert vectors.shape == (2, 4, ours.num_outputs) == (2, 4, 8 * 2 * 3)
    for row in range(2):
        for step in range(4):
            pixels = torch.empty(1, 3, 7, 9)
            for place, value in enumerate(inputs[row, step]):
                pixels[0, place % 3, place // 27, place // 3 % 9] = value
            first, second = (layer for layer in ours.layers if isinstance(layer, nn.Conv2d))
            hidden = functional.conv2d(pixels, first.weight, first.bias, stride=2, padding=1)
            hidden = functional.group_norm(hidden, 4).relu()
            hidden = functional.conv2d(hidden, second.weight, second.bias, stride=2, padding=1)
            hidden = functional.group_norm(hidden, 8).relu()
            torch.testing.assert_close(vectors[row, step], hidden.flatten(), atol=1e-5, rtol=1e-4)


def test_a_large_image_becomes_a_vector_of_a_small_one() -> None:
    ours = ImageConvolutions((64, 40, 1), IMAGES)
    assert ours.num_outputs == 8 * 4 * 4
    assert ours(torch.randn(1, 2, 64 * 40), None).shape == (1, 2, 8 * 4 * 4)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    strides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    width=st.integers(1, 5),
)
def test_the_mask_after_has_every_sequences_own_answers(lengths: list[int], strides: list[int], width: int) -> None:
    front = StepConvolutions(2, Stack.of((4,) * len(strides), (width,), tuple(strides)))
    longest = max([*lengths, 1])
    mask = mask_of(*lengths, longest=longest)
    after = front.mask_after(mask)
    assert after is not None
    answers = front(torch.randn(len(lengths), longest, 2), mask)
    assert answers.shape[:2] == after.shape
    for stride in strides:
        lengths = [-(-length // stride) for length in lengths]
    assert after.sum(1).tolist() == lengths
    assert front.mask_after(None) is None


@pytest.mark.parametrize(
    "options",
    [
        {"front": STEPS},
        {"front": STEPS, "pooling": "last", "bidirectional": "concat"},
        {"parallel": STEPS, "pooling": "max", "bidirectional": "sum"},
        {"front": STEPS, "parallel": STEPS, "pooling": "mean", "num_outputs": 0},
        {"front": IMAGES, "step_shape": (5, 6, 1), "num_inputs": 30, "pooling": "last"},
        {"front": IMAGES, "step_shape": (5, 2, 3), "num_inputs": 30},
    ],
    ids=str,
)
def test_answers_and_gradients_have_nothing_of_the_padding(options: dict[str, object]) -> None:
    net = network(**options).double()
    lengths = (9, 1, 4)
    inputs = torch.randn(3, 9, int(str(options.get("num_inputs", 3))), dtype=torch.float64)

    def answers_and_gradients(padding: float, extra: int) -> list[torch.Tensor]:
        mask = functional.pad(mask_of(*lengths), (0, extra))
        padded = functional.pad(inputs, (0, 0, 0, extra)).masked_fill(~mask.unsqueeze(-1), padding)
        outputs, _ = net(padded, None, mask)
        after = net.mask_after(mask)
        assert after is not None
        told = outputs if net.pooling else outputs[after]
        return [told.detach(), *torch.autograd.grad(told.square().sum(), list(net.parameters()))]

    expected = answers_and_gradients(padding=0.0, extra=0)
    assert all(gradient.ne(0).any() for gradient in expected[1:])
    for padding, extra in ((7.5, 0), (float("nan"), 0), (-3.0, 5)):
        torch.testing.assert_close(answers_and_gradients(padding, extra), expected)


def test_a_row_without_steps_has_finite_answers_and_no_gradient() -> None:
    net = network(front=STEPS, parallel=STEPS, pooling="mean")
    inputs = torch.randn(2, 4, 3, requires_grad=True)
    outputs, _ = net(inputs, None, mask_of(4, 0))
    assert outputs.isfinite().all()
    outputs.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad[0].ne(0).any()
    assert inputs.grad[1].eq(0).all()


def test_the_statistics_are_those_of_a_sequence_and_nothing_runs_on() -> None:
    norm = StepNorm(16)
    assert set(norm.state_dict()) == {"weight", "bias"}
    steps, mask = 5 + 3 * torch.randn(2, 16, 40), mask_of(40, 25)
    normalized = norm(steps, mask).view(2, 8, 2, 40)
    for row, length in enumerate((40, 25)):
        own = normalized[row, :, :, :length].flatten(1)
        torch.testing.assert_close(own.mean(1), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(own.var(1, unbiased=False), torch.ones(8), atol=1e-3, rtol=0)


def test_parallel_convolutions_answer_beside_the_recurrent_layers() -> None:
    net = network(parallel=Stack.of((8, 5), (8, 3), (1,)), pooling="last")
    inputs = torch.randn(1, 12, 3)
    beside = net.parallel(inputs, None)
    recurrent = net.layers[0](inputs)[0][:, -1]
    due = net.projection(torch.cat([recurrent, beside.mean(1), beside.amax(1)], dim=1))
    torch.testing.assert_close(net(inputs)[0], due)


def test_each_channel_beside_the_recurrent_layers_is_normalized_by_itself() -> None:
    norms = network(parallel=Stack.of((8, 5), (8, 3), (1,)), pooling="last").parallel.norms
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(8, 8), (5, 5)]


def test_a_network_without_convolutions_has_the_parameters_that_it_always_had() -> None:
    recurrent = [f"layers.0.recurrence.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    names = ["embedding.weight", *recurrent, "projection.weight", "projection.bias"]
    assert list(network(symbols=True, embedding_size=2).state_dict()) == names


@pytest.mark.parametrize(
    ("shape", "channels", "strides", "due"),
    [
        ((4, 4, 3), (8, 8), (2,), 1),
        ((4, 4, 3), (8, 64), (2,), 4),
        ((8, 8, 1), (4, 6), (2, 1), 16),
        ((1, 1, 1), (8,), (1,), 1),
    ],
)
def test_as_many_values_are_normalized_together_as_an_image_leaves(
    shape: tuple[int, int, int], channels: tuple[int, ...], strides: tuple[int, ...], due: int
) -> None:
    stack = Stack.of(channels, (3,), strides)
    assert fewest_together(shape, stack) == due
    seen: list[int] = []
    layers = ImageConvolutions(shape, stack).layers
    for layer in layers:
        if isinstance(layer, torch.nn.GroupNorm):
            layer.register_forward_hook(lambda norm, _, out: seen.append(out[0].numel() // norm.num_groups))
    layers.eval()
    layers(torch.randn(2, shape[2], *shape[:2]))
    assert min(seen) == due


@pytest.mark.parametrize("options", [{"front": STEPS}, {"parallel": STEPS, "pooling": "max"}], ids=str)
def test_convolutions_over_steps_go_on_from_no_state(options: dict[str, object]) -> None:
    net = network(**options)
    assert net(torch.randn(1, 4, 3))[1] is None
    with pytest.raises(ValueError, match="reads whole sequences"):
        net(torch.randn(1, 4, 3), [(torch.zeros(1, 6),)])


def test_images_are_read_in_segments_as_in_the_whole() -> None:
    net = network(front=IMAGES, step_shape=(4, 4, 1), num_inputs=16)
    inputs = torch.randn(2, 6, 16)
    whole, _ = net(inputs)
    first, state = net(inputs[:, :2])
    second, _ = net(inputs[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": True, "front": STEPS}, "give them an embedding"),
        ({"parallel": STEPS}, "there is an answer at every step"),
        ({"front": IMAGES, "step_shape": (2, 2, 2)}, "an image of 2 x 2 x 2 has not the 3 numbers of a step"),
        ({"symbols": True, "mask_steps": 3}, "the inputs are symbols"),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_as_many_widths_as_layers_are_due() -> None:
    assert Stack.of((4, 5), (3,), (2,)) == Stack((4, 5), (3, 3), (2, 2))
    with pytest.raises(ValueError, match="2 layers of convolutions need as many widths and strides"):
        Stack.of((4, 5), (3, 3, 3), (1,))


@pytest.mark.parametrize(
    "options",
    [
        {"front": Stack.of((8, 6), (4, 3), (1,)), "embedding_size": 3},
        {"front": STEPS, "parallel": STEPS, "pooling": "max", "embedding_size": 3, "bidirectional": "concat"},
    ],
    ids=str,
)
def test_the_contract_of_networks_is_kept(options: dict[str, object]) -> None:
    form = Form(num_inputs=5, num_outputs=4, symbols=True, per_step="pooling" not in options)
    check_contract(lambda: network(symbols=True, num_inputs=5, **options), form, name="ours")


def test_the_widest_part_of_a_step_is_found_within_the_images_layers() -> None:
    net = network(front=Stack.of((32,), (3,), (1,)), step_shape=(12, 10, 1), num_inputs=120)
    # the kernels see a border of one pixel
    assert widest(net, Form(120, 4, symbols=False, per_step=True)) == 32 * 12 * 10


def test_hidden_runs_are_one_run_within_each_sequence_and_all_lengths_come() -> None:
    torch.manual_seed(1)
    inputs, mask = torch.ones(4000, 6, 5), mask_of(*[2, 6] * 2000)
    hidden = hide_runs(inputs.masked_fill(~mask.unsqueeze(2), 0), mask, steps=3, features=0)
    gone = hidden.eq(0).all(2) & mask
    assert torch.equal(hidden.ne(0).all(2), mask & ~gone)
    assert ((gone[:, 1:] & ~gone[:, :-1]).sum(1) + gone[:, 0]).max() == 1
    short, long = gone[::2].sum(1).bincount() / 2000, gone[1::2].sum(1).bincount() / 2000
    torch.testing.assert_close(short, torch.full((3,), 1 / 3), atol=0.04, rtol=0)
    torch.testing.assert_close(long, torch.full((4,), 1 / 4), atol=0.04, rtol=0)
    assert gone[1::2].any(0).all()


def test_hidden_features_are_neighbours_at_all_steps() -> None:
    torch.manual_seed(1)
    hidden = hide_runs(torch.ones(500, 4, 5), None, steps=0, features=2)
    gone = hidden.eq(0)
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    assert set(gone[:, 0].sum(1).tolist()) == {0, 1, 2}
    assert ((gone[:, 0, 1:] & ~gone[:, 0, :-1]).sum(1) + gone[:, 0, 0]).max() == 1


def test_runs_are_hidden_in_training_alone_and_drawn_from_torchs_own_generator() -> None:
    net = network(mask_steps=4, mask_features=1)
    inputs = torch.randn(8, 6, 3)
    torch.manual_seed(5)
    first, after = net(inputs)[0], torch.get_rng_state()
    second = net(inputs)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(net(inputs)[0], first)
    assert torch.equal(torch.get_rng_state(), after)
    net.eval()
    assert torch.equal(net(inputs)[0], net(inputs)[0])
    assert torch.equal(torch.get_rng_state(), after)
