"""CT segmentation as a model of the app."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monailabel.utils.others.generic import name_to_device
from scipy import ndimage

from monai_ext.label.bundle_model import BundleModel, BundleResult
from monai_ext.label.options import Option
from monai_ext.label.volume_files import converted
from monai_ext.label.volume_task import Answer, VolumeTask, new_file, number_of, removed_on_error


class CtSegmentationTask(VolumeTask):
    """Segment organs with a fine-tuned Hi-End-MAE.

    Args:
        model: the bundle and its weights.
    """

    def __init__(self, model: BundleModel) -> None:
        names = {int(number): str(name) for number, name in model.content("labels").items()}
        self.names = {number: name for number, name in names.items() if number}
        options = {
            # More than three quarters takes minutes where half takes seconds, and changes next to nothing.
            "overlap": Option(number_of(model, "overlap"), low=0.0, high=0.75),
            "assume_hu": Option(False),
        }
        labels = {name: number for number, name in self.names.items()}
        super().__init__(model, "segmentation", labels, model.metadata["description"], options)

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the overlap of the windows, and whether values are taken for HU."""
        return {"overlap": options["overlap"], "assume_hu": options["assume_hu"]}

    def answer(self, result: BundleResult, case: str, options: Mapping[str, Any]) -> Answer:
        """Return the label map, with the volume and the centre of each organ."""
        labels = result.file("_seg.nii.gz")
        assert labels is not None, "the bundle's writer raises where it writes nothing"
        table = json.loads(labels.with_name(f"{case}_seg.json").read_text(encoding="utf-8"))
        found = {row["name"]: row["volume_ml"] for row in table["labels"]}
        path = new_file(options["result_extension"])
        with removed_on_error(path):
            converted(labels, path, options["result_dtype"] or None, options["result_compress"])
        told = {"volumes_ml": found, "centroids": _centroids(labels, self.names)}
        return Answer(path, told)

    def uncertainty(self, image: Path, case: str) -> float:
        """Return the mean entropy of the classes over the image's voxels, in nats: 0 is certain everywhere."""
        self.require_weights()
        options = self.checked({})
        settings = {"device": name_to_device(options["device"]), "entropy": True} | self.settings(options)
        with self.model.run(image, case, settings) as result:
            return float(result.output["entropy"])


def _centroids(path: Path, names: Mapping[int, str]) -> dict[str, list[str]]:
    """Return id and voxel indices of each organ's centre, the form that viewers jump to."""
    labels = np.asanyarray(nib.load(path).dataobj)
    present = [number for number in names if (labels == number).any()]
    centres = ndimage.center_of_mass(labels > 0, labels, present) if present else []
    pairs = zip(present, centres, strict=True)
    return {names[number]: [str(number), *(str(round(value)) for value in centre)] for number, centre in pairs}
