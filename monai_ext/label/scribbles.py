"""Segmentation from scribbles, MONAI Label's own, with a client's parameters checked before it sees them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.scribbles.infer import HistogramBasedGraphCut

from monai_ext.base import LabelError, case_id
from monai_ext.label.options import EXTENSIONS, Option, coerced, shown_options
from monai_ext.label.volume_task import KEPT, RESEARCH_ONLY
from monai_ext.volumes import read_labels, read_scan

FOREGROUND, BACKGROUND = 3, 2  # what the server's clients paint with


class HistogramScribbles(HistogramBasedGraphCut):
    """Grow scribbles to a label by intensity: histogram likelihood, then graph cut."""

    def __init__(self) -> None:
        super().__init__(
            description=f"Histogram-based graph cut from scribbles, for any organ. {RESEARCH_ONLY}",
            intensity_range=(-300.0, 200.0, 0.0, 1.0, True),
            pix_dim=(2.5, 2.5, 5.0),
        )
        self.options = {
            "lamda": Option(1.0, low=0.0, high=100.0),
            "sigma": Option(0.1, low=1e-3, high=100.0),
            "num_bins": Option(64, low=2, high=4096),
            "result_extension": Option(".nii.gz", EXTENSIONS, shown=False),
            "result_compress": Option(True, shown=False),
        }

    def config(self) -> dict[str, Any]:
        """Return the options as clients show them."""
        return shown_options(self.options)

    def __call__(self, request: Mapping[str, Any], callbacks: Any = None) -> tuple[str, dict[str, Any]]:
        """Segment ``request["image"]`` from the scribbles in ``request["label"]``, both paths that the server chose.

        Raises:
            LabelError: no scribbles, or not on the image's grid.
        """
        options = coerced(request, self.options, "scribbles")
        image = Path(request["image"])
        case = str(request.get("case") or case_id(image))
        scan = read_scan(image, assume_hu=True, case=case)
        if not request.get("label"):
            raise LabelError(
                f"{case}: no scribbles were sent; paint foreground and background first", code="label.scribbles"
            )
        scribbles = read_labels(request["label"], like=scan, case=case)
        if not (scribbles.voxels == FOREGROUND).any() or not (scribbles.voxels == BACKGROUND).any():
            raise LabelError(
                f"{case}: foreground ({FOREGROUND}) and background ({BACKGROUND}) scribbles are both needed",
                code="label.scribbles",
            )
        self.lamda, self.sigma, self.num_bins = (options[name] for name in ("lamda", "sigma", "num_bins"))
        quiet = {"logging": "WARNING"}  # its own log names paths
        wanted = {
            **quiet,
            **options,
            "image": str(image),
            "label": str(request["label"]),
            "device": "cpu",
            "result_dtype": "uint8",
        }
        path, told = super().__call__(wanted)
        return str(path), {**told, "research_use_only": RESEARCH_ONLY, KEPT: {}}

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Any]) -> dict[str, Any]:
        """Run them without the path beside the image, which MONAI's ``Spacingd`` takes for its metadata."""
        path = data.pop("image_path", None)
        data = super().run_pre_transforms(data, transforms)
        data["image_path"] = path
        return data
