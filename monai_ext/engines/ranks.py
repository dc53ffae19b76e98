"""Joining the other processes that ``torchrun`` started, and knowing one's place among them."""

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


def rank() -> int:
    """Return this process's number, 0 when it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes, 1 when there is only this one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
