"""Zero-shot lesion localization as models of the app: a mask, a map in bands, and candidates as boxes."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.utils.others.detection import create_slicer_detection_json

from monai_ext.label.bundle_model import BundleModel, BundleResult
from monai_ext.label.names import HEAT_MAP
from monai_ext.label.options import Option
from monai_ext.label.volume_files import converted, write_volume
from monai_ext.label.volume_task import Answer, VolumeTask, new_file, number_of, removed_on_error
from monai_ext.outputs.anomaly_writer import min_voxels
from monai_ext.outputs.candidates import find_candidates

# Viewers show label maps, few show maps of numbers: the map is cut where the score, 1 / (1 + exp(-log-odds)), is this.
BANDS = (0.5, 0.6, 0.7, 0.8, 0.9)


class LesionTask(VolumeTask):
    """Localize lesions with AA-CLIP; see its three forms below.

    Args:
        model: the bundle and its adapters.
        classes: that a client may choose among, the first by default.
        kind: how clients file it.
        labels: id of each label by name.
        description: what it returns.
    """

    def __init__(
        self, model: BundleModel, classes: Sequence[str], kind: str, labels: Mapping[str, int], description: str
    ) -> None:
        options = {"class_name": Option(classes[0], classes), "assume_hu": Option(False)}
        if model.settings.get("calibration_file") is None:  # a calibration holds for one threshold and size
            options["threshold"] = Option(number_of(model, "threshold"), low=-100.0, high=100.0)
            options["min_volume_mm3"] = Option(number_of(model, "min_volume_mm3"), low=0.0, high=1e7)
        super().__init__(model, kind, labels, description, options)

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was looked for and what counts as a candidate."""
        names = ("class_name", "min_volume_mm3", "assume_hu", "threshold")
        return {name: options[name] for name in names if name in options}

    def kept(self, result: BundleResult) -> dict[str, str]:
        """Return the map of log-odds, which stays on the server."""
        source, path = result.file("_anomaly.nii.gz"), new_file(".nii.gz")
        assert source is not None, "the bundle's writer raises where it writes nothing"
        shutil.copyfile(source, path)
        return {HEAT_MAP: str(path)}

    def found(self, result: BundleResult, case: str) -> dict[str, Any]:
        """Return the case's candidates and what the scores mean."""
        path = result.file("_candidates.json")
        assert path is not None, "the bundle's writer raises where it writes nothing"
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = ("class", "score", "calibrated", "calibration", "threshold_log_odds", "candidates", "min_volume_mm3")
        return {name: told[name] for name in names}


class LesionMaskTask(LesionTask):
    """The candidates as one label; the map itself stays on the server under a tag of its own."""

    def __init__(self, model: BundleModel, classes: Sequence[str]) -> None:
        text = "Zero-shot lesion localization (AA-CLIP): places more abnormal than normal, as a mask."
        super().__init__(model, classes, InferType.SEGMENTATION.value, {"lesion candidate": 1}, text)

    def answer(self, result: BundleResult, case: str, options: Mapping[str, Any]) -> Answer:
        """Return the mask."""
        mask = result.file("_mask.nii.gz")
        assert mask is not None, "the bundle's writer raises where it writes nothing"
        path = new_file(options["result_extension"])
        with removed_on_error(path):
            converted(mask, path, options["result_dtype"] or None, options["result_compress"])
        return Answer(path, self.found(result, case), self.kept(result))


class LesionHeatTask(LesionTask):
    """The map in bands, which every viewer of segmentations can show."""

    def __init__(self, model: BundleModel, classes: Sequence[str]) -> None:
        # OHIF draws a label's colour from the sum of its name's letters: bands would be alike without carets.
        labels = {f"score over {level:.0%} {'^' * number}": number for number, level in enumerate(BANDS, 1)}
        text = "Zero-shot lesion localization (AA-CLIP): the heat map in bands of its score, which is no probability."
        super().__init__(model, classes, InferType.SEGMENTATION.value, labels, text)

    def answer(self, result: BundleResult, case: str, options: Mapping[str, Any]) -> Answer:
        """Return the bands."""
        odds, affine = _heat(result)
        limits = np.log(np.divide(BANDS, np.subtract(1, BANDS)))
        bands = np.searchsorted(limits, odds, side="left").astype(options["result_dtype"] or np.uint8)
        path = new_file(options["result_extension"])
        write_volume(path, bands, affine, options["result_compress"])
        return Answer(path, self.found(result, case), self.kept(result))


class LesionCandidatesTask(LesionTask):
    """The candidates as boxes, the form in which Slicer takes the result of a detector."""

    def __init__(self, model: BundleModel, classes: Sequence[str]) -> None:
        text = "Zero-shot lesion localization (AA-CLIP): candidates as boxes, the most abnormal first."
        super().__init__(model, classes, InferType.DETECTION.value, {"lesion candidate": 1}, text)

    def answer(self, result: BundleResult, case: str, options: Mapping[str, Any]) -> Answer:
        """Return the boxes, in mm of the patient's LPS."""
        found = self.found(result, case)
        odds, affine = _heat(result)
        smallest = min_voxels("volume", affine, found["min_volume_mm3"], 1)
        _, candidates = find_candidates(odds, found["threshold_log_odds"], smallest)
        boxes = [box_lps(one.low, one.high, affine) for one in candidates]
        scores = [round(row["score"], 4) for row in found["candidates"]]
        file, _ = create_slicer_detection_json({"box": boxes, "label": scores, "image": f"{case} lesion candidate"})
        return Answer(Path(file), found | {"box": boxes, "label": scores}, self.kept(result))


def box_lps(low: Sequence[int], high: Sequence[int], affine: np.ndarray) -> list[float]:
    """Return centre and edges in mm of the box along LPS axes that holds whole voxels.

    Args:
        low: first index along each axis.
        high: last index along each axis.
        affine: ``(4, 4)``, voxel index to mm in RAS+.
    """
    edges = np.array([np.array(low) - 0.5, np.array(high) + 0.5])
    corners = np.array([[edges[i, 0], edges[j, 1], edges[k, 2], 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    places = (corners @ affine.T)[:, :3] * [-1.0, -1.0, 1.0]
    least, most = places.min(axis=0), places.max(axis=0)
    return [round(float(value), 3) for value in (*(least + most) / 2, *(most - least))]


def _heat(result: BundleResult) -> tuple[np.ndarray, np.ndarray]:
    path = result.file("_anomaly.nii.gz")
    assert path is not None, "the bundle's writer raises where it writes nothing"
    image = nib.load(path)
    return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)
