"""A network of your own for rayrnn: the minimal GRU of Feng et al. 2024, "Were RNNs all we needed?", arXiv:2410.01201.

    h = (1 - z) h' + z c      z = sigmoid(W_z x)      c = W_c x

where h' comes from the step before. In a recipe: `model: {network: "examples.minimal_gru:MinimalGRU",
options: {hidden: 64}}`; in Python: `rayrnn.train(recipe, network=MinimalGRU)`.
B batch, T time, H hidden, V answers.
"""

import torch
from torch import nn


class MinimalGRU(nn.Module):
    def __init__(
        self, *, num_inputs: int, num_outputs: int, symbols: bool, per_step: bool, hidden: int = 64, layers: int = 1
    ) -> None:
        super().__init__()
        self.per_step = per_step
        self.read = nn.Embedding(num_inputs, hidden) if symbols else nn.Linear(num_inputs, hidden)
        self.gates = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(layers))
        self.answer = nn.Linear(hidden, num_outputs)

    def forward(
        self, inputs: torch.Tensor, state: list[torch.Tensor] | None, mask: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        steps_BTH = self.read(inputs)
        before = state or [torch.zeros_like(steps_BTH[:, 0]) for _ in self.gates]
        after = []
        for layer, hidden_BH in zip(self.gates, before, strict=True):
            z_BTH, candidate_BTH = layer(steps_BTH).chunk(2, dim=-1)
            outputs = []
            for z, candidate in zip(z_BTH.sigmoid().unbind(1), candidate_BTH.unbind(1), strict=True):
                hidden_BH = torch.lerp(hidden_BH, candidate, z)
                outputs.append(hidden_BH)
            steps_BTH = torch.stack(outputs, dim=1)
            after.append(hidden_BH)
        if self.per_step:
            return self.answer(steps_BTH), after
        last = mask.sum(dim=1).clamp(min=1) - 1  # of a sequence: padding stands at its end
        return self.answer(steps_BTH[torch.arange(len(steps_BTH)), last]), after
