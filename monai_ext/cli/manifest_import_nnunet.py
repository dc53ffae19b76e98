"""``python -m monai_ext manifest import-nnunet``: a manifest of a folder in nnU-Net's form."""

from pathlib import Path
from typing import Annotated

import typer

_FOLDER = typer.Argument(metavar="FOLDER", help="DatasetNNN_NAME with its dataset.json.", show_default=False)
_OUT = typer.Argument(metavar="OUT", help="The manifest to write, .json.", show_default=False)
_DATASET = typer.Option(help="Id of the shipped data set that it is, for licence and sources.", show_default=False)
_CHANNEL = typer.Option(help="Which of several channels to take.", min=0)
_ROOT = typer.Option(help="Folder that paths of OUT start from; that of OUT by default.", show_default=False)


def import_nnunet(
    folder: Annotated[Path, _FOLDER],
    out: Annotated[Path, _OUT],
    dataset: Annotated[str | None, _DATASET] = None,
    channel: Annotated[int, _CHANNEL] = 0,
    root: Annotated[Path | None, _ROOT] = None,
) -> None:
    """List the cases of a folder in the form of nnU-Net v2: imagesTr as training, imagesTs as test.

    Where splits_final.json lies in the folder, what its first fold validates
    on becomes validation.

    Example: python -m monai_ext manifest import-nnunet Dataset009_Spleen Dataset009_Spleen/manifest.json
    --dataset msd_spleen

    Exit code: 0 all listed, 1 some files were left out, 2 it cannot be listed.
    """
    from monai_ext.cli.shown_paths import shown
    from monai_ext.curation import import_nnunet as run
    from monai_ext.curation.problems import first_names

    result = run(folder, out, dataset=dataset, channel=channel, root=root)
    entries = result.manifest.entries
    counts = [(split, sum(one.split == split for one in entries)) for split in ("training", "validation", "test")]
    typer.echo(f"{shown(out)}: {', '.join(f'{count} {split}' for split, count in counts if count)}")
    for reason, names in result.left_out.items():
        typer.echo(f"left out: {len(names)}: {reason} ({first_names(names)})", err=True)
    base = root or out.parent
    rooted = "" if base.absolute() == out.parent.absolute() else f" --root {shown(base)}"
    typer.echo(f"next: python -m monai_ext manifest verify {shown(out)}{rooted}")
    raise typer.Exit(1 if result.left_out else 0)
