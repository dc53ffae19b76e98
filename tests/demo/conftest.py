"""One phantom patient with lesions in every organ, and crops made by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from monai_ext.demo.lesion_crops import LABEL_OF, SEEN, UNSEEN, LesionCrop, lesion_phantom
from monai_ext.volumes.phantom_lesions import LesionPhantom


@pytest.fixture(scope="session")
def patient() -> LesionPhantom:
    return lesion_phantom(3, (*SEEN, *UNSEEN))


@pytest.fixture
def made_crop() -> Callable[..., LesionCrop]:
    return make_crop


def make_crop(organ: str = "liver", contrast_hu: float = -30.0, size: int = 16) -> LesionCrop:
    """A crop that is all organ, with a square lesion at the lower left, and air in its first row."""
    hu = np.full((size, size), 70, np.int16)
    organs = np.full((size, size), LABEL_OF[organ], np.uint8)
    lesion = np.zeros((size, size), bool)
    if contrast_hu:
        lesion[-6:-2, 1:5] = True
    hu[lesion] += int(contrast_hu)
    hu[0], organs[0] = -1000, 0
    return LesionCrop(organ, hu, organs, lesion, contrast_hu, "made")
