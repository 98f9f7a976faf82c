"""Time of one layer, forward and backward: rayrnn's graves_lstm, its naive loop under autograd, and torch's nn.LSTM.

    python benchmarks/cells.py [--batch 8 32 128] [--steps 50] [--inputs 80] [--hidden 200] [--repeats 25]

One thread. Every repeat measures each of them once, in turn; the medians and their ratios to nn.LSTM are printed. The
inputs are symbols, as in a language model (rayrnn looks the input projection up, nn.LSTM gets one-hot vectors), and
numbers. Run it on an otherwise idle machine.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from rayrnn.models.cells import make_cell
from rayrnn.models.graves_lstm import GravesLSTM

OURS, LOOP, TORCH = "graves_lstm", "naive loop", "nn.LSTM"


class NaiveLoop(GravesLSTM):
    """The equations as they are written, differentiated by autograd."""

    def forward(
        self, inputs: torch.Tensor, state: tuple[torch.Tensor, ...] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """As in GravesLSTM, but each step by itself and without a state to begin with."""
        if not inputs.is_floating_point():
            inputs = nn.functional.one_hot(inputs, self.input_size).float()
        h = c = inputs.new_zeros(len(inputs), self.hidden_size)
        outputs = []
        for x in inputs.unbind(1):
            i, f, g, o = (x @ self.input_weights + h @ self.recurrent_weights + self.bias).chunk(4, dim=1)
            i, f = torch.sigmoid(i + self.peepholes[0] * c), torch.sigmoid(f + self.peepholes[1] * c)
            c = f * c + i * torch.tanh(g)
            h = torch.sigmoid(o + self.peepholes[2] * c) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h, c)


def seconds(cell: nn.Module, inputs: torch.Tensor) -> float:
    """Wall time of one forward and one backward."""
    cell.zero_grad()
    begin = time.perf_counter()
    outputs = cell(inputs)[0]
    outputs.backward(torch.ones_like(outputs))
    return time.perf_counter() - begin


def medians(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Milliseconds by name; two warm-up rounds, then every round measures each once."""
    rounds = [{name: measure() for name, measure in measures.items()} for _ in range(repeats + 2)][2:]
    return {name: 1000 * statistics.median(times[name] for times in rounds) for name in measures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--inputs", type=int, default=80)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = options.inputs, options.hidden
    cells = {OURS: make_cell("graves_lstm", *sizes), LOOP: NaiveLoop(*sizes), TORCH: make_cell("lstm", *sizes)}
    print(f"one layer {options.inputs} -> {options.hidden}, {options.steps} steps, forward + backward, milliseconds")
    print(f"{'inputs':8} {'batch':>5}" + "".join(f" {name:>12}" for name in cells) + "  against nn.LSTM: ours, loop")
    for batch in options.batch:
        shape = batch, options.steps
        for kind, inputs in {
            "symbols": torch.randint(options.inputs, shape),
            "numbers": torch.randn(*shape, options.inputs),
        }.items():
            measures = {name: functools.partial(seconds, cell, inputs) for name, cell in cells.items()}
            found = medians(measures, options.repeats)
            row = f"{kind:8} {batch:5}" + "".join(f" {found[name]:12.1f}" for name in cells)
            print(f"{row}  {found[OURS] / found[TORCH]:22.2f} {found[LOOP] / found[TORCH]:5.2f}")


if __name__ == "__main__":
    main()
