"""Pictures on their way into the training of AA-CLIP: source sets, unusable ones left out, batches with prompts."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from monai_ext.base import InputError, SettingError, gather, rank, world
from monai_ext.engines.steps import plain_tensor
from monai_ext.manifests import PictureEntry, hold_out, read_picture_list
from monai_ext.networks import ClassPrompts, PromptTable
from monai_ext.transforms import ReadPictured

Item = dict[Hashable, Any]


def source_pictures(
    sources: Sequence[Mapping[str, Any]], prompts: PromptTable, classes: Sequence[str] | None = None
) -> list[PictureEntry]:
    """List the pictures of one source set or several.

    Args:
        sources: for each its ``list`` (.jsonl or .json), and where wanted ``root``, ``dataset`` (whose class names
            the prompts know), ``classes`` and ``section``; see ``read_picture_list``.
        prompts: must know every class.
        classes: to take of all sets; one that no set has is an error.

    Raises:
        ManifestError: a list cannot be used.
        SettingError: no source, an unknown setting of one, or a class that the prompts or the sets do not have.
    """
    if isinstance(sources, Mapping) or not sources or not all(isinstance(source, Mapping) for source in sources):
        raise SettingError(
            f"sources: {sources!r} is no list of source sets; give [{{'list': FILE, 'root': FOLDER, ...}}]",
            code="setting.sources",
        )
    entries = [entry for source in sources for entry in _entries(source)]
    if classes is not None:
        known = {entry.class_name for entry in entries}
        if unknown := [name for name in classes if name not in known]:
            raise SettingError(
                f"classes: no source set has {unknown[0]!r}; choose among {', '.join(sorted(known))}",
                code="setting.class",
            )
        entries = [entry for entry in entries if entry.class_name in classes]
    source_prompts(entries, prompts)  # an unknown class is told before any file is read
    return entries


def source_prompts(entries: Sequence[PictureEntry], prompts: PromptTable) -> list[ClassPrompts]:
    """Return the sentences of every class of the source sets, each once."""
    kinds = dict.fromkeys((entry.dataset, entry.class_name) for entry in entries)
    return [prompts.of_class(name, dataset) for dataset, name in kinds]


def usable_pictures(entries: Sequence[PictureEntry], workers: int = 4, check: bool = True) -> list[PictureEntry]:
    """Leave out the pictures that cannot be trained on, and say why, one sentence each.

    Each file is read once, so that a damaged one is told before the first epoch and not in the middle of it; the
    others go on. Under ``torchrun`` the ranks share that work.

    Args:
        entries: see `source_pictures`.
        workers: threads that read.
        check: ``False`` reads nothing: a run then stops at the first unusable file.

    Raises:
        SettingError: none can be used.
    """
    if not check:
        return list(entries)
    mine = range(rank(), len(entries), world())
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = list(pool.map(lambda place: _problem(entries[place]), mine))
    own = {place: problem for place, problem in zip(mine, found, strict=True) if problem}
    problems = {place: problem for part in gather(own) for place, problem in part.items()}
    if rank() == 0 and problems:
        for _, problem in sorted(problems.items()):
            logging.getLogger("monai_ext").error("left out: %s", problem)
        print(f"{len(problems)} of {len(entries)} pictures cannot be used and are left out, see above")
    kept = [entry for place, entry in enumerate(entries) if place not in problems]
    if not kept:
        raise SettingError(
            f"sources: none of {len(entries)} pictures can be used; the first: {problems[0]}",
            code="setting.no_pictures",
        )
    return kept


def split_items(entries: Sequence[PictureEntry], share: float, seed: int) -> dict[str, list[Item]]:
    """Split pictures into the items of two data sets, see ``hold_out``.

    Returns:
        ``"training"`` and ``"validation"``, each ``[{"image": path, "mask": path or "", "label", "class_name",
        "dataset", "case"}, ...]``.

    Raises:
        SettingError: an impossible share.
    """
    parts = hold_out(entries, share, seed)
    return {
        name: [_item(entry) for entry in part] for name, part in zip(("training", "validation"), parts, strict=True)
    }


class PromptedBatch:
    """The ``prepare_batch`` of AA-CLIP's trainers: pictures with the prompts of their classes, masks with labels.

    Args:
        prompts: knows every class.

    Returns:
        ``{"image": (b, 3, h, w), "prompts": [ClassPrompts, ...]}`` and ``{"mask": (b, 1, h, w), "label": (b,),
        "class_name": [...]}``, on the device.
    """

    def __init__(self, prompts: PromptTable) -> None:
        self.prompts = prompts
        self._known: dict[tuple[str, str], ClassPrompts] = {}

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device, non_blocking: bool = False, **_: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        image, mask = (plain_tensor(batch[key]).to(device, non_blocking=non_blocking) for key in ("image", "mask"))
        kinds = list(zip(batch["dataset"], batch["class_name"], strict=True))
        label = torch.as_tensor(batch["label"]).to(device, non_blocking=non_blocking)
        # Turned and shifted with the nearest pixel, a mask stays 0 and 1, though in another type.
        return (
            {"image": image, "prompts": [self._prompts(*kind) for kind in kinds]},
            {"mask": mask.float(), "label": label, "class_name": ["/".join(filter(None, kind)) for kind in kinds]},
        )

    def _prompts(self, dataset: str, name: str) -> ClassPrompts:
        if (dataset, name) not in self._known:
            self._known[dataset, name] = self.prompts.of_class(name, dataset or None)
        return self._known[dataset, name]


def _entries(source: Mapping[str, Any]) -> list[PictureEntry]:
    known = ("list", "root", "dataset", "classes", "section")
    if "list" not in source or (unknown := set(source) - set(known)):
        wrong = "no 'list'" if "list" not in source else f"{min(unknown)!r}, which means nothing"
        raise SettingError(f"sources: a source set has {wrong}; give {', '.join(known)}", code="setting.sources")
    settings = {key: source.get(key) for key in ("dataset", "classes", "section")}
    return read_picture_list(source["list"], source.get("root"), **settings)


def _item(entry: PictureEntry) -> Item:
    return {
        "image": str(entry.image),
        "mask": str(entry.mask) if entry.mask is not None else "",
        "label": entry.label,
        "class_name": entry.class_name,
        "dataset": entry.dataset or "",
        "case": entry.case,
    }


def _problem(entry: PictureEntry) -> str | None:
    if entry.label and entry.mask is None:
        return f"{entry.case}: labelled abnormal without a mask, which training needs; add one"
    try:
        ReadPictured()(_item(entry))
    except InputError as error:
        return str(error)
    return None
