"""Reviewed labels in an archive: which SEG is one, and its segments with the ids of the models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from monai_ext.base import LabelError
from monai_ext.label.dicomweb_client import find_series, headers_of
from monai_ext.outputs.dicom_seg import read_dicom_seg
from monai_ext.volumes import DicomSeries


class ReviewedSegs:
    """Which SEG of an archive a person had a hand in; each SEG is asked for once, for it never changes.

    Args:
        client: of the archive.
    """

    def __init__(self, client: DICOMwebClient) -> None:
        self._client = client
        self._known: dict[str, list[tuple[str, str]]] = {}

    def now(self) -> dict[str, tuple[str, str]]:
        """Return study and series of the newest of each image."""
        found: dict[str, tuple[str, str, str]] = {}
        for series, study in find_series(self._client, {"Modality": "SEG"}).items():
            if series not in self._known:
                self._known[series] = [_told(header) for header in headers_of(self._client, study, series)]
            for image, when in self._known[series]:
                if image and when >= found.get(image, ("",))[0]:
                    found[image] = (when, study, series)
        return {image: (study, series) for image, (_, study, series) in found.items()}


def labels_of_seg(folder: Path, image: DicomSeries, names: Mapping[int, str]) -> np.ndarray:
    """Read a SEG on its image's grid, its segments numbered as the models number labels of these names.

    Another tool's SEG counts its segments in an order of its own. A name that no model has keeps its number, where
    that is free.

    Args:
        folder: of the one instance.
        image: the series.
        names: of the models' labels by id.

    Returns:
        ``(x, y, z)`` ids.

    Raises:
        LabelError: several instances, or a segment with the number of another label.
        GeometryError: on another grid.
    """
    files = sorted(folder.iterdir())
    if len(files) != 1:
        raise LabelError(
            f"{image.case}: its SEG has {len(files)} instances; store one", code="label.seg", case=image.case
        )
    labels, told = read_dicom_seg(files[0], image.headers(), case=image.case)
    own = {name.casefold(): number for number, name in names.items()}
    table = np.zeros(max((0, *told)) + 1, np.int32)
    taken: dict[int, int] = {}
    for number, name in told.items():
        if not (labels == number).any():
            continue
        table[number] = own.get(name.casefold(), number)
        if table[number] == number and number in names and names[number].casefold() != name.casefold():
            raise LabelError(
                f"{image.case}: segment {number} of its SEG is none of the models' labels, of which "
                f"{names[number]} has that number; number it otherwise",
                code="label.names",
                case=image.case,
            )
        if (other := taken.setdefault(int(table[number]), number)) != number:
            raise LabelError(
                f"{image.case}: segments {other} and {number} of its SEG would be one label, {table[number]}; name and "
                "number them apart",
                code="label.names",
                case=image.case,
            )
    mapped = table[labels]
    return mapped.astype(np.uint8) if mapped.max() < 256 else mapped


def _told(header: Dataset) -> tuple[str, str]:
    """Return the image of a reviewed SEG, none of another one, and when it was made."""
    when = f"{header.get('ContentDate') or ''}{header.get('ContentTime') or ''}"
    return "" if _automatic(header) else _referenced_series(header), when


def _referenced_series(header: Dataset) -> str:
    items = header.get("ReferencedSeriesSequence") or []
    return str(items[0].get("SeriesInstanceUID") or "") if items else ""


def _automatic(header: Dataset) -> bool:
    kinds = [str(item.get("SegmentAlgorithmType") or "") for item in header.get("SegmentSequence") or []]
    return bool(kinds) and all(kind == "AUTOMATIC" for kind in kinds)
