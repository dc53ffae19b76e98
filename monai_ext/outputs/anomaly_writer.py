"""The last step of a localization: map, mask, candidates and picture of a case, all of them or none."""

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ext.base import (
    GeometryError,
    ScanError,
    SettingError,
    check_picture_whole,
    find_window,
    plain_name,
    replacing,
)
from monai_ext.outputs.anomaly_pictures import anomaly_picture, anomaly_sheet
from monai_ext.outputs.candidates import candidate_rows, find_candidates, table_text
from monai_ext.outputs.dicom_beside import add_anomaly_files, remove_outdated, series_headers
from monai_ext.outputs.heatmaps import (
    picture_check,
    save_heat_picture,
    save_heat_volume,
    save_mask_picture,
)
from monai_ext.outputs.labels import write_labels
from monai_ext.outputs.output_place import place_for
from monai_ext.volumes import check_read_back, largest_shift_mm, spacing_of

UNCALIBRATED = "uncalibrated: scores have no known rate of false positives; make a calibration with calibrate.json"
_SCORES = ("number", "peak_log_odds", "score", "false_positive_rate", "calibration")
VOLUME_COLUMNS = (
    *_SCORES,
    *(f"{name}_{axis}" for name in ("center_mm", "center_voxel", "peak_mm", "peak_voxel") for axis in "xyz"),
    "volume_mm3",
    "voxels",
    "slices_first",
    "slices_last",
)
PICTURE_COLUMNS = (*_SCORES, *(f"{name}_{axis}" for name in ("center_px", "peak_px") for axis in "xy"), "area_px")


class Calibrated(Protocol):
    """What the writer asks of a calibration; ``monai_ext.metrics.Calibration`` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def threshold(self) -> float: ...
    def rate_of(self, peak: float) -> float: ...
    def score_rate_of(self, score: float) -> float: ...
    def sentence(self) -> str: ...


@dataclass(frozen=True)
class CaseResult:
    """One case as the tables of the run list it.

    Attributes:
        case: the case.
        kind: ``"volume"`` or ``"picture"``.
        score: of the case, 0 to 1.
        score_rate: share of normal cases that reach it; ``None`` where uncalibrated.
        candidates: rows of its candidates.
        folder: where its files lie.
    """

    case: str
    kind: str
    score: float
    score_rate: float | None
    candidates: list[dict[str, Any]]
    folder: Path


class AnomalyWriter(MapTransform):
    """Write ``OUTPUT/<case>/``: map, mask, candidates and a picture.

    A volume gets ``<case>_anomaly.nii.gz``, ``<case>_mask.nii.gz`` and a sheet of slices, a picture
    ``<case>_anomaly.tif``, ``<case>_mask.png`` and a picture of both; each ``<case>_candidates.json``,
    ``<case>_candidates.csv`` and ``<case>_overlay.png``. Without a calibration all of them say uncalibrated. The
    same input may be written again; another one of the same name is refused.

    Args:
        keys: the map of log-odds, ``(1, x, y, z)`` on the scan's own grid (``OwnGridd`` comes before) or ``(1, h, w)``.
        output_dir: the folder for all cases.
        class_name: what was looked for.
        threshold: log-odds of a candidate where there is no calibration.
        min_volume_mm3: smaller candidates of volumes are dropped.
        min_area_px: smaller candidates of pictures are dropped.
        calibration: from normal cases, or ``None``.
        window_hu: of the sheet of slices.
        overlay: whether pictures are made.
        dicom_seg: also write mask, map and candidates of a volume as ``<case>_seg.dcm``, ``<case>_heatmap.dcm`` and
            ``<case>_report.dcm``; needs the entry ``series``, the path of the scan's DICOM series;
            without, such files of an earlier run are removed.
        algorithm: what the DICOM files say made them.
        allow_missing_keys: pass over entries that are absent.

    Raises:
        SettingError: a number out of range.
        ScanError: the calibration is of the other kind of input, or DICOM output of what is no DICOM series.
        WriteError: a case that is no file name, another input's results under that name, or a full disk.
        GeometryError: not on the scan's own grid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        class_name: str,
        threshold: float = 0.0,
        min_volume_mm3: float = 0.0,
        min_area_px: int = 0,
        calibration: Calibrated | None = None,
        window_hu: str | Sequence[float] = "abdomen",
        overlay: bool = True,
        dicom_seg: bool = False,
        algorithm: str = "monai-ext",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not (np.isfinite(threshold) and min_volume_mm3 >= 0 and min_area_px >= 0):
            raise SettingError(
                f"threshold, min_volume_mm3 and min_area_px are {threshold}, {min_volume_mm3} and {min_area_px}; "
                "give a number of log-odds and sizes from 0 on",
                code="setting.candidates",
            )
        self.output_dir, self.class_name = Path(output_dir), class_name
        self.threshold = float(threshold) if calibration is None else calibration.threshold
        self.min_volume_mm3, self.min_area_px = min_volume_mm3, min_area_px
        self.calibration, self.window_hu, self.overlay = calibration, find_window(window_hu), overlay
        self.dicom_seg, self.algorithm = dicom_seg, algorithm
        self.results: list[CaseResult] = []

    @property
    def calibration_text(self) -> str:
        """What every output says of its scores."""
        return UNCALIBRATED if self.calibration is None else self.calibration.sentence()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            self.results.append(self._write(out, out[key]))
        return out

    def place_of(self, case: str, fingerprint: str) -> Path:
        """Return the folder of a case.

        Args:
            case: the case.
            fingerprint: of its image, ``scan_sha256`` of its ``meta``.

        Raises:
            WriteError: a case that is no file name, or another input's results under that name.
        """
        return place_for(self.output_dir, case, f"{case}_candidates.json", fingerprint).parent

    def _write(self, data: Mapping[Hashable, Any], result: Any) -> CaseResult:
        image, case = data["image"], str(data["case"])
        kind = "picture" if data["kind"] == "picture" else "volume"
        self._check_kind(kind, case)
        odds = result.detach().cpu().numpy()[0]
        affine = _own_affine(image, result, odds.shape, case) if kind == "volume" else None
        mask, found = find_candidates(
            odds, self.threshold, min_voxels(kind, affine, self.min_volume_mm3, self.min_area_px)
        )
        score = float(data["score"])
        known = self.calibration
        rates = [known.rate_of(one.peak) if known else None for one in found]
        rows = [row | {"calibration": self._short()} for row in candidate_rows(found, affine, rates)]
        score_rate = known.score_rate_of(score) if known else None
        about = self._about(data, odds, affine, kind) | {"score": score, "score_false_positive_rate": score_rate}
        fingerprint = about["scan_sha256"]
        folder = self.place_of(case, fingerprint)
        columns = VOLUME_COLUMNS if affine is not None else PICTURE_COLUMNS
        with ExitStack() as files:
            files.callback(_leave_no_empty, folder)
            # The JSON takes its place last: it vouches for the others.
            json_file = files.enter_context(replacing(folder / f"{case}_candidates.json"))
            json_file.write_text(
                json.dumps(about | {"candidates": rows}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            table = files.enter_context(replacing(folder / f"{case}_candidates.csv"))
            table.write_text(table_text(rows, columns), encoding="utf-8")
            if self.overlay:
                picture = files.enter_context(replacing(folder / f"{case}_overlay.png", check_picture_whole))
                self._draw(picture, data, odds, affine)
            if affine is not None:
                if self.dicom_seg:
                    headers = series_headers(data, case)
                    add_anomaly_files(files, folder, odds, mask, affine, headers, rows, self.algorithm, case)
                self._volume_files(files, folder, case, odds, mask, affine, fingerprint)
            else:
                self._picture_files(files, folder, case, odds, mask)
        if not self.dicom_seg:
            remove_outdated([folder / f"{case}_{what}.dcm" for what in ("seg", "heatmap", "report")], case)
        return CaseResult(case, kind, score, score_rate, rows, folder)

    def _volume_files(
        self,
        files: ExitStack,
        folder: Path,
        case: str,
        odds: np.ndarray,
        mask: np.ndarray,
        affine: np.ndarray,
        fingerprint: str,
    ) -> None:
        path = folder / f"{case}_anomaly.nii.gz"
        heat = files.enter_context(replacing(path, lambda written: check_read_back(written, odds, affine, case)))
        save_heat_volume(heat, odds, affine, f"anomaly log-odds, {self._short()}", case)
        about = {"scan_sha256": fingerprint, "calibration": self.calibration_text}
        write_labels(
            folder / f"{case}_mask.nii.gz", mask.astype(np.uint8), affine, {1: "candidate"}, case=case, about=about
        )

    def _picture_files(self, files: ExitStack, folder: Path, case: str, odds: np.ndarray, mask: np.ndarray) -> None:
        heat = files.enter_context(replacing(folder / f"{case}_anomaly.tif", picture_check(odds, case)))
        save_heat_picture(heat, odds, f"anomaly log-odds, {self.calibration_text}")
        check = picture_check(mask.astype(np.uint8) * 255, case)
        save_mask_picture(
            files.enter_context(replacing(folder / f"{case}_mask.png", check)),
            mask,
            f"log-odds above {self.threshold:g}, {self.calibration_text}",
        )

    def _about(
        self, data: Mapping[Hashable, Any], odds: np.ndarray, affine: np.ndarray | None, kind: str
    ) -> dict[str, Any]:
        image = data["image"]
        detection = float(data["detection"])
        about: dict[str, Any] = {
            "case": str(data["case"]),
            "source": plain_name(str(image.meta["filename_or_obj"])),
            "scan_sha256": str(image.meta["scan_sha256"]),
            "kind": kind,
            "class": self.class_name,
            "calibrated": self.calibration is not None,
            "calibration": self.calibration_text,
            "threshold_log_odds": self.threshold,
            "largest_log_odds": float(odds.max()),
            "detection": detection if np.isfinite(detection) else None,
            "shape": list(odds.shape),
        }
        if image.meta.get("relaxed"):
            about["relaxed"] = str(image.meta["relaxed"])
        if affine is not None:
            about |= {
                "axes": "millimetres in RAS+: to the patient's right, front and head",
                "spacing_mm": [round(edge, 6) for edge in spacing_of(affine)],
                "affine_ras": affine.tolist(),
                "window_hu": list(self.window_hu),
                "min_volume_mm3": self.min_volume_mm3,
                "skipped_slices": int(data["skipped"]),
            }
        else:
            about["min_area_px"] = self.min_area_px
        return about

    def _draw(self, path: Path, data: Mapping[Hashable, Any], odds: np.ndarray, affine: np.ndarray | None) -> None:
        image, title = data["image"], f"{data['case']}: {self.class_name}, {self._short()}"
        if affine is None:
            anomaly_picture(path, image.numpy().transpose(1, 2, 0), odds, self.threshold, title)
            return
        # The image is in RAS order already; the map takes the same turn, without a copy.
        turn = nib.orientations.io_orientation(affine)
        turned = nib.orientations.apply_orientation(odds, turn)
        spacing = spacing_of(np.asarray(image.affine, dtype=np.float64))
        volume = image.as_tensor()[0].numpy()
        anomaly_sheet(path, volume, turned, spacing, self.window_hu, self.threshold, title)

    def _short(self) -> str:
        return "uncalibrated" if self.calibration is None else "calibrated"

    def _check_kind(self, kind: str, case: str) -> None:
        if self.calibration is not None and self.calibration.kind != kind:
            raise ScanError(
                f"{case}: this is a {kind}, but the calibration was made on {self.calibration.kind}s; make one on "
                f"normal {kind}s, or leave it out",
                code="scan.calibration",
                case=case,
            )


def _leave_no_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds files, as it should, or never came to be
        folder.rmdir()


def min_voxels(kind: str, affine: np.ndarray | None, min_volume_mm3: float, min_area_px: int) -> int:
    """Return how many voxels or pixels a candidate has at least."""
    if kind == "picture" or affine is None:
        return max(1, int(min_area_px))
    voxel_mm3 = abs(float(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3])))
    return max(1, int(np.ceil(round(min_volume_mm3 / voxel_mm3, 6))))


def _own_affine(image: Any, result: Any, shape: tuple[int, ...], case: str) -> np.ndarray:
    """Return the affine as it was read, after making sure that the map lies there."""
    own = np.asarray(image.meta["original_affine"], dtype=np.float64)
    shift = largest_shift_mm(shape, np.asarray(result.affine, dtype=np.float64), own)
    # Turning there and back leaves 1e-5 mm of rounding; another grid is off by half a voxel at its corners.
    same = tuple(int(size) for size in image.meta["spatial_shape"]) == tuple(shape)
    if not same or shift > 0.01 * min(spacing_of(own)):
        raise GeometryError(
            f"{case}: {'x'.join(map(str, shape))} voxels are not on the scan's own grid; put OwnGridd before",
            code="output.grid",
            case=case,
        )
    return own
