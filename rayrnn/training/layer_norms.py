"""How large each layer's parameters are, and how far the rounds since the last look have moved them."""

import math

import torch

from rayrnn.training.messages import LayerNorm


class LayerNorms:
    """Looks at one model from time to time; what it saw last is kept, which takes the memory of the parameters.

    Nothing of the model, its optimizer or the generators of chance changes.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._layers = _layers(model)
        #: of every layer, its parameters when they were looked at last
        self._before: dict[str, list[torch.Tensor]] = {}

    @torch.no_grad()
    def look(self) -> tuple[LayerNorm, ...]:
        """The layers in their order; the first look, also of a worker that came later, knows of no change."""
        norms = []
        for name, parameters in self._layers.items():
            before, update = self._before.get(name), None
            if before is None:
                self._before[name] = [parameter.detach().clone() for parameter in parameters]
            else:
                # in place: the change, and then what is kept for the next look
                update = _norm([kept.sub_(now) for kept, now in zip(before, parameters, strict=True)])
                for kept, now in zip(before, parameters, strict=True):
                    kept.copy_(now)
            norms.append(LayerNorm(name, _norm(parameters), update))
        return tuple(norms)


def _layers(model: torch.nn.Module) -> dict[str, list[torch.Tensor]]:
    """What one innermost module owns is one layer, by the name that it has in the model."""
    owned = {name: list(module.parameters(recurse=False)) for name, module in model.named_modules()}
    return {name or "network": list(parameters) for name, parameters in owned.items() if parameters}


def _norm(tensors: list[torch.Tensor]) -> float | None:
    """The Euclidean norm of all values together; None where it is not finite, which JSON does not know."""
    norms = torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors])
    norm = float(torch.linalg.vector_norm(norms))
    return norm if math.isfinite(norm) else None
