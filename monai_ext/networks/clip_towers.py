"""The two towers of an open_clip model: what they must be, and how prompts run through the text tower."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from open_clip.transformer import (
    QuickGELU,
    ResidualAttentionBlock,
    TextTransformer,
    Transformer,
    VisionTransformer,
    text_global_pool,
)
from torch import Tensor, nn

from monai_ext.base import SettingError

_WAY_OUT = "choose an open_clip ViT with a text transformer of its own, such as ViT-L-14-336"


def check_towers(model: nn.Module, tag: str) -> None:
    """Refuse a model that has no blocks to put adapters on.

    Raises:
        SettingError: the image tower is no open_clip ViT, or the text tower is not open_clip's.
    """
    visual = getattr(model, "visual", None)
    if not isinstance(visual, VisionTransformer):
        raise refusal(tag, f"its image tower is a {type(visual).__name__}")
    if visual.attn_pool is not None:
        raise refusal(tag, "its image tower ends in attentional pooling")
    if visual.proj is None:
        raise refusal(tag, "its image projection has been removed")
    text = text_tower(model)
    if not isinstance(text, TextTransformer) and not isinstance(getattr(text, "transformer", None), Transformer):
        raise refusal(tag, f"its text tower is a {type(text).__name__}")
    if getattr(text, "cls_emb", None) is not None:
        raise refusal(tag, "its text tower appends a class token")


def refusal(tag: str, reason: str) -> SettingError:
    """Return the error for a model that AA-CLIP cannot adapt."""
    return SettingError(f"{tag}: {reason}; {_WAY_OUT}", code="setting.clip")


def text_tower(model: nn.Module) -> Any:
    """Return the module that holds the parts of the text tower: open_clip keeps them in one of two places."""
    return getattr(model, "text", model)


def activation_of(model: nn.Module) -> str:
    """Return ``"gelu"``, ``"quick_gelu"``, or the class of another activation between the linear layers of a block."""
    found = next(part.mlp.gelu for part in model.modules() if isinstance(part, ResidualAttentionBlock))
    if isinstance(found, nn.GELU) and found.approximate == "none":
        return "gelu"
    return "quick_gelu" if isinstance(found, QuickGELU) else str(found)


def text_features(model: nn.Module, token_ids: Tensor, project: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Run token ids through the text tower.

    Under a causal mask no token sees a later one, so what follows the last end-of-text token of the batch is
    left out; that changes nothing but rounding.

    Args:
        model: an open_clip model.
        token_ids: as its tokenizer gives them.
        project: takes the place of CLIP's own projection.

    Shape:
        ``(n, context) -> (n, embed)``, not normalised
    """
    tower = text_tower(model)
    pool, end_id = _pooling(model)
    mask = tower.attn_mask
    if mask is not None and pool in ("argmax", "eos"):
        found = token_ids if pool == "argmax" else token_ids.eq(cast(int, end_id)).int()
        ends = found.argmax(dim=-1)
        token_ids = token_ids[:, : int(ends.max()) + 1]
    if mask is not None:
        mask = mask[: token_ids.shape[1], : token_ids.shape[1]]
    kind = tower.transformer.get_cast_dtype()
    tokens = tower.token_embedding(token_ids).to(kind) + tower.positional_embedding[: token_ids.shape[1]].to(kind)
    tokens = tower.ln_final(tower.transformer(tokens, attn_mask=mask))
    pooled = text_global_pool(tokens, token_ids, pool, eos_token_id=end_id)
    if project is not None:
        return project(pooled)
    own = tower.text_projection
    if own is None:
        return pooled
    return own(pooled) if isinstance(own, nn.Linear) else pooled @ own


def _pooling(model: nn.Module) -> tuple[str, int | None]:
    tower = text_tower(model)
    if tower is model:
        return model.text_pool_type, getattr(model, "text_eos_id", None)
    return tower.pool_type, getattr(tower, "eos_id", None)


@contextmanager
def scoped_hooks(blocks: nn.ModuleList, changes: Sequence[Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let ``changes[i]`` replace the output of block i, until the end of the scope."""
    with ExitStack() as stack:
        for block, change in zip(blocks, changes, strict=False):
            handle = block.register_forward_hook(lambda _block, _inputs, output, change=change: change(output))
            stack.callback(handle.remove)
        yield


@contextmanager
def scoped_parts(parents: list[nn.Module], name: str, replacements: list[nn.Module]) -> Iterator[None]:
    """Put a module in the place of each parent's part of that name, until the end of the scope."""
    originals = [parent.get_submodule(name) for parent in parents]
    try:
        for parent, replacement in zip(parents, replacements, strict=True):
            setattr(parent, name, replacement)
        yield
    finally:
        for parent, original in zip(parents, originals, strict=True):
            setattr(parent, name, original)


@contextmanager
def plain_blocks(*transformers: Any) -> Iterator[None]:
    """Run blocks as they are written, until the end of the scope.

    Gradient checkpointing would run them again after hooks and swapped parts have gone. The fast path of torch's
    attention rounds otherwise in inference than in training and export, and took 1.6 times as long on a CPU (1,370
    tokens of 1,024).
    """
    fast, recomputing = torch.backends.mha.get_fastpath_enabled(), [part.grad_checkpointing for part in transformers]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for part in transformers:
            part.grad_checkpointing = False
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, value in zip(transformers, recomputing, strict=True):
            part.grad_checkpointing = value


def as_float32(tensor: Tensor) -> Tensor:
    """Return float32, or float64 as it is: half precision has too few digits for sums over maps."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
