"""The verbs of ``python -m monai_ext`` and how their errors reach the user."""

import sys

import typer
from rich.console import Console

from monai_ext.base import InputError, print_any_name, printable
from monai_ext.cli.bundle import bundle_path, config_path
from monai_ext.cli.check_bundle import check_bundle
from monai_ext.cli.checkpoint import checkpoint
from monai_ext.cli.demo import demo
from monai_ext.cli.few_shot import few_shot
from monai_ext.cli.import_adapters import import_adapters
from monai_ext.cli.label_app import label_app
from monai_ext.cli.label_serve import label_serve
from monai_ext.cli.localize import localize
from monai_ext.cli.manifest import manifest
from monai_ext.cli.prepare import prepare
from monai_ext.cli.store import store

app = typer.Typer(
    name="monai_ext",
    help="Hi-End-MAE for CT: prepare scans, pretrain, fine-tune and segment. AA-CLIP: localize lesions and defects. "
    "New here? Run 'python -m monai_ext demo'. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(prepare)
app.add_typer(store, name="store")
app.command()(localize)
app.command()(checkpoint)
app.add_typer(manifest, name="manifest")
app.command("few-shot")(few_shot)
app.command("import-adapters")(import_adapters)
app.command("label-app")(label_app)
app.command("label-serve")(label_serve)
app.command("check-bundle")(check_bundle)
app.command("bundle-path")(bundle_path)
app.command("config-path")(config_path)


def main() -> None:
    """Run the verb of the command line; what the user can mend ends in one sentence and exit code 2."""
    print_any_name()
    try:
        app()
    except InputError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {printable(str(error))}", style="red", markup=False)
        sys.exit(2)
