"""Joining the other processes that ``torchrun`` started."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from monai_ext.base import SettingError


def join_ranks(backend: str, device: torch.device, timeout_minutes: float = 30) -> None:
    """Join the process group that ``torchrun`` announces in the environment.

    Args:
        backend: ``"nccl"`` for CUDA, ``"gloo"`` for the CPU.
        device: this rank's device; made current when it is a CUDA card.
        timeout_minutes: a rank that waits longer for another one gives up.

    Raises:
        SettingError: the process was not started by ``torchrun``.
    """
    if "RANK" not in os.environ:
        raise SettingError(
            "multi_gpu_train: this process has no RANK; start it with "
            "'torchrun --nproc_per_node N -m monai.bundle run ...'",
            code="setting.torchrun",
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
