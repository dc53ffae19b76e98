"""Numbers and words of a run's configuration, checked before anything is read, built or written."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch

from monai_ext.base import SettingError, as_numbers, check_output, is_number
from monai_ext.engines.precision import choose_precision
from monai_ext.engines.run_checks import check_device
from monai_ext.handlers.map_ranking import VALIDATION_METRICS

Rule = tuple[Callable[[Any], bool], str]


def _whole(low: int) -> Rule:
    return lambda value: is_number(value, low) and value == int(value), f"a whole number from {low} on"


def _between(low: float, high: float) -> Rule:
    return lambda value: is_number(value, low, high), f"a number from {low:g} to {high:g}"


def _list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(type(one) is kind for one in value)


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), f"{rule[1]}, or null"


_POSITIVE: Rule = (lambda value: is_number(value, 0) and value > 0, "a number above 0")
_NOT_NEGATIVE: Rule = (lambda value: is_number(value, 0), "a number from 0 on")
_INSIDE: Rule = (lambda value: is_number(value, 0, 1) and 0 < value < 1, "a number between 0 and 1")
_SHARE = _between(0, 1)
_NAMES: Rule = (_list_of(str), "a list of names such as ['liver']")
_BLOCKS: Rule = (_list_of(int), "a list of whole numbers such as [6, 12, 18, 24]")

_RULES = MappingProxyType(
    {
        **dict.fromkeys(("text_epochs", "epochs", "text_batch_size", "batch_size", "accumulate"), _whole(1)),
        **dict.fromkeys(("val_interval", "ckpt_interval", "ckpt_keep", "score_size", "exact_limit"), _whole(1)),
        **dict.fromkeys(("num_workers", "seed", "replicates", "min_area_px"), _whole(0)),
        **dict.fromkeys(("text_learning_rate", "learning_rate"), _POSITIVE),
        **dict.fromkeys(("orthogonality", "min_volume_mm3"), _NOT_NEGATIVE),
        **dict.fromkeys(("rotate_prob", "shift_prob", "flip_prob", "jitter_prob", "jitter", "shift"), _SHARE),
        **dict.fromkeys(("false_positive_rate", "confidence"), _INSIDE),
        "clip_norm": _or_none(_POSITIVE),
        "rotate_degrees": _between(0, 180),
        "smooth_mm": _between(0, 99.9),
        "threshold": (is_number, "a number of log-odds"),
        "levels": _or_none(_BLOCKS),
        "classes": _or_none(_NAMES),
        "views": (lambda value: isinstance(value, str) or _NAMES[0](value), "a list such as ['axial', 'coronal']"),
        "betas": (
            lambda value: all(0 <= one < 1 for one in as_numbers(value, 2) or [1]),
            "two numbers from 0 to below 1",
        ),
        "image_size": _or_none(
            (
                lambda value: all(_whole(1)[0](one) for one in (value if isinstance(value, list | tuple) else [value])),
                "pixels, or [height, width]",
            )
        ),
        "choose_by": (lambda value: value in VALIDATION_METRICS, f"one of {', '.join(VALIDATION_METRICS)}"),
    }
)


def check_settings(**settings: Any) -> None:
    """Refuse a setting that could only fail later, some of them after hours, or be silently wrong.

    Args:
        settings: by the names of the AA-CLIP bundle; ``device`` must be there, ``precision`` suit it, and
            ``output_dir`` be writable.

    Raises:
        SettingError: a value is of another kind or out of range; the sentence gives the range.
        WriteError: the output folder cannot be written.
    """
    for name, value in settings.items():
        if name in _RULES and not _RULES[name][0](value):
            raise SettingError(f"{name}: {value!r}; give {_RULES[name][1]}", code="setting.value")
    if "device" in settings:
        check_device(settings["device"])
        choose_precision(settings.get("precision", "auto"), torch.device(settings["device"]))
    if "output_dir" in settings:
        check_output(settings["output_dir"])
