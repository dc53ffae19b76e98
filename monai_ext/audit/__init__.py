"""What a bundle would do, told without doing it: nothing of a bundle is imported, evaluated or unpickled here."""

from monai_ext.audit.bundle import BundleReport, check_bundle
from monai_ext.audit.findings import BundleFinding

__all__ = ["BundleFinding", "BundleReport", "check_bundle"]
