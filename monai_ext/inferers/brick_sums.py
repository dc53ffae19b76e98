"""Weighted sums of windows, brick by brick, each finished with the last window that covers it."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from monai_ext.base import InputError
from monai_ext.inferers.sum_memory import SumMemory
from monai_ext.inferers.windows import Index, Place, Window, Windows

View = tuple[bool, bool, bool]

_KEPT = 1 << 24  # values of the shares that are kept; those of bricks that a window touches are, whatever their number
_LEAST_KEPT = 64


@dataclass(frozen=True)
class Brick:
    """A finished part of a volume's logits.

    Attributes:
        index: which brick along x, y, z.
        place: its voxels.
        count: how many bricks there are along x, y, z.
        classes: how many the network makes.
        logits: ``(classes, x, y, z)``; ``None`` where no window was run. It holds until the next brick is asked for.
    """

    index: Index
    place: Place
    count: Index
    classes: int
    logits: Tensor | None


class BrickSums:
    """Adds up windows; what it holds is what waits for further windows, never the whole volume.

    Args:
        windows: all windows on the volume.
        run: those that are run, in their order.
        importance: ``(x, y, z)`` weights of a window's voxels.
        dtype: the type of the sums.
        memory: where they are kept.
        classes: how many the network makes.
    """

    def __init__(
        self,
        windows: Windows,
        run: Sequence[Window],
        importance: Tensor,
        dtype: torch.dtype,
        memory: SumMemory,
        classes: int,
    ) -> None:
        self.windows, self.dtype, self.importance, self.memory = windows, dtype, importance, memory
        self.classes = classes
        self._covering: dict[Index, list[Window]] = defaultdict(list)
        for window in run:
            for index in windows.bricks_of(window):
                self._covering[index].append(window)
        self._missing = {index: len(covering) for index, covering in self._covering.items()}
        self._views = len({window.mirrored for window in run})
        kept = _KEPT // (windows.largest_brick() * max(self._views, 1))
        # Along the longest axis most bricks are covered as the one before.
        self._shares_of = lru_cache(max(kept, _LEAST_KEPT))(partial(_shares, importance))
        self._sums: dict[Index, Tensor] = {}
        # Bricks before each along the axes, which interpolation needs first, that are not given yet.
        self._before: dict[Index, int] = {index: sum(at > 0 for at in index) for index in windows.bricks()}
        self._ready: deque[Index] = deque()
        self._count = windows.count()
        self._note((0, 0, 0))

    def add(self, index: Index, window: Window, logits: Tensor) -> None:
        """Add to one brick its part of a window's ``(classes, x, y, z)`` logits, on the volume's unmirrored axes."""
        part, place = self.windows.shared(window, index)
        values, weights = logits[:, *part], self.importance[part]
        if self._views > 1:
            weights = weights * self._shares(index).of[window.mirrored][place]
        begun = self._sums.get(index)
        if begun is None:
            begun = self._sums[index] = self._begun(index, len(logits))
            if values.shape == begun.shape:
                torch.mul(values, weights, out=begun)  # not added to zeros, for that goes through memory twice
                return self._added(index)
            begun.zero_()
            begun[0].copy_(self._shares(index).bare)  # background where none of the windows is run
        if self.dtype == values.dtype:
            begun[:, *place].addcmul_(values, weights)
        else:
            begun[:, *place].add_(values * weights)
        self._added(index)

    def rest(self, before: Window, after: Window | None) -> None:
        """Let what waits rest, but for the bricks of the window that is run next."""
        still = set(self.windows.bricks_of(after)) if after is not None else set()
        for index in self.windows.bricks_of(before):
            if index in self._sums and index not in still:
                self.memory.rest(index)

    def finished(self) -> Iterator[Brick]:
        """Take out the bricks that wait for no further window, each after those before it along the axes.

        Raises:
            InputError: logits are not finite.
        """
        while self._ready:
            index = self._ready.popleft()
            logits = self._sums.pop(index, None)
            if logits is not None:
                if self._views == 1:
                    (share,) = self._shares(index).of.values()
                    logits.mul_(share)
                _refuse_not_finite(logits)
            yield Brick(index, self.windows.place(index), self._count, self.classes, logits)
            self.memory.give_back(index)
            for gone in (self._covering, self._missing, self._before):
                gone.pop(index, None)
            for axis in range(3):
                x, y, z = (at + (other == axis) for other, at in enumerate(index))
                if (x, y, z) in self._before:
                    self._before[x, y, z] -= 1
                    self._note((x, y, z))

    def _added(self, index: Index) -> None:
        self._missing[index] -= 1
        self._note(index)

    def _note(self, index: Index) -> None:
        if not self._missing.get(index) and not self._before[index]:
            self._ready.append(index)

    def _begun(self, index: Index, classes: int) -> Tensor:
        size = (part.stop - part.start for part in self.windows.place(index))
        return self.memory.take(index, torch.Size((classes, *size)), self.dtype)

    def _shares(self, index: Index) -> "_Shares":
        place = self.windows.place(index)
        x, y, z = (part.start for part in place)
        covering = (
            ((window.start[0] - x, window.start[1] - y, window.start[2] - z), window.mirrored)
            for window in self._covering[index]
        )
        return self._shares_of((place[0].stop - x, place[1].stop - y, place[2].stop - z), tuple(covering))


@dataclass(frozen=True)
class _Shares:
    """What weights of a brick's voxels are multiplied with, so that those of all windows add up to 1.

    Attributes:
        of: for the windows of each view ``(x, y, z)``; 1 where no window lies.
        bare: ``(x, y, z)``, where no window of any view lies.
    """

    of: dict[View, Tensor]
    bare: Tensor


def _shares(importance: Tensor, size: Index, covering: Sequence[tuple[Index, View]]) -> _Shares:
    """Return the shares of a brick's windows, which begin at voxels counted from the brick's first."""
    totals: dict[View, Tensor] = {}
    for start, view in covering:
        if view not in totals:
            totals[view] = importance.new_zeros(size)
        edges = [
            (max(at, 0) - at, max(at, 0), min(at + window, full) - max(at, 0))
            for at, window, full in zip(start, importance.shape, size, strict=True)
        ]
        here = tuple(slice(low, low + length) for _, low, length in edges)
        totals[view][here] += importance[tuple(slice(low, low + length) for low, _, length in edges)]
    views = torch.stack([(total > 0).to(importance.dtype) for total in totals.values()]).sum(dim=0)
    of = {view: (total * views).reciprocal_().masked_fill_(total == 0, 1) for view, total in totals.items()}
    return _Shares(of, views == 0)


def _refuse_not_finite(logits: Tensor) -> None:
    # A sum is as good as a look at each, and needs no memory; only if it is bad they are counted.
    if torch.isfinite(logits.sum(dtype=torch.float32)):
        return
    bad = int(logits.numel() - torch.isfinite(logits).sum())
    if bad:
        more = ", or take sums=float32" if logits.dtype == torch.float16 else ""  # beyond 65504 they are infinite
        raise InputError(
            f"{bad} of {logits.numel()} logits in a part of the scan are NaN or infinite, nothing was written; "
            f"check the weights, and try without mixed precision{more}",
            code="inference.not_finite",
        )
