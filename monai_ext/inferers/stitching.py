"""Bricks of logits in, parts of the scan's own grid out: interpolated, compared, and forgotten."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from monai_ext.inferers.brick_sums import Brick
from monai_ext.inferers.own_grid import OwnGrid, interpolated
from monai_ext.inferers.windows import Index, Place

_TILE = 12  # voxels of the network's grid a side; of 118 classes a tile, interpolated, fits into a core's cache


class Padded:
    """Puts before each brick the last planes of those before it, which interpolation needs."""

    def __init__(self) -> None:
        self._faces: dict[tuple[int, Index], Tensor] = {}  # by axis, and the brick that will need it
        self._memory = torch.empty(0)

    def __call__(self, brick: Brick) -> tuple[Tensor | None, Index]:
        """Return ``(classes, x, y, z)`` logits and the voxel that they begin with.

        Where no window was run, the logit of class 0 is 1 and that of the others 0; ``None`` where that is so
        everywhere. The memory is used again with the next brick.
        """
        low = [self._faces.pop((axis, brick.index), None) for axis in range(3)]
        more = [int(at > 0) for at in brick.index]
        x, y, z = (part.start - extra for part, extra in zip(brick.place, more, strict=True))
        source = brick.logits if brick.logits is not None else next((face for face in low if face is not None), None)
        if source is None:
            return None, (x, y, z)
        sizes = [part.stop - part.start + extra for part, extra in zip(brick.place, more, strict=True)]
        block = self._room(source, [len(source), *sizes])
        _fill(block[:, *(slice(extra, None) for extra in more)], brick.logits)
        for axis in range(3):
            if more[axis]:
                _fill(block.select(axis + 1, 0), low[axis])
        for axis in range(3):
            if brick.index[axis] < brick.count[axis] - 1:
                following = tuple(at + (other == axis) for other, at in enumerate(brick.index))
                self._faces[axis, following] = block.select(axis + 1, -1).clone()  # type: ignore[index]
        return block, (x, y, z)

    def _room(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        count = int(np.prod(shape))
        if self._memory.numel() < count or self._memory.device != like.device:
            self._memory = torch.empty(count, dtype=torch.float32, device=like.device)
        return self._memory[:count].view(*shape)


def _fill(target: Tensor, logits: Tensor | None) -> None:
    if logits is None:
        target.zero_()
        target[0] = 1
    else:
        target.copy_(logits)


class Tiles:
    """Takes padded bricks to a scan's own grid, tile by tile.

    Args:
        grid: the scan's own grid.
        device: where the logits are.
    """

    def __init__(self, grid: OwnGrid, device: torch.device) -> None:
        self.grid = grid

        @cache
        def weights(axis: int, start: int, stop: int, low: int) -> Tensor | None:
            matrix = grid.weights(axis, start, stop, low)
            return None if matrix is None else matrix.to(device)

        self._weights = weights

    def labels(self, block: Tensor, first: Index, place: Place) -> Iterator[tuple[Place, np.ndarray | int]]:
        """Give the classes of the scan's voxels, in RAS, that depend on a brick.

        What takes most of the time and is left out where it cannot matter: a class that is below another one
        throughout a tile is so between its voxels too.

        Args:
            block: ``(classes, x, y, z)`` logits of the brick and the planes before it.
            first: the block's first voxel.
            place: the brick's voxels.
        """
        for own, part, weights in self._tiles(block, first, place):
            values = part.reshape(len(part), -1)
            low, high = values.aminmax(dim=1)
            kept = torch.nonzero(high >= low.max()).flatten()
            if len(kept) == 1:
                yield own, int(kept)
                continue
            chosen = part if len(kept) == len(part) else part[kept]
            found = interpolated(chosen, weights).cpu().numpy().argmax(axis=0)  # the first of equal ones, as MONAI's
            yield own, found if len(kept) == len(part) else kept.cpu().numpy()[found]

    def probabilities(self, block: Tensor, first: Index, place: Place) -> Iterator[tuple[Place, np.ndarray]]:
        """Give the ``(classes, x, y, z)`` probabilities of the same voxels; arguments as of `labels`."""
        for own, part, weights in self._tiles(block, first, place):
            yield own, torch.softmax(interpolated(part, weights), dim=0).cpu().numpy()

    def whole(self, place: Place) -> Place:
        """Return all of the scan's voxels, in RAS, that depend on a brick."""
        x, y, z = (self.grid.between(axis, part.start, part.stop) for axis, part in enumerate(place))
        return x, y, z

    def _tiles(self, block: Tensor, first: Index, place: Place) -> Iterator[tuple[Place, Tensor, list[Tensor | None]]]:
        steps = [
            [(start, min(start + _TILE, part.stop)) for start in range(part.start, part.stop, _TILE)] for part in place
        ]
        for tile in ((x, y, z) for x in steps[0] for y in steps[1] for z in steps[2]):
            x, y, z = (self.grid.between(axis, *edges) for axis, edges in enumerate(tile))
            if any(part.start == part.stop for part in (x, y, z)):
                continue  # the scan is coarser than the network's grid
            lows = [max(start - 1, 0) for start, _ in tile]
            inside = (slice(low - at, stop - at) for low, at, (_, stop) in zip(lows, first, tile, strict=True))
            weights = [self._weights(axis, *edges, lows[axis]) for axis, edges in enumerate(tile)]
            yield (x, y, z), block[:, *inside], weights
