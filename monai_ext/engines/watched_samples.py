"""Samples on their way out of a loader's process: what is wrong with one is told, and who was at work when it ended."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from monai_ext.base import LabelError, ScanError, StoreError, case_id
from monai_ext.engines.draws import Draw
from monai_ext.engines.scans import causes, plain_errors
from monai_ext.engines.steps import plain_tensor
from monai_ext.transforms import BatchMemory, PlacedBatch


class Trouble:
    """A sample that cannot be used: the draw, the scan's name, a stable code, one sentence."""

    def __init__(self, draw: Draw, name: str, code: str, problem: str) -> None:
        self.draw, self.name, self.code, self.problem = draw, name, code, problem


class Troubles:
    """A batch of which some samples cannot be used; no sequence, for a loader would look into it for tensors."""

    def __init__(self, found: list[Trouble]) -> None:
        self.found = found


class DrawNotes:
    """What each worker process is reading at the moment, where a process that has ended has left it.

    Args:
        workers: processes.
    """

    def __init__(self, workers: int) -> None:
        self._table = torch.zeros((workers, 4), dtype=torch.int64).share_memory_()

    @contextmanager
    def reading(self, draw: Draw) -> Iterator[None]:
        """Note a draw while it is read; without worker processes there is nobody to read the note."""
        worker = get_worker_info()
        if worker is None:
            yield
            return
        row = self._table[worker.id]
        row[1:] = torch.tensor(draw)
        row[0] = 1
        try:
            yield
        finally:
            row[0] = 0

    def of(self, worker: int) -> Draw | None:
        """Return what a worker is or was reading, if anything."""
        busy, *numbers = self._table[worker].tolist()
        return Draw(*numbers) if busy else None

    def clear(self) -> None:
        """Forget the workers: others take their numbers."""
        self._table.zero_()


class WatchedSamples(Dataset[Any]):
    """The samples of a data set of draws; one that cannot be used comes as a `Trouble`.

    That is a scan, label or store error, a file that the system cannot read, too little memory, and numbers that
    are not finite. Other errors are mistakes of a setting or of the program and are raised.

    Args:
        dataset: takes a `Draw`; its ``data`` name the scans.
        notes: which worker reads what.
    """

    def __init__(self, dataset: Dataset[Any], notes: DrawNotes) -> None:
        self.dataset, self.notes, self.memory = dataset, notes, BatchMemory()

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitems__(self, draws: list[Draw]) -> PlacedBatch:
        """Return the samples of one batch, whose memory their transforms are offered."""
        return PlacedBatch(len(draws), self.memory).fill(self.__getitem__, draws)

    def __getitem__(self, draw: Draw) -> Any:
        """Return the sample, or what is wrong with it."""
        name = name_of(self.dataset, draw.item)
        try:
            with self.notes.reading(draw), plain_errors(name):
                sample = self.dataset[draw]
                _check_finite(sample, name)
                return sample
        except (ScanError, LabelError, StoreError) as error:
            return Trouble(draw, name, error.code, str(error))
        except (OSError, RuntimeError) as error:
            cause = next((one for one in causes(error) if isinstance(one, OSError)), None)
            if cause is None:
                raise
            reason = os.strerror(cause.errno) if cause.errno else type(cause).__name__
            return Trouble(
                draw, name, "scan.system", f"{name}: could not be read ({reason}); check that it is there, and the disk"
            )


class UsableBatch:
    """Collate samples, or hand over what is wrong with some of them.

    Args:
        collate: for samples that can all be used.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        """Return a batch or `Troubles`."""
        found = [sample for sample in samples if isinstance(sample, Trouble)]
        return Troubles(found) if found else self.collate(samples)


def name_of(dataset: Any, item: int) -> str:
    """Return the name of a scan: its case, or the base name of its image."""
    data = dataset
    while isinstance(data, Dataset) and hasattr(data, "data"):
        data = data.data
    entry = data[item]
    if isinstance(entry, Mapping):
        if "case" in entry:
            return str(entry["case"])
        if isinstance(entry.get("image"), str | os.PathLike):
            return case_id(entry["image"])
    return f"item {item}"


def _check_finite(sample: Any, name: str) -> None:
    for key, values in _arrays(sample):
        if values.numel() and not all(bool(end.isfinite()) for end in torch.aminmax(values)):
            bad = int(values.numel() - values.isfinite().sum())
            raise ScanError(
                f"{name}: {bad} of {values.numel()} numbers of {key!r} are NaN or infinite as they reach the network; "
                "look at the scan and at the transforms",
                code="scan.not_finite",
                case=name,
            )


def _arrays(sample: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(sample, Mapping):
        for key, value in sample.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                value = torch.from_numpy(value)
            if isinstance(value, Tensor) and value.is_floating_point():
                yield str(key), plain_tensor(value)
    elif isinstance(sample, Sequence) and not isinstance(sample, str):  # MONAI's crops, several of a scan
        for part in sample:
            yield from _arrays(part)
