"""``python -m monai_ext manifest kshot``: a small manifest out of a large one."""

from pathlib import Path
from typing import Annotated

import typer

_MANIFEST = typer.Argument(metavar="MANIFEST", help="The whole manifest, .json.", show_default=False)
_OUT = typer.Option(help="The manifest to write.", show_default=False)
_SHOTS = typer.Option(
    help="Patients of each data set; of pictures that many of each class, half normal and half abnormal.",
    show_default=False,
)
_PERCENT = typer.Option(help="Instead, the share of patients, or of each kind of pictures.", show_default=False)
_SEED = typer.Option(help="Chooses the patients; another seed chooses others.")
_SPLIT = typer.Option(help="List to choose from; the others stay whole.")


def kshot(
    manifest: Annotated[Path, _MANIFEST],
    out: Annotated[Path, _OUT],
    shots: Annotated[int | None, _SHOTS] = None,
    percent: Annotated[float | None, _PERCENT] = None,
    seed: Annotated[int, _SEED] = 0,
    split: Annotated[str, _SPLIT] = "training",
) -> None:
    """Choose a few patients of a manifest, or a share of them, by chance and always the same.

    A patient comes with all scans; with one seed, the fewer lie within the
    more. Where a data set has labels, only labelled scans are chosen.

    Example: python -m monai_ext manifest kshot manifest.json --shots 1 --out 1-shot.json

    Example: python -m monai_ext manifest kshot manifest.json --percent 10 --seed 3 --out tenth.json

    Exit code: 0 written, 2 the choice is not possible.
    """
    from monai_ext.cli.shown_paths import shown
    from monai_ext.curation import check_manifest_target
    from monai_ext.curation import kshot as choose
    from monai_ext.manifests import read_manifest, write_manifest

    check_manifest_target(out, manifest)
    whole = read_manifest(manifest)
    chosen = choose(whole, shots=shots, percent=percent, seed=seed, split=split)
    write_manifest(out, chosen)
    before, after = ([entry for entry in one.entries if entry.split == split] for one in (whole, chosen))
    patients = [len({entry.patient for entry in some}) for some in (after, before)]
    typer.echo(f"{shown(out)}: {len(after)} of {len(before)} {split} entries, {patients[0]} of {patients[1]} patients")
    if out.absolute().parent != manifest.absolute().parent:
        typer.echo(f"its paths start where those of {manifest.name} do: give that folder as --root")
