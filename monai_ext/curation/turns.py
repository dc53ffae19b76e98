"""The ways a volume may be turned and mirrored along its axes, and a checksum that none of them changes."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby, permutations, product
from typing import NamedTuple

import numpy as np


class Turn(NamedTuple):
    """One way to turn an array: its axes in another order, some of them then running backwards.

    Attributes:
        axes: which axis of the old array becomes each axis of the new one.
        flipped: which axes of the new array run backwards.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    def apply(self, voxels: np.ndarray) -> np.ndarray:
        """Return the array turned; axes beyond those of the turn, such as colour, stay where they are."""
        kept = tuple(range(len(self.axes), voxels.ndim))
        return voxels.transpose(*self.axes, *kept)[tuple(slice(None, None, -1 if back else 1) for back in self.flipped)]


@cache
def all_turns(axes: int) -> tuple[Turn, ...]:
    """Return the 48 turns of a volume, or the 8 of a picture; the first one leaves it as it is."""
    return tuple(
        Turn(order, flipped) for order in permutations(range(axes)) for flipped in product((False, True), repeat=axes)
    )


def voxel_digest(voxels: np.ndarray, axes: int = 3) -> str:
    """Return a SHA-256 of whole-numbered values that is the same for every turn of the array, and for no other.

    The array is turned to a form of its own first: its axes by length and by the sums over their planes, each
    axis so that the sums rise. Where sums tie, as in a symmetric volume, every turn that they allow is tried.

    Args:
        voxels: ``(x, y, z)``, or ``(y, x, colour)`` with ``axes=2``; of any whole-numbered or floating type.
        axes: how many of the axes may be turned.
    """
    whole = np.empty(voxels.shape, np.int32)
    for plane, rounded in zip(voxels, whole, strict=True):  # plane by plane, to spare a copy of the volume
        rounded[...] = np.rint(plane)
    return min(map(_digest, (turn.apply(whole) for turn in _own_turns(whole, axes))))


def _digest(voxels: np.ndarray) -> str:
    # The shape is part of it: the same bytes in other rows are another image.
    state = hashlib.sha256(repr(voxels.shape).encode())
    for plane in voxels:  # plane by plane, for a turned copy would be as large as the volume
        state.update(np.ascontiguousarray(plane, dtype="<i4").data)
    return state.hexdigest()


def _own_turns(voxels: np.ndarray, axes: int) -> Iterator[Turn]:
    keys, backwards = list[tuple[int, ...]](), list[tuple[bool, ...]]()
    for axis in range(axes):
        others = tuple(other for other in range(voxels.ndim) if other != axis)
        sums = tuple(voxels.sum(axis=others, dtype=np.int64).tolist())
        keys.append(min(sums, sums[::-1]))
        backwards.append((False, True) if sums == sums[::-1] else (sums > sums[::-1],))
    for order in _orders([(len(key), key) for key in keys]):
        for flipped in product(*(backwards[axis] for axis in order)):
            yield Turn(order, flipped)


def _orders(keys: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[tuple[int, ...]]:
    ranked = sorted(range(len(keys)), key=lambda axis: keys[axis])
    tied = [list(group) for _, group in groupby(ranked, key=lambda axis: keys[axis])]
    for parts in product(*(permutations(group) for group in tied)):
        yield tuple(axis for part in parts for axis in part)
