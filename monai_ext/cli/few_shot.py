"""``python -m monai_ext few-shot``: a small, balanced list of pictures out of a large one."""

from pathlib import Path
from typing import Annotated

import typer

_LIST = typer.Argument(
    metavar="LIST", help="List of pictures: .jsonl, or a MONAI datalist (.json).", show_default=False
)
_OUTPUT = typer.Argument(metavar="OUT", help="The list to write, .jsonl.", show_default=False)
_SHOTS = typer.Option(help="Pictures of each class, half of them normal and half abnormal.")
_SEED = typer.Option(help="Chooses the pictures; another seed chooses others.")
_ROOT = typer.Option(help="Folder that the paths start from; that of LIST by default.", show_default=False)
_CLASS = typer.Option("--class", help="Class to take; repeat for several. All by default.", show_default=False)


def few_shot(
    source: Annotated[Path, _LIST],
    output: Annotated[Path, _OUTPUT],
    shots: Annotated[int, _SHOTS] = 32,
    seed: Annotated[int, _SEED] = 0,
    root: Annotated[Path | None, _ROOT] = None,
    classes: Annotated[list[str] | None, _CLASS] = None,
) -> None:
    """Choose a few pictures of each class to train on, and write their list.

    Example: python -m monai_ext few-shot full-shot.jsonl 32-shot.jsonl --root VisA_20220922 --shots 32
    """
    from monai_ext.manifests import few_shot as choose
    from monai_ext.manifests import read_picture_list, write_picture_list

    root = root or source.parent
    chosen = choose(read_picture_list(source, root, classes=classes or None), shots, seed)
    write_picture_list(output, chosen, root)
    names = sorted({entry.class_name for entry in chosen})
    typer.echo(f"{output}: {len(chosen)} pictures of {len(names)} classes ({', '.join(names)})")
