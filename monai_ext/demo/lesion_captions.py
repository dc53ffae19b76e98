"""Sentences about crops, for the training of the small CLIP; none mentions a lesion of a held-out organ."""

import numpy as np

from monai_ext.demo.lesion_crops import GENERIC, SEEN, LesionCrop

_HEALTHY = ("the {}", "the healthy {}", "the normal {}")
_WITHOUT = ("the {} without a lesion",)
_ILL = ("the {} with a {} lesion", "the {} with a {} lesion", "the {} with a lesion", "the diseased {}")
_TEMPLATES = ("{}.", "a CT slice of {}.")
_GENERIC_SHARE, _PLACE_SHARE = 0.25, 0.5  # of the captions that say so


def organ_name(organ: str) -> str:
    """Return what sentences call an organ.

    >>> organ_name("kidney_left")
    'left kidney'
    """
    return " ".join(reversed(organ.split("_")))


def caption_of(crop: LesionCrop, rng: np.random.Generator) -> str:
    """Describe a crop: its organ and, in organs that are not held out, whether it has a lesion, how dense, and where.

    Args:
        crop: to describe.
        rng: chooses the words.
    """
    name = GENERIC if rng.random() < _GENERIC_SHARE else organ_name(crop.organ)
    if crop.organ not in SEEN or not crop.contrast_hu:
        phrase = str(rng.choice(_HEALTHY + (_WITHOUT if crop.organ in SEEN else ()))).format(name)
    else:
        density = "bright" if crop.contrast_hu > 0 else "dark"
        phrase = str(rng.choice(_ILL)).format(name, density)
        if rng.random() < _PLACE_SHARE:
            phrase = f"{phrase}, {_place(crop.lesion & crop.of_organ())}"
    return str(rng.choice(_TEMPLATES)).format(phrase)


def _place(lesion: np.ndarray) -> str:
    """Tell in which of nine parts of the picture a lesion lies."""
    rows, columns = (axis.mean() / size for axis, size in zip(lesion.nonzero(), lesion.shape, strict=True))
    down = "upper" if rows < 0.38 else "lower" if rows > 0.62 else ""
    across = "left" if columns < 0.38 else "right" if columns > 0.62 else ""
    return " ".join(word for word in (down, across) if word) or "centre"
