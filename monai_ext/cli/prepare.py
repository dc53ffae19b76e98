"""``python -m monai_ext prepare``: raw scans into a volume store."""

from pathlib import Path
from typing import Annotated

import typer

_SOURCE = typer.Argument(
    help="A folder with CT scans (NIfTI, NRRD, MHA, MHD files, or folders and zips of DICOM series, at any depth), "
    "a MONAI datalist (.json), or one scan. FOLDER#3 is the DICOM series of number 3 alone.",
    show_default=False,
)
_STORE = typer.Argument(help="Folder of the store; made when absent, added to when not.", show_default=False)
_SPACING = typer.Option(help="Voxel edges in mm along x, y, z.", metavar="X Y Z")
_ASSUME_HU = typer.Option(
    "--assume-hu", help="Take the values for HU although modality, rescale or range do not say so."
)
_WORKERS = typer.Option(help="Processes; as many as cores by default, 0 for none.", show_default=False, min=0)
_ROOT = typer.Option(
    help="Folder that paths start from: SOURCE itself, or the folder of the datalist or scan by default. "
    "Links that lead out of it are refused.",
    show_default=False,
)
_SECTION = typer.Option(
    help="List of the datalist to take, such as training; repeat for several. All by default.",
    show_default=False,
)


def prepare(
    source: Annotated[Path, _SOURCE],
    store: Annotated[Path, _STORE],
    spacing: Annotated[tuple[float, float, float], _SPACING] = (1.5, 1.5, 1.5),
    assume_hu: Annotated[bool, _ASSUME_HU] = False,
    workers: Annotated[int | None, _WORKERS] = None,
    root: Annotated[Path | None, _ROOT] = None,
    section: Annotated[list[str] | None, _SECTION] = None,
) -> None:
    """Prepare CT scans for training: read, orient RAS, resample, and store as int16 HU in small chunks.

    Run it again at any time: what is done and unchanged is skipped, what
    changed is redone, and a run that was killed is completed. A scan that
    cannot be prepared is reported with the reason, and the others go on.
    Labels come from a datalist that names them; files named like labels in
    a plain folder are left out.

    Example: python -m monai_ext prepare ct_scans store

    Example: python -m monai_ext prepare dataset.json store --section training --spacing 1.5 1.5 2.0

    Exit code: 0 all in the store, 1 some failed, 2 nothing found or a wrong setting, 130 interrupted.
    """
    from rich.console import Console

    from monai_ext.base import InputError
    from monai_ext.volumes import prepare as run

    try:
        summary = run(
            source,
            store,
            spacing_mm=spacing,
            assume_hu=assume_hu,
            workers=workers,
            root=root,
            sections=section or None,
            progress=True,
        )
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted: what is in the store is whole; give the same command again to go on", err=True)
        raise typer.Exit(130) from error
    Console().print(summary.table())
    raise typer.Exit(summary.exit_code)
