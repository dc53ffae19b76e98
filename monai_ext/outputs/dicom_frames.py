"""Which slice of a series each frame of a multi-frame image lies on, by its place alone (PS3.3 C.7.6.16.2)."""

from typing import Any

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

    def ends_off(orientation: Any, spacing: Any) -> float:
        """Return how many mm the far end of a row or column lies from where the grid has it."""
        axes, sizes = np.array(orientation, dtype=float), np.array(spacing, dtype=float)
        off = [(axes[:3] * sizes[1] - across) * source.shape[0], (axes[3:] * sizes[0] - down) * source.shape[1]]
        return float(np.linalg.norm(off, axis=1).max())

    def place_off(position: Any, index: int) -> float:
        return float(np.linalg.norm(origin + index * step - np.array(position, dtype=float)))

    # A tenth of a pixel, and as much again as the slices themselves are off the grid that they are read as.
    ends = 0.1 * edges[:2].min() + max(
        ends_off(one.ImageOrientationPatient, one.PixelSpacing) for one in source.headers
    )
    slices = []
    for frame in data.PerFrameFunctionalGroupsSequence:
        place = np.array(_group(frame, shared, "PlanePosition").ImagePositionPatient, dtype=float)
        axes = _group(frame, shared, "PlaneOrientation").ImageOrientationPatient
        if not ends_off(axes, _group(frame, shared, "PixelMeasures").PixelSpacing) <= ends:
            _refuse(source.case, "frames have another spacing or orientation than the slices")
        index = round(float((place - origin) @ step / (step @ step)))
        if not 0 <= index < source.shape[2] or place_off(place, index) > 0.1 * edges.min() + place_off(
            source.headers[index].ImagePositionPatient, index
        ):
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
