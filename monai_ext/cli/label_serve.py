"""``python -m monai_ext label-serve``: start MONAI Label's server for an app."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monai_ext.cli import label_app as options

_STUDIES = typer.Option(
    help="A folder of scans (NIfTI, NRRD, MHA), or the address of a DICOMweb archive.", show_default=False
)
_APP = typer.Option(help="Folder of the app; written first where models are given here.")
_HOST = typer.Option(help="Address to listen on; others than 127.0.0.1 need an authenticating proxy in front.")
_PORT = typer.Option(help="Port to listen on.")
_ALLOW_HOST = typer.Option(
    help="Name in the address under which a proxy or other machines reach the server; repeat.", show_default=False
)
_CORS = typer.Option(
    help="Origin of a web page that may use the server, such as https://viewer.example; repeat.", show_default=False
)


def label_serve(
    studies: Annotated[str, _STUDIES],
    app: Annotated[Path, _APP] = Path("monai_ext_label_app"),
    host: Annotated[str, _HOST] = "127.0.0.1",
    port: Annotated[int, _PORT] = 8000,
    cors: Annotated[list[str] | None, _CORS] = None,
    allow_host: Annotated[list[str] | None, _ALLOW_HOST] = None,
    demo: Annotated[Path | None, options.DEMO] = None,
    weights: Annotated[Path | None, options.WEIGHTS] = None,
    train: Annotated[bool, options.TRAIN] = False,
    tiny: Annotated[bool, options.TINY] = False,
    adapters: Annotated[Path | None, options.ADAPTERS] = None,
    class_name: Annotated[list[str] | None, options.CLASS] = None,
    calibration: Annotated[Path | None, options.CALIBRATION] = None,
    settings: Annotated[list[str] | None, options.SET] = None,
) -> None:
    r"""Serve both bundles to 3D Slicer and OHIF.

    Needs pip install 'monai-ext\[label]'. Slicer's MONAI Label module and
    OHIF connect to the address that is printed; with a DICOMweb archive
    OHIF opens at its /ohif/.

    Example: python -m monai_ext label-serve --studies scans --demo monai_ext_demo

    Example: python -m monai_ext label-serve --studies http://127.0.0.1:8042/dicom-web --app my_app

    Ctrl-C ends it. Exit code: 2 something cannot be used.
    """
    from monai_ext.base import SettingError
    from monai_ext.label.app_folder import read_app
    from monai_ext.label.serve import is_loopback, run_server, server_command, server_environment

    try:
        import monailabel  # noqa: F401
    except ImportError as error:
        raise SettingError(
            "label-serve: MONAI Label is missing; pip install 'monai-ext[label]'", code="label.extra"
        ) from error
    hosts = [*(allow_host or []), *([] if is_loopback(host) or host in ("0.0.0.0", "::") else [host])]
    if any((demo, weights, train, tiny, adapters, class_name, calibration, settings)):
        options.make_app(app, demo, weights, train, tiny, adapters, class_name, calibration, settings)
    read_app(app)
    command = server_command(app, studies, host, port)
    console = Console(soft_wrap=True, highlight=False)
    address = f"http://{'127.0.0.1' if is_loopback(host) else host}:{port}"
    console.print(f"[bold]{address}/[/bold]  the address for Slicer's MONAI Label module. Research use only.")
    if studies.startswith(("http://", "https://")):
        console.print(f"{address}/ohif/  OHIF, on the archive", markup=False)
    if not is_loopback(host):
        console.print(
            "others can reach this: put an authenticating proxy in front (docs/how-to/monai-label.md)", style="yellow"
        )
    run_server(command, server_environment(app, cors or [], hosts, os.environ))
