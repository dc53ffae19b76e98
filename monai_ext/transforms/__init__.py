"""Chains shared by training and inference, and crops out of the volume store."""

from monai_ext.transforms.ct_loading import load_ct
from monai_ext.transforms.rand_store_crop import RandStoreCrop, RandStoreCropd
from monai_ext.transforms.read_scan import ReadScand

__all__ = ["RandStoreCrop", "RandStoreCropd", "ReadScand", "load_ct"]
