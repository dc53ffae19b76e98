"""Which number format a training step computes in, on which device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from monai_ext.base import SettingError

CHOICES = ("auto", "fp32", "bf16", "fp16")


def check_precision(wish: str) -> None:
    """Refuse a word that names no precision.

    Raises:
        SettingError: naming the word and those that are known.
    """
    if wish not in CHOICES:
        raise SettingError(
            f"precision: {wish!r} is unknown; choose one of {', '.join(CHOICES)}", code="setting.precision"
        )


def choose_precision(wish: str, device: torch.device) -> torch.dtype:
    """Return the dtype of autocast: bfloat16 where a CUDA card has it, else float16; float32 on a CPU.

    A CPU gains from bfloat16 only with special instructions and loses accuracy without a word, so it
    computes in float32 unless ``"bf16"`` is asked for by name.

    Raises:
        SettingError: an unknown word, or ``"fp16"`` on a CPU, where float16 training is not supported.
    """
    check_precision(wish)
    cuda = device.type == "cuda"
    if wish == "fp16" and not cuda:
        raise SettingError(
            f"precision: fp16 needs a CUDA card and the device is {device}; choose auto, fp32 or bf16",
            code="setting.precision",
        )
    if wish == "auto":
        wish = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[wish]


@contextmanager
def autocast(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Compute in ``dtype`` on the device's own autocast; float32 switches it off."""
    with torch.autocast(device.type, dtype=dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32):
        yield
