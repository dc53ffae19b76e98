"""Pictures and masks as CLIP wants them: one size, colours normalised; a mask of 0 and 1."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor

from monai_ext.base import LabelError, SettingError

Picture = Image.Image | np.ndarray
_KINDS = 16  # different values of a mask: kinds of defects have few, lossy compression makes many


class ClipPicture(Transform):
    """Resize a picture to CLIP's size, aspect not kept, and normalise its colours.

    Bicubic with Pillow, as published for AA-CLIP. Grey, palette, RGBA and 16-bit pictures become 8-bit RGB first.

    Args:
        size: pixels, or (height, width).
        mean: of red, green and blue in 0 to 1; OpenAI's by default, :class:`ClipModel` has those of its weights.
        std: of the colours.

    Shape:
        a Pillow image, or uint8 ``(h, w)`` or ``(h, w, 3)`` ``->`` float32 ``(3, height, width)``

    Raises:
        SettingError: an array of another type or shape.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        mean: Sequence[float] = OPENAI_DATASET_MEAN,
        std: Sequence[float] = OPENAI_DATASET_STD,
    ) -> None:
        self.height, self.width = _height_width(size)
        self.mean, self.std = (torch.tensor(list(colour)).view(3, 1, 1) for colour in (mean, std))

    def __call__(self, picture: Picture) -> Tensor:
        small = _as_rgb(_as_image(picture)).resize((self.width, self.height), Image.Resampling.BICUBIC)
        colours = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
        return (colours - self.mean) / self.std


class ClipMask(Transform):
    """Resize a mask to CLIP's size: nearest pixel, and all that is not 0 becomes 1, as published for AA-CLIP.

    Args:
        size: pixels, or (height, width).

    Shape:
        a Pillow image or uint8 ``(h, w)`` ``->`` uint8 ``(1, height, width)``

    Raises:
        LabelError: so many different values that the mask was stored with loss, as JPEG does.
        SettingError: an array of another type or shape.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.height, self.width = _height_width(size)

    def __call__(self, mask: Picture) -> Tensor:
        image = _as_image(mask)
        grey = image if image.mode in ("1", "L", "P", "I;16", "I") else image.convert("L")
        count = len(np.unique(np.asarray(grey)))
        if count > _KINDS:
            raise LabelError(
                f"mask: {count} different values, so it was stored with loss; make it again as PNG with 0 and 255",
                code="label.not_binary",
            )
        small = np.asarray(grey.resize((self.width, self.height), Image.Resampling.NEAREST))
        return torch.from_numpy((small != 0).astype(np.uint8)).unsqueeze(0)


class ClipPictured(MapTransform):
    """Dictionary form of :class:`ClipPicture`."""

    def __init__(
        self,
        keys: KeysCollection,
        size: int | Sequence[int],
        mean: Sequence[float] = OPENAI_DATASET_MEAN,
        std: Sequence[float] = OPENAI_DATASET_STD,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.picture = ClipPicture(size, mean, std)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.picture(out[key])
        return out


class ClipMaskd(MapTransform):
    """Dictionary form of :class:`ClipMask`."""

    def __init__(self, keys: KeysCollection, size: int | Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask = ClipMask(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.mask(out[key])
        return out


def _height_width(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _as_image(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    array = np.asarray(picture)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise SettingError(
            f"picture: {array.dtype} of shape {array.shape} is none; give uint8 (h, w) or (h, w, 3), or a Pillow image",
            code="setting.picture",
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip 16 bits at 255; 65535 / 257 is 255.
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise SettingError(
            f"picture: mode {image.mode} of Pillow has no range of its own; scale it to 8 or 16 bits",
            code="setting.picture",
        )
    return image.convert("RGB")
