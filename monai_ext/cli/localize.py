"""``python -m monai_ext localize``: a short cut that fills the bundle's inference configuration."""

from pathlib import Path
from typing import Annotated, Any

import typer

_BUNDLE = "aa_clip_lesion_localization"

_INPUT = typer.Argument(
    metavar="INPUT",
    help="A PNG, JPEG or TIFF picture, a CT scan (NIfTI, NRRD, MHA, MHD or a folder or zip of DICOM series; "
    "FOLDER#3 is series 3 alone), a volume store, or a folder of pictures and scans.",
    show_default=False,
)
_CLASS = typer.Option(
    "--class",
    help="What the picture shows, such as liver or screw; an unknown one lists those known.",
    show_default=False,
)
_FREE = typer.Option(
    "--free-text", help="Put --class into the sentences as it is, such as 'a CT slice of the spleen', known or not."
)
_DATASET = typer.Option(help="Whose class it is, where several data sets share a name.", show_default=False)
_ADAPTERS = typer.Option(
    help="Adapters that train.json of the bundle wrote; without them CLIP knows no lesions. "
    "By default where that training leaves them.",
    show_default=False,
)
_OUTPUT = typer.Option(help="Folder of the results, one folder a case inside.")
_WINDOW = typer.Option(
    help="HU window of CT: abdomen, liver, lung, bone, brain, subdural, or two numbers such as -100,200."
)
_CALIBRATION = typer.Option(
    help="File that calibrate.json made of normal cases; without one scores are called uncalibrated.",
    show_default=False,
)
_VIEWS = typer.Option(help="Orientations of slices to fuse: axial, or axial,coronal,sagittal.")
_THRESHOLD = typer.Option(help="Log-odds of a candidate where there is no calibration; 0 is even.")
_MIN_VOLUME = typer.Option(help="Smaller candidates of volumes are dropped, in mm3.", min=0)
_SKIP = typer.Option("--skip-background", help="Pass over slices that show no body.")
_BODY = typer.Option("--body-only", help="Look for candidates inside the patient alone, not in air or table.")
_RELAX = typer.Option(
    help="Rule of reading to relax, such as scan.no_orientation; repeat for several. The results say where it was.",
    show_default=False,
)
_ASSUME_HU = typer.Option("--assume-hu", help="Take the values for HU although the scan does not say so.")
_DICOM = typer.Option(
    "--dicom-seg", help="Write mask, map and candidates of a DICOM series as DICOM SEG, parametric map and report too."
)
_ARCHITECTURE = typer.Option(help="CLIP of the adapters: a name of open_clip, or its configuration (.json).")
_CLIP_WEIGHTS = typer.Option(help="Weights of that CLIP: a tag of open_clip, or a file.")
_ACTIVATION = typer.Option(help="Of that CLIP: quick_gelu or gelu, where its weights do not tell.")
_SIZE = typer.Option(help="Pixels that pictures and slices are scaled to.")
_SET = typer.Option(
    "--set",
    help="Any other entry of the bundle's inference.json, as NAME=VALUE; repeat for several.",
    metavar="NAME=VALUE",
    show_default=False,
)


def localize(
    source: Annotated[Path, _INPUT],
    class_name: Annotated[str, _CLASS],
    output: Annotated[Path, _OUTPUT] = Path("localizations"),
    adapters: Annotated[Path | None, _ADAPTERS] = None,
    calibration: Annotated[Path | None, _CALIBRATION] = None,
    window: Annotated[str, _WINDOW] = "abdomen",
    views: Annotated[str, _VIEWS] = "axial",
    threshold: Annotated[float, _THRESHOLD] = 0.0,
    min_volume_mm3: Annotated[float, _MIN_VOLUME] = 50.0,
    skip_background: Annotated[bool, _SKIP] = False,
    body_only: Annotated[bool, _BODY] = False,
    free_text: Annotated[bool, _FREE] = False,
    dataset: Annotated[str | None, _DATASET] = None,
    assume_hu: Annotated[bool, _ASSUME_HU] = False,
    relax: Annotated[list[str] | None, _RELAX] = None,
    dicom_seg: Annotated[bool, _DICOM] = False,
    architecture: Annotated[str | None, _ARCHITECTURE] = None,
    clip_weights: Annotated[str | None, _CLIP_WEIGHTS] = None,
    activation: Annotated[str | None, _ACTIVATION] = None,
    image_size: Annotated[int | None, _SIZE] = None,
    settings: Annotated[list[str] | None, _SET] = None,
) -> None:
    """Find what looks abnormal in pictures and CT volumes, with AA-CLIP adapters.

    Each case gets a map (higher is more abnormal), a mask, a table of
    candidates with their place and size, and a picture, on its own grid.
    Scores say how much more a place resembles the words for abnormal than
    those for normal. Only with --calibration do they tell how often a
    normal case reaches them.

    Example: python -m monai_ext localize scan.nii.gz --class liver --window liver

    Example: python -m monai_ext localize photos --class screw --adapters adapters.safetensors

    Every other setting of the bundle's inference.json is changed by --set.
    A file that cannot be used is reported with the reason, and the others
    go on.

    Exit code: 0 all done, 2 a case or a setting cannot be used.
    """
    wanted: dict[str, Any] = {
        "dataset_dir": str(source),
        "output_dir": str(output),
        "class_name": class_name,
        "window_hu": _window(window),
        "views": [view.strip() for view in views.split(",")],
        "threshold": threshold,
        "min_volume_mm3": min_volume_mm3,
        "skip_background": skip_background,
        "body_only": body_only,
        "free_text": free_text,
        "assume_hu": assume_hu,
        "relax": relax or [],
        "dicom_seg": dicom_seg,
    }
    optional = {
        "adapters": adapters and str(adapters),
        "calibration_file": calibration and str(calibration),
        "dataset_name": dataset,
        "architecture": architecture,
        "clip_weights": clip_weights,
        "activation": activation,
        "image_size": image_size,
    }
    wanted |= {name: value for name, value in optional.items() if value is not None}
    from monai_ext.demo.workflow import run_bundle

    run_bundle(_BUNDLE, ["inference"], wanted | dict(setting_of(text) for text in settings or ()), False)


def _window(text: str) -> str | list[float]:
    from monai_ext.base import find_window

    parts = text.split(",")
    try:
        return [float(part) for part in parts] if len(parts) > 1 else text
    except ValueError:
        return list(find_window(text))  # whose error names the presets


def setting_of(text: str) -> tuple[str, Any]:
    """Return name and value of ``NAME=VALUE``, the value as JSON where it is some."""
    import json

    from monai_ext.base import SettingError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingError(f"--set {text}: give NAME=VALUE, such as batch_size=4", code="setting.set")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
