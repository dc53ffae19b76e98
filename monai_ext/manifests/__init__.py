"""Schema, loading and splits of data manifests."""

from monai_ext.manifests.datalist import DatalistEntry, load_datalist, read_datalist
from monai_ext.manifests.picture_lists import PictureEntry, read_picture_list, write_picture_list
from monai_ext.manifests.picture_splits import few_shot, hold_out

__all__ = [
    "DatalistEntry",
    "PictureEntry",
    "few_shot",
    "hold_out",
    "load_datalist",
    "read_datalist",
    "read_picture_list",
    "write_picture_list",
]
