"""Making manifests: of folders, of other manifests, and of what others have made."""

from monai_ext.curation.build import BuildSummary, build_manifest
from monai_ext.curation.known_leaks import KnownLeak, known_leaks
from monai_ext.curation.known_overlaps import KnownOverlap, known_overlaps
from monai_ext.curation.kshot import kshot
from monai_ext.curation.leakage import LeakageSummary, LeakPair, find_leakage
from monai_ext.curation.leakage_report import check_report, leakage_sentence, leakage_table, write_leakage
from monai_ext.curation.licences import licence_told, refusal
from monai_ext.curation.mix import MixPart, MixSummary, mix_manifests
from monai_ext.curation.nnunet_export import NnunetExport, export_nnunet
from monai_ext.curation.nnunet_import import NnunetImport, import_nnunet
from monai_ext.curation.problems import Problem, problems_table, write_report
from monai_ext.curation.summary import ManifestSummary, summarize_manifest
from monai_ext.curation.summary_page import write_summary_page
from monai_ext.curation.targets import check_manifest_target, check_report_target
from monai_ext.curation.verify import ManifestVerification, verify_manifest

__all__ = [
    "BuildSummary",
    "KnownLeak",
    "KnownOverlap",
    "LeakPair",
    "LeakageSummary",
    "ManifestSummary",
    "ManifestVerification",
    "MixPart",
    "MixSummary",
    "NnunetExport",
    "NnunetImport",
    "Problem",
    "build_manifest",
    "check_manifest_target",
    "check_report",
    "check_report_target",
    "export_nnunet",
    "find_leakage",
    "import_nnunet",
    "known_leaks",
    "known_overlaps",
    "kshot",
    "leakage_sentence",
    "leakage_table",
    "licence_told",
    "mix_manifests",
    "problems_table",
    "refusal",
    "summarize_manifest",
    "verify_manifest",
    "write_leakage",
    "write_report",
    "write_summary_page",
]
