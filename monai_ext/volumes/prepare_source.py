"""One scan to prepare, and what was found beside it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monai_ext.volumes.store_record import Origin


@dataclass(frozen=True)
class Source:
    """One scan to prepare.

    Attributes:
        image: the scan, a file or a DICOM series folder or zip, with its mark where that holds several; where a
            datalist names none that may be read, no file.
        relative: its path from the root, with ``/``.
        case: its id in the datalist, else its base name.
        label: its label volume, if a datalist names one.
        label_relative: the label's path from the root.
        problem: a sentence why it cannot be prepared, if that is known already.
        problem_code: the same as a word for programs.
        sha256: of the scan, as its manifest declares it.
        label_sha256: of the labels, likewise.
        label_names: names of the ids of these labels, where a manifest gives its data sets their own.
        origin: what the manifest says of the scan.
    """

    image: Path
    relative: str
    case: str
    label: Path | None = None
    label_relative: str | None = None
    problem: str | None = None
    problem_code: str = ""
    sha256: str | None = None
    label_sha256: str | None = None
    label_names: Mapping[int, str] | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Found:
    """What there is to prepare.

    Attributes:
        root: the folder that relative paths start from.
        sources: the scans, each path once.
        left_out: relative paths of files that look like labels and that no datalist pairs with a scan.
        label_names: names of label ids, if the datalist gives them.
        set_aside: how many files are localizers, reports and the like, or results of earlier runs.
    """

    root: Path
    sources: list[Source]
    left_out: list[str] = field(default_factory=list)
    label_names: dict[int, str] = field(default_factory=dict)
    set_aside: Counter[str] = field(default_factory=Counter)
