"""Building open_clip models and filling them from a tag, a file or tensors, without running code from a file."""

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import open_clip
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import (
    download_pretrained_from_hf,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from torch import Tensor, nn

from monai_ext.base import SettingError
from monai_ext.networks.clip_tokens import StrictTokenizer, Tokenizer, tokenizer_for
from monai_ext.networks.clip_towers import activation_of, check_towers, refusal, text_tower
from monai_ext.networks.clip_weights import FOLDER, HUB, fill_clip, find_tag_weights, read_clip_weights

Activation = Literal["weights", "gelu", "quick_gelu"]
Size = int | tuple[int, int]
_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"  # names in repositories of the hub


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
    name, config, preprocess = _configuration(architecture)
    tag, path, trained = None, None, None
    if weights is not None:
        tag, path, trained = _find_weights(name, weights, cache_dir)
        preprocess = {**trained, **preprocess}
    vision = config["vision_cfg"]
    native = _grid(vision["image_size"], vision["patch_size"])
    if image_size is not None:
        vision["image_size"] = list(image_size) if not isinstance(image_size, int) else image_size
        _check_size(image_size, vision["patch_size"])
    config["quick_gelu"] = _quick_gelu(activation, name, config, trained, random=weights is None)
    custom = config.pop("custom_text", False)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    clip = ClipModel(
        model.eval().requires_grad_(False),
        tokenizer_for(name, config),
        f"{name or 'own configuration'}/{tag or 'random'}",
        tuple(preprocess.get("mean", OPENAI_DATASET_MEAN)),
        tuple(preprocess.get("std", OPENAI_DATASET_STD)),
    )
    if path is not None:
        load_clip_weights(clip, path, sha256=sha256, native_grid=native)
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


def _configuration(architecture: Any) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """Return open_clip's name if it has one, the model's configuration, and what is known of its pictures."""
    name = None
    if isinstance(architecture, Mapping):
        content: Any = dict(architecture)
    elif os.fspath(architecture).endswith(".json"):
        content = _read_json(Path(architecture))
    else:
        name = os.fspath(architecture)
        content = _named_configuration(name)
    config = content.get("model_cfg", content) if isinstance(content, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise SettingError(
            f"{name or 'architecture'}: no open_clip configuration with embed_dim, vision_cfg and text_cfg; "
            "open_clip.list_models() lists the names",
            code="setting.clip",
        )
    config = deepcopy(config)
    _refuse_foreign_towers(name or "own configuration", config)
    return name, config, content.get("preprocess_cfg", {})


def _named_configuration(name: str) -> Any:
    if name.startswith(FOLDER):
        return _read_json(Path(name.removeprefix(FOLDER)) / _CONFIG)
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        try:
            return _read_json(Path(download_pretrained_from_hf(repository, filename=_CONFIG)))
        except FileNotFoundError as error:
            raise SettingError(
                f"{name}: the hub cannot be reached; fetch {_CONFIG} and {_WEIGHTS} from "
                f"https://huggingface.co/{repository} into a folder and give local-dir:FOLDER",
                code="setting.clip",
            ) from error
    return open_clip.get_model_config(name)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{path.name}: no JSON file of an open_clip configuration; check the path", code="setting.clip"
        ) from error


def _refuse_foreign_towers(tag: str, config: Mapping[str, Any]) -> None:
    # Before anything is built: those towers would fetch files from the hub.
    vision, text = config["vision_cfg"], config["text_cfg"]
    if vision.get("timm_model_name"):
        raise refusal(tag, f"its image tower is the timm model {vision['timm_model_name']}")
    if isinstance(vision.get("layers"), list | tuple):
        raise refusal(tag, "its image tower is a ResNet")
    if vision.get("attentional_pool") or "multimodal_cfg" in config:
        raise refusal(tag, "it is a CoCa model, whose image tower ends in attentional pooling")
    if text.get("hf_model_name"):
        raise refusal(tag, f"its text tower is the transformers model {text['hf_model_name']}")


def _find_weights(
    name: str | None, weights: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None
) -> tuple[str, Path, dict[str, Any]]:
    """Return the tag, the file, and what open_clip knows of the weights."""
    words = os.fspath(weights)
    if name is not None and (name.startswith((HUB, FOLDER)) or get_pretrained_cfg(name, words)):
        return words, find_tag_weights(name, words, cache_dir), dict(get_pretrained_cfg(name, words))
    tags = list_pretrained_tags_by_model(name) if name else []
    if os.sep not in words and "." not in words and not Path(words).exists():
        known = f"choose one of {', '.join(tags)}, or give a file" if tags else "give a file of weights"
        raise SettingError(f"{name or 'architecture'}: no weights are called {words!r}; {known}", code="setting.clip")
    return Path(words).name, Path(words), {}


def _quick_gelu(
    activation: str, name: str | None, config: Mapping[str, Any], trained: Mapping[str, Any] | None, *, random: bool
) -> bool:
    if activation in ("gelu", "quick_gelu"):
        return activation == "quick_gelu"
    if activation != "weights":
        raise SettingError(
            f"activation: {activation!r} is none; choose 'weights', 'gelu' or 'quick_gelu'", code="setting.activation"
        )
    own = bool(config.get("quick_gelu", False))
    if trained:
        return bool(trained.get("quick_gelu", False))
    if random or own or name is None or name.startswith((HUB, FOLDER)):
        return own
    known = {bool(get_pretrained_cfg(name, tag).get("quick_gelu")) for tag in list_pretrained_tags_by_model(name)}
    if len(known) == 2:
        raise SettingError(
            f"{name}: a file does not say which activation its weights were trained with; give activation="
            "'quick_gelu' for OpenAI's weights and those derived from them, else 'gelu'",
            code="setting.activation",
        )
    return known.pop() if known else own


def _grid(image_size: Any, patch_size: Any) -> tuple[int, int]:
    height, width = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    down, across = patch_size if isinstance(patch_size, list | tuple) else (patch_size, patch_size)
    return height // down, width // across


def _check_size(image_size: Any, patch_size: Any) -> None:
    sizes = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    patches = patch_size if isinstance(patch_size, list | tuple) else (patch_size, patch_size)
    if len(sizes) != 2 or any(size < patch or size % patch for size, patch in zip(sizes, patches, strict=True)):
        raise SettingError(
            f"image_size: {image_size} is not a whole number of {patches[0]}x{patches[1]} patches; "
            f"give multiples, such as {37 * patches[0]}",
            code="setting.image_size",
        )
