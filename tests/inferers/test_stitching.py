"""Blocks of bricks: what is left out of them changes no label."""

import numpy as np
import pytest
import torch

from monai_ext.inferers import BrickInferer
from monai_ext.inferers.stitching import Padded, _highest
from monai_ext.inferers.sum_memory import OwnMemory

CLASSES, SHAPE = 7, (7, 11, 31)


def network(window: torch.Tensor) -> torch.Tensor:
    """Classes that win in parts of the volume, and two that never do."""
    middle = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 5, 6]).view(-1, 1, 1, 1)
    return 1 - (window - middle) ** 2


@pytest.mark.parametrize("body_above", [None, 0.5])
def test_a_block_holds_the_logits_of_each_class_that_can_win(body_above: float | None) -> None:
    ramp = torch.linspace(-0.6, 1, SHAPE[2]).expand(1, *SHAPE).clone()
    inferer = BrickInferer((5, 8, 7), 1, 0.5, body_above=body_above, spacing_mm=(5, 5, 5))
    whole = inferer(ramp[None], network)[0]
    some, every = Padded(), Padded(all_classes=True)
    left_out = 0
    for brick in inferer.bricks(ramp, network):
        part, block = some(brick), every(brick)
        if part is None or block is None:
            assert part is block is brick.logits
            continue
        place = [slice(first, part.stop) for first, part in zip(block.first, brick.place, strict=True)]
        torch.testing.assert_close(block.logits, whole[:, *place], rtol=0, atol=0)
        torch.testing.assert_close(part.logits, block.logits[list(part.kept)], rtol=0, atol=0)
        winners = set(block.logits.argmax(dim=0).unique().tolist())
        assert winners <= set(part.kept)
        left_out += CLASSES - len(part.kept)
    assert left_out


def test_the_first_of_equal_classes_wins_as_with_argmax() -> None:
    values = np.random.default_rng(1).integers(0, 4, (5, 3, 7, 11)).astype(np.float32)
    classes = [0, 2, 3, 7, 300]
    found = _highest(values, classes)
    np.testing.assert_array_equal(found, np.array(classes)[values.argmax(axis=0)])
    assert found.dtype == np.uint16


def test_memory_that_is_given_back_serves_the_next_brick_of_its_size_and_type() -> None:
    memory, shape = OwnMemory(torch.device("cpu")), torch.Size((2, 3, 5, 7))
    first = memory.take((0, 0, 0), shape, torch.float32)
    other = memory.take((0, 0, 1), shape, torch.float32)
    memory.give_back((0, 0, 0))
    assert memory.take((0, 0, 2), shape, torch.float16).data_ptr() != first.data_ptr()
    assert memory.take((0, 0, 3), torch.Size((2, 3, 5, 8)), torch.float32).data_ptr() != first.data_ptr()
    again = memory.take((0, 0, 4), torch.Size((2, 5, 3, 7)), torch.float32)
    assert again.data_ptr() == first.data_ptr() != other.data_ptr()
    assert again.shape == (2, 5, 3, 7)
