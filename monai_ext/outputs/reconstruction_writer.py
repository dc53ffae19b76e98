"""Reconstructions of whole scans, on the scan's own grid."""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ext.base import ScanError, check_window, replacing, sha256_of
from monai_ext.outputs.output_place import place_for, scan_extension
from monai_ext.volumes import check_read_back, nifti_image


class ReconstructionWriter(MapTransform):
    """Write ``OUT/CASE/CASE_reconstruction.nii.gz`` in HU, inside the window that the network saw, and a sidecar.

    Put it behind ``Invertd``: the volume must lie on the scan's own grid again. The sidecar, a JSON file of the
    same name, holds the scan's fingerprint: the same scan may be written again, another one of that name not.

    Args:
        keys: the reconstruction, a ``MetaTensor`` ``(1, x, y, z)`` with the window as 0 to 1.
        output_dir: the folder of the results.
        window_hu: HU of 0 and 1.
        allow_missing_keys: pass over entries that are absent.

    Raises:
        ScanError: the network returned numbers that are not finite.
        WriteError: another scan's reconstruction has that name, or the files could not be written whole.
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
            told = {name: str(out[key].meta[name]) for name in ("scan_sha256", "relaxed") if out[key].meta.get(name)}
            self._write(case, hu, np.asarray(out[key].affine, dtype=np.float64), told)
        return out

    def _write(self, case: str, hu: np.ndarray, affine: np.ndarray, told: dict[str, str]) -> None:
        fingerprint = told.get("scan_sha256")
        path = place_for(self.output_dir, case, f"{case}_reconstruction.nii.gz", fingerprint)
        image = nifti_image(hu, affine)
        image.header.extensions.append(scan_extension(fingerprint, window_hu=list(self.window)))
        about = {"case": case, "file": path.name, "window_hu": list(self.window)}
        about |= told
        # The volume takes its place first: a sidecar alone would promise what is not there. Its checksum in the
        # sidecar tells whether the two belong together.
        with (
            replacing(path.with_name(f"{case}_reconstruction.json")) as written,
            replacing(path, lambda temporary: check_read_back(temporary, hu, affine, case)) as temporary,
        ):
            nib.save(image, temporary)
            about["sha256"] = sha256_of(temporary)
            written.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
