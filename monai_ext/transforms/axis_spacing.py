"""MONAI's resampling to a spacing in a fraction of its memory and time, for what is only to be read."""

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing, Spacingd
from monai.transforms.inverse import TraceableTransform

from monai_ext.volumes import spacing_of
from monai_ext.volumes.prepare_grid import to_spacing

_SAME_MM = 1e-3  # MONAI's own tolerance: nearer edges are left as they are


class AxisSpacing(Spacing):
    """Do as MONAI's ``Spacing``, linearly, along one axis after another: ``(1, x, y, z) -> (1, x', y', z')``.

    MONAI lists the place of every new voxel, which for a scan of 512 x 512 x 1000 takes 2 GB. The values agree within
    1e-4 of a voxel. Axes are kept as they are, also where they are not quite at right angles. ``inverse`` is MONAI's.
    """

    def __call__(self, data_array: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        own = data_array.affine.numpy().astype(np.float64) if isinstance(data_array, MetaTensor) else np.eye(4)
        edges = np.array(spacing_of(own))
        wanted = np.where(np.abs(edges - self.pixdim) <= _SAME_MM, edges, self.pixdim)
        if (wanted == edges).all():
            return super().__call__(data_array, *args, **kwargs)
        resampled, affine = to_spacing(data_array[0].numpy(), own, wanted.tolist(), dtype=np.float32)
        told = TraceableTransform.track_transform_meta(
            data_array,
            sp_size=resampled.shape,
            affine=torch.from_numpy(np.linalg.solve(own, affine)),
            extra_info={
                "dtype": "float32",
                "mode": "bilinear",
                "padding_mode": "border",
                "align_corners": False,
                "src_affine": torch.from_numpy(own),
            },
            orig_size=tuple(data_array.shape[1:]),
            transform_info=self.sp_resample.get_transform_info(),
        )
        return MetaTensor(torch.from_numpy(resampled)[None]).copy_meta_from(told)


class AxisSpacingd(Spacingd):
    """Dictionary form of `AxisSpacing`, linear for all keys.

    Args:
        keys: entries with ``(1, x, y, z)`` images.
        spacing_mm: the new voxel edges.
    """

    def __init__(self, keys: Any, spacing_mm: tuple[float, ...], allow_missing_keys: bool = False) -> None:
        shared = {"mode": "bilinear", "dtype": np.float32}
        super().__init__(keys, spacing_mm, ensure_same_shape=False, allow_missing_keys=allow_missing_keys, **shared)
        self.spacing_transform = AxisSpacing(spacing_mm, **shared)
