import json
import math

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from monai_ext.base import SettingError
from monai_ext.networks import sincos_positions

TOLERANCE = 2e-6  # of the recorded values; float32 against float64 differs by 4e-7


@pytest.fixture(scope="module")
def recorded(shared_goldens):
    with safe_open(shared_goldens / "hi_end_mae" / "pos_embed.safetensors", "pt") as file:
        return {
            name: (setting, {key.rpartition(".")[2]: file.get_tensor(key) for key in keys})
            for name, setting in json.loads(file.metadata()["config"]).items()
            if (keys := [key for key in file.keys() if key.startswith(f"{name}.")])  # noqa: SIM118
        }


def test_positions_are_the_published_ones(recorded):
    assert len(recorded) == 8
    for name, (setting, values) in recorded.items():
        table = sincos_positions(tuple(setting["grid_size"]), setting["embed_dim"], class_row=name.endswith("_cls"))
        assert list(table.shape) == setting["full_shape"]
        if "full" in values:
            assert_close(table, values["full"], rtol=0, atol=TOLERANCE)
            continue
        assert_close(table[0, values["rows"]], values["values"], rtol=0, atol=TOLERANCE)
        tokens, width = table.shape[1:]
        assert_close(table[0].double().sum(0), values["sum_over_tokens"], rtol=0, atol=TOLERANCE * tokens)
        assert_close(table[0].double().sum(1), values["sum_over_dims"], rtol=0, atol=TOLERANCE * width)


def test_naive_formula():
    grid, width = (2, 5, 7), 24
    table = sincos_positions(grid, width)[0]
    for x, y, z in ((0, 0, 0), (1, 4, 6), (0, 3, 5)):
        row = table[(x * grid[1] + y) * grid[2] + z].tolist()
        expected = [
            wave(place * 10000 ** (-i / 4)) for place in (x, y, z) for wave in (math.sin, math.cos) for i in range(4)
        ]
        assert row == pytest.approx(expected, abs=1e-7)  # rounding to float32


def test_golden_tells_axes_and_offsets_apart(recorded):
    full = recorded["g4x6x8_d96"][1]["full"]
    table = sincos_positions((4, 6, 8), 96)
    exchanged = torch.cat([table[..., 32:64], table[..., :32], table[..., 64:]], dim=-1)
    shifted = sincos_positions((5, 6, 8), 96)[:, 48:]
    assert (exchanged - full).abs().max() > 0.5
    assert (shifted - full).abs().max() > 0.5


@pytest.mark.parametrize(("width", "below", "above"), [(100, 96, 102), (5, 6, 6), (0, 6, 6)])
def test_width_that_three_axes_cannot_share(width, below, above):
    with pytest.raises(SettingError, match=rf"width: {width} is not a multiple of 6 .* use {below} or {above}"):
        sincos_positions((2, 2, 2), width)
