"""AdamW for pretraining and fine-tuning: which parameters decay, and how fast each layer learns."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast, runtime_checkable

from torch import nn
from torch.optim import AdamW

from monai_ext.base import SettingError, is_number

# Parts of names, ours and the authors': tokens, positions and layer scales, whatever their dimensions.
_NEVER_DECAYED = ("cls_token", "class_token", "mask_token", "pos_embed", "position", "gamma")


@runtime_checkable
class _Layered(Protocol):
    """A network that knows its encoder and how deep a parameter lies, as ``HiEndSegmenter`` does."""

    def layer_of(self, name: str) -> int: ...
    def encoder_parameters(self) -> Iterator[nn.Parameter]: ...


def adamw_groups(
    network: nn.Module,
    weight_decay: float,
    published: bool = False,
    lr_scale: Callable[[str], float] | None = None,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups for ``torch.optim.AdamW``.

    No decay for biases, norms (all tensors of one dimension), class and mask tokens, positions and
    ``gamma`` scales. Frozen parameters are left out.

    Args:
        network: any module; parameters keep the order and the names it gives them.
        weight_decay: for the parameters that decay.
        published: give both kinds the decay, as the published trainer did: it sorted them, then never
            applied the result.
        lr_scale: factor of the learning rate by parameter name; all 1 when omitted.

    Returns:
        Groups ``{"params": [(name, parameter), ...], "weight_decay": ..., "lr_scale": ...}``, none of them
        empty; those without decay first, then by rising ``lr_scale``.

    Raises:
        SettingError: the decay is negative, or no parameter is trainable.
    """
    if not is_number(weight_decay, 0):
        raise SettingError(
            f"weight_decay: {weight_decay!r} is not a number from 0 up; the published value is 0.05",
            code="setting.weight_decay",
        )
    groups: dict[tuple[bool, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            scale = 1.0 if lr_scale is None else lr_scale(name)
            groups.setdefault((_decays(name, parameter), scale), []).append((name, parameter))
    if not groups:
        raise SettingError(
            "optimiser: every parameter is frozen; unfreeze the part to be trained", code="setting.frozen"
        )
    return [
        {
            "params": groups[decays, scale],
            "weight_decay": weight_decay if decays or published else 0.0,
            "lr_scale": scale,
        }
        for decays, scale in sorted(groups)
    ]


def make_adamw(
    network: nn.Module,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.05,
    published: bool = False,
    layer_decay: float | None = None,
    freeze_encoder: bool = False,
    encoder_lr_scale: float = 1.0,
) -> AdamW:
    """Build AdamW with grouped decay; the last three arguments are options of fine-tuning.

    Args:
        network: the network to train; the last three arguments need its ``encoder_parameters()`` and its
            ``layer_of(name)``, which counts layers from the input and gives the randomly initialised decoder
            the largest number.
        lr: rate of the parameters nearest to the output.
        betas: running-average factors of gradient and squared gradient.
        weight_decay: see ``adamw_groups``.
        published: see ``adamw_groups``.
        layer_decay: each layer of the encoder learns this much slower than the next one, in (0, 1].
        freeze_encoder: stop training the encoder: its parameters get ``requires_grad = False``.
        encoder_lr_scale: further factor of the rate of the whole encoder.

    Returns:
        The optimizer; every group's ``lr`` already holds its scale, so schedules keep the ratios.

    Raises:
        SettingError: a number is out of range, or the network has no layers to tell apart.
    """
    rates = [lr, encoder_lr_scale, *([] if layer_decay is None else [layer_decay])]
    if not all(is_number(rate, 0) and rate > 0 for rate in rates) or (layer_decay or 0) > 1:
        raise SettingError(
            f"optimiser: lr {lr!r} and encoder_lr_scale {encoder_lr_scale!r} must be above 0, layer_decay "
            f"{layer_decay!r} in (0, 1]; use freeze_encoder to stop the encoder",
            code="setting.lr",
        )
    lr_scale = None
    if layer_decay is not None or freeze_encoder or encoder_lr_scale != 1:
        lr_scale = _layer_scales(network, layer_decay or 1.0, encoder_lr_scale, freeze_encoder)
    groups = adamw_groups(network, weight_decay, published, lr_scale)
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    # One kernel a step instead of thousands: a tenth of the tiny network's whole step on the CPU.
    return AdamW(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(".bias") and not any(part in name for part in _NEVER_DECAYED)


def _layer_scales(
    network: nn.Module, layer_decay: float, encoder_lr_scale: float, freeze: bool
) -> Callable[[str], float]:
    if not isinstance(network, _Layered):
        raise SettingError(
            f"optimiser: {type(network).__name__} has no layer_of(name) or encoder_parameters(), which layer_decay, "
            "freeze_encoder and encoder_lr_scale need; leave them out",
            code="setting.layers",
        )
    layer_of = cast(Callable[[str], int], network.layer_of)
    layers: dict[str, int] = {name: layer_of(name) for name, _ in network.named_parameters()}
    top = max(layers.values())
    own = {id(parameter) for parameter in network.encoder_parameters()}
    encoder = {name for name, parameter in network.named_parameters() if id(parameter) in own}
    if freeze:
        for name in encoder:
            network.get_parameter(name).requires_grad_(False)

    def scale(name: str) -> float:
        return layer_decay ** (top - layers[name]) * (encoder_lr_scale if name in encoder else 1.0)

    return scale
