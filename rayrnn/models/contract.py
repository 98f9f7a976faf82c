"""The contract of a network, `network(inputs, state, mask) -> answers, state`, and a check of it on a tiny minibatch.

    inputs    BT int64 symbols, or BTF float32; padding stands at the end of a row
    state     what the call before returned for the steps before these, cut from its graph; None at the beginning
    mask      BT bool, True where a step exists
    answers   BTV with an answer a step, BV with an answer a sequence; at padding they mean nothing
    state     any tree of tensors in tuples, lists and dicts, or None

B batch, T time, F features, V symbols, classes or numbers of the answer.
"""

import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from rayrnn.errors import RecipeError
from rayrnn.models.state import detached, leaves

#: of the tiny minibatch's rows
LENGTHS = (5, 3, 2)
#: what an answer may change by when only its neighbours changed: the sums are made in another order
CLOSE = 1e-3
SEED = 1


@dataclass(frozen=True)
class Form:
    """What goes into a network and what comes out of it."""

    #: symbols in the vocabulary, or numbers that a step has
    num_inputs: int
    #: symbols, classes or numbers in an answer
    num_outputs: int
    #: whether a step is a symbol (an integer)
    symbols: bool
    #: whether there is an answer at every step, or one a sequence
    per_step: bool


def construct(make: Callable[..., object], form: Form, options: Mapping[str, Any], *, name: str) -> nn.Module:
    """Call a class, or a function, with the sizes and the recipe's options; `symbols` and `per_step` if it takes them.

    Raises:
        RecipeError: it does not take these arguments, raises, or makes no torch module.
    """
    signature = inspect.signature(make)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    arguments = {
        key: value
        for key, value in asdict(form).items()
        if key.startswith("num_") or takes_all or key in signature.parameters
    } | dict(options)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise RecipeError(
            f"model.network {name} cannot be called with {_shown(arguments)} (model.options are {dict(options)}): "
            f"{error}; what it takes is {signature}"
        ) from None
    try:
        network = make(**arguments)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"model.network {name} cannot be made: {_told(error)}") from error
    if not isinstance(network, nn.Module):
        raise RecipeError(f"model.network {name} made {network!r:.200}; a torch.nn.Module is expected")
    return network


def check_contract(
    make: Callable[[], nn.Module], form: Form, *, name: str, causal: bool = False, in_pieces: bool = False
) -> None:
    """Call a fresh network, forth and back, and see whether it does what training, averaging and storing rely on.

    Args:
        make: makes the network from torch's global random state.
        causal: an answer must not depend on later steps.
        in_pieces: a sequence is read in segments, or step by step, and the answers are those of the whole.

    Raises:
        RecipeError: it does not; says what came and what was expected.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = make()
        torch.manual_seed(SEED)
        check = _Check(network, form, name)
        check.values(make())
        check.learning()
        check.answers(causal=causal, in_pieces=in_pieces)


@torch.no_grad()
def widest(network: nn.Module, form: Form) -> int:
    """About the most numbers that the network holds of one step: its widest parameter, or what one of its modules says.

    What lies between a module's parameters and its answer (an LSTM's gates) is as wide as one of its parameters.
    """
    seen = [form.num_inputs, form.num_outputs]
    seen += [side for parameter in network.parameters() for side in parameter.shape]

    def look(module: nn.Module, inputs: object, outputs: object) -> None:
        answers = outputs[0] if isinstance(outputs, tuple) else outputs
        if isinstance(answers, torch.Tensor):
            seen.append(answers.numel())

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    device = next(network.parameters()).device
    network(_inputs(form, (1,)).to(device), None, torch.ones(1, 1, dtype=torch.bool, device=device))
    for hook in hooks:
        hook.remove()
    return max(seen)


class _Check:
    """One network on one tiny minibatch."""

    def __init__(self, network: nn.Module, form: Form, name: str) -> None:
        self._network = network
        self._form = form
        self._name = name
        self._mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
        self._inputs = _inputs(form, LENGTHS)

    def values(self, again: nn.Module) -> None:
        """The parameters, which are averaged, and everything that is stored."""
        parameters = dict(self._network.named_parameters())
        for key, value in parameters.items():
            if nn.parameter.is_lazy(value):
                raise self._fault(f"parameter {key} has no shape before the first call", "parameters of known shapes")
            if value.dtype != torch.float32 or not value.is_contiguous():
                kind = "not contiguous" if value.dtype == torch.float32 else str(value.dtype)
                raise self._fault(f"parameter {key} is {kind}", "contiguous torch.float32")
        if not any(value.requires_grad for value in parameters.values()):
            raise self._fault(f"{len(parameters)} parameters, none of which can be trained", "at least one")
        first, second = self._network.state_dict(), again.state_dict()
        for key, value in first.items():
            if not isinstance(value, torch.Tensor):
                raise self._fault(f"state_dict() has a {type(value).__name__} as {key}", "nothing but tensors")
            if key not in second or not torch.equal(value, second[key]):
                raise self._fault(
                    f"{key} differs between two networks made after the same torch.manual_seed",
                    "the same on every worker: draw values from torch's own random generator",
                )

    def learning(self) -> None:
        """Two segments forth and back, in training mode: only an optimizer may change anything that is stored."""
        self._network.train()
        before = {key: value.clone() for key, value in self._stored().items()}
        answers, state = self._call(self._inputs, None, self._mask)
        self._call(self._inputs[:, :1], detached(state), self._mask[:, :1])
        whole = torch.ones_like(self._mask)
        for leaf in leaves(self._call(self._inputs, None, whole)[1]):
            if leaf.is_floating_point() and not leaf.isfinite().all():
                raise self._fault("a state that is not finite (NaN or infinite)", "finite numbers")
        for key, value in self._stored().items():
            if not torch.equal(value, before[key]):
                raise self._fault(
                    f"a call in training mode changed {key}, which is no parameter that an optimizer updates: it would "
                    "not be averaged, and each worker would have its own",
                    "buffers that stay as they are (LayerNorm or GroupNorm in the place of BatchNorm)",
                )
        self._go_back(answers)

    def answers(self, *, causal: bool, in_pieces: bool) -> None:
        """In evaluation mode a row's answers depend on its own steps, and on nothing else."""
        self._network.eval()
        with torch.no_grad():
            base = self._answers(self._inputs)
            self._compare(base, self._answers(self._inputs), "the same call twice gave different answers in eval mode")
            self._check_rows(base)
            self._check_padding(base)
            if causal:
                self._check_causal(base)
            if in_pieces:
                self._check_pieces(base)

    def _check_rows(self, base: list[torch.Tensor]) -> None:
        other = self._other().masked_fill(~self._like(self._mask), 0)
        for row in range(len(LENGTHS)):
            inputs = self._inputs.clone()
            inputs[row] = other[row]
            changed = self._answers(inputs)
            kept = [number for number in range(len(LENGTHS)) if number != row]
            self._compare(
                [base[number] for number in kept],
                [changed[number] for number in kept],
                "a row's answers changed with the other rows of its minibatch",
            )

    def _check_padding(self, base: list[torch.Tensor]) -> None:
        padded = torch.where(self._like(self._mask), self._inputs, self._other())
        self._compare(base, self._answers(padded), "what stands at padded steps (mask False) changed answers")
        for row, length in enumerate(LENGTHS):
            inputs, mask = self._inputs[row : row + 1, :length], self._mask[row : row + 1, :length]
            alone, _ = self._call(inputs, None, mask)
            self._compare([base[row]], list(alone), "a row's answers changed with the padding after it")

    def _check_causal(self, base: list[torch.Tensor]) -> None:
        other = self._inputs.clone()
        other[0, -1] = self._other()[0, -1]
        self._compare(
            [base[0][:-1]],
            [self._answers(other)[0][:-1]],
            "a step's answers changed with the step after it, which is what they are to predict",
        )

    def _check_pieces(self, base: list[torch.Tensor]) -> None:
        state, pieces = None, []
        for step in torch.split(self._inputs[:1], 1, dim=1):
            answers, state = self._call(step, state, torch.ones(1, 1, dtype=torch.bool))
            pieces.append(answers[0])
        self._compare(
            [base[0]],
            [torch.cat(pieces)],
            "step by step, each with the state that the one before returned, the answers differ from those of the "
            "whole sequence (they must not, for segments of training.truncate steps and for `rayrnn generate`)",
        )

    def _call(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> tuple[torch.Tensor, Any]:
        try:
            returned = self._network(inputs, state, mask)
        except (Exception, SystemExit) as error:
            shapes = f"inputs {_shape(inputs)}, mask {_shape(mask)} and {'a' if state is not None else 'no'} state"
            raise self._fault(f"{_told(error)}, for {shapes}", "answers and a state") from error
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise self._fault(f"returned {type(returned).__name__}", "two things: answers, and a state or None")
        answers, after = returned
        self._check_answers(answers, mask)
        try:
            list(leaves(after))
        except TypeError as error:
            raise self._fault(f"a state in which {error}", "tensors in tuples, lists or dicts, or None") from None
        return answers, after

    def _check_answers(self, answers: object, mask: torch.Tensor) -> None:
        B, T = mask.shape
        expected = (B, T, self._form.num_outputs) if self._form.per_step else (B, self._form.num_outputs)
        wanted = f"floats {list(expected)}, " + ("an answer a step" if self._form.per_step else "an answer a sequence")
        if not isinstance(answers, torch.Tensor):
            raise self._fault(f"answers are a {type(answers).__name__}", f"a tensor of {wanted}")
        if tuple(answers.shape) != expected or not answers.is_floating_point():
            raise self._fault(f"answers are {_shape(answers)} for inputs of {B} rows and {T} steps", wanted)
        real = answers[mask] if self._form.per_step else answers
        if not real.isfinite().all():
            raise self._fault("answers that are not finite (NaN or infinite) at steps that exist", "finite numbers")

    def _go_back(self, answers: torch.Tensor) -> None:
        told = answers[self._mask] if self._form.per_step else answers
        if not told.requires_grad:
            raise self._fault("answers that no gradient flows through", "answers that depend on the parameters")
        try:
            told.float().square().sum().backward()  # type: ignore[no-untyped-call]
        except (Exception, SystemExit) as error:
            raise self._fault(f"{_told(error)}, in backward()", "gradients") from error
        for key, value in self._network.named_parameters():
            if value.grad is not None and (value.grad.is_sparse or not value.grad.isfinite().all()):
                kind = "sparse" if value.grad.is_sparse else "not finite (NaN or infinite)"
                raise self._fault(f"the gradient of {key} is {kind}", "a dense, finite gradient")
        self._network.zero_grad()

    def _answers(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Of each row, TV at its own steps, or V."""
        answers, _ = self._call(inputs, None, self._mask)
        if not self._form.per_step:
            return list(answers)
        return [row[:length] for row, length in zip(answers, LENGTHS, strict=True)]

    def _compare(self, expected: list[torch.Tensor], found: list[torch.Tensor], what: str) -> None:
        if not all(torch.allclose(a, b, rtol=CLOSE, atol=0.1 * CLOSE) for a, b in zip(expected, found, strict=True)):
            most = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
            raise self._fault(f"{what} (by up to {most:.3g})", "answers that do not change")

    def _stored(self) -> dict[str, torch.Tensor]:
        return dict(self._network.named_parameters()) | dict(self._network.named_buffers())

    def _other(self) -> torch.Tensor:
        return _inputs(self._form, LENGTHS, other=True)

    def _like(self, mask: torch.Tensor) -> torch.Tensor:
        return mask if self._form.symbols else mask.unsqueeze(-1)

    def _fault(self, came: str, expected: str) -> RecipeError:
        return RecipeError(
            f"model.network {self._name} does not keep the contract `network(inputs, state, mask) -> answers, state`: "
            f"{came}; expected: {expected}"
        )


def _inputs(form: Form, lengths: tuple[int, ...], *, other: bool = False) -> torch.Tensor:
    """Random steps, zeros at padding; or `other` ones, everywhere, padding too."""
    B, T = len(lengths), max(lengths)
    random = torch.Generator().manual_seed(SEED)
    mask = torch.arange(T) < torch.tensor(lengths).unsqueeze(1)
    if form.symbols:
        symbols = torch.randint(form.num_inputs, (B, T), generator=random)
        return (symbols + 1) % form.num_inputs if other else symbols.masked_fill(~mask, 0)
    numbers = torch.randn(B, T, form.num_inputs, generator=random)
    return 1 - numbers if other else numbers.masked_fill(~mask.unsqueeze(-1), 0)


def _shape(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())


def _told(error: Exception | SystemExit) -> str:
    """What an error of the user's code says, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/torch/" not in frame.filename and frame.filename != __file__]
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"it raised {type(error).__name__}: {error}{where}"
