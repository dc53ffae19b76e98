"""Signatures: the coarsest waves of a thumbnail as one short vector, which turns along with the scan."""

from functools import cache

import numpy as np
from scipy import fft

from monai_ext.curation.turns import Turn, all_turns

WAVES = {2: 10, 3: 6}  # half waves over the frame, at most, of a picture and of a volume


@cache
def wave_numbers(axes: int) -> np.ndarray:
    """Return ``(waves, axes)`` half waves along each axis, in a fixed order; the mean is left out."""
    grid = np.indices((WAVES[axes] + 1,) * axes).reshape(axes, -1).T
    length = np.linalg.norm(grid, axis=1)
    found: np.ndarray = grid[(length > 0) & (length <= WAVES[axes])]
    return found


def signature(cells: np.ndarray) -> np.ndarray:
    """Return the cosine transform of a thumbnail at the coarse waves; ``(waves,)`` float32.

    Args:
        cells: ``(32, 32, 32)`` or ``(48, 48)``, from 0 to 255.
    """
    waves = fft.dctn(cells.astype(np.float32) / 255, norm="ortho")
    found: np.ndarray = waves[tuple(wave_numbers(cells.ndim).T)]
    return found


@cache
def turning(turn: Turn) -> tuple[np.ndarray, np.ndarray]:
    """Return order and signs: ``signature(turn.apply(x)) == signature(x)[order] * signs``."""
    numbers = wave_numbers(len(turn.axes))
    places = {tuple(wave): place for place, wave in enumerate(numbers.tolist())}
    before = np.empty_like(numbers)
    before[:, list(turn.axes)] = numbers
    order = np.array([places[tuple(wave)] for wave in before.tolist()])
    odd = (numbers * np.array(turn.flipped)).sum(axis=1) % 2  # a wave of odd number is its mirror image's negative
    return order, (1 - 2 * odd).astype(np.float32)


def turned_signatures(signatures: np.ndarray, axes: int) -> np.ndarray:
    """Return ``(turns, scans, waves)``: the signatures of every turn of ``(scans, waves)``."""
    turned = []
    for turn in all_turns(axes):
        order, signs = turning(turn)
        turned.append(signatures[:, order] * signs)
    return np.stack(turned)
