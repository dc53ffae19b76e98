"""DICOM Segmentations, of whatever program, as label volumes on the grid of the series they belong to."""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from monai_ext.base import InputError, LabelError, case_id
from monai_ext.outputs.dicom_frames import frame_slices
from monai_ext.outputs.dicom_source import SourceSeries, source_series
from monai_ext.volumes import quiet_pydicom
from monai_ext.volumes.refusals import refuse, refusing_closed_files

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_AGAIN = "export it again as a binary DICOM SEG"


def read_dicom_seg(
    path: str | os.PathLike[str] | Dataset, headers: Sequence[Dataset], *, case: str | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """Read a binary DICOM SEG by the places of its frames.

    Args:
        path: the file, or what pydicom read of it.
        headers: of every slice of the series that it segments, in any order.
        case: the id for messages; the file's base name by default.

    Returns:
        Labels ``(x, y, z)`` on the series' own grid as ``read_scan`` gives it, and the name of each segment by its
        number, also of those that no voxel has.

    Raises:
        ScanError: no SEG, damaged, not binary, or of another series; or the series cannot be referred to.
        GeometryError: frames that do not lie on the slices of the series.
        LabelError: segments overlap.
    """
    data = path if isinstance(path, Dataset) else _opened(Path(path), case or case_id(path))
    case = case or ("DICOM SEG" if isinstance(path, Dataset) else case_id(path))
    source = source_series(headers, case)
    with quiet_pydicom():
        try:
            names = _names(data, case)
            _check_series(data, source)
            slices = frame_slices(data, source)
            numbers = list(_numbers(data))
            frames = _frames(data, len(numbers), source)
        except InputError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            _refuse_damaged(case)
    labels = np.zeros(source.shape[::-1], np.uint8 if max(names) < 256 else np.uint16)
    for number, index, frame in zip(numbers, slices, frames, strict=True):
        if number not in names:
            _refuse_damaged(case)
        plane = labels[index]
        taken = np.unique(plane[frame & (plane != number) & (plane != 0)])
        if len(taken):
            raise LabelError(
                f"{case}: segments {taken[0]} and {number} overlap, which one label volume cannot hold; separate "
                "them, or read them one by one",
                code="label.overlap",
                case=case,
            )
        plane[frame] = number
    return np.ascontiguousarray(labels.transpose(2, 1, 0)), names


def _opened(path: Path, case: str) -> Dataset:
    with refusing_closed_files(case), quiet_pydicom():
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                # A few bytes can inflate to gigabytes before anything is known about them.
                refuse(case, "the SEG is deflated", "store it uncompressed (dcmconv +te)", "dicom.transfer_syntax")
            return pydicom.dcmread(path)
        except (OSError, InputError):
            raise
        except Exception:
            # pydicom raises whatever the bytes provoke, with tags in the message.
            refuse(case, "the file is no DICOM that can be read", "copy or export it again", "dicom.unreadable")


def _names(data: Dataset, case: str) -> dict[int, str]:
    if data.get("SOPClassUID") != _SEGMENTATION:
        refuse(case, "the file is no DICOM SEG", "give one, or NIfTI labels", "dicom.seg")
    if data.get("SegmentationType") != "BINARY":
        refuse(case, "the SEG is not binary", _AGAIN, "dicom.seg")
    if data.file_meta.TransferSyntaxUID not in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        refuse(case, "the SEG is compressed", "store it uncompressed (dcmconv +te)", "dicom.transfer_syntax")
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in data.SegmentSequence}
    if len(names) < len(data.SegmentSequence) or min(names) < 1:
        _refuse_damaged(case)
    return dict(sorted(names.items()))


def _check_series(data: Dataset, source: SourceSeries) -> None:
    own = source.headers[0]
    if data.get("FrameOfReferenceUID") != own.FrameOfReferenceUID:
        refuse(source.case, "the SEG has another frame of reference", "give the series it was made on", "dicom.series")
    series = {str(item.SeriesInstanceUID) for item in data.get("ReferencedSeriesSequence") or []}
    if str(own.SeriesInstanceUID) not in series:
        refuse(source.case, "the SEG refers to another series", "give the series it was made on", "dicom.series")


def _numbers(data: Dataset) -> Iterator[int]:
    shared = data.SharedFunctionalGroupsSequence[0]
    for frame in data.PerFrameFunctionalGroupsSequence:
        group: Any = frame if "SegmentIdentificationSequence" in frame else shared
        yield int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _frames(data: Dataset, count: int, source: SourceSeries) -> Iterator[np.ndarray]:
    """Unpack frame after frame: 1 bit a pixel, the lowest first, no gap between frames (PS3.5 8.1.1)."""
    size = source.shape[0] * source.shape[1]
    pixels = np.frombuffer(data.PixelData, np.uint8)
    if int(data.NumberOfFrames) != count or int(data.BitsAllocated) != 1 or 8 * len(pixels) < count * size:
        raise ValueError
    ends = [count_ * size for count_ in range(count + 1)]
    return (
        np.unpackbits(pixels[start // 8 : -(-end // 8)], bitorder="little")[start % 8 :][:size]
        .reshape(source.shape[1], source.shape[0])
        .astype(bool)
        for start, end in pairwise(ends)
    )


def _refuse_damaged(case: str) -> NoReturn:
    refuse(case, "the SEG is damaged or lacks what it must have", _AGAIN, "dicom.seg")
