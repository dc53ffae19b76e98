"""One scan's way into a store as it is sent to a worker, and what comes back: never voxels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monai_ext.volumes.body import BODY_HU
from monai_ext.volumes.prepare_source import Source


@dataclass(frozen=True, repr=False)
class Job:
    """One scan to prepare, complete enough to be sent to another process or machine.

    Attributes:
        source: the scan.
        id: its id in the store.
        moved: ids under which the store may have it from another root folder.
        store: the store's folder.
        root_mark: tells the root folder apart from others.
        spacing_mm: voxel edges of the store.
        assume_hu: take values for HU that do not look so.
        label_names: names of the label ids that may occur; any id when empty.
        relax: rules of reading to relax, sorted.
        wait: when another run is preparing the scan, wait for its end instead of reporting it busy.
    """

    source: Source
    id: str
    moved: tuple[str, ...]
    store: Path
    root_mark: str
    spacing_mm: tuple[float, float, float]
    assume_hu: bool
    label_names: Mapping[int, str]
    relax: tuple[str, ...] = ()
    wait: bool = True

    def __repr__(self) -> str:
        # Schedulers log the arguments of what fails, and folders may be called after patients.
        return f"Job({self.id!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """What, beside the source, decides the stored voxels; the sidecar keeps it."""
        settings: dict[str, Any] = {
            "orientation": "RAS",
            "spacing_mm": list(self.spacing_mm),
            "interpolation": "linear",
            "body_hu": BODY_HU,
            "assume_hu": self.assume_hu,
        }
        # Only where there are some: stores of before know nothing of rules, and stay what they are.
        return settings | ({"relax": list(self.relax)} if self.relax else {})


@dataclass(frozen=True)
class Outcome:
    """What became of one scan; ``reason`` is a sentence and ``code`` a word for programs when it failed.

    ``relaxed`` names the rules that were relaxed to read it. One that another run is preparing at this moment is
    ``"busy"``.
    """

    id: str
    state: Literal["done", "skipped", "failed", "busy"]
    reason: str = ""
    code: str = ""
    relaxed: tuple[str, ...] = ()
