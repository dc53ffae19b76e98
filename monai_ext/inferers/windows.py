"""Where sliding windows lie on a volume, and the bricks that it is cut into."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise, product

import numpy as np

# Voxels of a brick along x, y, z, about. Large ones are summed faster, small ones leave less waiting: the first that
# takes no more than 13 MB of float32 with all its classes, else the last.
_BRICKS = ((48, 48, 48), (24, 48, 48), (24, 24, 48))
_VALUES = 3_300_000
_LEAST = 16  # voxels of a brick where windows allow it; what a thin one costs is not its voxels but its rows

Place = tuple[slice, slice, slice]
Index = tuple[int, int, int]


@dataclass(frozen=True)
class AxisWindows:
    """Windows along one axis, where MONAI's ``sliding_window_inference`` lays them.

    A volume shorter than the window lies in its middle; windows then begin before the first voxel.

    Args:
        size: voxels of the volume.
        window: voxels of a window.
        overlap: share of a window that its neighbour covers too.
        mirrored: also those that are laid on the mirrored volume, from its other end.
        within: first voxel and end of the part that they are laid on; the whole volume by default. A part shorter than
            the window is widened to it as far as the volume goes.
        largest: voxels of a brick along the axis, give or take a half.
    """

    size: int
    window: int
    overlap: float
    mirrored: bool = False
    within: tuple[int, int] | None = None
    largest: int = _BRICKS[0][0]

    @cached_property
    def part(self) -> tuple[int, int]:
        """First voxel and end of what windows are laid on."""
        low, high = self.within or (0, self.size)
        length = min(max(high - low, self.window), self.size)
        low = min(max((low + high - length) // 2, 0), self.size - length)
        return low, low + length

    @property
    def step(self) -> int:
        """Voxels from one window to the next, but for the last, which is moved back to end with the volume."""
        low, high = self.part
        return self.window if self.window >= high - low else max(int(self.window * (1 - self.overlap)), 1)

    @cached_property
    def rows(self) -> list[list[tuple[int, bool]]]:
        """The starts, those together that lie within half a step: they are walked side by side."""
        rows: list[list[tuple[int, bool]]] = []
        for start in self.starts:
            if rows and 2 * (start[0] - rows[-1][0][0]) <= self.step:
                rows[-1].append(start)
            else:
                rows.append([start])
        return rows

    @cached_property
    def starts(self) -> list[tuple[int, bool]]:
        """First voxel of each window, ascending, and whether it is one on the mirrored volume."""
        low, high = self.part
        padded = max(high - low, self.window)
        last = padded - self.window
        before = (padded - (high - low)) // 2
        plain = [low + min(start, last) - before for start in range(0, last + self.step, self.step)]
        other = [low + high - self.window - start for start in plain] if self.mirrored else []
        return sorted([(start, False) for start in plain] + [(start, True) for start in other])

    @cached_property
    def cuts(self) -> list[int]:
        """First voxels of the bricks, and the volume's size.

        They are the windows' edges, so that most bricks are covered whole or not at all, but for those that would
        leave a thin brick.
        """
        least = max(min(_LEAST, self.window // 2), 1)
        inner = [0]
        for edge in sorted({edge for start, _ in self.starts for edge in (start, start + self.window)}):
            if inner[-1] + least <= edge <= self.size - least:
                inner.append(edge)
        parts = (
            np.linspace(low, high, max(round((high - low) / self.largest), 1), endpoint=False).astype(int).tolist()
            for low, high in pairwise([*inner, self.size])
        )
        return [*chain.from_iterable(parts), self.size]

    def bricks(self, start: int) -> range:
        """Return which bricks the window from this voxel on covers, whole or in part."""
        first, stop = max(start, 0), min(start + self.window, self.size)
        return range(bisect_right(self.cuts, first) - 1, bisect_left(self.cuts, stop))


@dataclass(frozen=True, order=True)
class Window:
    """One window on one view of a volume.

    Attributes:
        start: first voxel along x, y, z.
        mirrored: along which axes the view is mirrored.
    """

    start: Index
    mirrored: tuple[bool, bool, bool]


class Windows:
    """All windows on a volume, and the bricks that it is cut into.

    Args:
        axes: the windows along x, y, z.
    """

    def __init__(self, axes: Sequence[AxisWindows]) -> None:
        self.axes = tuple(axes)
        # The longest axis last to finish: what waits for further windows is then the smallest cross-section.
        self.order = sorted(range(3), key=lambda axis: -self.axes[axis].size)

    def cut_for(self, classes: int) -> "Windows":
        """Return the same windows on bricks that suit a number of classes."""
        edges = next((edges for edges in _BRICKS if math.prod(edges) * classes <= _VALUES), _BRICKS[-1])
        return Windows([replace(axis, largest=edge) for axis, edge in zip(self.axes, edges, strict=True)])

    def __iter__(self) -> Iterator[Window]:
        """Go along the longest axis slowest.

        Windows that hardly differ along an axis come one after the other, so that what they share does not wait while
        a whole row of either is walked.
        """
        for rows in product(*(self.axes[axis].rows for axis in self.order)):
            for found in product(*rows):
                by_axis = dict(zip(self.order, found, strict=True))
                (x, a), (y, b), (z, c) = (by_axis[axis] for axis in range(3))
                yield Window((x, y, z), (a, b, c))

    def count(self) -> Index:
        """Return how many bricks there are along each axis."""
        x, y, z = (len(axis.cuts) - 1 for axis in self.axes)
        return x, y, z

    def bricks(self) -> Iterator[Index]:
        """Go through all bricks."""
        return product(*(range(count) for count in self.count()))  # type: ignore[return-value]

    def largest_brick(self) -> int:
        """Return an upper bound of a brick's voxels, which one of the largest edge along each axis has."""
        return math.prod(max(high - low for low, high in pairwise(axis.cuts)) for axis in self.axes)

    def bricks_of(self, window: Window) -> Iterator[Index]:
        """Go through the bricks that a window covers, whole or in part."""
        return product(*(axis.bricks(start) for axis, start in zip(self.axes, window.start, strict=True)))  # type: ignore[return-value]

    def place(self, brick: Index) -> Place:
        """Return the voxels of a brick."""
        x, y, z = (slice(axis.cuts[at], axis.cuts[at + 1]) for axis, at in zip(self.axes, brick, strict=True))
        return x, y, z

    def shared(self, window: Window, brick: Index) -> tuple[Place, Place]:
        """Return the voxels that a window and a brick share, counted from the window's first and from the brick's."""
        edges = [
            (start, part.start, max(start, part.start), min(start + axis.window, part.stop))
            for axis, start, part in zip(self.axes, window.start, self.place(brick), strict=True)
        ]
        x, y, z = (slice(low - start, high - start) for start, _, low, high in edges)
        a, b, c = (slice(low - first, high - first) for _, first, low, high in edges)
        return (x, y, z), (a, b, c)
