"""What a CLIP takes, known from its name or configuration: the size and the colours of its pictures."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from monai_ext.networks.clip_architectures import Architecture, Size, find_architecture

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class ClipInput:
    """The pictures of a CLIP.

    Attributes:
        image_size: height and width in pixels.
        mean: of each colour, that pictures are normalised with.
        std: of each colour.
    """

    image_size: tuple[int, int]
    mean: Colour
    std: Colour


def clip_input(
    architecture: str | os.PathLike[str] | Mapping[str, Any] = "ViT-L-14-336",
    weights: str | os.PathLike[str] | None = "openai",
    *,
    image_size: Size | None = None,
) -> ClipInput:
    """Tell what ``load_clip`` with the same arguments takes, without building it or fetching its weights.

    Args:
        architecture: see ``load_clip``; of ``hf-hub:`` the configuration is fetched.
        weights: see ``load_clip``; a tag may have been trained on pictures of other colours than its architecture.
        image_size: pixels, or (height, width); the architecture's own if omitted.

    Raises:
        SettingError: an unknown architecture, weights that are neither its tag nor a path, or a size of broken patches.
    """
    return input_of(find_architecture(architecture), weights, image_size)


def input_of(found: Architecture, weights: str | os.PathLike[str] | None, image_size: Size | None) -> ClipInput:
    """Tell what a CLIP of a known architecture takes, see :func:`clip_input`."""
    trained = {} if weights is None else found.trained(weights)
    pictures = {**trained, **found.pictures}
    return ClipInput(
        found.image_size(image_size),
        tuple(pictures.get("mean", OPENAI_DATASET_MEAN)),
        tuple(pictures.get("std", OPENAI_DATASET_STD)),
    )
