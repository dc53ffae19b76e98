"""Compiling the network of a training step with ``torch.compile``, in a way that no saved file shows."""

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import nn

from monai_ext.base import SettingError, bare, is_parted

CHOICES = ("off", "blocks", "network", "graphs")
Backend = str | Callable[..., Any]


def check_compile(wish: Any) -> None:
    """Refuse a word that names no way of compiling.

    Raises:
        SettingError: naming the word and those that are known.
    """
    if wish not in CHOICES:
        raise SettingError(f"compile: {wish!r} is unknown; choose one of {', '.join(CHOICES)}", code="setting.compile")


def compiled(network: nn.Module, wish: str = "blocks", backend: Backend = "inductor") -> Any:
    """Return what computes like the network, compiled at its first call; keys of its weights stay as they are.

    Sizes are taken for constants: each other batch size is compiled anew. Compiled kernels keep more digits
    between operations than half precision does, so results differ from uncompiled ones by its rounding.

    Args:
        network: bare, or in its distributed wrapper.
        wish: ``"off"`` returns it as it is. ``"blocks"`` compiles its transformer blocks in place, one of each
            kind, which takes seconds. ``"network"`` compiles all of it at once, which takes a minute and merges
            more; what is returned then shares the network's parameters. ``"graphs"`` does so too and has a CUDA card
            replay the whole pass as one recorded graph, for small batches whose kernels end sooner than the host
            can start them; what the network returned is overwritten by its next call.
        backend: of ``torch.compile``.

    Raises:
        SettingError: an unknown word, ``"blocks"`` of a network without MONAI's transformer blocks, ``"graphs"``
            of one in a distributed wrapper or on no CUDA card, or anything but ``"blocks"`` of one that is
            parted among ranks.
    """
    check_compile(wish)
    if wish == "off":
        return network
    if wish != "blocks" and is_parted(network):
        raise SettingError(
            f"compile: {wish} does not go with shard, which gathers one block at a time; choose blocks or off",
            code="setting.compile",
        )
    if wish == "network":
        return torch.compile(network, backend=backend, dynamic=False)
    if wish == "graphs":
        if bare(network) is not network:
            raise SettingError(
                "compile: graphs does not go with several ranks; choose blocks or network", code="setting.compile"
            )
        if (place := next(network.parameters()).device).type != "cuda":
            raise SettingError(
                f"compile: graphs are recorded by a CUDA card and the network is on {place}; choose blocks or network",
                code="setting.compile",
            )
        return torch.compile(network, backend=backend, dynamic=False, mode="reduce-overhead")
    blocks = [part for part in bare(network).modules() if isinstance(part, TransformerBlock)]
    if not blocks:
        raise SettingError(
            f"compile: {type(bare(network)).__name__} has no transformer blocks of MONAI's to compile one by one; "
            "choose network or off",
            code="setting.compile",
        )
    for block in blocks:
        block.compile(backend=backend, dynamic=False)
    return network


def uncompiled() -> Any:
    """Return a context in which compiled parts run as they are written: evaluation sees many sizes, each once."""
    return torch.compiler.set_stance("force_eager")
