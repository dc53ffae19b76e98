"""``python -m monai_ext store verify``: is every byte of a volume store what was written."""

from pathlib import Path
from typing import Annotated

import typer

_STORE = typer.Argument(metavar="STORE", help="Folder of the store.", show_default=False)
_WORKERS = typer.Option(help="Files read at a time; as many as cores by default.", show_default=False, min=1)


def verify(store: Annotated[Path, _STORE], workers: Annotated[int | None, _WORKERS] = None) -> None:
    """Compare every byte of a store with its checksums, and name the scans to redo.

    Finds data and sidecars that are torn, altered or missing. Nothing is
    changed: prepare, given as before, redoes what is damaged and skips the
    rest.

    Example: python -m monai_ext store verify store

    Exit code: 0 all is whole, 1 something is damaged, 2 no store or an empty
    one, 130 interrupted.
    """
    from rich.console import Console

    from monai_ext.base import StoreError
    from monai_ext.volumes import verify_store

    try:
        summary = verify_store(store, workers, progress=True)
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted: not everything was compared", err=True)
        raise typer.Exit(130) from error
    if not summary.volumes:  # as likely as not another folder than was meant
        raise StoreError(
            f"{store.absolute().name}: no volume lies there, so nothing was compared; give the folder of prepare",
            code="store.empty",
        )
    Console().print(summary.table())
    if summary.damages:
        typer.echo(summary.way_out())
    raise typer.Exit(summary.exit_code)
