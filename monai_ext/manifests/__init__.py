"""Manifests and datalists: what scans there are, whose licence, which split."""

from monai_ext.manifests.cards import card_content, read_card
from monai_ext.manifests.datalist import DatalistEntry, load_datalist, read_datalist
from monai_ext.manifests.entries import entry_content, entry_problem
from monai_ext.manifests.manifest import (
    CONFIDENCES,
    SPLITS,
    DatasetCard,
    Fact,
    LayoutRule,
    Manifest,
    ManifestEntry,
    Relation,
)
from monai_ext.manifests.picture_lists import PictureEntry, read_picture_list, write_picture_list
from monai_ext.manifests.picture_splits import few_shot, hold_out
from monai_ext.manifests.reading import is_manifest, read_manifest, sift_manifest
from monai_ext.manifests.schema import manifest_schema
from monai_ext.manifests.shipped import read_shipped, shipped_cards, shipped_manifests
from monai_ext.manifests.writing import manifest_content, write_manifest

__all__ = [
    "CONFIDENCES",
    "SPLITS",
    "DatalistEntry",
    "DatasetCard",
    "Fact",
    "LayoutRule",
    "Manifest",
    "ManifestEntry",
    "PictureEntry",
    "Relation",
    "card_content",
    "entry_content",
    "entry_problem",
    "few_shot",
    "hold_out",
    "is_manifest",
    "load_datalist",
    "manifest_content",
    "manifest_schema",
    "read_card",
    "read_datalist",
    "read_manifest",
    "read_picture_list",
    "read_shipped",
    "shipped_cards",
    "shipped_manifests",
    "sift_manifest",
    "write_manifest",
    "write_picture_list",
]
