"""A run's model as bytes: a safetensors file whose metadata has the SHA-256 of its tensors, which no accident keeps."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType

import torch
from safetensors.torch import load, save

_SUM = "sha256"


def tensors_to_bytes(
    tensors: Mapping[str, torch.Tensor], *, further: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """The file with these tensors, their sum, and further metadata."""
    content: bytes = save(dict(tensors), metadata={_SUM: _sum_of(tensors), **further})
    return content


def bytes_to_tensors(content: bytes, *, of_others: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of such a file, or of one that rayrnn 0.1 wrote, without a sum.

    Args:
        of_others: whether another program may have written it, with metadata and without a sum.

    Raises:
        ValueError: they are not those that were written.
        Exception: it is no such file; safetensors and torch have their own.
    """
    tensors: dict[str, torch.Tensor] = load(content)
    metadata = metadata_of(content)
    if metadata is None or (of_others and _SUM not in metadata):
        return tensors
    if metadata.get(_SUM) != _sum_of(tensors):
        raise ValueError("its bytes have changed since it was written (the SHA-256 differs); put back what it was")
    return tensors


def metadata_of(content: bytes) -> dict[str, str] | None:
    """What stands beside the tensors of such a file; None where nothing does.

    Raises:
        Exception: it is no such file.
    """
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] | None = json.loads(content[8 : 8 + length]).get("__metadata__")
    return metadata


def _sum_of(tensors: Mapping[str, torch.Tensor]) -> str:
    seen = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()
