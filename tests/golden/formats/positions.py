"""Position embeddings: whole, or chosen rows and the sums of a large one."""

import math

import torch

from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from monai_ext.networks import sincos_positions

TOLERANCES = (
    ("*.full", Tolerance(2e-6)),
    ("*.values", Tolerance(2e-6)),
    ("*.sum_over_*", Tolerance(2e-6)),  # per term
)


def recognises(golden: Golden) -> bool:
    """Tell by the settings: every entry is a grid and a width."""
    config = golden.content.get("config")
    return (
        bool(golden.tensors)
        and isinstance(config, dict)
        and bool(config)
        and all(isinstance(item, dict) and {"grid_size", "embed_dim"} <= item.keys() for item in config.values())
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Make each table anew."""
    for name, settings in golden.content["config"].items():
        grid, width = tuple(settings["grid_size"]), settings["embed_dim"]
        class_row = settings["full_shape"][1] == math.prod(grid) + 1
        table = sincos_positions(grid, width, class_row)
        words = settings.get("stored", "full" if f"{name}.full" in golden.tensors else "rows")
        kind = "full" if words.startswith("full") else "rows"
        parts = ("full",) if kind == "full" else ("rows", "values", "sum_over_tokens", "sum_over_dims")
        compare.expect(*(f"{name}.{part}" for part in parts))
        compare(f"config.{name}.stored", kind + words[len(kind) :])  # then words, for a reader
        compare(f"config.{name}.grid_size", _grid_of(table))
        compare(f"config.{name}.embed_dim", table.shape[2])
        compare(f"config.{name}.full_shape", list(table.shape))
        compare(f"{name}.full", table)
        exact = table[0].double()
        compare(f"{name}.sum_over_tokens", exact.sum(0), scale=exact.shape[0])
        compare(f"{name}.sum_over_dims", exact.sum(1), scale=exact.shape[1])
        rows, values = golden.tensors.get(f"{name}.rows"), golden.tensors.get(f"{name}.values")
        if rows is not None and values is not None:
            compare(f"{name}.values", table[0, rows])
            # The token numbers are found again from the values, so that they are compared too.
            compare(f"{name}.rows", torch.cdist(values.double(), exact).argmin(dim=1))


def _grid_of(table: torch.Tensor) -> list[int]:
    # The first sine of each axis has frequency 1 and differs at every whole number.
    frequencies = table.shape[2] // 6
    return [int(table[0, :, 2 * axis * frequencies].unique().numel()) for axis in range(3)]
