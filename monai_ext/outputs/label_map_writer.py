"""The last step of inference: from logits or labels on the scan's grid to files a clinician can open."""

import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_ext.base import GeometryError, WriteError, replacing
from monai_ext.outputs.dicom_beside import add_label_seg, remove_outdated, series_headers
from monai_ext.outputs.labels import write_labels
from monai_ext.outputs.output_place import place_for
from monai_ext.outputs.overlay import overlay_png
from monai_ext.volumes import largest_shift_mm, spacing_of


class LabelMapWriter(MapTransform):
    """Write ``OUTPUT/<case>/<case>_seg.nii.gz`` with its JSON sidecar, and a picture and a DICOM SEG on request.

    What it is given must lie on the scan's own grid: ``Invertd`` comes before. The case and the fingerprint
    of the scan are taken from the tensor's ``meta``, where ``monai_ext.transforms.ReadScand`` puts them, the
    case from the entry ``case`` where ``meta`` has none. The same scan may be written again; another scan of
    the same case is refused.

    Args:
        keys: entries with ``(c, x, y, z)`` logits, channel 0 for background, of which the highest wins, or
            ``(1, x, y, z)`` labels.
        output_dir: the folder for all cases.
        names: the name of every id; keys may be text, as JSON has them.
        overlay: also write ``<case>_seg.png``; needs ``image_key``.
        image_key: entry with the ``(1, x, y, z)`` image that the picture shows, on any grid of its own.
        window: the image's values that become black and white; the default is for windowed images.
        postfix: what follows the case in file names; each key of several needs its own writer and postfix.
        dicom_seg: also write ``<case>_seg.dcm``; needs the entry ``series``, the path of the scan's DICOM series;
            without, such a file of an earlier run is removed.
        algorithm: what the SEG says made it.

    Raises:
        WriteError: logits that are not finite, a case that is no file name, another scan's results under that
            name, or a full disk.
        GeometryError: not on the scan's own grid.
        LabelError: an id that has no name.
        ScanError: DICOM output of a scan that is no DICOM series, or of one that cannot be referred to.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        names: Mapping[int | str, str],
        overlay: bool = False,
        image_key: str = "image",
        window: Sequence[float] = (0.0, 1.0),
        postfix: str = "seg",
        dicom_seg: bool = False,
        algorithm: str = "monai-ext",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.names = {int(number): str(name) for number, name in names.items()}
        self.overlay = overlay
        self.image_key = image_key
        self.window = window
        self.postfix = postfix
        self.dicom_seg, self.algorithm = dicom_seg, algorithm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            result = out[key]
            case = str(result.meta.get("case") or out.get("case") or "")
            fingerprint = result.meta.get("scan_sha256")
            path = place_for(self.output_dir, case, f"{case}_{self.postfix}.nii.gz", fingerprint)
            labels = _labels(result, case)
            affine = _own_affine(result, labels.shape, case)
            about = {"scan_sha256": fingerprint} if fingerprint else {}
            if result.meta.get("relaxed"):
                about["relaxed"] = str(result.meta["relaxed"])
            # The picture is drawn and the SEG made before any file takes its place: a case that fails leaves none.
            with ExitStack() as files:
                if self.overlay:
                    picture = files.enter_context(replacing(path.with_name(f"{case}_{self.postfix}.png")))
                    self._picture(picture, out, labels, affine, case)
                seg = path.with_name(f"{case}_{self.postfix}.dcm")
                if self.dicom_seg:
                    headers = series_headers(out, case)
                    add_label_seg(files, seg, labels, affine, headers, self.names, self.algorithm, case)
                write_labels(path, labels, affine, self.names, case=case, about=about)
            if not self.dicom_seg:
                remove_outdated([seg], case)
        return out

    def _picture(
        self, path: Path, data: Mapping[Hashable, Any], labels: np.ndarray, affine: np.ndarray, case: str
    ) -> None:
        image = data[self.image_key]
        overlay_png(
            path,
            image[0].detach().float().cpu().numpy(),
            labels,
            self.names,
            affine,
            window=self.window,
            image_affine=image.affine.cpu().numpy(),
            title=case,
        )


def _labels(result: MetaTensor, case: str) -> np.ndarray:
    values = result.as_tensor().detach()
    if values.is_floating_point():
        bad = int(values.numel() - torch.isfinite(values).sum())
        if bad:
            raise WriteError(
                f"{case}: {bad} of {values.numel()} logits are NaN or infinite, nothing was written; "
                "check the weights, and try without mixed precision",
                code="output.not_finite",
                case=case,
            )
    if values.ndim != 4:
        raise GeometryError(
            f"{case}: {tuple(values.shape)} is no (channels, x, y, z); give one volume without the batch",
            code="output.shape",
            case=case,
        )
    return (values.argmax(dim=0) if len(values) > 1 else values[0]).cpu().numpy()


def _own_affine(result: MetaTensor, shape: tuple[int, ...], case: str) -> np.ndarray:
    """Return the affine as it was read, after making sure that the result lies there."""
    affine = result.affine.cpu().numpy().astype(np.float64)
    original = result.meta.get("original_affine")
    if original is None:
        return affine
    own = np.asarray(original, dtype=np.float64)
    own_shape = result.meta.get("spatial_shape")
    # Turning there and back leaves 1e-5 mm of rounding; another grid is off by half a voxel at its corners.
    shift = largest_shift_mm(shape, affine, own)
    same_shape = own_shape is None or tuple(int(size) for size in own_shape) == tuple(shape)
    if not same_shape or shift > 0.01 * min(spacing_of(own)):
        raise GeometryError(
            f"{case}: {'x'.join(map(str, shape))} voxels are not on the scan's own grid; put Invertd before the writer",
            code="output.grid",
            case=case,
        )
    return own
