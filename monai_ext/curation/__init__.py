"""Making manifests: of folders, of other manifests, and of what others have made."""

from monai_ext.curation.build import BuildSummary, build_manifest
from monai_ext.curation.kshot import kshot
from monai_ext.curation.problems import Problem, problems_table, write_report
from monai_ext.curation.verify import VerifySummary, verify_manifest

__all__ = [
    "BuildSummary",
    "Problem",
    "VerifySummary",
    "build_manifest",
    "kshot",
    "problems_table",
    "verify_manifest",
    "write_report",
]
