"""The store's index: what sampling needs to know of every volume, in arrays."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from monai_ext.base import StoreError
from monai_ext.volumes.store_record import StoreRecord
from monai_ext.volumes.store_sidecar import SidecarMark, read_marked, sidecar_path


@dataclass(frozen=True, eq=False)
class StoreIndex:
    """One row for each volume, sorted by id; it is made from the sidecars, and any of them overrules it.

    Attributes:
        ids: ``(n,)`` names of the volumes.
        shapes: ``(n, 3)`` voxels along x, y, z.
        spacings_mm: ``(n, 3)`` voxel edges.
        body_boxes: ``(n, 2, 3)`` the patient's first voxel and one past the last.
        datasets: ``(n,)`` keys of the manifest; empty where a volume was prepared without one.
        licences: ``(n,)`` likewise.
        groups: ``(n,)`` patients; the volume's own id where nothing is known.
        splits: ``(n,)`` lists of the manifest; empty where nothing is known.
        weights: ``(n,)`` how often a volume is drawn beside the others; 1 where nothing is known.
        has_label: ``(n,)`` whether there are labels.
        data_bytes: ``(n, 2)`` bytes of the image file and of the label file.
        marks: ``(n, 2)`` bytes and time of change in nanoseconds of the sidecars that were read.
    """

    ids: np.ndarray
    shapes: np.ndarray
    spacings_mm: np.ndarray
    body_boxes: np.ndarray
    datasets: np.ndarray
    licences: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    weights: np.ndarray
    has_label: np.ndarray
    data_bytes: np.ndarray
    marks: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each id."""
        return {name: row for row, name in enumerate(self.ids.tolist())}

    @cached_property
    def body_fractions(self) -> np.ndarray:
        """``(n,)`` share of a volume that the patient's box fills."""
        share: np.ndarray = np.ptp(self.body_boxes, axis=1).prod(axis=1) / self.shapes.prod(axis=1)
        return share

    def mark(self, volume_id: str) -> SidecarMark | None:
        """Return the mark of the sidecar that a row was made from; ``None`` for an id that has no row."""
        row = self.rows.get(volume_id)
        return None if row is None else SidecarMark(*self.marks[row].tolist())

    def take(self, rows: np.ndarray) -> "StoreIndex":
        """Return some rows, in the given order."""
        return StoreIndex(*(getattr(self, field.name)[rows] for field in fields(self)))


_SHAPES = {
    "shapes": (3,),
    "spacings_mm": (3,),
    "body_boxes": (2, 3),
    "data_bytes": (2,),
    "marks": (2,),
}
_TYPES = {"spacings_mm": np.float64, "weights": np.float64, "has_label": np.bool_}
_TEXTS = ("ids", "datasets", "licences", "groups", "splits")


def list_sidecars(folder: Path) -> dict[str, SidecarMark]:
    """Return the id and the mark of every sidecar in a store's folder.

    Raises:
        StoreError: the folder cannot be listed.
    """
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    try:
                        mark = SidecarMark.of(entry.stat())
                    except FileNotFoundError:  # a writer replaces it, or a link leads nowhere: reading it tells
                        mark = SidecarMark(-1, -1)
                    found[entry.name.removesuffix(".json")] = mark
    except OSError as error:
        raise StoreError(
            f"{folder.name}: the store cannot be listed ({error.strerror}); make it readable",
            code="store.closed",
        ) from error
    return found


def read_rows(folder: Path, ids: Iterable[str]) -> StoreIndex:
    """Make rows from sidecars; volumes that a writer takes out meanwhile have none.

    Raises:
        StoreError: a sidecar is torn, foreign or from a newer version.
    """
    rows = []
    # Shown where somebody looks on, and only when it takes long: ten thousand from a cold disk do.
    for name in tqdm(sorted(ids), desc="sidecars", unit="", delay=2, leave=False, disable=None):
        path = sidecar_path(folder, name)
        try:
            rows.append(_row(*read_marked(path)))
        except StoreError as error:
            if error.code != "store.missing" or path.is_symlink():
                raise
    return from_rows(rows)


def from_rows(rows: list[tuple[object, ...]]) -> StoreIndex:
    """Turn rows into columns; no rows make an empty index."""
    columns: dict[str, np.ndarray] = {}
    for place, field in enumerate(fields(StoreIndex)):
        values = [row[place] for row in rows]
        kind = np.str_ if field.name in _TEXTS else _TYPES.get(field.name, np.int64)
        columns[field.name] = np.array(values, kind).reshape(len(rows), *_SHAPES.get(field.name, ()))
    return StoreIndex(**columns)


def fits(index: StoreIndex) -> bool:
    """Tell whether the columns are of the types and shapes that they should be."""
    for field in fields(index):
        column = getattr(index, field.name)
        kind = "U" if field.name in _TEXTS else np.dtype(_TYPES.get(field.name, np.int64)).kind
        if column.dtype.kind != kind or column.shape != (len(index.ids), *_SHAPES.get(field.name, ())):
            return False
    return True


def joined(parts: list[StoreIndex]) -> StoreIndex:
    """Put the rows of several indexes into one, sorted by id."""
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(StoreIndex)
    }
    whole = StoreIndex(**columns)
    return whole.take(np.argsort(whole.ids, kind="stable"))


def _row(record: StoreRecord, mark: SidecarMark) -> tuple[object, ...]:
    # In the order of the columns.
    origin, label = record.origin, record.label
    return (
        record.id,
        record.shape,
        record.spacing_mm,
        record.body_box,
        origin.dataset if origin else "",
        origin.licence if origin else "",
        origin.group if origin else record.id,
        origin.split if origin else "",
        origin.weight if origin else 1.0,
        label is not None,
        (record.image.size, label.size if label else 0),
        mark,
    )
