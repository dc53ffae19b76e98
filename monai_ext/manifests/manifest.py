"""What a manifest says: data sets with where each fact comes from, and their scans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("training", "validation", "test", "unassigned")
CONFIDENCES = ("verified", "high", "medium", "low", "unknown")


@dataclass(frozen=True)
class Fact:
    """One statement about a data set, with how sure it is and who says so.

    Attributes:
        value: ``None`` where it was looked for and not found.
        confidence: ``"verified"`` (counted or read in a named file), ``"high"`` (the owner, or two independent
            sources), ``"medium"`` (one secondary source), ``"low"`` (inferred) or ``"unknown"``.
        source: keys of the manifest's sources.
        note: what else there is to know.
    """

    value: Any
    confidence: str = "unknown"
    source: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Relation:
    """Scans that a data set shares with another.

    Attributes:
        dataset: id of the other set, or its name where no manifest describes it.
        what: which scans.
        severity: of the leak when one is trained on and the other evaluated: ``"high"``, ``"medium"``, ``"low"``
            or ``"unknown"``.
        confidence, source, note: as of a `Fact`.
    """

    dataset: str
    what: str
    severity: str = "unknown"
    confidence: str = "unknown"
    source: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class LayoutRule:
    """Where a data set, once downloaded, keeps its scans.

    In ``image`` and ``label``, ``{number}`` stands for digits, any other word in braces, such as ``{id}`` or
    ``{class}``, for text within one file or folder name, the same where it occurs twice, and ``*`` for any such text;
    everything else stands for itself. A folder of DICOM files ends in ``/``. The other fields repeat what the words
    of ``image`` stand for.

    Attributes:
        image: relative path of an image, such as ``"imagesTr/{id}.nii.gz"``.
        split: the list that such scans go to.
        label: relative path of its label, if there are labels.
        id: of the entry, such as ``"case_{number}"``; ``{id}`` or else the image's base name by default.
        group: what scans of one patient share, such as ``"{group}"``; the id by default.
        class_name: of pictures, such as ``"{class}"``.
        classes: what ``{class}`` may be; anything when empty.
        abnormal: of pictures, 0 or 1.
        numbers: the least and the greatest ``{number}`` that the rule is for.
        leave_out: why such files are no scans to use, such as ``"MR, not CT"``; they are then counted only.
        confidence, source: as of a `Fact`.
    """

    image: str
    split: str
    label: str | None = None
    id: str | None = None
    group: str | None = None
    class_name: str | None = None
    classes: tuple[str, ...] = ()
    abnormal: int | None = None
    numbers: tuple[int, int] | None = None
    leave_out: str | None = None
    confidence: str = "unknown"
    source: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetCard:
    """What is known of one data set.

    Attributes:
        id: its key in the manifest, such as ``"msd_spleen"``.
        facts: by name: ``"title"``, ``"homepage"``, ``"licence"``, ``"commercial_use"``, ``"label_names"``, ...
        counts: numbers of scans by what they count, such as ``"labelled_train"``.
        roles: in published corpora, by their name.
        splits: published divisions into training and test, by their name.
        contains: sets of which scans are part of this one.
        overlaps: sets that share scans with it.
        layout: where a downloaded copy keeps its scans; the first rule that fits a file holds.
        notes: what else there is to know.
    """

    id: str
    facts: Mapping[str, Fact] = field(default_factory=dict)
    counts: Mapping[str, Fact] = field(default_factory=dict)
    roles: Mapping[str, Fact] = field(default_factory=dict)
    splits: Mapping[str, Fact] = field(default_factory=dict)
    contains: tuple[Relation, ...] = ()
    overlaps: tuple[Relation, ...] = ()
    layout: tuple[LayoutRule, ...] = ()
    notes: tuple[str, ...] = ()

    def value(self, name: str, default: Any = None) -> Any:
        """Return the value of a fact, or the default where nothing is known."""
        fact = self.facts.get(name)
        return default if fact is None or fact.value is None else fact.value

    def confidence(self, name: str) -> str:
        """Return how sure a fact is; ``"unknown"`` where there is none."""
        return self.facts[name].confidence if name in self.facts else "unknown"

    @property
    def title(self) -> str:
        return str(self.value("title", self.id))

    @property
    def licence(self) -> str:
        """SPDX id, ``LicenseRef-...`` or terms; ``"unknown"`` where not found."""
        return str(self.value("licence", "unknown"))

    @property
    def commercial_use(self) -> str:
        """``"yes"``, ``"no"`` or ``"unknown"``."""
        return str(self.value("commercial_use", "unknown"))

    @property
    def evaluation(self) -> bool:
        """Whether results are reported on it, so that training on it would leak."""
        return bool(self.value("evaluation", False))

    @property
    def label_names(self) -> Mapping[int, str]:
        """Names of the label values."""
        return {int(number): name for number, name in self.value("label_names", {}).items()}


@dataclass(frozen=True)
class ManifestEntry:
    """One scan or picture.

    Attributes:
        id: unique in its manifest; a plain name.
        dataset: key of the data set that it is of.
        image: path relative to the root, with ``/``.
        label: of its label volume or mask, likewise; ``None`` without one.
        group: what scans of one patient share within a data set; the id where nothing is known.
        split: ``"training"``, ``"validation"``, ``"test"`` or ``"unassigned"``.
        sha256, label_sha256: of the files, 64 hexadecimal digits.
        weight: how often it is drawn beside others; 0 leaves it out.
        class_name: of a picture, the key of its prompts.
        abnormal: of a picture, 0 or 1.
    """

    id: str
    dataset: str
    image: str
    label: str | None = None
    group: str = ""
    split: str = "unassigned"
    sha256: str | None = None
    label_sha256: str | None = None
    weight: float = 1.0
    class_name: str | None = None
    abnormal: int | None = None

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.id)

    @property
    def patient(self) -> tuple[str, str]:
        """Data set and group: two data sets may call different patients the same."""
        return self.dataset, self.group


@dataclass(frozen=True)
class Manifest:
    """Data sets and their scans; a mere description of data sets has none.

    Attributes:
        name: short, for file names.
        title, status: what the list is.
        datasets: by id.
        sources: who says so: ``{"KEY": {"kind": ..., "locator": ...}}``.
        labels: names of the label values, where all labelled scans share one set.
        entries: in the order of the file, the splits one after another.
    """

    name: str
    datasets: Mapping[str, DatasetCard]
    title: str = ""
    status: str = ""
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    labels: Mapping[int, str] | None = None
    entries: Sequence[ManifestEntry] = ()
