"""``python -m monai_ext manifest``: lists of scans with their licence, patient and split."""

import typer

from monai_ext.cli.manifest_build import build
from monai_ext.cli.manifest_export_nnunet import export_nnunet
from monai_ext.cli.manifest_import_nnunet import import_nnunet
from monai_ext.cli.manifest_kshot import kshot
from monai_ext.cli.manifest_leakage import leakage
from monai_ext.cli.manifest_mix import mix
from monai_ext.cli.manifest_summary import summary
from monai_ext.cli.manifest_verify import verify

manifest = typer.Typer(
    help="Lists of scans with licence, patient and split: make, check, join and describe them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@manifest.callback()
def about() -> None:
    """Lists of scans with licence, patient and split: make, check, join and describe them."""


manifest.command()(build)
manifest.command()(verify)
manifest.command()(mix)
manifest.command()(leakage)
manifest.command()(summary)
manifest.command()(kshot)
manifest.command("import-nnunet")(import_nnunet)
manifest.command("export-nnunet")(export_nnunet)
