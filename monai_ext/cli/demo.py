"""``python -m monai_ext demo``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def demo(
    scan: Annotated[
        Path | None,
        typer.Option("--input", help="A CT scan of yours to segment too: a file, or a DICOM series folder or zip."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for results and the report.")] = Path("monai_ext_demo"),
    minutes: Annotated[
        float, typer.Option(help="Time for everything on two CPU cores; training is scaled to it.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Chooses the patients and every random draw.")] = 0,
    assume_hu: Annotated[
        bool, typer.Option("--assume-hu", help="Take the values of your scan for HU although they do not look so.")
    ] = False,
    without_lesions: Annotated[
        bool, typer.Option("--without-lesions", help="Leave out the second half; 1.5 minutes are enough then.")
    ] = False,
) -> None:
    """See the whole way in ten minutes: pretrain, fine-tune, segment, adapt, localize lesions, report.

    Patients are made up. Needs no data, no graphics card and no network.

    Example: python -m monai_ext demo --input my_ct.nii.gz --output demo
    """
    from monai_ext.demo.run import run_demo

    result = run_demo(output, scan, minutes, seed, assume_hu, not without_lesions)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]Done in {sum(result.seconds.values()) / 60:.1f} minutes.[/bold] Research use only.")
    console.print(f"  report:        {result.folder / 'index.html'}", markup=False)
    console.print(f"  segmentations: {result.folder / 'segmentations'}", markup=False)
    if not without_lesions:
        console.print(f"  lesions:       {result.folder / 'lesions' / 'localizations'}", markup=False)
