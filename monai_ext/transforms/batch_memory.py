"""Samples written straight into the memory of their batch, so that none is copied to join it with the others."""

import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, list_data_collate
from torch.utils.data import Dataset, get_worker_info

_PLACE: "ContextVar[tuple[PlacedBatch, int] | None]" = ContextVar("_PLACE", default=None)
_ONE_TAKES = threading.Lock()
_ALONE = [np.empty(1)]
_HELD_BY_NOBODY = sys.getrefcount(_ALONE[0])  # but by the list
KEPT = 3  # batches: one is being made, one is in use, one may wait between them


def claim_memory(name: Hashable, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
    """Return the memory where a sample's entry belongs in the batch that is being made, for a transform to fill.

    Args:
        name: the entry's key.
        shape: of the sample's tensor, without the batch.
        dtype: of the tensor.

    Returns:
        A contiguous tensor of any values, or ``None`` where no loader offers memory, the entry was claimed before,
        or other samples have another shape or type.
    """
    here = _PLACE.get()
    return None if here is None else here[0].claim(name, here[1], shape, dtype)


class BatchMemory:
    """Where the batches of one loader's process lie: memory that is used again once nobody holds the batch in it.

    New memory for a batch of eight crops of 96^3 is up to 7000 pages, which the system has to find and clear.

    Attributes:
        moved: keys that are offered no memory, for a transform after the one that filled it puts another tensor there.
    """

    def __init__(self) -> None:
        self.moved: set[Hashable] = set()
        self._kept: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of any values; in a loader's worker it is shared memory."""
        if get_worker_info() is not None:
            # Shared from the start, as torch's own collation has it, or sending it would copy it. Never used again:
            # only the process of the run knows when it is done with it.
            memory = torch.empty(0, dtype=dtype)
            length = torch.Size(shape).numel() * memory.element_size()
            storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(length)
            return memory.set_(storage).view(shape)
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        with _ONE_TAKES:
            for place in range(len(self._kept)):
                fits = (self._kept[place].shape, self._kept[place].dtype) == (shape, kind)
                if fits and sys.getrefcount(self._kept[place]) == _HELD_BY_NOBODY:
                    return torch.from_numpy(self._kept[place])  # which refers to the array as long as any view lives
            array = np.empty(shape, kind)
            self._kept = [*self._kept, array][-KEPT:]
            return torch.from_numpy(array)

    def __reduce__(self) -> tuple[type["BatchMemory"], tuple[()]]:
        return BatchMemory, ()  # a copy, in another process or not, has memory of its own


class PlacedBatch(list[Any]):
    """The samples of one batch, and the memory that was offered to the transforms that made them.

    Whatever a later transform replaces is joined by copying as ever; an entry for which that happened is offered no
    memory again, so that a process does not hold two batches where one would do.

    Args:
        size: samples of the batch.
        memory: where its entries may lie.
    """

    def __init__(self, size: int, memory: BatchMemory) -> None:
        super().__init__()
        self.size, self.memory = size, memory
        self._entries: dict[Hashable, torch.Tensor] = {}
        self._claimed: set[tuple[Hashable, int]] = set()

    def fill(self, sample: Callable[[Any], Any], draws: Iterable[Any]) -> "PlacedBatch":
        """Append the sample of each draw."""
        for place, draw in enumerate(draws):
            before = _PLACE.set((self, place))
            try:
                self.append(sample(draw))
            finally:
                _PLACE.reset(before)
        return self

    def claim(self, name: Hashable, place: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """Return a sample's part of the memory of an entry; see :func:`claim_memory`."""
        if name in self.memory.moved or (name, place) in self._claimed:
            return None
        if name not in self._entries:
            self._entries[name] = self.memory.take((self.size, *shape), dtype)
        entry = self._entries[name]
        if (tuple(entry.shape[1:]), entry.dtype) != (shape, dtype):
            return None
        self._claimed.add((name, place))
        return entry[place]

    def collate(self) -> Any:
        """Join the samples as MONAI's ``list_data_collate`` does, copying what does not lie in the batch yet."""
        whole = {name: entry for name, entry in self._entries.items() if self._lies_in(name, entry)}
        self.memory.moved.update(self._entries.keys() - whole.keys())
        if not whole:
            return list_data_collate(list(self))
        # MONAI joins the rest, among it the metadata of tensors that here have one voxel each.
        batch = list_data_collate([{**one, **{name: _first_voxel(one[name]) for name in whole}} for one in self])
        for name, entry in whole.items():
            joined = batch[name]
            batch[name] = MetaTensor(entry).copy_meta_from(joined) if isinstance(joined, MetaTensor) else entry
        return batch

    def _lies_in(self, name: Hashable, entry: torch.Tensor) -> bool:
        return len(self) == self.size and all(
            isinstance(one, Mapping) and _is_part(one.get(name), part) for one, part in zip(self, entry, strict=True)
        )


class PlacedSamples(Dataset[Any]):
    """A data set whose transforms are offered the memory of the batch; give the loader ``collate_placed`` beside it.

    Args:
        dataset: of mappings, such as a ``DrawDataset``.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset, self.memory = dataset, BatchMemory()

    def __len__(self) -> int:
        """Return the length of the data set."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, draw: Any) -> Any:
        """Return one sample, in memory of its own."""
        return self.dataset[draw]

    def __getitems__(self, draws: list[Any]) -> PlacedBatch:
        """Return the samples of one batch; torch's loaders ask for them so."""
        return PlacedBatch(len(draws), self.memory).fill(self.__getitem__, draws)


def collate_placed(samples: list[Any]) -> Any:
    """Join the samples of a batch, without copying what lies in its memory; else as ``list_data_collate``."""
    return samples.collate() if isinstance(samples, PlacedBatch) else list_data_collate(samples)


def _is_part(value: Any, part: torch.Tensor) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and (value.shape, value.dtype, value.data_ptr()) == (part.shape, part.dtype, part.data_ptr())
        and value.is_contiguous()
    )


def _first_voxel(value: torch.Tensor) -> torch.Tensor:
    plain = value.as_tensor() if isinstance(value, MetaTensor) else value
    first = plain[(slice(1),) * plain.ndim]
    return MetaTensor(first).copy_meta_from(value, copy_attr=False) if isinstance(value, MetaTensor) else first
