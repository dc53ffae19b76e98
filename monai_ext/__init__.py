"""Hi-End-MAE and AA-CLIP for medical imaging, on MONAI: see README.md."""

from monai_ext._paths import bundle_path, manifest_path
from monai_ext._version import __version__

__all__ = ["__version__", "bundle_path", "manifest_path"]
