"""Making manifests: of folders, of other manifests, and of what others have made."""

from monai_ext.curation.build import BuildSummary, build_manifest
from monai_ext.curation.problems import Problem, problems_table, write_report

__all__ = [
    "BuildSummary",
    "Problem",
    "build_manifest",
    "problems_table",
    "write_report",
]
