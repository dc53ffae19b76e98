"""Chains shared by training and inference, and crops out of the volume store."""

from monai_ext.transforms.batch_memory import BatchMemory, PlacedBatch, PlacedSamples, claim_memory, collate_placed
from monai_ext.transforms.clip_picture import ClipMask, ClipMaskd, ClipPicture, ClipPictured
from monai_ext.transforms.ct_loading import load_ct
from monai_ext.transforms.localization_loading import LoadInput, OwnGridd
from monai_ext.transforms.rand_colour_jitter import RandColourJitterd
from monai_ext.transforms.rand_store_crop import RandStoreCrop, RandStoreCropd
from monai_ext.transforms.read_picture import ReadPictured
from monai_ext.transforms.read_scan import ReadScand
from monai_ext.transforms.regroup_labels import RegroupLabels, RegroupLabelsd
from monai_ext.volumes import read_mask, read_picture

__all__ = [
    "BatchMemory",
    "ClipMask",
    "ClipMaskd",
    "ClipPicture",
    "ClipPictured",
    "LoadInput",
    "OwnGridd",
    "PlacedBatch",
    "PlacedSamples",
    "RandColourJitterd",
    "RandStoreCrop",
    "RandStoreCropd",
    "ReadPictured",
    "ReadScand",
    "RegroupLabels",
    "RegroupLabelsd",
    "claim_memory",
    "collate_placed",
    "load_ct",
    "read_mask",
    "read_picture",
]
