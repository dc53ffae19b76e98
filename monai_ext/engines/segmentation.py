"""What is particular to fine-tuning and segmenting: label sets, pretrained encoders, lists of scans."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from monai_ext.base import SettingError
from monai_ext.manifests import read_datalist
from monai_ext.networks import load_into
from monai_ext.volumes import find_scans


def with_pretrained(network: nn.Module, path: str | None) -> nn.Module:
    """Load pretrained weights, ours or the authors', into the encoder and print what became of them.

    Args:
        network: a `HiEndSegmenter`.
        path: a checkpoint, or ``None`` to begin from random weights.

    Raises:
        WeightsError: missing, unsafe, or weights of another size; nothing is loaded in part.
    """
    if path is not None:
        account = load_into(network, path)
        counts = f"{len(account.loaded)} tensors loaded, {len(account.dropped)} not needed"
        print(f"pretrained weights {account.source}: {counts}, {len(account.initialised)} start at random")
    return network


def labelled_items(datalist: str, root: str | None, section: str, others: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """List the labelled scans of a datalist's section as ``[{"image", "label", "case"}, ...]``.

    Args:
        datalist: the JSON file, MONAI's decathlon form.
        root: the folder its paths start from; its own by default.
        section: such as ``"training"``.
        others: sections to take instead when that one is absent.

    Raises:
        ManifestError: the list is malformed, or none of the sections exists.
        SettingError: a scan of the section has no label, or the section is empty.
    """
    entries = read_datalist(datalist, root)
    present = {entry.section for entry in entries}
    chosen = next((name for name in (section, *others) if name in present), section)
    items = read_datalist(datalist, root, [chosen])
    for entry in items:
        if entry.label is None:
            raise SettingError(
                f"{entry.case}: section {chosen!r} lists it without a label; add one or move it to 'test'",
                code="setting.no_label",
                case=entry.case,
            )
    if not items:
        raise SettingError(
            f"{Path(datalist).name}: section {chosen!r} is empty; list at least one scan",
            code="setting.empty",
        )
    return [{"image": str(e.image), "label": str(e.label), "case": e.case} for e in items]


def scan_items(source: str) -> list[dict[str, Any]]:
    """List the scans of a file, a DICOM series folder or a folder of either as ``[{"image", "case"}, ...]``.

    Raises:
        ScanError: nothing there, or nothing readable among it.
    """
    items: list[dict[str, Any]] = []
    for scan in find_scans(source):
        problem = {"problem": scan.problem} if scan.problem else {}
        items.append({"image": str(scan.image), "case": scan.case, **problem})
    return items


def class_names(names: Mapping[str, str]) -> dict[int, str]:
    """Turn ``{"0": "background", "1": "liver", ...}`` of a configuration into a dictionary by label id.

    Raises:
        SettingError: an id is no whole number, or the ids are not 0 to n without a gap.
    """
    try:
        by_id = {int(number): str(name) for number, name in names.items()}
    except ValueError:
        by_id = {}
    if sorted(by_id) != list(range(len(by_id))) or len(by_id) < 2:
        raise SettingError(
            f"labels: the ids {list(names)} must be 0 (background), 1, 2, ... without a gap; "
            "remap the label files if they use others",
            code="setting.labels",
        )
    return dict(sorted(by_id.items()))
