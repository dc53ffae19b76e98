"""Which slice of a series each frame of a multi-frame image lies on, by its place alone (PS3.3 C.7.6.16.2)."""

import numpy as np
from pydicom.dataset import Dataset

from monai_ext.base import GeometryError
from monai_ext.outputs.dicom_source import SourceSeries
from monai_ext.volumes import spacing_of

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def frame_slices(data: Dataset, source: SourceSeries) -> list[int]:
    """Return the index of the slice under each frame.

    Raises:
        GeometryError: a frame has another size, spacing or orientation than the slices, or lies between them.
        AttributeError, IndexError, TypeError, ValueError: attributes are absent or no numbers.
    """
    if (int(data.Columns), int(data.Rows)) != source.shape[:2]:
        _refuse(source.case, f"frames have {data.Columns}x{data.Rows} pixels, slices {_by(source.shape[:2])}")
    shared = data.SharedFunctionalGroupsSequence[0]
    across, down, step = (_RAS_TO_LPS @ source.affine[:3, :3]).T
    origin = _RAS_TO_LPS @ source.affine[:3, 3]
    edges = np.array(spacing_of(source.affine))
    slices = []
    for frame in data.PerFrameFunctionalGroupsSequence:
        place = np.array(_group(frame, shared, "PlanePosition").ImagePositionPatient, dtype=float)
        axes = np.array(_group(frame, shared, "PlaneOrientation").ImageOrientationPatient, dtype=float)
        spacing = np.array(_group(frame, shared, "PixelMeasures").PixelSpacing, dtype=float)
        # The far ends of a row and of a column must lie where the slice has them, within a tenth of a pixel.
        ends = np.array(
            [
                (axes[:3] * spacing[1] - across) * source.shape[0],
                (axes[3:] * spacing[0] - down) * source.shape[1],
            ]
        )
        if not np.linalg.norm(ends, axis=1).max() <= 0.1 * edges[:2].min():
            _refuse(source.case, "frames have another spacing or orientation than the slices")
        index = round(float((place - origin) @ step / (step @ step)))
        if not 0 <= index < source.shape[2] or np.linalg.norm(origin + index * step - place) > 0.1 * edges.min():
            _refuse(source.case, "a frame lies on no slice")
        slices.append(index)
    return slices


def _group(frame: Dataset, shared: Dataset, name: str) -> Dataset:
    keyword = f"{name}Sequence"
    return (frame if keyword in frame else shared)[keyword].value[0]


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _refuse(case: str, what: str) -> None:
    raise GeometryError(
        f"{case}: {what}; give the series that the file was made on",
        code="dicom.frames",
        case=case,
    )
