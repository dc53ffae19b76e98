"""The formats of golden files, each a module: it recognises a file, lists tolerances, and checks."""

from collections.abc import Callable
from typing import Protocol

from formats import (
    aa_clip_cases,
    aa_clip_full,
    aa_clip_small,
    anomaly_metrics,
    clip_preprocess,
    clip_prompts,
    decay_groups,
    key_map,
    mae,
    positions,
    released_checkpoints,
    schedules,
    segmentation,
)
from formats.comparison import Comparison, Tolerances
from formats.golden import Golden


class Format(Protocol):
    """What a module of this folder offers to the checker."""

    TOLERANCES: Tolerances
    recognises: Callable[[Golden], bool]
    check: Callable[[Golden, Comparison], None]


FORMATS: tuple[Format, ...] = (
    mae,
    segmentation,
    positions,
    schedules,
    decay_groups,
    key_map,
    released_checkpoints,
    aa_clip_small,
    aa_clip_full,
    aa_clip_cases,
    anomaly_metrics,
    clip_prompts,
    clip_preprocess,
)
