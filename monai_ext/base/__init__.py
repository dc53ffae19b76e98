"""What every room may use: typed errors, safe writing, derived randomness, HU windows."""

from monai_ext.base.errors import (
    GeometryError,
    InputError,
    LabelError,
    ManifestError,
    ScanError,
    SettingError,
    StoreError,
    WeightsError,
    WriteError,
)
from monai_ext.base.files import case_id, inside, replacing, sha256_of
from monai_ext.base.randomness import derive_seed
from monai_ext.base.windows import check_window, window_hu

__all__ = [
    "GeometryError",
    "InputError",
    "LabelError",
    "ManifestError",
    "ScanError",
    "SettingError",
    "StoreError",
    "WeightsError",
    "WriteError",
    "case_id",
    "check_window",
    "derive_seed",
    "inside",
    "replacing",
    "sha256_of",
    "window_hu",
]
