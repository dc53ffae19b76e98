"""The authors' adapter files, and whether tensors fill the adapters of a model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_ext.base import WeightsError, verify_digest
from monai_ext.networks.aa_clip import AAClip
from monai_ext.networks.checkpoint_content import check_file, read_content


def import_adapters(
    model: AAClip,
    text: str | os.PathLike[str] | None = None,
    image: str | os.PathLike[str] | None = None,
) -> None:
    """Load the authors' adapter files, ``text_adapter.pth`` and ``image_adapter_*.pth``.

    They do not say which CLIP and settings they belong to: the published ones are those of ViT-L-14-336 with
    OpenAI's weights, ``activation="gelu"`` and the defaults of :class:`AAClip`.

    Args:
        model: changed in place, but only if everything fits.
        text: the file of stage 1.
        image: the file of stage 2.

    Raises:
        WeightsError: a file cannot be read, or a tensor is missing, unknown or of another shape.
    """
    tensors: dict[str, Tensor] = {}
    for part, path in (("text_adapter", text), ("image_adapter", image)):
        if path is not None:
            check_file(Path(path))
            verify_digest(path, tell=False)  # the authors give none
            content = read_content(path)
            if isinstance(content, Mapping) and isinstance(content.get(part), Mapping):
                content = content[part]
            found = {f"{part}.{name}": tensor for name, tensor in _named_tensors(content, Path(path).name).items()}
            own = {name: value for name, value in model.adapters.state_dict().items() if name.startswith(f"{part}.")}
            check_adapters(own, found, Path(path).name)
            tensors |= found
    model.adapters.load_state_dict(tensors, strict=False)


def check_adapters(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that do not fill the adapters of a model.

    Args:
        own: the adapters' tensors.
        tensors: what would fill them.
        source: what to call them in messages.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape or not finite.
    """
    for kind, names in (("missing", own.keys() - tensors.keys()), ("unknown to it", tensors.keys() - own.keys())):
        if names:
            raise WeightsError(
                f"{source}: {min(names)} is {kind}; build AAClip with the text_adapt_until, image_adapt_until, levels "
                "and relu of the training",
                code="weights.names",
            )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}: {name} has shape {list(tensor.shape)}, the model needs {list(own[name].shape)}; "
                "give the CLIP that the adapters were trained beside",
                code="weights.shape",
            )
        if not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{source}: {name} holds NaN or infinite numbers; use an earlier file", code="weights.nonfinite"
            )


def _named_tensors(content: Any, source: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{source}: holds no adapter of AA-CLIP; give text_adapter.pth as text, image_adapter_*.pth as image",
            code="weights.adapters",
        )
    return {str(name): tensor for name, tensor in content.items()}
