"""Small manifests of shipped data sets, in folders of their own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monai_ext.manifests import ManifestEntry, read_shipped, write_manifest


@pytest.fixture
def listing(tmp_path: Path) -> Callable[..., Path]:
    """Write ``FOLDER/manifest.json`` of a shipped data set with entries ``PREFIX_1``, ``PREFIX_2``, ..."""

    def write(dataset: str, count: int, prefix: str, folder: str | None = None, **changes: Any) -> Path:
        manifest = read_shipped(dataset)
        entries = [
            ManifestEntry(
                **{
                    "id": f"{prefix}_{number}",
                    "dataset": dataset,
                    "image": f"imagesTr/{prefix}_{number}.nii.gz",
                    "split": "training",
                    **{
                        key: value.format(number=number) if isinstance(value, str) else value
                        for key, value in changes.items()
                    },
                }
            )
            for number in range(1, count + 1)
        ]
        path = tmp_path / (folder or dataset) / "manifest.json"
        write_manifest(path, replace(manifest, name=folder or dataset, entries=entries))
        return path

    return write
