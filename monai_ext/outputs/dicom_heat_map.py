"""Maps of numbers as DICOM Parametric Map (PS3.3 A.75) of the series they were made from."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from monai_ext.base import InputError, WriteError, case_id, replacing
from monai_ext.outputs.dicom_codes import private_code
from monai_ext.outputs.dicom_copied import writing_dicom
from monai_ext.outputs.dicom_frames import frame_slices
from monai_ext.outputs.dicom_source import (
    RESEARCH,
    SourceSeries,
    concept,
    equipment,
    need_highdicom,
    research_text,
    source_series,
)

_SERIES_NUMBER = 902


def write_heat_map(
    path: str | os.PathLike[str],
    values: np.ndarray,
    affine: np.ndarray,
    headers: Sequence[Dataset],
    *,
    quantity: str,
    algorithm: str,
    version: str,
    case: str | None = None,
) -> Path:
    """Write float32 numbers, one a voxel and without a unit, as Float Pixel Data.

    The file is re-read before it takes its place: every number, at the place of its frame, must be the one given.

    Args:
        path: the file.
        values: ``(x, y, z)``, on the series' own grid as ``read_scan`` gives it.
        affine: ``(4, 4)`` of the values, voxel index to mm in RAS+.
        headers: of every slice of the series, such as ``DicomSeries.headers()``; they may lack pixels.
        quantity: what the numbers are, such as ``"anomaly log-odds"``.
        algorithm: the name of what made them.
        version: of that algorithm.
        case: the id for messages; the base name by default.

    Returns:
        The path.

    Raises:
        SettingError: highdicom is not installed, or a text is too long.
        ScanError: the series lacks what a map refers to.
        GeometryError: the values lie on another grid.
        WriteError: a number is not finite, or the file could not be written whole.
    """
    hd = need_highdicom()
    path = Path(path)
    case = case or case_id(path)
    source = source_series(headers, case)
    planes = source.planes(np.asarray(values, np.float32), affine)
    bad = int(planes.size - np.isfinite(planes).sum())
    if bad:
        raise WriteError(
            f"{case}: {bad} of {planes.size} numbers are NaN or infinite, nothing was written; check the weights, "
            "and try without mixed precision",
            code="output.not_finite",
            case=case,
        )
    low, high = float(planes.min()), float(planes.max())
    description = research_text(quantity, "quantity")
    made_by = f"{research_text(algorithm, 'algorithm', '')} {research_text(version, 'version', '')}"
    with writing_dicom(case):
        mapping = hd.pm.RealWorldValueMapping(
            lut_label="VALUE",
            lut_explanation=quantity,
            unit=codes.UCUM.NoUnits,
            value_range=(low, high),
            slope=1.0,
            intercept=0.0,
            quantity_definition=concept(hd, private_code(quantity)),
        )
        heat = hd.pm.ParametricMap(
            source_images=source.references(),
            pixel_array=planes,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            window_center=(low + high) / 2,
            window_width=max(high - low, 1e-6),
            content_label="RESEARCH_ONLY",
            content_description=RESEARCH.capitalize(),
            content_qualification="RESEARCH",
            **equipment(hd, _SERIES_NUMBER, description),
        )
        heat.DerivationDescription = made_by
        source.identify(heat)
        with replacing(path, verify=lambda written: _verify(written, source, planes)) as temporary:
            heat.save_as(temporary)
    return path


def _verify(path: Path, source: SourceSeries, planes: np.ndarray) -> None:
    try:
        data = pydicom.dcmread(path)
        read = np.full(planes.shape, np.nan, np.float32)
        frames = np.frombuffer(data.FloatPixelData, "<f4").reshape(planes.shape)
        read[frame_slices(data, source)] = frames
        same = np.array_equal(read, planes) and data.FrameOfReferenceUID == source.headers[0].FrameOfReferenceUID
    except (InputError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise WriteError(
            f"{source.case}: the DICOM map reads back otherwise than it was written, so it was not kept; check the "
            "disk and run again",
            code="write.verify",
            case=source.case,
        ) from None
