"""``python -m monai_ext store info``: what a volume store holds."""

from pathlib import Path
from typing import Annotated

import typer

_STORE = typer.Argument(metavar="STORE", help="Folder of the store.", show_default=False)
_JSON = typer.Option("--json", help="Print JSON, for programs.")


def info(store: Annotated[Path, _STORE], as_json: Annotated[bool, _JSON] = False) -> None:
    """Count what a store holds: sizes, compression, settings, spacing, data sets, licences, labels.

    Everything comes from the sidecars; whether the voxels are whole tells
    store verify.

    Example: python -m monai_ext store info store

    Exit code: 0 counted, 2 no store, or a torn sidecar, 130 interrupted.
    """
    import json

    from rich.console import Console

    from monai_ext.volumes import store_info

    try:
        found = store_info(store, progress=True)
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted", err=True)
        raise typer.Exit(130) from error
    if as_json:
        typer.echo(json.dumps(found.content, indent=1))
    else:
        Console().print(found.tables())
