"""Checksums by which CLIPs and adapters are told apart."""

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn


def clip_fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 that tells CLIPs apart: all names and shapes, all vectors, the first row of every matrix.

    Hashing every value would take seconds for a large model. Positions are known by the class row alone, so
    that a CLIP keeps its fingerprint when it is loaded for images of another size.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        resized = name == "visual.positional_embedding"
        digest.update(f"{name} {list(tensor.shape[1:] if resized else tensor.shape)} ".encode())
        row = tensor if tensor.ndim < 2 else tensor[0]
        digest.update(row.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and values in float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
