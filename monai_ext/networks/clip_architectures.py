"""What to build: configurations of open_clip models by name, file or content, and the weights that go with them."""

import json
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import open_clip
from open_clip.pretrained import download_pretrained_from_hf, get_pretrained_cfg, list_pretrained_tags_by_model

from monai_ext.base import SettingError
from monai_ext.networks.checkpoint_content import is_torchscript
from monai_ext.networks.clip_towers import refusal
from monai_ext.networks.clip_weights import FOLDER, HUB, find_tag_weights

Activation = Literal["weights", "gelu", "quick_gelu"]
Size = int | Sequence[int]
_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"  # names in repositories of the hub
_PIXELS, _PATCH = 224, 16  # what open_clip takes where a configuration says nothing


@dataclass(frozen=True)
class Architecture:
    """A configuration of open_clip.

    Attributes:
        name: open_clip's, or the place on the hub or on disk; ``None`` for a configuration of one's own.
        config: with ``embed_dim``, ``vision_cfg`` and ``text_cfg``.
        pictures: what is known of the pictures it was trained on: ``mean``, ``std``.
    """

    name: str | None
    config: Mapping[str, Any]
    pictures: Mapping[str, Any]

    @property
    def tag(self) -> str:
        """What to call it."""
        return self.name or "own configuration"

    @property
    def native_grid(self) -> tuple[int, int]:
        """Patches down and across at its own image size."""
        sizes, patches = self.image_size(), _pair(self.config["vision_cfg"].get("patch_size", _PATCH))
        return sizes[0] // patches[0], sizes[1] // patches[1]

    def image_size(self, image_size: Size | None = None) -> tuple[int, int]:
        """Return height and width of its pictures in pixels: its own, or those of another image size.

        Raises:
            SettingError: no whole number of patches.
        """
        height, width = _pair(self.resized(image_size)["vision_cfg"].get("image_size", _PIXELS))
        return height, width

    def resized(self, image_size: Size | None) -> dict[str, Any]:
        """Return a configuration for another image size: pixels, or (height, width).

        Raises:
            SettingError: no whole number of patches.
        """
        config = deepcopy(dict(self.config))
        if image_size is not None:
            sizes, patches = _pair(image_size), _pair(config["vision_cfg"].get("patch_size", _PATCH))
            if len(sizes) != 2 or any(size < patch or size % patch for size, patch in zip(sizes, patches, strict=True)):
                raise SettingError(
                    f"image_size: {image_size} is not a whole number of {patches[0]}x{patches[1]} patches; "
                    f"give multiples, such as {37 * patches[0]}",
                    code="setting.image_size",
                )
            config["vision_cfg"]["image_size"] = sizes
        return config

    def weights(
        self, weights: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None
    ) -> tuple[str, Path, dict[str, Any]]:
        """Return the tag, the file, and what open_clip knows of the weights.

        Raises:
            SettingError: neither a tag of this architecture nor a path.
            WeightsError: the file cannot be fetched.
        """
        tag = self.tag_of(weights)
        if tag is None or self.name is None:
            return Path(weights).name, Path(weights), {}
        return tag, find_tag_weights(self.name, tag, cache_dir), self.trained(weights)

    def trained(self, weights: str | os.PathLike[str]) -> dict[str, Any]:
        """Return what open_clip knows of weights without fetching them, nothing of a file: ``mean``, ``quick_gelu``.

        Raises:
            SettingError: neither a tag of this architecture nor a path.
        """
        tag = self.tag_of(weights)
        return {} if tag is None or self.name is None else dict(get_pretrained_cfg(self.name, tag))

    def tag_of(self, weights: str | os.PathLike[str]) -> str | None:
        """Return the tag that weights are called by, ``None`` if they are a file.

        Raises:
            SettingError: neither a tag of this architecture nor a path.
        """
        words, name = os.fspath(weights), self.name
        if Path(words).is_file():
            return None
        if name is not None and (name.startswith((HUB, FOLDER)) or get_pretrained_cfg(name, words)):
            return words
        if os.sep not in words and "." not in words:
            tags = list_pretrained_tags_by_model(name) if name else []
            known = f"choose one of {', '.join(tags)}, or give a file" if tags else "give a file of weights"
            raise SettingError(f"{self.tag}: no weights are called {words!r}; {known}", code="setting.clip")
        return None

    def quick_gelu(self, activation: Activation, path: Path | None, trained: Mapping[str, Any] | None) -> bool:
        """Tell whether blocks run QuickGELU, see :func:`load_clip`.

        Raises:
            SettingError: an unknown word, or weights that may have been trained with either.
        """
        if activation in ("gelu", "quick_gelu"):
            return activation == "quick_gelu"
        if activation != "weights":
            raise SettingError(
                f"activation: {activation!r} is none; choose 'weights', 'gelu' or 'quick_gelu'",
                code="setting.activation",
            )
        own, name = bool(self.config.get("quick_gelu", False)), self.name
        if trained:
            return bool(trained.get("quick_gelu", False))
        if path is not None and path.is_file() and is_torchscript(path):
            return True  # OpenAI's alone are such archives
        if path is None or own or name is None or name.startswith((HUB, FOLDER)):
            return own
        known = {bool(get_pretrained_cfg(name, tag).get("quick_gelu")) for tag in list_pretrained_tags_by_model(name)}
        if len(known) == 2:
            raise SettingError(
                f"{name}: a file does not say which activation its weights were trained with; give activation="
                "'quick_gelu' for OpenAI's weights and those derived from them, else 'gelu'",
                code="setting.activation",
            )
        return known.pop() if known else own


def find_architecture(architecture: str | os.PathLike[str] | Mapping[str, Any]) -> Architecture:
    """Find a configuration, see :func:`load_clip`.

    Raises:
        SettingError: there is none, or one of towers that AA-CLIP cannot adapt.
    """
    name = None
    if isinstance(architecture, Mapping):
        content: Any = dict(architecture)
    elif os.fspath(architecture).endswith(".json"):
        content = _read_json(Path(architecture))
    else:
        name = os.fspath(architecture)
        content = _named(name)
    config = content.get("model_cfg", content) if isinstance(content, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise SettingError(
            f"{name or 'architecture'}: no open_clip configuration with embed_dim, vision_cfg and text_cfg; "
            "open_clip.list_models() lists the names",
            code="setting.clip",
        )
    found = Architecture(name, deepcopy(config), content.get("preprocess_cfg", {}))
    _refuse_foreign_towers(found)
    return found


def _named(name: str) -> Any:
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


def _refuse_foreign_towers(found: Architecture) -> None:
    # Before anything is built: those towers would fetch files from the hub.
    vision, text = found.config["vision_cfg"], found.config["text_cfg"]
    if vision.get("timm_model_name"):
        raise refusal(found.tag, f"its image tower is the timm model {vision['timm_model_name']}")
    if isinstance(vision.get("layers"), list | tuple):
        raise refusal(found.tag, "its image tower is a ResNet")
    if vision.get("attentional_pool") or "multimodal_cfg" in found.config:
        raise refusal(found.tag, "it is a CoCa model, whose towers end otherwise")
    if text.get("hf_model_name"):
        raise refusal(found.tag, f"its text tower is the transformers model {text['hf_model_name']}")


def _pair(size: Any) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, list | tuple) else (size, size)
