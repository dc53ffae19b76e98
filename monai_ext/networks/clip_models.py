"""Building open_clip models and filling them from a tag, a file or tensors, without running code from a file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from monai_ext.base import SettingError
from monai_ext.networks.clip_architectures import Activation, Size, find_architecture
from monai_ext.networks.clip_inputs import input_of
from monai_ext.networks.clip_tokens import StrictTokenizer, Tokenizer, tokenizer_for
from monai_ext.networks.clip_towers import activation_of, check_towers, text_tower
from monai_ext.networks.clip_weights import fill_clip, read_clip_weights


@dataclass(frozen=True)
class ClipModel:
    """An open_clip ViT with what belongs to it; lend a model of your own as ``ClipModel(model, tag="mine")``.

    Attributes:
        model: the open_clip model.
        tokenizer: of its text tower; OpenAI's where none is given.
        tag: architecture and weights, such as ``"ViT-L-14-336/openai"``.
        mean: of each colour, that pictures are normalised with.
        std: of each colour.

    Raises:
        SettingError: no ViT of open_clip's own: timm models, ResNets and CoCa have no blocks to adapt.
    """

    model: nn.Module
    tokenizer: Tokenizer | None = None
    tag: str = "unnamed CLIP"
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD

    def __post_init__(self) -> None:
        check_towers(self.model, self.tag)
        if not isinstance(self.tokenizer, StrictTokenizer):
            tower = text_tower(self.model)
            strict = StrictTokenizer(self.tokenizer, tower.context_length, getattr(tower, "pad_id", 0))
            object.__setattr__(self, "tokenizer", strict)

    @property
    def visual(self) -> Any:
        """The image tower."""
        return self.model.visual

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its pictures in pixels."""
        return tuple(self.visual.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return tuple(self.visual.grid_size)

    @property
    def depth(self) -> int:
        """Blocks of the image tower."""
        return len(self.visual.transformer.resblocks)

    @property
    def width(self) -> int:
        """Size of an image token."""
        return int(self.visual.conv1.out_channels)

    @property
    def text_depth(self) -> int:
        """Blocks of the text tower."""
        return len(text_tower(self.model).transformer.resblocks)

    @property
    def text_width(self) -> int:
        """Size of a text token."""
        return int(text_tower(self.model).transformer.width)

    @property
    def embed_dim(self) -> int:
        """Size of the space that images and texts share."""
        return int(self.visual.proj.shape[1])

    @property
    def activation(self) -> str:
        """``"gelu"`` or ``"quick_gelu"``, read off the blocks."""
        return activation_of(self.model)


def load_clip(
    architecture: str | os.PathLike[str] | Mapping[str, Any] = "ViT-L-14-336",
    weights: str | os.PathLike[str] | None = "openai",
    *,
    image_size: Size | None = None,
    activation: Activation = "weights",
    cache_dir: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
) -> ClipModel:
    """Build an open_clip ViT in float32, frozen and in eval mode.

    Args:
        architecture: a name of open_clip, ``hf-hub:org/repo``, ``local-dir:folder``, an open_clip configuration
            (a JSON file, or its content with ``embed_dim``, ``vision_cfg``, ``text_cfg``).
        weights: a tag of open_clip, a file (safetensors, a state dict, OpenAI's ``.pt``), or ``None`` for random
            ones. With ``hf-hub:`` and ``local-dir:`` any tag means the weights found there.
        image_size: pixels, or (height, width); positions are resized to its grid. The architecture's own if omitted.
        activation: ``"weights"`` takes what the weights were trained with: QuickGELU for OpenAI's. ``"gelu"`` is
            what the published AA-CLIP ran, with OpenAI's weights too.
        cache_dir: where weights are looked for and kept; ``~/.cache/clip`` and the hub's own cache if omitted.
        sha256: checksum of the file, required for TorchScript files that are not OpenAI's.

    Raises:
        SettingError: an unknown architecture or activation, or a model that is no ViT of open_clip's own.
        WeightsError: the weights cannot be fetched, read or do not fit.
    """
    found = find_architecture(architecture)
    tag, path, trained = (None, None, None) if weights is None else found.weights(weights, cache_dir)
    config = found.resized(image_size)
    config["quick_gelu"] = found.quick_gelu(activation, path, trained)
    taken = input_of(found, weights, image_size)
    clip = ClipModel(
        _built(config, found.tag).eval().requires_grad_(False),
        tokenizer_for(found.name, config),
        f"{found.tag}/{tag or 'random'}",
        taken.mean,
        taken.std,
    )
    if path is not None:
        load_clip_weights(clip, path, sha256=sha256, native_grid=found.native_grid)
    return clip


def load_clip_weights(
    clip: ClipModel,
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    sha256: str | None = None,
    native_grid: tuple[int, int] | None = None,
) -> None:
    """Fill a CLIP with weights, every tensor of it; positions of another grid are resized.

    Args:
        clip: changed in place, but only if everything fits.
        weights: a file, or tensors by open_clip's names.
        sha256: see :func:`load_clip`.
        native_grid: patches down and across of the weights, where that is not a square.

    Raises:
        WeightsError: the file cannot be read, or a tensor is missing, unknown or of another shape.
    """
    if isinstance(weights, Mapping):
        fill_clip(clip.model, weights, "weights", native_grid)
    else:
        fill_clip(clip.model, read_clip_weights(Path(weights), sha256), Path(weights).name, native_grid)


def _built(config: dict[str, Any], tag: str) -> nn.Module:
    custom = config.pop("custom_text", False)
    try:
        model: nn.Module = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    except (TypeError, ValueError, AssertionError, ZeroDivisionError) as error:
        raise SettingError(
            f"{tag}: open_clip builds nothing of its configuration ({error}); correct vision_cfg and text_cfg",
            code="setting.clip",
        ) from error
    return model
