"""``python -m monai_ext prepare``: raw scans into a volume store."""

from pathlib import Path
from typing import Annotated

import typer

_SOURCE = typer.Argument(
    help="A folder with CT scans (NIfTI, NRRD, MHA, MHD files, or folders and zips of DICOM series, at any depth), "
    "a manifest or MONAI datalist (.json), or one scan. FOLDER#3 is the DICOM series of number 3 alone.",
    show_default=False,
)
_STORE = typer.Argument(help="Folder of the store; made when absent, added to when not.", show_default=False)
_SPACING = typer.Option(help="Voxel edges in mm along x, y, z.", metavar="X Y Z")
_ASSUME_HU = typer.Option(
    "--assume-hu", help="Take the values for HU although modality, rescale or range do not say so."
)
_RELAX = typer.Option(
    help="Rule of reading to relax, such as scan.no_orientation; repeat for several. The sidecar says where it was.",
    show_default=False,
)
_WORKERS = typer.Option(help="Processes; as many as cores by default, 0 for none.", show_default=False, min=0)
_SCHEDULER = typer.Option(
    help="Work on dask.distributed: tcp://HOST:PORT of a scheduler whose workers see the same disk, or local to start "
    "one here. Needs the extra 'cluster'. A pool of processes by default.",
    show_default=False,
)
_FAILED = typer.Option(
    "--failed",
    help="File that lists every failed scan with its reason; failed.csv in the store by default.",
    show_default=False,
)
_ROOT = typer.Option(
    help="Folder that paths start from: SOURCE itself, or the folder of the list or scan by default. "
    "Links that lead out of it are refused.",
    show_default=False,
)
_SECTION = typer.Option(
    help="List of the manifest or datalist to take, such as training; repeat for several. All by default.",
    show_default=False,
)


def prepare(
    source: Annotated[Path, _SOURCE],
    store: Annotated[Path, _STORE],
    spacing: Annotated[tuple[float, float, float], _SPACING] = (1.5, 1.5, 1.5),
    assume_hu: Annotated[bool, _ASSUME_HU] = False,
    relax: Annotated[list[str] | None, _RELAX] = None,
    workers: Annotated[int | None, _WORKERS] = None,
    root: Annotated[Path | None, _ROOT] = None,
    section: Annotated[list[str] | None, _SECTION] = None,
    scheduler: Annotated[str | None, _SCHEDULER] = None,
    failed: Annotated[Path | None, _FAILED] = None,
) -> None:
    """Prepare CT scans for training: read, orient RAS, resample, and store as int16 HU in small chunks.

    Run it again at any time: what is done and unchanged is skipped, what
    changed is redone, and a run that was killed is completed. Several runs
    on one store share the work. A scan that cannot be prepared is reported
    with the reason, and the others go on. Labels come from a manifest or
    datalist that names them; files named like labels in a plain folder are
    left out. Of a manifest the store also keeps data set, licence, patient,
    split and weight, and declared checksums are compared.

    Example: python -m monai_ext prepare ct_scans store

    Example: python -m monai_ext prepare dataset.json store --section training --spacing 1.5 1.5 2.0

    Example: python -m monai_ext prepare mix.json /shared/store --scheduler tcp://10.0.0.5:8786

    Exit code: 0 all in the store, 1 some failed, 2 nothing found, a wrong setting or no scheduler, 130 interrupted.
    """
    from rich.console import Console

    from monai_ext.base import InputError, printable
    from monai_ext.volumes import prepare as run

    try:
        summary = run(
            source,
            store,
            spacing_mm=spacing,
            assume_hu=assume_hu,
            relax=relax or (),
            workers=workers,
            root=root,
            sections=section or None,
            scheduler=scheduler,
            progress=True,
        )
    except InputError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted: what is in the store is whole; give the same command again to go on", err=True)
        raise typer.Exit(130) from error
    Console().print(summary.table())
    report = failed or store / "failed.csv"
    try:
        if summary.failed:
            summary.write_failed(report)
            typer.echo(f"every failed scan with its reason: {report.name} in {report.absolute().parent.name}")
        elif failed is None:
            report.unlink(missing_ok=True)  # an earlier run's
    except (InputError, OSError) as error:  # a full disk, which may be why scans failed
        typer.echo(f"error: {printable(str(error)) if isinstance(error, InputError) else error.strerror}", err=True)
    raise typer.Exit(summary.exit_code)
