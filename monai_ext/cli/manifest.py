"""``python -m monai_ext manifest``: lists of scans with their licence, patient and split."""

import typer

manifest = typer.Typer(
    help="Lists of scans with licence, patient and split: make, check, join and describe them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@manifest.callback()
def about() -> None:
    """Lists of scans with licence, patient and split: make, check, join and describe them."""
