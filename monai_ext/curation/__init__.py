"""Making manifests: of folders, of other manifests, and of what others have made."""

from monai_ext.curation.build import BuildSummary, build_manifest
from monai_ext.curation.known_leaks import KnownLeak, known_leaks, shared_scans, shipped_cards
from monai_ext.curation.kshot import kshot
from monai_ext.curation.licences import licence_told, refusal
from monai_ext.curation.mix import MixPart, MixSummary, mix_manifests
from monai_ext.curation.problems import Problem, problems_table, write_report
from monai_ext.curation.verify import VerifySummary, verify_manifest

__all__ = [
    "BuildSummary",
    "KnownLeak",
    "MixPart",
    "MixSummary",
    "Problem",
    "VerifySummary",
    "build_manifest",
    "known_leaks",
    "kshot",
    "licence_told",
    "mix_manifests",
    "problems_table",
    "refusal",
    "shared_scans",
    "shipped_cards",
    "verify_manifest",
    "write_report",
]
