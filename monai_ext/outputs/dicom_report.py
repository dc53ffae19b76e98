"""Tables of candidates as DICOM SR, an imaging measurement report (PS3.16 TID 1500)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from monai_ext.base import GeometryError, WriteError, case_id, replacing
from monai_ext.outputs.dicom_codes import codes_of, private_code
from monai_ext.outputs.dicom_copied import writing_dicom
from monai_ext.outputs.dicom_source import (
    RESEARCH,
    concept,
    equipment,
    need_highdicom,
    new_uid,
    research_text,
    source_series,
)

_SERIES_NUMBER = 903
_COUNT = "Number of candidates"
_SCORES = {"score": "Score from 0 to 1", "peak_log_odds": "Peak log-odds", "false_positive_rate": "False positive rate"}


def write_lesion_report(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    headers: Sequence[Dataset],
    *,
    algorithm: str,
    version: str,
    series_description: str = "Lesion candidates",
    case: str | None = None,
) -> Path:
    """Write a Comprehensive SR with the number of candidates, and a point, a volume and scores for each.

    The point is the candidate's peak, on the slice where it lies. The report is preliminary and not verified.

    Args:
        path: the file.
        rows: as ``monai_ext.outputs.candidate_rows`` describes candidates of a volume on the series' own grid.
        headers: of every slice of the series, such as ``DicomSeries.headers()``; they may lack pixels.
        algorithm: the name of what found them.
        version: of that algorithm.
        series_description: to which "for research use only" is added.
        case: the id for messages; the base name by default.

    Returns:
        The path.

    Raises:
        SettingError: highdicom is not installed, or a text is too long.
        ScanError: the series lacks what a report refers to.
        GeometryError: a peak lies outside the series.
        WriteError: the file could not be written whole.
    """
    hd = need_highdicom()
    path = Path(path)
    case = case or case_id(path)
    source = source_series(headers, case)
    outside = [row["number"] for row in rows if not _inside(row["peak_voxel"], source.shape)]
    if outside:
        raise GeometryError(
            f"{case}: the peak of candidate {outside[0]} lies outside the DICOM series; give the candidates of this "
            "series on its own grid",
            code="output.grid",
            case=case,
        )
    description = research_text(series_description, "series_description")
    made_by = (research_text(algorithm, "algorithm", ""), research_text(version, "version", ""))
    with writing_dicom(case):
        references = source.references()
        device = hd.sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=new_uid(), name=f"monai-ext, {RESEARCH}", manufacturer_name="monai-ext", model_name="monai-ext"
            ),
        )
        content = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=device),
            procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
            imaging_measurements=[_count(hd, len(rows)), *(_group(hd, row, references, made_by) for row in rows)],
            title=codes.DCM.ImagingMeasurementReport,
        )
        words = equipment(hd, _SERIES_NUMBER, description)
        report = hd.sr.ComprehensiveSR(evidence=references, content=content, **words)
        report.CompletionFlagDescription = RESEARCH.capitalize()
        source.identify(report)
        with replacing(path, verify=lambda written: _verify(hd, written, rows, case)) as temporary:
            report.save_as(temporary)
    return path


def _inside(place: Sequence[int], shape: tuple[int, int, int]) -> bool:
    return len(place) == 3 and all(0 <= index < size for index, size in zip(place, shape, strict=True))


def _count(hd: Any, count: int) -> Any:
    # A report without any measurement is not allowed, and none found must be told from none written.
    measurement = hd.sr.Measurement(concept(hd, private_code(_COUNT)), count, codes.UCUM.NoUnits)
    tracking = hd.sr.TrackingIdentifier(new_uid(), "all candidates")
    return hd.sr.MeasurementsAndQualitativeEvaluations(tracking_identifier=tracking, measurements=[measurement])


def _group(hd: Any, row: Mapping[str, Any], references: list[Dataset], made_by: tuple[str, str]) -> Any:
    column, line, index = row["peak_voxel"]
    slice_ = references[index]
    # PS3.3 C.18.6: the corner of the first pixel is 0, so that its middle is 0.5.
    region = hd.sr.ImageRegion(
        graphic_type="POINT",
        graphic_data=np.array([[column + 0.5, line + 0.5]]),
        source_image=hd.sr.SourceImageForRegion(slice_.SOPClassUID, slice_.SOPInstanceUID),
    )
    coded = codes_of("lesion")
    volume = hd.sr.Measurement(codes.SCT.Volume, float(row["volume_mm3"]), codes.UCUM.CubicMillimeter)
    scores = [
        hd.sr.Measurement(concept(hd, private_code(meaning)), float(row[key]), codes.UCUM.NoUnits)
        for key, meaning in _SCORES.items()
        if row.get(key) is not None
    ]
    calibration, name = row.get("calibration"), concept(hd, private_code("Calibration of the scores"))
    told = [hd.sr.QualitativeEvaluation(name, concept(hd, private_code(calibration)))] if calibration else []
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(new_uid(), f"candidate {row['number']}"),
        referenced_region=region,
        finding_type=concept(hd, coded.kind),
        finding_category=concept(hd, coded.category),
        algorithm_id=hd.sr.AlgorithmIdentification(*made_by),
        measurements=[volume, *scores],
        qualitative_evaluations=told,
    )


def _verify(hd: Any, path: Path, rows: Sequence[Mapping[str, Any]], case: str) -> None:
    try:
        report = hd.sr.ComprehensiveSR.from_dataset(pydicom.dcmread(path))
        groups = report.content.get_planar_roi_measurement_groups()
        (count,) = report.content.get_image_measurement_groups()
        found = [
            (
                group.tracking_identifier,
                tuple(group.roi.value[0] - 0.5),
                [float(one.value) for one in group.get_measurements()],
            )
            for group in groups
        ]
        meant = [
            (
                f"candidate {row['number']}",
                tuple(row["peak_voxel"][:2]),
                [float(row[key]) for key in ("volume_mm3", *_SCORES) if row.get(key) is not None],
            )
            for row in rows
        ]
        same = len(found) == len(meant) == count.get_measurements()[0].value and all(
            # 16 letters of a decimal string.
            one[:2] == other[:2] and np.allclose(one[2], other[2], rtol=1e-9, atol=0)
            for one, other in zip(found, meant, strict=True)
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise WriteError(
            f"{case}: the DICOM report reads back otherwise than it was written, so it was not kept; check the disk "
            "and run again",
            code="write.verify",
            case=case,
        ) from None
