"""Training and evaluation: plans of samples, steps, optimisers, and what each arm adds to them."""

from monai_ext.engines.draws import Draw, DrawDataset, DrawPlan, RankShare
from monai_ext.engines.inference import GuardedStep
from monai_ext.engines.optimisers import adamw_groups, make_adamw
from monai_ext.engines.precision import choose_precision
from monai_ext.engines.pretraining import ReconstructionLoss, prepare_pairs, prepare_volumes, store_items
from monai_ext.engines.ranks import join_ranks
from monai_ext.engines.scans import GuardedScans, LoadedScans
from monai_ext.engines.schedules import EpochWarmupCosine, WarmupCosine
from monai_ext.engines.segmentation import class_names, labelled_items, scan_items, with_pretrained
from monai_ext.engines.steps import EvaluationStep, TrainingStep

__all__ = [
    "Draw",
    "DrawDataset",
    "DrawPlan",
    "EpochWarmupCosine",
    "EvaluationStep",
    "GuardedScans",
    "GuardedStep",
    "LoadedScans",
    "RankShare",
    "ReconstructionLoss",
    "TrainingStep",
    "WarmupCosine",
    "adamw_groups",
    "choose_precision",
    "class_names",
    "join_ranks",
    "labelled_items",
    "make_adamw",
    "prepare_pairs",
    "prepare_volumes",
    "scan_items",
    "store_items",
    "with_pretrained",
]
