"""The verb that converts weights and prints what became of every tensor."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from monai_ext.networks.checkpoints import Target


class _To(StrEnum):
    MONAI_EXT = "monai-ext"
    AUTHORS = "authors"
    AUTHORS_ENCODER = "authors-encoder"
    SEGMENTER = "segmenter"


def checkpoint(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Weights: .safetensors, a state dict or a trainer's checkpoint (.pt)."),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Where to write; ends in .safetensors or .pt.")],
    to: Annotated[_To, typer.Option(help="Whose names and shapes to write; the segmenter gets the encoder only.")],
    patch_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Voxels per patch along x, y, z, if SRC is a segmenter whose patches are not cubes."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="For the published segmenter: leave out the class token.")
    ] = False,
) -> None:
    """Convert Hi-End-MAE weights and account for every tensor.

    Example: python -m monai_ext checkpoint hi_end_mae.pt weights.safetensors --to monai-ext
    """
    from monai_ext.base import sha256_of
    from monai_ext.networks.checkpoints import convert_file

    kind = cast("Target", to.value.replace("-", "_"))
    account, sizes = convert_file(source, target, kind, patch_size=patch_size, published=published)
    for what, name, reason in account.rows():
        typer.echo(f"{what:<8} {name}" + (f"  ({reason})" if reason else ""))
    typer.echo(f"{source.name}: " + ", ".join(f"{name} {value}" for name, value in sizes.items()))
    typer.echo(f"{target.name}: {len(account.loaded)} tensors written, {len(account.dropped)} left out")
    typer.echo(f"sha256 {sha256_of(target)}")
