"""What is particular to fine-tuning and segmenting: label sets, pretrained encoders, lists of scans."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from monai_ext.base import SettingError, rank
from monai_ext.manifests import load_datalist, read_datalist
from monai_ext.networks import load_into
from monai_ext.volumes import find_scans


def with_pretrained(network: nn.Module, path: str | None) -> nn.Module:
    """Load pretrained weights, ours or the authors', and print what became of them.

    Args:
        network: a `HiEndSegmenter`, whose encoder is loaded, or a `HiEndMAE`.
        path: a checkpoint, or ``None`` to begin from random weights.

    Raises:
        WeightsError: missing, unsafe, or weights of another size; nothing is loaded in part.
    """
    if path is not None:
        account = load_into(network, path)
        counts = f"{len(account.loaded)} tensors loaded, {len(account.dropped)} not needed"
        if rank() == 0:
            print(f"pretrained weights {account.source}: {counts}, {len(account.initialised)} start at random")
    return network


def labelled_items(datalist: str, root: str | None, section: str | Sequence[str]) -> list[dict[str, Any]]:
    """List the labelled scans of a datalist's section as ``[{"image", "label", "case"}, ...]``.

    An entry that cannot be used is ``{"case", "problem"}``: `GuardedScans` passes it by, `LoadedScans` refuses it
    or, within a quarantine's budget, lets it pass.

    Args:
        datalist: the JSON file, MONAI's decathlon form.
        root: the folder its paths start from; its own by default.
        section: such as ``"training"``, or several of which the first that the file has is taken.

    Raises:
        ManifestError: the list is malformed, or none of the sections exists.
        SettingError: the section is empty, or none is named.
    """
    wanted = [section] if isinstance(section, str) else list(section)
    if not wanted:
        raise SettingError("section: none is named; name one, such as validation", code="setting.section")
    content = load_datalist(Path(datalist))
    chosen = next((name for name in wanted if isinstance(content.get(name), list)), wanted[0])
    items: list[dict[str, Any]] = []
    for entry in read_datalist(datalist, root, [chosen]):
        problem = str(entry.problem) if entry.problem else None
        if entry.label is None and problem is None:
            problem = f"{entry.case}: section {chosen!r} lists it without a label; add one, or leave the scan out"
        read = {"image": str(entry.image), "label": str(entry.label)} if problem is None else {"problem": problem}
        items.append({"case": entry.case, **read})
    if not items:
        raise SettingError(
            f"{Path(datalist).name}: section {chosen!r} is empty; list at least one scan",
            code="setting.empty",
        )
    return items


def scan_items(source: str, avoid: str | None = None) -> list[dict[str, Any]]:
    """List the scans of a file, a DICOM series folder or a folder of either as ``[{"image", "case"}, ...]``.

    A scan that must not be read is ``{"case", "problem"}``.

    Args:
        source: where the scans are.
        avoid: a folder in it to pass over, that of the results.

    Raises:
        ScanError: nothing there, or nothing readable among it.
    """
    return [
        {"case": scan.case, **({"problem": scan.problem} if scan.problem else {"image": str(scan.image)})}
        for scan in find_scans(source, avoid)
    ]


def class_names(names: Mapping[str, str]) -> dict[int, str]:
    """Turn ``{"0": "background", "1": "liver", ...}`` of a configuration into a dictionary by label id.

    Raises:
        SettingError: an id is no whole number, or the ids are not 0 to n without a gap.
    """
    try:
        by_id = {int(number): str(name) for number, name in names.items()}
    except (AttributeError, TypeError, ValueError):
        by_id = {}
    if sorted(by_id) != list(range(len(by_id))) or len(by_id) < 2:
        given = list(names) if isinstance(names, Mapping) else names
        raise SettingError(
            f"labels: the ids {given} must be 0 (background), 1, 2, ... without a gap; "
            "if the label files use others, say so in label_ids",
            code="setting.labels",
        )
    return dict(sorted(by_id.items()))


def ids_by_class(
    names: Mapping[int, str], label_ids: Mapping[str, int | Sequence[int]] | None
) -> dict[int, list[int]] | None:
    """Turn ``{"liver": 5, "kidneys": [2, 3]}`` of a configuration into the ids in label files by class id.

    Args:
        names: of the classes by id, see `class_names`.
        label_ids: for each class but the background its id or ids in the label files; ``None`` where the ids in
            the files are those of the classes.

    Returns:
        What ``load_ct`` takes as ``label_ids``.

    Raises:
        SettingError: a name is not that of a class, a class has no ids, or an id is impossible or listed twice.
    """
    if label_ids is None:
        return None
    classes = [name for number, name in names.items() if number]
    # Compared as lists, for two classes of one name cannot be told apart.
    if not isinstance(label_ids, Mapping) or sorted(label_ids) != sorted(classes):
        given = ", ".join(label_ids) if isinstance(label_ids, Mapping) else repr(label_ids)
        raise SettingError(
            f"label_ids: given for {given or 'nothing'}, but the labels are {', '.join(classes)}; "
            "give the ids of each of these, by name, and of no other",
            code="setting.label_ids",
        )
    found = {number: _id_list(label_ids[name]) for number, name in names.items() if number}
    counts = Counter(number for ids in found.values() for number in ids)
    for number, ids in found.items():
        # Label volumes travel as float32, which holds whole numbers exactly up to there.
        if not ids or any(type(n) is not int or not 0 < n < 2**24 or counts[n] > 1 for n in ids):
            raise SettingError(
                f"label_ids: {names[number]} is {label_ids[names[number]]!r}; give one id of the label files or a "
                "list of them, whole numbers from 1 on, each for one class",
                code="setting.label_ids",
            )
    return found


def _id_list(ids: int | Sequence[int]) -> list[int]:
    return list(ids) if isinstance(ids, list | tuple) else [cast(int, ids)]
