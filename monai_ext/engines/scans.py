"""Scans on their way into a run: loaded once for training, one by one and guarded for inference."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.data import CacheDataset
from torch.utils.data import Dataset

from monai_ext.base import InputError, ManifestError, ScanError, rank
from monai_ext.handlers import Quarantine


@contextmanager
def plain_errors(case: str | None = None) -> Iterator[None]:
    """Let the sentence of an `InputError` through, without MONAI's wrapping of errors in transforms.

    Args:
        case: the one scan that is under way, if there is one; then it is also told when it is too large for
            the memory, which ends no more than this scan.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, MemoryError) as error:
        chain = causes(error)
        ours = next((cause for cause in chain if isinstance(cause, InputError)), None)
        if ours is not None:
            raise ours from None
        if case is None or not any(map(_of_memory, chain)):
            raise
        raise ScanError(
            f"{case}: too large for the memory; crop it, or resample it to larger voxels", code="scan.memory", case=case
        ) from error


def causes(error: BaseException) -> list[BaseException]:
    """Return an error and its causes, the first cause last."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _of_memory(error: BaseException) -> bool:
    # The computer's memory, torch's on a card, and torch's on the computer, which has no type of its own.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def some(sentences: Sequence[str], most: int = 10) -> str:
    """Join sentences; of a great many, the first."""
    more = len(sentences) - most
    return "; ".join(sentences[:most]) + (f"; and {more} more" if more > 0 else "")


class LoadedScans(CacheDataset):
    """MONAI's ``CacheDataset`` whose errors name the scan: training scans after the loading transforms.

    Training on what is left of a list would be another training: bad scans end the run, but only after
    all others were tried, so that all bad ones are told at once. As many as a quarantine allows are let pass; each
    raises what is wrong with it when it is drawn, for a `SupervisedLoader` to put it on the list.

    Args:
        data: the scans, ``[{"image": path, "label": path}, ...]``.
        transform: the deterministic transforms of loading.
        cache_rate: share of the scans kept in memory; the others are loaded anew each time.
        num_workers: threads that fill the cache.
        quarantine: whose ``max_skipped`` says how many bad scans are let pass; none without it.

    Raises:
        InputError: scans cannot be read or do not fit their labels, more of them than are let pass.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[..., Any],
        cache_rate: float = 1.0,
        num_workers: int = 1,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._refused: dict[int, InputError] = {
            index: ManifestError(item["problem"], code="manifest.entry", case=item["case"])
            for index, item in enumerate(data)
            if "problem" in item
        }
        super().__init__(
            list(data),
            transform,
            cache_rate=cache_rate,
            num_workers=num_workers,
            progress=len(data) > 1 and not rank(),
        )
        if len(self._refused) <= (0 if quarantine is None else quarantine.allowed(len(data))):
            return
        if len(self._refused) == 1:
            raise next(iter(self._refused.values()))
        if self._refused:
            sentences = [str(error) for _, error in sorted(self._refused.items())]
            raise InputError(
                f"{len(sentences)} of {len(data)} scans cannot be used: {some(sentences)}", code="scans.refused"
            )

    def _load_cache_item(self, index: int) -> Any:
        if index in self._refused:
            return None
        try:
            with plain_errors():
                return super()._load_cache_item(index)
        except InputError as error:
            self._refused[index] = error
            return None

    def _transform(self, index: int) -> Any:
        if (error := self._refused.get(index)) is not None:
            # A new one each time, for tracebacks gather on what is raised; to a training an unusable entry is a scan.
            kind = ScanError if isinstance(error, ManifestError) else type(error)
            raise kind(str(error), code=error.code, case=error.case)
        with plain_errors():
            return super()._transform(index)


class GuardedScans(Dataset[dict[str, Any]]):
    """Scans for inference; one that cannot be read becomes a ``"failure"`` and the others go on.

    Args:
        data: the scans, ``[{"image": path, "case": name}, ...]``.
        transform: reading and preprocessing.
    """

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.data, self.transform = list(data), transform

    def __len__(self) -> int:
        """Return the number of scans, good and bad."""
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the preprocessed scan, or ``{"case": name, "failure": sentence}``."""
        item = dict(self.data[index])
        if "problem" in item:
            return {"case": item["case"], "failure": item["problem"]}
        try:
            with plain_errors(item["case"]):
                return self.transform(item)
        except InputError as error:
            return {"case": item["case"], "failure": str(error)}
