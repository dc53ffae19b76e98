"""Square crops of axial phantom slices around one organ, with and without lesions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_ext.base import derive_seed, find_window
from monai_ext.volumes import PHANTOM_LABELS
from monai_ext.volumes.phantom_lesions import LesionPhantom, draw_lesions, phantom_with_lesions

SEEN = ("liver", "kidney_right", "kidney_left", "heart")  # whose lesions the adapters are trained on
UNSEEN = ("spleen", "spine", "lungs")  # whose lesions neither the adapters nor the small CLIP ever saw
GENERIC = "organ"  # any organ, for what has no name of its own
BODY_HU = -400.0  # midway between air and fat
SHAPE, SPACING_MM = (176, 136, 68), (2.0, 2.0, 5.0)
CROP_PX = 64  # 128 mm: an organ and what lies around it, of which a whole slice is full
PART_PX = 32  # of what the small CLIP was trained on: eight by eight patches of 8 mm
COUNTS = {"liver": 6, "heart": 4, "spine": 4, "lungs": 6, "spleen": 3, "kidney_right": 2, "kidney_left": 2}
# Smallest and largest difference to the organ, about one to three times what its own tissue varies by.
CONTRAST_HU = {
    "liver": (15.0, 35.0),
    "spleen": (15.0, 35.0),
    "heart": (20.0, 45.0),
    "kidney_right": (40.0, 90.0),
    "kidney_left": (40.0, 90.0),
    "spine": (80.0, 200.0),
    "lungs": (120.0, 300.0),
}
SHIFT_PX = 10  # by which a crop's middle may miss the organ or lesion it is cut around
SMALLEST_PX = 6  # a lesion of fewer pixels in the crop is too thin a slice of it to be judged
SMALLEST_ORGAN_PX = 60


class LesionCrop(NamedTuple):
    """A crop of an axial slice, as radiologists look at it: the patient's right on the left, the front at the top.

    Attributes:
        organ: that the crop is about, a name of ``PHANTOM_LABELS``, or ``GENERIC`` for any place.
        hu: ``(h, w)`` int16.
        organs: ``(h, w)`` uint8, ids of ``PHANTOM_LABELS``.
        lesion: ``(h, w)`` bool, lesions of any organ.
        contrast_hu: of the organ's largest lesion here, negative is darker; 0 without one.
        patient: name of the phantom.
    """

    organ: str
    hu: npt.NDArray[np.int16]
    organs: npt.NDArray[np.uint8]
    lesion: npt.NDArray[np.bool_]
    contrast_hu: float
    patient: str

    def of_organ(self) -> npt.NDArray[np.bool_]:
        """Return where the organ is."""
        return np.asarray(self.organs == LABEL_OF[self.organ])

    def picture(self) -> npt.NDArray[np.uint8]:
        """Return grey values in the organ's window."""
        low, high = find_window(window_of(self.organ))
        return np.rint(255 * np.clip((self.hu.astype(np.float32) - low) / (high - low), 0, 1)).astype(np.uint8)


LABEL_OF = {name: number for number, name in PHANTOM_LABELS.items()}


def window_of(organ: str) -> str:
    """Return the preset in which an organ is looked at."""
    return "lung" if organ == "lungs" else "abdomen"


def lesion_phantom(seed: int, organs: Sequence[str], diameter_mm: tuple[float, float] = (10.0, 20.0)) -> LesionPhantom:
    """Make a patient with lesions in some organs, as many as each has room for.

    Args:
        seed: chooses the patient and the lesions.
        organs: names of ``PHANTOM_LABELS``.
        diameter_mm: smallest and largest.
    """
    plans = []
    for organ in organs:
        plans += draw_lesions(derive_seed(seed, organ), [organ], COUNTS[organ], diameter_mm, CONTRAST_HU[organ])
    return phantom_with_lesions(seed, plans, SHAPE, SPACING_MM, leave_out=True)


def cut_crops(
    phantom: LesionPhantom, organ: str, count: int, seed: int, patient: str = "phantom", size_px: int = CROP_PX
) -> list[LesionCrop]:
    """Cut crops that show an organ; every second one shows a lesion of it, where the patient has any.

    Args:
        phantom: the patient.
        organ: a name of ``PHANTOM_LABELS``.
        count: of crops.
        seed: chooses slices and places.
        patient: name of the phantom.
        size_px: height and width.
    """
    rng = np.random.default_rng(derive_seed(seed, "crops", organ))
    inside = phantom.labels == LABEL_OF[organ]
    ill = inside & (phantom.lesions > 0)
    areas = ill.sum((0, 1))
    # A lesion's own slices, and slices of the organ that no lesion touches.
    ill_slices = np.flatnonzero(areas >= SMALLEST_PX)
    healthy_slices = np.flatnonzero((inside.sum((0, 1)) >= SMALLEST_ORGAN_PX) & (areas == 0))
    crops = []
    for number in range(count):
        wanted = number % 2 == 1 and len(ill_slices) > 0
        slices = ill_slices if wanted else healthy_slices
        if not len(slices):
            continue
        z = int(rng.choice(slices))
        where = np.argwhere((ill if wanted else inside)[..., z])
        centre = where[rng.integers(len(where))] + rng.integers(-SHIFT_PX, SHIFT_PX + 1, 2)
        crops.append(_cut(phantom, organ, z, centre, patient, size_px))
    return crops


def cut_anywhere(phantom: LesionPhantom, count: int, seed: int, patient: str = "phantom") -> list[LesionCrop]:
    """Cut crops around random places of the body, most of them without a lesion, under the name of any organ.

    Args:
        phantom: the patient.
        count: of crops.
        seed: chooses the places.
        patient: name of the phantom.
    """
    rng = np.random.default_rng(derive_seed(seed, "crops", GENERIC))
    where = np.argwhere(phantom.hu > BODY_HU)
    chosen = where[rng.integers(len(where), size=count)]
    return [_cut(phantom, GENERIC, int(z), np.array([x, y]), patient, CROP_PX) for x, y, z in chosen]


def part_of(crop: LesionCrop, rng: np.random.Generator, size_px: int = PART_PX) -> LesionCrop | None:
    """Cut a smaller crop out of one, with some of its organ; ``None`` where chance finds none.

    Most parts of a crop with a lesion show it. Parts that cut off all but a sliver of a lesion are not taken,
    because nobody could say whether they show one.

    Args:
        crop: to cut from.
        rng: chooses the place.
        size_px: height and width.
    """
    lesion, organ, room = crop.lesion & crop.of_organ(), crop.of_organ(), len(crop.hu) - size_px
    for _ in range(20):
        start = rng.integers(0, room + 1, 2)
        if crop.contrast_hu and rng.random() < 0.7:
            where = np.argwhere(lesion)
            around = where[rng.integers(len(where))] + rng.integers(-size_px // 3, size_px // 3 + 1, 2)
            start = np.clip(around - size_px // 2, 0, room)
        part = tuple(slice(int(first), int(first) + size_px) for first in start)
        shown = int(lesion[part].sum())
        if (not shown or shown >= SMALLEST_PX) and organ[part].sum() >= SMALLEST_ORGAN_PX:
            return crop._replace(
                hu=crop.hu[part],
                organs=crop.organs[part],
                lesion=crop.lesion[part],
                contrast_hu=crop.contrast_hu if shown else 0.0,
            )
    return None


def _cut(
    phantom: LesionPhantom, organ: str, z: int, centre: npt.NDArray[np.int64], patient: str, size_px: int
) -> LesionCrop:
    starts = [int(np.clip(c - size_px // 2, 0, n - size_px)) for c, n in zip(centre, SHAPE, strict=False)]
    x, y = (slice(start, start + size_px) for start in starts)
    hu, organs, lesions = (_shown(volume[x, y, z]) for volume in (phantom.hu, phantom.labels, phantom.lesions))
    counts = np.bincount(lesions[organs == LABEL_OF.get(organ, 0)], minlength=2)
    counts[0] = 0
    contrasts = {lesion.number: lesion.contrast_hu for lesion in phantom.planted}
    contrast = contrasts[int(counts.argmax())] if counts.max() >= SMALLEST_PX else 0.0
    return LesionCrop(organ, hu, organs, lesions > 0, contrast, patient)


def _shown(plane: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(plane.T[::-1, ::-1])
