"""Measures of segmentations, by case and class."""

from monai_ext.metrics.case_scores import ClassScore, case_scores, mean_dice, mean_scores, write_scores

__all__ = ["ClassScore", "case_scores", "mean_dice", "mean_scores", "write_scores"]
