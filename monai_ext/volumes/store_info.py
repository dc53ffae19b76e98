"""What is in a store, counted: sizes, compression, settings, spacing, data sets, licences, labels."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Column, Table
from tqdm import tqdm

from monai_ext.volumes.store import VolumeStore
from monai_ext.volumes.store_index import StoreIndex
from monai_ext.volumes.store_record import StoreRecord


@dataclass(frozen=True)
class StoreInfo:
    """Counts of a store; :attr:`content` is what ``--json`` prints."""

    content: Mapping[str, Any]

    def tables(self) -> Group:
        """Return the counts for a terminal."""
        content = self.content
        sizes = content["gigabytes"]
        rows = {
            "volumes": f"{content['volumes']}, {content['labelled']} of them with labels",
            "disk": ", ".join(f"{size:.3f} GB {name}" for name, size in sizes.items()),
            "compression": _ratios(content["compression"]),
            "voxels, least": _three(content["shape"]["least"]),
            "voxels, median": _three(content["shape"]["median"]),
            "voxels, most": _three(content["shape"]["most"]),
            "body": f"{100 * content['body_fraction']:.0f} % of a volume lie in the patient's box (median)",
        }
        facts = Table(Column(content["store"]), Column("", overflow="fold"))
        for name, text in rows.items():
            facts.add_row(name, text)
        for name in ("spacing_mm", "chunk", "settings"):
            for row in content[name]:
                facts.add_row(name, escape(f"{row['value']} in {row['volumes']}"))
        sets = Table("data set", "licence", "volumes", "patients", "weight", "lists")
        for row in content["datasets"]:
            lists = ", ".join(f"{name or 'none'} {count}" for name, count in row["splits"].items())
            numbers = [str(row["volumes"]), str(row["patients"]), f"{row['weight']:g}"]
            sets.add_row(
                escape(row["dataset"] or "(none)"), escape(row["licence"] or "(none)"), *numbers, escape(lists)
            )
        labels = Table("label", "name", "volumes that show it")
        for row in content["labels"]:
            labels.add_row(str(row["id"]), escape(row["name"]), str(row["volumes"]))
        return Group(facts, sets, *([labels] if content["labels"] else []))


def store_info(folder: str | os.PathLike[str], progress: bool = False) -> StoreInfo:
    """Count what a store holds, from its sidecars.

    Args:
        folder: the store.
        progress: show a progress bar on stderr, where reading takes long.

    Raises:
        StoreError: the folder is missing, or a sidecar is torn, foreign or from a newer version.
    """
    store = VolumeStore(folder)
    index, settings, chunks, labels = store.index, Counter[str](), Counter[str](), Counter[tuple[int, str]]()
    for name in tqdm(store, desc="sidecars", unit="", delay=1, leave=False, disable=None if progress else True):
        record = store.record(name)
        settings[json.dumps(dict(record.settings), sort_keys=True)] += 1
        chunks[f"{_three(record.image.chunk)} {record.image.dtype}"] += 1
        labels.update(_labels(record))
    image, label = index.data_bytes.sum(axis=0).tolist()
    labelled = index.shapes[index.has_label].prod(axis=1).sum()
    return StoreInfo(
        {
            "store": store.folder.name,
            "volumes": len(index),
            "labelled": int(index.has_label.sum()),
            "gigabytes": {"images": image / 1e9, "labels": label / 1e9, "sidecars": int(index.marks[:, 0].sum()) / 1e9},
            "compression": {
                "images": _over(2 * index.shapes.prod(axis=1).sum(), image),
                "images_as_float32": _over(4 * index.shapes.prod(axis=1).sum(), image),
                "labels_as_uint8": _over(labelled, label),
            },
            "shape": _spread(index.shapes),
            "body_fraction": float(np.median(index.body_fractions)) if len(index) else 0.0,
            "spacing_mm": _counted(Counter(_three(row) for row in index.spacings_mm.round(4).tolist())),
            "chunk": _counted(chunks),
            "settings": _counted(settings),
            "datasets": _datasets(index),
            "labels": [{"id": k, "name": name, "volumes": n} for (k, name), n in sorted(labels.items())],
        }
    )


def _labels(record: StoreRecord) -> list[tuple[int, str]]:
    source = record.label_source
    return [] if source is None else [(number, source.names.get(number, "")) for number in source.ids]


def _datasets(index: StoreIndex) -> list[dict[str, Any]]:
    pairs = sorted(set(zip(index.datasets.tolist(), index.licences.tolist(), strict=True)))
    found = []
    for dataset, licence in pairs:
        rows = np.flatnonzero((index.datasets == dataset) & (index.licences == licence))
        found.append(
            {
                "dataset": dataset,
                "licence": licence,
                "volumes": len(rows),
                "patients": len(np.unique(index.groups[rows])),
                "weight": float(index.weights[rows].sum()),
                "splits": dict(sorted(Counter(index.splits[rows].tolist()).items())),
            }
        )
    return found


def _counted(counter: Counter[str]) -> list[dict[str, Any]]:
    return [{"value": value, "volumes": count} for value, count in counter.most_common()]


def _spread(shapes: np.ndarray) -> dict[str, list[int]]:
    if not len(shapes):
        return {name: [0, 0, 0] for name in ("least", "median", "most")}
    whole = {"least": shapes.min(axis=0), "median": np.median(shapes, axis=0), "most": shapes.max(axis=0)}
    return {name: values.astype(int).tolist() for name, values in whole.items()}


def _over(raw: float, stored: float) -> float | None:
    return float(raw / stored) if stored else None


def _ratios(ratios: Mapping[str, float | None]) -> str:
    names = {"images": "{} of int16", "images_as_float32": "{} of float32", "labels_as_uint8": "{} of uint8 labels"}
    return ", ".join(names[name].format(f"{ratio:.1f} : 1") for name, ratio in ratios.items() if ratio)


def _three(values: Any) -> str:
    return " x ".join(f"{value:g}" for value in values)
