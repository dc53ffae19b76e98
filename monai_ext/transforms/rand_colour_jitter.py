"""Random brightness, contrast and saturation of a picture."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from PIL import Image, ImageEnhance

from monai_ext.base import SettingError, is_number

_STEPS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class RandColourJitterd(Randomizable, MapTransform):
    """Change brightness, then contrast, then saturation, each by a factor of its own and only now and then.

    Published for stage 2 of AA-CLIP (arXiv:2503.06661): factors from 0.5 to 1.5, each with probability 0.7.

    Args:
        keys: pictures, uint8 ``(h, w, 3)``; all get the same factors.
        strength: factors are drawn from 1 - strength to 1 + strength, alike for all; 0 to 1.
        prob: of each change.

    Raises:
        SettingError: a strength or probability out of range.
    """

    def __init__(self, keys: KeysCollection, strength: float = 0.5, prob: float = 0.7) -> None:
        super().__init__(keys)
        if not (is_number(strength, 0, 1) and is_number(prob, 0, 1)):
            raise SettingError(
                f"jitter: strength {strength!r} and probability {prob!r}; give 0 to 1 for both", code="setting.jitter"
            )
        self.strength, self.prob = strength, prob
        self.factors: list[float | None] = [None] * len(_STEPS)

    def randomize(self, data: Any = None) -> None:
        """Draw a factor for each step, ``None`` where it is left out."""
        # Six numbers whatever happens, so that one picture's draw does not shift the next.
        picks, places = self.R.random(len(_STEPS)), self.R.uniform(-1, 1, len(_STEPS))
        self.factors = [
            float(1 + self.strength * place) if pick < self.prob else None
            for pick, place in zip(picks, places, strict=True)
        ]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        self.randomize()
        for key in self.key_iterator(out):
            image = Image.fromarray(out[key])
            for step, factor in zip(_STEPS, self.factors, strict=True):
                if factor is not None:
                    image = step(image).enhance(factor)
            out[key] = np.asarray(image)
        return out
