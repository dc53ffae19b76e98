"""What the clinical properties share: a patient with marks whose places are known in mm, a network that marks them."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from torch import nn

SHAPE, SPACING_MM = (41, 37, 31), (1.1, 1.7, 2.3)  # prime sizes; 44, 61 and 69 mm, whichever axis each is
CENTRE_MM = np.array([-31.0, 17.0, -203.0])
# From the centre, RAS+: one to the left, one to the front, one to the head; no mirror image and no exchange of
# axes takes one to another's place.
BALLS_MM = {1: (-12.0, 3.0, -2.0), 2: (4.0, 12.0, 3.0), 3: (2.0, -4.0, 13.0)}
NAMES = {"0": "background", "1": "left mark", "2": "front mark", "3": "head mark"}
RADIUS_MM = 5.0
LEVELS = {1: 0.4, 2: 0.7, 3: 1.0}  # of the bundle's window, -175 to 250 HU
BODY = 0.2
ORIENTATIONS = ["".join(axes) for order in permutations(("RL", "AP", "SI")) for axes in product(*order)]


class Notes:
    """What a test of many cases found: each is recorded, and the wrong ones are kept for one assertion at the end."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record
        self.wrong: list[str] = []

    def __call__(self, family: str, case: str, problems: Sequence[str] = (), good: str = "passed") -> None:
        """Record a case as ``good``, or as silent where there are problems."""
        self._record("fault", [family, case, "silent" if problems else good])
        self.wrong += [f"{case}: {problem}" for problem in problems]


class MarkedPatient:
    """A body of -90 HU in air with three balls, as any grid samples it."""

    balls = {number: CENTRE_MM + place for number, place in BALLS_MM.items()}
    centre_mm = CENTRE_MM
    radius_mm = RADIUS_MM
    orientations = ORIENTATIONS
    tilts = {
        "straight": np.eye(3),
        "tilted": nib.eulerangles.euler2mat(x=np.radians(7.3)),
        "oblique": nib.eulerangles.euler2mat(z=np.radians(23), y=np.radians(-11)),
    }

    def grid(self, codes: str, tilt: str = "straight") -> np.ndarray:
        """Return the affine whose axes run as the codes say, turned by the tilt, round the centre."""
        turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(codes)), (1, 1, 1))
        affine = np.eye(4)
        affine[:3, :3] = self.tilts[tilt] @ turn[:3, :3] * SPACING_MM
        affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
        return affine

    def hu(self, affine: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
        """Sample the patient; a ball's edge is as wide as a voxel, so that the halves of its voxels lie at its rim."""
        place = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
        values = np.full(shape, BODY)
        for number, ball in self.balls.items():
            distance = np.linalg.norm(place - ball, axis=-1) - RADIUS_MM
            share = np.clip(0.5 - distance / np.linalg.norm(affine[:3, :3], axis=0).mean(), 0, 1)
            values += share * (LEVELS[number] - BODY)
        hu = np.rint(values * 425 - 175).astype(np.int16)
        air = np.ones(shape, bool)
        air[2:-2, 2:-2, 2:-2] = False
        hu[air] = -1000
        return hu

    def write(self, path: Path, affine: np.ndarray) -> Path:
        """Write as the ending says; what is no NIfTI is converted by SimpleITK."""
        nifti = path if path.name.endswith((".nii", ".nii.gz")) else path.with_name("converted.nii")
        image = nib.Nifti1Image(self.hu(affine), affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        nib.save(image, nifti)
        if nifti != path:
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(path))
            nifti.unlink()
        return path

    def misplaced(self, labels: np.ndarray, affine: np.ndarray, reader: str) -> list[str]:
        """Say which marks are absent, or half a voxel or more away from where they lie in the patient."""
        problems = []
        for number, ball in self.balls.items():
            voxels = np.argwhere(labels == number)
            if not len(voxels):
                problems.append(f"{reader} finds no {NAMES[str(number)]}")
                continue
            wanted = np.linalg.solve(affine, [*ball, 1])[:3]
            error = float(np.abs(voxels.mean(axis=0) - wanted).max())
            if error >= 0.5:
                problems.append(f"{reader} finds the {NAMES[str(number)]} {error:.2f} voxels away")
        return problems

    def problems(self, source: Path, written: Path) -> list[str]:
        """Compare written labels with their source and the patient, as nibabel and as SimpleITK read both."""
        problems = []
        image = nib.load(written)
        labels = np.asarray(image.dataobj)
        for form in (image.get_sform(), image.get_qform()):
            problems += self.misplaced(labels, form, "nibabel")
        own, other = SimpleITK.ReadImage(str(source)), SimpleITK.ReadImage(str(written))
        problems += self.misplaced(SimpleITK.GetArrayFromImage(other).T, _ras(other), "SimpleITK")
        if own.GetSize() != other.GetSize() or not np.allclose(_ras(own), _ras(other), rtol=0, atol=1e-4):  # float32
            problems.append("the grid is another one than the scan's")
        if source.name.endswith((".nii", ".nii.gz")) and not np.array_equal(nib.load(source).affine, image.affine):
            problems.append("the affine is not the scan's to the last bit")
        return problems


def _ras(image: SimpleITK.Image) -> np.ndarray:
    """Return the affine by asking SimpleITK for four points, and not by its header's fields."""
    corners = [image.TransformIndexToPhysicalPoint(index) for index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    points = np.array(corners) * (-1, -1, 1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = (points[1:] - points[0]).T, points[0]
    return affine


class Marks(nn.Module):
    """Marks each ball by the brightness of its middle, with a logit that crosses zero half-way up its rim.

    The logits change linearly with the image, so that taking them back to the scan's grid loses nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        peak = nn.functional.max_pool3d(image, 7, 1, 3)
        logits = [0 * self.seen + torch.zeros_like(image)]
        for level in LEVELS.values():
            logit = image - (BODY + level) / 2
            logits.append(torch.where((peak - level).abs() < 0.1, logit, -torch.ones_like(image)))
        return torch.cat(logits, dim=1)


@pytest.fixture
def notes(record_property: Callable[[str, object], None]) -> Notes:
    """Call with family, case and problems; assert at the end that ``wrong`` is empty."""
    return Notes(record_property)


@pytest.fixture(scope="session")
def patient() -> MarkedPatient:
    return MarkedPatient()


@pytest.fixture(scope="session")
def run_bundle() -> Callable[..., None]:
    """Run a bundle's workflow in this process: ``run_bundle(name, ["inference", ...], settings)``."""
    from monai.bundle import ConfigWorkflow

    import monai_ext

    def run(bundle: str, names: Sequence[str], settings: Mapping[str, Any]) -> None:
        configs = [str(Path(monai_ext.bundle_path(bundle)) / "configs" / f"{name}.json") for name in names]
        kind = "train" if "train" in names else "infer"
        flow = ConfigWorkflow(config_file=configs, workflow_type=kind, **settings)
        flow.initialize()
        flow.run()
        flow.finalize()

    return run


@pytest.fixture
def segment(run_bundle: Callable[..., None]) -> Callable[..., Path]:
    """Segment with the marking network through the bundle's own inference: ``segment(scans, output, **settings)``."""

    def run(scans: str | os.PathLike[str], output: Path, **settings: Any) -> Path:
        common = {"network": Marks(), "weights": "none.pt", "labels": NAMES, "image_size": [24, 20, 28]}
        common |= {"overlap": 0.25, "precision": "fp32", "device": "cpu"}
        common |= {"dataset_dir": str(scans), "output_dir": str(output)}
        run_bundle("hi_end_mae_ct_segmentation", ["inference"], common | settings)
        return output

    return run
