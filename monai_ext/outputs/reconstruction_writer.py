"""Reconstructions of whole scans, on the scan's own grid."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ext.base import ScanError, WriteError, check_window, replacing
from monai_ext.volumes import quiet_itk


class ReconstructionWriter(MapTransform):
    """Write ``OUT/CASE/CASE_reconstruction.nii.gz`` in HU, inside the window that the network saw.

    Put it behind ``Invertd``: the volume must lie on the scan's own grid again.

    Args:
        keys: the reconstruction, a ``MetaTensor`` ``(1, x, y, z)`` with the window as 0 to 1.
        output_dir: the folder of the results.
        window_hu: HU of 0 and 1.
        allow_missing_keys: pass over entries that are absent.

    Raises:
        ScanError: the network returned numbers that are not finite.
        WriteError: the file could not be written whole.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        window_hu: Sequence[float] = (-175, 250),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.window = Path(output_dir), check_window(window_hu)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        case = str(out["case"])
        for key in self.key_iterator(out):
            volume = out[key][0].cpu().numpy().astype(np.float64)
            if not np.isfinite(volume).all():
                raise ScanError(
                    f"{case}: the network returned numbers that are not finite; check its weights",
                    code="scan.not_finite",
                    case=case,
                )
            low, high = self.window
            hu = np.rint(np.clip(volume, 0, 1) * (high - low) + low).astype(np.int16)
            self._write(case, hu, np.asarray(out[key].affine, dtype=np.float64))
        return out

    def _write(self, case: str, hu: np.ndarray, affine: np.ndarray) -> None:
        image = nib.Nifti1Image(hu, affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        image.header.set_xyzt_units("mm")

        def verify(path: Path) -> None:
            with quiet_itk():
                voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
            if not np.array_equal(voxels.T, hu):
                raise WriteError(f"{case}: read back other voxels than were written; check the disk", case=case)

        with replacing(self.output_dir / case / f"{case}_reconstruction.nii.gz", verify) as temporary:
            nib.save(image, temporary)
