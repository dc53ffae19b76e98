"""``python -m monai_ext import-adapters``: the authors' AA-CLIP adapters as one file that the bundle takes."""

from pathlib import Path
from typing import Annotated

import typer

_OUTPUT = typer.Argument(metavar="OUT", help="The file to write, .safetensors.", show_default=False)
_TEXT = typer.Option(help="Adapters of stage 1: text_adapter.pth.", show_default=False)
_IMAGE = typer.Option(help="Adapters of stage 2: image_adapter_N.pth.", show_default=False)
_ARCHITECTURE = typer.Option(help="CLIP they were trained beside: a name of open_clip, or its configuration (.json).")
_WEIGHTS = typer.Option(help="Weights of that CLIP: a tag of open_clip, or a file.")
_ACTIVATION = typer.Option(help="Of that CLIP: gelu is what the published code runs, with OpenAI's weights too.")
_RELU = typer.Option("--relu", help="The image projections end in LeakyReLU.")


def import_adapters(
    output: Annotated[Path, _OUTPUT],
    text: Annotated[Path, _TEXT],
    image: Annotated[Path, _IMAGE],
    architecture: Annotated[str, _ARCHITECTURE] = "ViT-L-14-336",
    clip_weights: Annotated[str, _WEIGHTS] = "openai",
    activation: Annotated[str, _ACTIVATION] = "gelu",
    relu: Annotated[bool, _RELU] = False,
) -> None:
    """Bring the authors' AA-CLIP adapters into a file for localize and the bundle.

    Their files do not say which CLIP they belong to; the file that is written
    does, with its activation, levels, prompts and checksum.

    Example: python -m monai_ext import-adapters own.safetensors --text text_adapter.pth --image image_adapter_20.pth
    """
    from monai_ext.engines import build_clip
    from monai_ext.networks import AAClip, PromptTable, save_adapters
    from monai_ext.networks import import_adapters as fill

    model = AAClip(build_clip(architecture, clip_weights, activation=activation), relu=relu)
    fill(model, text, image)
    record = save_adapters(model, output, PromptTable.published(), stage=2)
    typer.echo(f"{output}: adapters of {record.clip}, {record.activation}, levels {record.settings['levels']}")
    typer.echo(f"sha256 of the adapters {record.sha256}")
    typer.echo(f"use them with --adapters {output} --activation {record.activation}")
