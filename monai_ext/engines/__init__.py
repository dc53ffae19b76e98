"""Training and evaluation: plans of samples, steps, optimisers, and what each arm adds to them."""

from monai_ext.base import join_ranks, leave_stopping_to_the_run, rank
from monai_ext.engines.adaptation import (
    MilestoneRate,
    StageLoss,
    StageNetwork,
    build_clip,
    plan_stages,
    run_stages,
    with_adapters,
)
from monai_ext.engines.checked_settings import check_settings
from monai_ext.engines.command_line import end_in_a_sentence
from monai_ext.engines.compiling import check_compile, compiled
from monai_ext.engines.data_record import filed_data, stored_data
from monai_ext.engines.dicom_inputs import dicom_items
from monai_ext.engines.draws import Draw, DrawDataset, DrawPlan, RankShare
from monai_ext.engines.finite_numbers import FiniteGuard, SkippingGuard
from monai_ext.engines.inference import GuardedSegmentation, GuardedStep
from monai_ext.engines.localization import (
    LocalizationStep,
    check_prompts,
    class_prompts,
    domain_of,
    known_classes,
    offline_activation,
    open_localizer,
    prompt_table,
)
from monai_ext.engines.localization_inputs import localization_items
from monai_ext.engines.localization_sets import (
    calibration_settings,
    evaluation_items,
    normal_items,
    open_calibration,
    prompts_by_class,
)
from monai_ext.engines.optimisers import adamw_groups, make_adamw
from monai_ext.engines.pictures import PromptedBatch, source_pictures, source_prompts, split_items, usable_pictures
from monai_ext.engines.precision import choose_precision
from monai_ext.engines.pretraining import ReconstructionLoss, prepare_pairs, prepare_volumes
from monai_ext.engines.run_checks import check_counts, check_device, check_paths
from monai_ext.engines.running import run_training
from monai_ext.engines.scans import GuardedScans, LoadedScans
from monai_ext.engines.schedules import EpochWarmupCosine, WarmupCosine
from monai_ext.engines.segmentation import class_names, ids_by_class, labelled_items, scan_items, with_pretrained
from monai_ext.engines.sharding import GatheredWeights, check_shard, over_ranks
from monai_ext.engines.steps import EvaluationStep, TrainingStep
from monai_ext.engines.store_parts import store_items, store_weights
from monai_ext.engines.supervised_loader import SupervisedLoader
from monai_ext.engines.switches import switch
from monai_ext.engines.visits import VisitPlan

__all__ = [
    "Draw",
    "DrawDataset",
    "DrawPlan",
    "EpochWarmupCosine",
    "EvaluationStep",
    "FiniteGuard",
    "GatheredWeights",
    "GuardedScans",
    "GuardedSegmentation",
    "GuardedStep",
    "LoadedScans",
    "LocalizationStep",
    "MilestoneRate",
    "PromptedBatch",
    "RankShare",
    "ReconstructionLoss",
    "SkippingGuard",
    "StageLoss",
    "StageNetwork",
    "SupervisedLoader",
    "TrainingStep",
    "VisitPlan",
    "WarmupCosine",
    "adamw_groups",
    "build_clip",
    "calibration_settings",
    "check_compile",
    "check_counts",
    "check_device",
    "check_paths",
    "check_prompts",
    "check_settings",
    "check_shard",
    "choose_precision",
    "class_names",
    "class_prompts",
    "compiled",
    "dicom_items",
    "domain_of",
    "end_in_a_sentence",
    "evaluation_items",
    "filed_data",
    "ids_by_class",
    "join_ranks",
    "known_classes",
    "labelled_items",
    "leave_stopping_to_the_run",
    "localization_items",
    "make_adamw",
    "normal_items",
    "offline_activation",
    "open_calibration",
    "open_localizer",
    "over_ranks",
    "plan_stages",
    "prepare_pairs",
    "prepare_volumes",
    "prompt_table",
    "prompts_by_class",
    "rank",
    "run_stages",
    "run_training",
    "scan_items",
    "source_pictures",
    "source_prompts",
    "split_items",
    "store_items",
    "store_weights",
    "stored_data",
    "switch",
    "usable_pictures",
    "with_adapters",
    "with_pretrained",
]
