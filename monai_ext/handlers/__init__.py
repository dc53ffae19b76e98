"""Ignite handlers: checkpoints, the plan of samples, the run's history, pictures and last words."""

from monai_ext.handlers.checkpoints import BestModel, RunCheckpoints
from monai_ext.handlers.history import HistoryLines
from monai_ext.handlers.plan import FollowPlan
from monai_ext.handlers.previews import ReconstructionPreviews
from monai_ext.handlers.progress import ScanProgress, TrainingProgress
from monai_ext.handlers.scoring import CaseScoring
from monai_ext.handlers.summary import RunSummary

__all__ = [
    "BestModel",
    "CaseScoring",
    "FollowPlan",
    "HistoryLines",
    "ReconstructionPreviews",
    "RunCheckpoints",
    "RunSummary",
    "ScanProgress",
    "TrainingProgress",
]
