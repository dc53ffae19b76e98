"""``python -m monai_ext label-app``: write the folder that MONAI Label serves."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

OUTPUT = typer.Option(help="Folder of the app; the server keeps weights, sessions and what it fetched in it.")
DEMO = typer.Option(
    help="Serve both models of a finished demonstration (the folder of its results).", show_default=False
)
WEIGHTS = typer.Option(
    help="Weights that fine-tuning wrote (model.pt), to segment with and to go on from.", show_default=False
)
TRAIN = typer.Option(
    "--train", help="Offer segmentation without weights: its first ones come from training in the app."
)
TINY = typer.Option("--tiny", help="The weights are of the tiny network, whose settings are in tiny.json.")
ADAPTERS = typer.Option(help="Adapters of AA-CLIP, to localize lesions with.", show_default=False)
CLASS = typer.Option(
    "--class", help="What lesions are looked for in, such as liver; repeat for several.", show_default=False
)
CALIBRATION = typer.Option(help="Calibration of the adapters on normal cases.", show_default=False)
SET = typer.Option(
    "--set",
    help="An entry of a bundle's inference.json, as segmentation.NAME=VALUE or localization.NAME=VALUE; repeat.",
    metavar="PART.NAME=VALUE",
    show_default=False,
)


def label_app(
    output: Annotated[Path, OUTPUT] = Path("monai_ext_label_app"),
    demo: Annotated[Path | None, DEMO] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    train: Annotated[bool, TRAIN] = False,
    tiny: Annotated[bool, TINY] = False,
    adapters: Annotated[Path | None, ADAPTERS] = None,
    class_name: Annotated[list[str] | None, CLASS] = None,
    calibration: Annotated[Path | None, CALIBRATION] = None,
    settings: Annotated[list[str] | None, SET] = None,
) -> None:
    r"""Write a MONAI Label app for 3D Slicer and OHIF.

    Needs pip install 'monai-ext\[label]'. Then serve it with label-serve.

    Example: python -m monai_ext label-app --demo monai_ext_demo

    Example: python -m monai_ext label-app --weights model.pt --adapters adapters.safetensors --class liver

    Exit code: 0 written, 2 something cannot be used.
    """
    folder = make_app(output, demo, weights, train, tiny, adapters, class_name, calibration, settings)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"app: {folder}", markup=False)
    console.print(f"serve it: python -m monai_ext label-serve --app {folder} --studies SCANS", markup=False)


def make_app(
    output: Path,
    demo: Path | None,
    weights: Path | None,
    train: bool,
    tiny: bool,
    adapters: Path | None,
    class_name: list[str] | None,
    calibration: Path | None,
    settings: list[str] | None,
) -> Path:
    """Write the app's folder from the options of the command line."""
    from monai_ext.label.app_folder import localization_part, segmentation_part, write_app

    changed = _changes(settings or [])
    segmentation = localization = None
    if demo is not None:
        _refuse_beside("--demo", weights, train, tiny, adapters, class_name, calibration, settings)
        segmentation, localization = _demo_parts(demo)
    if adapters is None and demo is None:
        _refuse_beside("no --adapters", calibration, class_name, changed["localization"])
    if weights is None and not train and demo is None:
        _refuse_beside("neither --weights nor --train", tiny, changed["segmentation"])
    if weights is not None or train:
        segmentation = segmentation_part(weights, tiny, changed["segmentation"])
    if adapters is not None:
        localization = localization_part(adapters, class_name or [], calibration, changed["localization"])
    return write_app(output, segmentation, localization)


def _refuse_beside(what: str, *others: object) -> None:
    """Refuse options that would have no effect."""
    from monai_ext.base import SettingError

    if any(others):
        raise SettingError(
            f"label-app: with {what} some of the other options have no effect; leave them out", code="label.options"
        )


def _demo_parts(demo: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from monai_ext.base import WeightsError
    from monai_ext.demo.adaptation import volume_settings
    from monai_ext.label.app_folder import localization_part, segmentation_part

    weights = demo / "finetuning" / "models" / "model.pt"
    adapters = demo / "lesions" / "adaptation" / "models" / "adapters.safetensors"
    calibration = demo / "lesions" / "calibration" / "calibration.json"
    with_lesions = (demo / "lesions").is_dir()
    wanted = (weights, adapters, calibration) if with_lesions else (weights,)
    missing = next((path for path in wanted if not path.is_file()), None)
    if missing is not None:
        raise WeightsError(
            f"{demo.name}: no finished demonstration ({missing.name} is missing); run python -m monai_ext demo first",
            code="label.demo",
        )
    segmentation = segmentation_part(weights, tiny=True)
    if not with_lesions:
        return segmentation, None
    settings = volume_settings(demo, adapters, demo)
    for name in ("dataset_dir", "output_dir", "adapters", "class_name"):
        del settings[name]
    return segmentation, localization_part(adapters, ["organ"], calibration, settings)


def _changes(texts: list[str]) -> dict[str, dict[str, Any]]:
    from monai_ext.base import SettingError
    from monai_ext.cli.localize import setting_of

    found: dict[str, dict[str, Any]] = {"segmentation": {}, "localization": {}}
    for text in texts:
        part, _, rest = text.partition(".")
        if part not in found:
            raise SettingError(
                f"--set {text}: give segmentation.NAME=VALUE or localization.NAME=VALUE", code="setting.set"
            )
        name, value = setting_of(rest)
        found[part][name] = value
    return found
