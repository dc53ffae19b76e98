"""Making manifests: of folders, of other manifests, and of what others have made."""

from monai_ext.curation.known_leaks import KnownLeak, known_leaks, shared_scans, shipped_cards
from monai_ext.curation.licences import licence_told, refusal
from monai_ext.curation.mix import MixPart, MixSummary, mix_manifests

__all__ = [
    "KnownLeak",
    "MixPart",
    "MixSummary",
    "known_leaks",
    "licence_told",
    "mix_manifests",
    "refusal",
    "shared_scans",
    "shipped_cards",
]
