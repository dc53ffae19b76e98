"""Schema, loading and splits of data manifests."""

from monai_ext.manifests.datalist import DatalistEntry, read_datalist

__all__ = ["DatalistEntry", "read_datalist"]
