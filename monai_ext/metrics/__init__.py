"""Measures of segmentations, by case and class, and of anomaly localization, by pixel and image."""

from monai_ext.metrics.anomaly_classes import AnomalyClass, ScoredCase, ScoringRules, mean_result
from monai_ext.metrics.anomaly_tables import ClassResult, Measured, published_figures, write_anomaly_tables
from monai_ext.metrics.bootstrap import Interval, PixelSketch, image_counts
from monai_ext.metrics.calibration import (
    Calibration,
    RateThreshold,
    check_normal_cases,
    rate_threshold,
    read_calibration,
    write_calibration,
)
from monai_ext.metrics.case_scores import ClassScore, case_scores, mean_dice, mean_scores, write_scores
from monai_ext.metrics.pixel_scores import PixelResult, PixelScores
from monai_ext.metrics.published_protocol import (
    PublishedScores,
    image_scores,
    published_image_scores,
    published_scores,
)
from monai_ext.metrics.ranking import auroc, average_precision, f1_max
from monai_ext.metrics.score_groups import Bounded

__all__ = [
    "AnomalyClass",
    "Bounded",
    "Calibration",
    "ClassResult",
    "ClassScore",
    "Interval",
    "Measured",
    "PixelResult",
    "PixelScores",
    "PixelSketch",
    "PublishedScores",
    "RateThreshold",
    "ScoredCase",
    "ScoringRules",
    "auroc",
    "average_precision",
    "case_scores",
    "check_normal_cases",
    "f1_max",
    "image_counts",
    "image_scores",
    "mean_dice",
    "mean_result",
    "mean_scores",
    "published_figures",
    "published_image_scores",
    "published_scores",
    "rate_threshold",
    "read_calibration",
    "write_anomaly_tables",
    "write_calibration",
    "write_scores",
]
