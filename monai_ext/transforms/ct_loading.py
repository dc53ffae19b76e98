"""The chain from a raw CT scan to what the networks see, the same for training, evaluation and inference."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from monai.config import KeysCollection
from monai.transforms import Compose, Orientationd, ScaleIntensityRanged, Spacingd
from monai.utils import ensure_tuple

from monai_ext.base import SettingError, as_numbers, check_window
from monai_ext.transforms.axis_spacing import AxisSpacingd
from monai_ext.transforms.read_scan import ReadScand
from monai_ext.transforms.regroup_labels import RegroupLabelsd
from monai_ext.volumes import SPACING_MM

_RAS = (("L", "R"), ("P", "A"), ("I", "S"))  # from the negative end of each axis to the positive one


def load_ct(
    keys: KeysCollection = "image",
    label_keys: KeysCollection = (),
    window_hu: Sequence[float] = (-175, 250),
    spacing_mm: Sequence[float] = (1.5, 1.5, 1.5),
    assume_hu: bool = False,
    classes: Collection[int] | None = None,
    native_label_keys: KeysCollection = (),
    label_ids: Mapping[int, Collection[int]] | None = None,
    relax: str | Collection[str] = (),
) -> Compose:
    """Build the chain: read, turn to RAS, resample, and scale the window to 0 to 1.

    Images are resampled linearly, labels by the nearest voxel. ``Invertd`` takes a result on that grid back
    to the scan's own, with the same shape and affine. A scan smaller than a network's window is left as it is;
    the inferer pads it.

    Args:
        keys: entries with the path of an image, a file or a DICOM series folder.
        label_keys: entries with the path of a label volume on the image's grid.
        window_hu: HU that become 0 and 1; values beyond are clipped.
        spacing_mm: voxel edges along x, y, z.
        assume_hu: take values for HU that do not look like it.
        classes: the ids that labels may hold beside 0; any by default.
        native_label_keys: like ``label_keys``, but left on the scan's own grid: references for evaluation.
        label_ids: for each class the ids that mean it in the label files, see `RegroupLabels`; the files may hold
            others, which count as background. By default their ids are the classes.
        relax: rules of reading to relax, see ``monai_ext.volumes.read_scan``.

    Returns:
        A transform that turns the paths into float32 ``MetaTensor`` of shape ``(1, x, y, z)``.

    Raises:
        SettingError: the window or the spacing cannot be, or ``relax`` names no rule.
    """
    low, high = check_window(window_hu)
    edges = as_numbers(spacing_mm, 3)
    if edges is None or not all(SPACING_MM[0] <= edge <= SPACING_MM[1] for edge in edges):
        raise SettingError(
            f"spacing_mm: {spacing_mm!r} is not a voxel size; give three edges from {SPACING_MM[0]:g} to "
            f"{SPACING_MM[1]:g} mm, for example [1.5, 1.5, 1.5]",
            code="setting.spacing",
        )
    images, labels = ensure_tuple(keys), ensure_tuple(label_keys)
    references = (*labels, *ensure_tuple(native_label_keys))
    every = (*images, *labels)
    modes = ["bilinear"] * len(images) + ["nearest"] * len(labels)
    known = classes if label_ids is None else None  # files with ids of their own may hold any
    # Labels and image must be resampled by one rule; an image without labels by a faster one. float32 places samples
    # within 1e-4 voxels over 1500 of them, in a third of float64's time. Labels and image keep a shape of their own,
    # the same one: the reader has compared their grids.
    resampling = (
        Spacingd(every, tuple(edges), mode=modes, dtype=np.float32, ensure_same_shape=False)
        if labels
        else AxisSpacingd(images, tuple(edges))
    )
    return Compose(
        [
            ReadScand(images, references, assume_hu=assume_hu, classes=known, relax=relax),
            *([] if label_ids is None else [RegroupLabelsd(references, label_ids)]),
            Orientationd(every, axcodes="RAS", labels=_RAS),
            resampling,
            ScaleIntensityRanged(images, a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True),
        ],
        lazy=False,
    )
