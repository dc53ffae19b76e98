"""What a manifest holds: counts, licences, sizes and known leaks."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_ext.base import ManifestError, SettingError
from monai_ext.curation.geometry import ScanSize, Sizes, sizes_from_headers, sizes_from_store
from monai_ext.curation.known_leaks import KnownLeak, known_leaks, shared_within
from monai_ext.curation.known_overlaps import KnownOverlap
from monai_ext.manifests import SPLITS, DatasetCard, Manifest, ManifestEntry, read_manifest, shipped_cards


@dataclass(frozen=True)
class SetCounts:
    """Numbers of one data set, in one of the splits or, with ``split`` empty, in all.

    Attributes:
        dataset: its id.
        split: the list.
        scans: entries.
        labelled: of them those with a label or mask.
        patients: groups.
        normal, abnormal: pictures of either kind.
        share: of the weights of all entries of that split.
    """

    dataset: str
    split: str
    scans: int
    labelled: int
    patients: int
    normal: int
    abnormal: int
    share: float


@dataclass(frozen=True)
class SizeRange:
    """Smallest, median and largest of the scans of one data set, as ``(smallest, median, largest)``.

    Attributes:
        dataset: its id.
        count: scans that were looked at.
        plane_mm, slice_mm: voxel edges within axial slices and between them.
        plane, slices: voxels along the longer edge of an axial slice, and slices.
        height_mm: from feet to head.
    """

    dataset: str
    count: int
    plane_mm: tuple[float, float, float]
    slice_mm: tuple[float, float, float]
    plane: tuple[float, float, float]
    slices: tuple[float, float, float]
    height_mm: tuple[float, float, float]


@dataclass
class ManifestSummary:
    """What a manifest holds.

    Attributes:
        path: its file.
        manifest: its content.
        counts: of each data set in each split that it is in.
        totals: of each data set in all splits.
        sizes: what was measured, if anything was.
        ranges: of each data set that was measured.
        leaks: known ones with what results are reported on.
        shared: pairs of its data sets that share scans.
    """

    path: Path
    manifest: Manifest
    counts: list[SetCounts]
    totals: list[SetCounts]
    sizes: Sizes | None = None
    ranges: list[SizeRange] = field(default_factory=list)
    leaks: list[KnownLeak] = field(default_factory=list)
    shared: list[KnownOverlap] = field(default_factory=list)

    @property
    def cards(self) -> list[DatasetCard]:
        """The data sets, those with the most scans first."""
        scans = {row.dataset: row.scans for row in self.totals}
        return sorted(self.manifest.datasets.values(), key=lambda card: -scans.get(card.id, 0))

    def told_scans(self, card: DatasetCard) -> str:
        """Return how many scans of a data set are listed or, of a corpus that lists none, taken by it."""
        listed = [row.scans for row in self.totals if row.dataset == card.id]
        taken = card.counts.get("taken")
        number = listed[0] if listed else taken.value if taken is not None else None
        return "" if number is None else f"{number:,}"

    @property
    def exit_code(self) -> int:
        """1 if a header could not be read, else 0."""
        return 1 if self.sizes is not None and self.sizes.problems else 0


def summarize_manifest(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    headers: int = 1000,
    jobs: int | None = None,
    progress: bool = False,
) -> ManifestSummary:
    """Describe a manifest.

    Args:
        path: the manifest.
        root: the folder that its paths start from; its own by default. Sizes come from the headers of the files
            there; where none of them is there, sizes are left out.
        store: a store to take the sizes from instead.
        headers: how many scans to measure at most; 0 for none.
        jobs: processes to read headers; as many as cores by default, 0 to work in this process.
        progress: show a progress bar on stderr.

    Raises:
        ManifestError: the manifest is wrong, or the root is no folder.
        StoreError: the store cannot be used.
        SettingError: an impossible number.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if headers < 0:
        raise SettingError(f"headers: {headers} is negative; give 0 or more", code="setting.headers")
    if root is not None and not Path(root).is_dir():
        raise ManifestError(
            f"{Path(root).name}: no such folder; give the one that the paths start from", code="manifest.root"
        )
    known = {**shipped_cards(), **manifest.datasets}
    summary = ManifestSummary(
        path,
        manifest,
        counts=[row for split in SPLITS for row in _rows(manifest, split)],
        totals=_rows(manifest, ""),
        leaks=known_leaks(manifest.entries, known),
        shared=shared_within(manifest),
    )
    folder = Path(root) if root is not None else path.parent
    if store is not None:
        summary.sizes = sizes_from_store(manifest, store, headers)
    elif headers and (root is not None or _some_are_there(manifest, folder)):
        summary.sizes = sizes_from_headers(manifest, folder, headers, jobs, progress)
    order = [card.id for card in summary.cards]
    summary.counts.sort(key=lambda row: order.index(row.dataset))
    if summary.sizes is not None:
        summary.ranges = _ranges(summary.sizes.sizes, order)
    return summary


def _rows(manifest: Manifest, split: str) -> list[SetCounts]:
    entries = [entry for entry in manifest.entries if not split or entry.split == split]
    total = sum(entry.weight for entry in entries) or 1
    rows = []
    for name in manifest.datasets:
        some = [entry for entry in entries if entry.dataset == name]
        if some:
            rows.append(
                SetCounts(
                    dataset=name,
                    split=split,
                    scans=len(some),
                    labelled=sum(entry.label is not None for entry in some),
                    patients=len({entry.patient for entry in some}),
                    normal=_of_kind(some, 0),
                    abnormal=_of_kind(some, 1),
                    share=sum(entry.weight for entry in some) / total,
                )
            )
    return rows


def _of_kind(entries: list[ManifestEntry], kind: int) -> int:
    return sum(entry.abnormal == kind for entry in entries)


def _some_are_there(manifest: Manifest, folder: Path) -> bool:
    # A manifest may well be looked at where its scans are not; one of a few tells.
    return any((folder / entry.image.partition("#")[0]).exists() for entry in manifest.entries[:20])


def _ranges(sizes: list[ScanSize], order: list[str]) -> list[SizeRange]:
    ranges = []
    for name in order:
        some = [size for size in sizes if size.dataset == name]
        if some:
            shapes, spacings = np.array([s.shape for s in some]), np.array([s.spacing_mm for s in some])
            ranges.append(
                SizeRange(
                    name,
                    len(some),
                    plane_mm=_three(spacings[:, :2].mean(1)),
                    slice_mm=_three(spacings[:, 2]),
                    plane=_three(shapes[:, :2].max(1)),
                    slices=_three(shapes[:, 2]),
                    height_mm=_three(shapes[:, 2] * spacings[:, 2]),
                )
            )
    return ranges


def _three(values: np.ndarray) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())
