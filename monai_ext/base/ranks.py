"""The processes that ``torchrun`` starts together: joining them, knowing one's place, sharing results."""

import json
import os
import re
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from monai_ext.base.errors import SettingError

if TYPE_CHECKING:  # reading scans loads this room, and needs no torch
    import torch

T = TypeVar("T")


def join_ranks(backend: str, device: "torch.device", timeout_minutes: float = 30) -> None:
    """Join the process group that ``torchrun`` announces in the environment.

    Args:
        backend: ``"gloo"`` for the CPU; ``"cpu:gloo,cuda:nccl"`` for CUDA, where ranks then also share what lies on
            the CPU without waiting for their cards.
        device: this rank's device; made current when it is a CUDA card.
        timeout_minutes: a rank that waits longer for another one gives up.

    Raises:
        SettingError: the process was not started by ``torchrun``.
    """
    import torch

    if "RANK" not in os.environ:
        raise SettingError(
            "multi_gpu_train: this process has no RANK; start it with "
            "'torchrun --standalone --nproc_per_node N -m monai.bundle run ...'",
            code="setting.torchrun",
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # A batch of one leaves the class token's gradient odd strides along axes of length 1, which changes no number.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    timeout = timedelta(minutes=timeout_minutes)
    attempt = _attempt()
    if attempt is None:
        torch.distributed.init_process_group(backend, timeout=timeout)
        return
    store, number, count = next(torch.distributed.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    store = torch.distributed.PrefixStore(f"attempt {attempt}", store)
    torch.distributed.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)


def _attempt() -> str | None:
    """Return how often ``torchrun`` has started the ranks anew, where the store that they meet in outlives them.

    In it a rank that starts early would find the address that another one had before, and give up when nobody answers
    there (https://github.com/pytorch/pytorch/issues/167288). Each machine counts for itself, so that the number is the
    same for all ranks only where there is one machine.
    """
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("GROUP_WORLD_SIZE") == "1"
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if kept else None


def rank() -> int:
    """Return this process's number, 0 when it is alone."""
    group = _group()
    return int(group.get_rank()) if group else 0


def world() -> int:
    """Return the number of processes, 1 when there is only this one."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def gather(value: T) -> list[T]:
    """Return every rank's value, by rank; all of them must call it, or those that do wait."""
    group = _group()
    if group is None:
        return [value]
    values: list[Any] = [None] * world()
    group.all_gather_object(values, value)
    return values


def tell_torchrun(sentence: str) -> None:
    """Leave the reason of a failure for ``torchrun``, whose last lines then show it; without it do nothing.

    The form is that of https://docs.pytorch.org/docs/stable/elastic/errors.html.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        message = {"message": sentence, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")


def lost_a_rank(error: BaseException | None) -> bool:
    """Tell whether an error comes from another rank's end: the connection to it broke."""
    group = _group()
    while group is not None and error is not None:
        # NCCL has an error of its own; gloo raises a bare RuntimeError.
        if isinstance(error, group.DistBackendError) or re.search(
            "(closed|reset) by peer|Timed out waiting", str(error)
        ):
            return True
        error = error.__cause__
    return False


def bare(network: Any) -> Any:
    """Return what a distributed wrapper wraps; anything else as it is."""
    parallel = sys.modules.get("torch.nn.parallel")
    return network.module if parallel and isinstance(network, parallel.DistributedDataParallel) else network


def _group() -> ModuleType | None:
    # torch.distributed, if this process has joined others: whoever has joined them has loaded it.
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None
