"""A volume as the readers return it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from monai_ext.volumes.checks import spacing_of

Kind = Literal["nifti", "itk", "dicom"]


@dataclass(frozen=True)
class Scan:
    """A volume as it lies in its file, with the way from its voxels to the patient.

    Attributes:
        voxels: ``(x, y, z)``; float32 HU of an image, or int16 where they were asked for, int32 ids of a label volume.
        affine: ``(4, 4)`` float64, voxel index to mm in RAS+.
        case: the id that messages and outputs carry.
        source: base name of the file or DICOM folder; parent folders may hold names of patients.
        kind: the family of formats that it was read from.
        relaxed: rules that were relaxed to read it, see `RELAXABLE`.
    """

    voxels: np.ndarray
    affine: np.ndarray
    case: str
    source: Path
    kind: Kind
    relaxed: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the array's three axes."""
        x, y, z = self.voxels.shape
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along the array's three axes."""
        return spacing_of(self.affine)


@dataclass(frozen=True)
class ScanHeader:
    """What is known of a volume without its voxels.

    Attributes:
        shape: voxels along the array's three axes.
        affine: ``(4, 4)`` float64, voxel index to mm in RAS+.
        case: the id that messages carry.
        kind: the family of formats that it was read from.
        relaxed: rules that were relaxed to read it.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    case: str
    kind: Kind
    relaxed: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along the array's three axes."""
        return spacing_of(self.affine)
