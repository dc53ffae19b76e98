"""Which files of a folder are which scans of a data set, by its layout; and whose layout a folder has."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from monai_ext.base import ManifestError
from monai_ext.curation.layout_patterns import PathPattern, PatternMatch
from monai_ext.curation.problems import first_names
from monai_ext.manifests import DatasetCard, LayoutRule

_Key = tuple[str, ...]  # the rule, and what image and label must have in common

_LEAST = 0.5  # of the scans and pictures that a layout must explain, for a folder to be of its data set
_SAMPLE = 2000  # paths; what explains a tenth of a folder is found in it
_SECOND = 0.1  # that another layout alone explains: then the folder holds several data sets


@dataclass(frozen=True)
class FoundImage:
    """A scan or picture that a rule fits.

    Attributes:
        path: its relative path; a folder of DICOM files ends in ``/``.
        rule: of the layout.
        values: what the placeholders stand for.
        label: relative path of its label, if there is one.
    """

    path: str
    rule: LayoutRule
    values: Mapping[str, str]
    label: str | None = None


@dataclass
class Assignment:
    """What a layout makes of the files of a folder.

    Attributes:
        card: the data set.
        images: its scans, in the order of their paths.
        left_out: paths of images by the reason why the layout leaves them out.
        labels: paths of labels whose image is there, be it left out or not.
        lone_labels: labels of which there is no image.
        unknown: paths that no rule fits.
        literal: characters of patterns that stand for themselves, over all fits: how specific the layout is.
        named: whether a folder bears the name that the data set's folder has.
    """

    card: DatasetCard
    images: list[FoundImage] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    labels: set[str] = field(default_factory=set)
    lone_labels: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    literal: int = 0
    named: bool = False

    @property
    def explained(self) -> set[str]:
        """Paths of images, of their labels, and of what is left out for a reason."""
        images = {image.path for image in self.images}
        return images.union(self.labels, *self.left_out.values())

    @property
    def rank(self) -> tuple[int, bool, int]:
        """What decides between layouts: files explained, the folder's name, how specific the patterns are."""
        return len(self.explained), self.named, self.literal


def assign(card: DatasetCard, paths: Sequence[str], lead: str = "") -> Assignment:
    """Sort the paths of a folder by the layout of a data set; the first rule that fits a path holds.

    Args:
        card: the data set.
        paths: relative paths, see `DatasetFiles`.
        lead: names of the folder and of those above it, ending in ``/``: a pattern may start with them.
    """
    rules = [_Compiled(rule) for rule in card.layout]
    found = Assignment(card, named=_is_named(card, lead, paths))
    images, labels = list[tuple[FoundImage, _Key | None, str]](), defaultdict[_Key, dict[str, str]](dict)
    for path in paths:
        fit = _first_fit(rules, lead + path)
        keys = [] if fit else [found_key for rule in rules if (found_key := rule.label_key(lead + path))]
        if fit:
            rule, match = fit
            found.literal += rule.image.literal
            images.append((FoundImage(path, rule.rule, match.values), rule.key(match), match.above))
        elif keys:
            for key, above in keys:
                labels[key].setdefault(path, above)
        else:
            found.unknown.append(path)
    _join(images, labels, found)
    return found


def recognise(cards: Iterable[DatasetCard], paths: Sequence[str], lead: str = "") -> Assignment | None:
    """Find the data set whose layout explains most of a folder; ``None`` if none explains half of it.

    Raises:
        ManifestError: several layouts explain it equally well, or parts of it each.
    """
    # Most layouts fit nothing, which a sample of a hundred thousand files tells as well.
    sample = paths if len(paths) <= _SAMPLE else np.random.default_rng(0).choice(paths, _SAMPLE, replace=False).tolist()
    found = [assign(card, paths, lead) for card in cards if assign(card, sample, lead).explained]
    found = sorted((item for item in found if item.images), key=lambda item: item.rank, reverse=True)
    if not found or len(found[0].explained) < _LEAST * len(paths):
        return None
    best = found[0]
    equal = [item for item in found if item.rank == best.rank]
    if len(equal) > 1:
        names = first_names([item.card.id for item in equal], 8)
        raise ManifestError(
            f"the folder may be of any of {len(equal)} data sets: {names}; name the one that it is with --dataset",
            code="build.ambiguous",
        )
    others = [item for item in found[1:] if len(item.explained - best.explained) >= _SECOND * len(paths)]
    if others:
        names = first_names([best.card.id, *(item.card.id for item in others)], 8)
        raise ManifestError(
            f"the folder holds several data sets, perhaps {names}; give the folder of each alone, or name the one to "
            "take with --dataset",
            code="build.several",
        )
    return best


class _Compiled:
    """A rule with its patterns; labels are found by what their pattern shares with that of the image."""

    def __init__(self, rule: LayoutRule) -> None:
        self.rule = rule
        self.image = PathPattern(rule.image, rule.classes)
        self.label = PathPattern(rule.label, rule.classes) if rule.label else None
        self._shared = sorted(self.image.names & self.label.names) if self.label else []

    def fits(self, path: str) -> PatternMatch | None:
        match = self.image.match(path)
        if match and self.rule.numbers and "number" in match.values:
            low, high = self.rule.numbers
            return match if low <= int(match.values["number"]) <= high else None
        return match

    def key(self, match: PatternMatch) -> _Key | None:
        return (self.rule.image, *(match.values[name] for name in self._shared)) if self.label else None

    def label_key(self, path: str) -> tuple[_Key, str] | None:
        match = self.label.match(path) if self.label else None
        key = self.key(match) if match else None
        return (key, match.above) if match and key else None


def _first_fit(rules: Sequence[_Compiled], path: str) -> tuple[_Compiled, PatternMatch] | None:
    for rule in rules:
        if match := rule.fits(path):
            return rule, match
    return None


def _join(
    images: Sequence[tuple[FoundImage, _Key | None, str]], labels: Mapping[_Key, Mapping[str, str]], found: Assignment
) -> None:
    """Give the images their labels, and set aside what is left out.

    A label belongs to the image below the same folders; where there is none, to one elsewhere if it is the only one.
    """
    chosen = [
        next((path for path, other in labels.get(key, {}).items() if other == above), None) if key else None
        for _, key, above in images
    ]
    used = {label for label in chosen if label}
    for number, (image, key, _) in enumerate(images):
        others = [path for path in labels.get(key, {}) if path not in used] if key and not chosen[number] else []
        label = others[0] if len(others) == 1 else chosen[number]
        found.labels |= {label} if label else set()
        if image.rule.leave_out:
            found.left_out[image.rule.leave_out].append(image.path)
        else:
            found.images.append(replace(image, label=label))
    found.lone_labels = sorted({path for some in labels.values() for path in some} - found.labels)


def _is_named(card: DatasetCard, lead: str, paths: Sequence[str]) -> bool:
    folder = str(card.value("folder", "")).rstrip("/").rpartition("/")[2].casefold()
    above = {part.casefold() for part in lead.split("/")}
    return bool(folder) and (folder in above or any(folder in path.casefold().split("/")[:2] for path in paths[:50]))
