"""``python -m monai_ext manifest export-nnunet``: a folder in nnU-Net's form of the scans of a manifest."""

from pathlib import Path
from typing import Annotated

import typer

_MANIFEST = typer.Argument(metavar="MANIFEST", help="The manifest, .json.", show_default=False)
_FOLDER = typer.Argument(
    metavar="FOLDER", help="The folder to make, such as nnUNet_raw/Dataset123_SPLEEN.", show_default=False
)
_ROOT = typer.Option(help="Folder that paths of the manifest start from; its own by default.", show_default=False)
_COPY = typer.Option("--copy", help="Copy the files; links to them by default.")


def export_nnunet(
    manifest: Annotated[Path, _MANIFEST],
    folder: Annotated[Path, _FOLDER],
    root: Annotated[Path | None, _ROOT] = None,
    copy: Annotated[bool, _COPY] = False,
) -> None:
    """Make a folder that nnU-Net v2 trains on: dataset.json, imagesTr, labelsTr, imagesTs.

    Scans of training and validation go to imagesTr; splits_final.json tells
    them apart, to be copied to nnUNet_preprocessed. Scans without a label,
    or of no split, are left out. The folder appears only when it is whole.

    Example: python -m monai_ext manifest export-nnunet spleen/manifest.json nnUNet_raw/Dataset123_SPLEEN

    Exit code: 0 all exported, 1 some entries were left out, 2 it cannot be exported.
    """
    from monai_ext.cli.shown_paths import shown
    from monai_ext.curation import export_nnunet as run
    from monai_ext.curation.problems import first_names

    result = run(manifest, folder, root=root, copy=copy, progress=True)
    counts = [(split, getattr(result, split)) for split in ("training", "validation", "test")]
    typer.echo(f"{shown(folder)}: {', '.join(f'{count} {split}' for split, count in counts if count)}")
    for reason, names in result.left_out.items():
        typer.echo(f"left out: {len(names)}: {reason} ({first_names(names)})", err=True)
    number = folder.name[len("Dataset") :][:3]
    typer.echo(f"next: nnUNetv2_plan_and_preprocess -d {int(number)} --verify_dataset_integrity")
    raise typer.Exit(1 if result.left_out else 0)
