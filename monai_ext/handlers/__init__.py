"""Ignite handlers: checkpoints, the plan of samples, the run's history, pictures and last words."""

from monai_ext.handlers.adapters import AdapterFiles, BestAdapters
from monai_ext.handlers.anomaly_scoring import AnomalyScoring
from monai_ext.handlers.checkpoints import BestModel, RunCheckpoints
from monai_ext.handlers.curves import CurveFile, close_curves
from monai_ext.handlers.history import HistoryLines, shared
from monai_ext.handlers.localization import LocalizationSummary, NormalCases
from monai_ext.handlers.map_ranking import MapRanking
from monai_ext.handlers.plan import FollowPlan
from monai_ext.handlers.previews import ReconstructionPreviews
from monai_ext.handlers.progress import ScanProgress, TrainingProgress
from monai_ext.handlers.provenance import RunProvenance
from monai_ext.handlers.quarantine import Finding, Quarantine
from monai_ext.handlers.run_files import resume_way
from monai_ext.handlers.scoring import CaseScoring
from monai_ext.handlers.summary import RunSummary

__all__ = [
    "AdapterFiles",
    "AnomalyScoring",
    "BestAdapters",
    "BestModel",
    "CaseScoring",
    "CurveFile",
    "Finding",
    "FollowPlan",
    "HistoryLines",
    "LocalizationSummary",
    "MapRanking",
    "NormalCases",
    "Quarantine",
    "ReconstructionPreviews",
    "RunCheckpoints",
    "RunProvenance",
    "RunSummary",
    "ScanProgress",
    "TrainingProgress",
    "close_curves",
    "resume_way",
    "shared",
]
