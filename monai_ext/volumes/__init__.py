"""Strict reading of scans, the volume store, preparing it, and phantoms."""

from monai_ext.volumes.scan import Scan, read_labels, read_scan

__all__ = ["Scan", "read_labels", "read_scan"]
