"""Weighted sums of windows, brick by brick, each finished with the last window that covers it."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ext.base import InputError
from monai_ext.inferers.sum_memory import SumMemory
from monai_ext.inferers.windows import Index, Place, Window, Windows

View = tuple[bool, bool, bool]


@dataclass(frozen=True)
class Brick:
    """A finished part of a volume's logits.

    Attributes:
        index: which brick along x, y, z.
        place: its voxels.
        count: how many bricks there are along x, y, z.
        classes: how many the network makes.
        logits: ``(classes, x, y, z)``; ``None`` where no window was run. Where sums lie in a file, it holds
            until the next brick is asked for.
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
        self._shares: dict[Index, dict[View, Tensor]] = {}
        self._sums: dict[Index, Tensor] = {}
        # Bricks before each along the axes, which interpolation needs first, that are not given yet.
        self._before: dict[Index, int] = {index: sum(at > 0 for at in index) for index in windows.bricks()}
        self._ready: deque[Index] = deque()
        self._count = windows.count()
        self._note((0, 0, 0))

    def add(self, index: Index, window: Window, logits: Tensor) -> None:
        """Add to one brick its part of a window's ``(classes, x, y, z)`` logits, on the volume's unmirrored axes."""
        part = self.windows.inside(window, index)
        values, weights = logits[:, *part], self.importance[part] * self._share(index, window.mirrored)
        if index not in self._sums:
            room = self.memory.take(index, values.shape, self.dtype)
            self._sums[index] = torch.mul(values, weights, out=room)
        elif self.dtype == values.dtype:
            self._sums[index].addcmul_(values, weights)
        else:
            self._sums[index].add_(values * weights)
        self._missing[index] -= 1
        self._note(index)

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
                _refuse_not_finite(logits)
            yield Brick(index, self.windows.place(index), self._count, self.classes, logits)
            self.memory.give_back(index)
            for gone in (self._covering, self._missing, self._shares, self._before):
                gone.pop(index, None)
            for axis in range(3):
                x, y, z = (at + (other == axis) for other, at in enumerate(index))
                if (x, y, z) in self._before:
                    self._before[x, y, z] -= 1
                    self._note((x, y, z))

    def _note(self, index: Index) -> None:
        if not self._missing.get(index) and not self._before[index]:
            self._ready.append(index)

    def _share(self, index: Index, view: View) -> Tensor:
        """Return what the weights of one view are multiplied with, so that those of all windows add up to 1."""
        if index not in self._shares:
            totals: dict[View, Tensor] = {}
            for window in self._covering[index]:
                weights = self.importance[self.windows.inside(window, index)]
                before = totals.get(window.mirrored)
                totals[window.mirrored] = weights if before is None else before + weights
            self._shares[index] = {each: 1 / (total * len(totals)) for each, total in totals.items()}
        return self._shares[index][view]


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
