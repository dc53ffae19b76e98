"""``python -m monai_ext store``: what a volume store holds, and whether it is whole."""

import typer

from monai_ext.cli.store_info import info
from monai_ext.cli.store_verify import verify

store = typer.Typer(
    help="Volume stores, made by prepare: tell what one holds, and whether it is whole.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@store.callback()
def about() -> None:
    """Volume stores, made by prepare: tell what one holds, and whether it is whole."""


store.command()(info)
store.command()(verify)
