"""A small manifest that is right in every part, to be spoilt one part at a time."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD: dict[str, Any] = {
    "schema_version": "1.0",
    "name": "two_sets",
    "title": "Two sets",
    "status": "Made up for the tests.",
    "datasets": {
        "spleens": {
            "title": {"value": "Spleens", "confidence": "verified", "source": ["PAGE"]},
            "licence": {"value": "CC-BY-4.0", "confidence": "high", "source": ["PAGE"], "note": "as of 2020"},
            "commercial_use": {"value": "yes", "confidence": "medium", "source": ["PAGE"]},
            "access": {"value": "open", "confidence": "high", "source": []},
            "label_names": {"value": {"0": "background", "1": "spleen"}, "confidence": "high", "source": ["PAGE"]},
            "counts": {"labelled_train": {"value": 41, "confidence": "verified", "source": ["PAGE"]}},
            "contains": [{"with": "livers", "what": "3 volumes", "confidence": "low", "source": [], "severity": "low"}],
            "layout": [{"image": "imagesTr/{id}.nii.gz", "label": "labelsTr/{id}.nii.gz", "split": "training"}],
            "notes": ["Portal venous phase."],
        },
        "livers": {
            "title": {"value": None, "confidence": "unknown", "source": []},
            "licence": {"value": None, "confidence": "unknown", "source": []},
            "commercial_use": {"value": "unknown", "confidence": "unknown", "source": []},
            "evaluation": {"value": True, "confidence": "high", "source": ["PAGE"]},
        },
    },
    "sources": {"PAGE": {"kind": "web page", "locator": "https://example.org/spleens"}},
    "labels": {"0": "background", "1": "spleen"},
    "training": [
        {"id": "spleen_2", "image": "imagesTr/2.nii.gz", "dataset": "spleens", "label": "labelsTr/2.nii.gz"},
        {"id": "spleen_3", "image": "imagesTr/3.nii.gz", "dataset": "spleens", "group": "p3", "weight": 2.5},
    ],
    "test": [{"id": "liver 5", "image": "liver/5.nii.gz", "dataset": "livers", "group": "p3", "sha256": "0f" * 32}],
    "unassigned": [{"id": "x7", "image": "x/7.png", "dataset": "livers", "class_name": "liver", "abnormal": 1}],
}


@pytest.fixture
def good() -> dict[str, Any]:
    """A manifest's content, new for each test."""
    return copy.deepcopy(GOOD)


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[Any], Path]:
    """Write content as ``list.json``."""

    def write(content: Any) -> Path:
        path = tmp_path / "list.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write
