"""Verbs that tell where the shipped bundles lie, for use inside other commands."""

from pathlib import Path
from typing import Annotated

import typer

import monai_ext

_NAME = typer.Argument(help="Folder name of a bundle, for example hi_end_mae_ct_pretrain.", show_default=False)


def bundle_path(name: Annotated[str, _NAME]) -> None:
    """Print the folder of a shipped bundle.

    Example: cp -r "$(python -m monai_ext bundle-path hi_end_mae_ct_pretrain)" my_bundle
    """
    typer.echo(_bundle(name))


def config_path(
    name: Annotated[str, _NAME],
    config: Annotated[str, typer.Argument(help="Name of a configuration: train, inference, tiny, ...")] = "train",
) -> None:
    """Print the path of a bundle's configuration, ready for 'python -m monai.bundle run --config_file'."""
    folder = _bundle(name) / "configs"
    known = sorted(path.stem for path in folder.glob("*.json"))
    if config not in known:
        typer.echo(f"error: {name} has no configuration {config!r}; it has {', '.join(known)}", err=True)
        raise typer.Exit(2)
    typer.echo(folder / f"{config}.json")


def _bundle(name: str) -> Path:
    try:
        return Path(monai_ext.bundle_path(name))
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
