"""Label volumes as DICOM Segmentation (PS3.3 A.51) of the series they were made from."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from monai_ext.base import InputError, LabelError, WriteError, case_id, replacing
from monai_ext.outputs.dicom_codes import MOST_LETTERS, codes_of
from monai_ext.outputs.dicom_copied import writing_dicom
from monai_ext.outputs.dicom_empty_frames import add_empty_frames
from monai_ext.outputs.dicom_seg_reading import read_dicom_seg
from monai_ext.outputs.dicom_source import (
    RESEARCH,
    SourceSeries,
    concept,
    equipment,
    need_highdicom,
    research_text,
    source_series,
)
from monai_ext.outputs.labels import typed_labels

_SERIES_NUMBER = 901  # far from those of a scanner


def write_dicom_seg(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    affine: np.ndarray,
    headers: Sequence[Dataset],
    names: Mapping[int, str],
    *,
    algorithm: str,
    version: str,
    series_description: str = "Segmentation",
    automatic: bool = True,
    case: str | None = None,
) -> Path:
    """Write a binary DICOM SEG whose segment numbers are the ids of the labels.

    Every name becomes a segment, also where the labels hold none of it: a SEG numbers its segments from 1 on, and
    only so do numbers keep their meaning. The file is re-read before it takes its place, by the instances that its
    frames refer to (highdicom) and by where they lie (:func:`read_dicom_seg`); both must give every voxel.

    Args:
        path: the file.
        labels: ``(x, y, z)`` ids, 0 for background, on the series' own grid as ``read_scan`` gives it.
        affine: ``(4, 4)`` of the labels, voxel index to mm in RAS+.
        headers: of every slice of the series, such as ``DicomSeries.headers()``; they may lack pixels.
        names: of the ids 1 to n without a gap, 0 apart.
        algorithm: the name of what made the labels.
        version: of that algorithm.
        series_description: to which "for research use only" is added.
        automatic: whether no person had a hand in the labels; else they are called semi-automatic.
        case: the id for messages; the base name by default.

    Returns:
        The path.

    Raises:
        SettingError: highdicom is not installed, or a text is too long.
        ScanError: the series lacks what a SEG refers to.
        GeometryError: the labels lie on another grid.
        LabelError: ids without a name, a gap between them, or a name that DICOM cannot hold.
        WriteError: the file could not be written whole, or reads back otherwise.
    """
    hd = need_highdicom()
    path = Path(path)
    case = case or case_id(path)
    source = source_series(headers, case)
    names = _checked(names, case)
    planes = source.planes(typed_labels(labels, names, case), affine)
    description = research_text(series_description, "series_description")
    with writing_dicom(case):
        identification = hd.AlgorithmIdentificationSequence(
            name=research_text(algorithm, "algorithm", ""),
            family=codes.DCM.ArtificialIntelligence,
            version=research_text(version, "version", ""),
        )
        kind = "AUTOMATIC" if automatic else "SEMIAUTOMATIC"
        segments = [_segment(hd, number, name, kind, identification) for number, name in names.items()]
        # Without a labelled voxel there is no frame to write, but one is the least; one a segment, of the first slice.
        empty = not planes.any()
        references = source.references()
        first = [hd.PlanePositionSequence("PATIENT", references[0].ImagePositionPatient)]
        seg = hd.seg.Segmentation(
            source_images=references,
            pixel_array=planes[:1] if empty else planes,
            segmentation_type="BINARY",
            segment_descriptions=segments,
            content_label="RESEARCH_ONLY",
            content_description=RESEARCH.capitalize(),
            omit_empty_frames=not empty,
            plane_positions=first if empty else None,
            **equipment(hd, _SERIES_NUMBER, description),
        )
        add_empty_frames(seg)
        source.identify(seg)
        with replacing(path, verify=lambda written: _verify(hd, written, source, planes, names)) as temporary:
            seg.save_as(temporary)
    return path


def _checked(names: Mapping[int, str], case: str) -> dict[int, str]:
    """Return names by rising id, without the background's."""
    kept = {int(number): str(names[number]) for number in sorted(names) if number != 0}
    if not kept or list(kept) != list(range(1, len(kept) + 1)):
        listed = ", ".join(map(str, list(kept)[:10])) or "none"
        raise LabelError(
            f"{case}: the named ids are {listed}, but a DICOM SEG numbers its segments 1, 2, 3 on; name every id "
            "from 1 to the last",
            code="label.numbers",
            case=case,
        )
    for number, name in kept.items():
        if not 0 < len(name.strip()) <= MOST_LETTERS or "\\" in name or not name.isprintable():
            raise LabelError(
                f"{case}: the name of id {number} does not fit a DICOM SEG; give 1 to {MOST_LETTERS} letters without "
                "a backslash or line break",
                code="label.names",
                case=case,
            )
    return kept


def _segment(hd: Any, number: int, name: str, algorithm_type: str, identification: Any) -> Any:
    coded = codes_of(name)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=concept(hd, coded.category),
        segmented_property_type=concept(hd, coded.kind),
        algorithm_type=algorithm_type,
        algorithm_identification=identification,
    )
    if coded.side is not None:
        # PS3.3 C.8.20.4: the modifier stands inside the type that it modifies.
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(hd, coded.side)]
    return segment


def _verify(hd: Any, path: Path, source: SourceSeries, planes: np.ndarray, names: Mapping[int, str]) -> None:
    what = None
    try:
        data = pydicom.dcmread(path)
        labels, read_names = read_dicom_seg(data, source.headers, case=source.case)
        seg = hd.seg.Segmentation.from_dataset(data, copy=False)
        by_instance = seg.get_pixels_by_source_instance(
            [header.SOPInstanceUID for header in source.headers],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
        told = {number: seg.get_segment_description(number).segment_label for number in seg.segment_numbers}
        if read_names != names or told != names:
            what = "other segments"
        elif not np.array_equal(labels.transpose(2, 1, 0), planes) or not np.array_equal(by_instance, planes):
            what = "other voxels"
    except (InputError, ValueError, KeyError, AttributeError, RuntimeError):
        what = "no segmentation"
    if what:
        raise WriteError(
            f"{source.case}: the DICOM SEG reads back as {what}, so it was not kept; check the disk and run again",
            code="write.verify",
            case=source.case,
        ) from None
