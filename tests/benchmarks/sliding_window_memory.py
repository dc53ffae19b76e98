"""Peak memory and time of segmenting a large scan from file to file, beside MONAI's way.

    python tests/benchmarks/sliding_window_memory.py --way bricks --shape 512 512 1000 --classes 118
    python tests/benchmarks/sliding_window_memory.py --compare --shape 192 192 240 --classes 24
    python tests/benchmarks/sliding_window_memory.py --torso shared/ct/torso_3mm.nii.gz --classes 14
    python tests/benchmarks/sliding_window_memory.py --agree

The first tells the peak of its own process (VmHWM); with ``--scratch FOLDER`` sums that wait lie in a file. The second
tells the ratio of time and memory of both ways, each in a process of its own, and how many labels differ. The third
pads a real scan to a scanner's field of view and compares MONAI's inferer with bricks that skip what is outside the
body. The predictor is a cheap fake one, or with ``--network tiny`` the small segmentation network with random weights,
on windows of its own: what users run. The fourth counts the labels that differ from MONAI's inferer, and by how much
the two best classes differ there, for random logits of 118 classes; also where sums are of half precision. Beside
seconds stand those of the processor, which other work on the machine changes less.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Invertd

from monai_ext.base import case_id
from monai_ext.inferers import BrickInferer, MirroredSlidingWindow, segment_to_file
from monai_ext.networks import HiEndSegmenter
from monai_ext.outputs import LabelMapWriter
from monai_ext.transforms import load_ct

WINDOW = (96, 96, 96)
SMALL = (24, 32, 28)  # windows of `agree`


class Fake(torch.nn.Module):
    """Logits that follow the grey values, at the price of one product a class and ``work`` convolutions."""

    def __init__(self, classes: int, work: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.classes, self.work = classes, work
        self.slope = torch.randn(classes, 1, 1, 1, generator=generator)
        self.kernel = torch.randn(8, 1, 3, 3, 3, generator=generator)
        self.windows = 0

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        self.windows += len(window)
        for _ in range(self.work):
            torch.nn.functional.conv3d(window, self.kernel, padding=1)
        levels = torch.linspace(0, 1, self.classes).view(-1, 1, 1, 1)
        return (window - levels).mul_(self.slope)


class Tiny(torch.nn.Module):
    """The small segmentation network for these windows, with random weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.network = HiEndSegmenter.tiny(classes, WINDOW, (16, 16, 16)).eval()
        self.windows = 0

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        self.windows += len(window)
        found: torch.Tensor = self.network(window)
        return found


def peak_gib() -> float:
    """Return the highest resident memory of this process so far."""
    line = next(
        row for row in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if row.startswith("VmHWM")
    )
    return int(line.split()[1]) / 2**20


def phantom(path: Path, shape: list[int]) -> Path:
    """Write noise in a cylinder of tissue as int16, plane by plane, 0.98 x 0.98 x 1 mm."""
    generator = np.random.default_rng(0)
    x, y = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    inside = (x**2 / 0.6 + y**2 / 0.4) < 1
    voxels = np.empty(shape, np.int16, order="F")
    for z in range(shape[2]):
        plane = generator.normal(40, 60, shape[:2]) + 60 * np.sin(7 * x + z / 25) * np.cos(9 * y - z / 40)
        voxels[:, :, z] = np.where(inside, plane, generator.normal(-1000, 20, shape[:2]))
    image = nib.Nifti1Image(voxels, np.diag([-0.98, -0.98, 1, 1]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return path


def run(args: argparse.Namespace, scan: Path, out: Path) -> dict[str, float]:
    """Segment one scan one way in this process."""
    network = Tiny(args.classes) if args.network == "tiny" else Fake(args.classes, args.work)
    names = {number: f"class {number}" for number in range(1, args.classes)}
    started, worked = time.monotonic(), time.process_time()
    chain = load_ct()
    with torch.inference_mode():
        data = chain({"image": scan})
        read, read_peak = time.monotonic() - started, peak_gib()
        if args.way != "monai":
            body = 0.1 if args.way == "body" else None
            settings = {"sums": args.sums, "scratch_dir": args.scratch, "body_above": body}
            inferer = BrickInferer(WINDOW, 1, args.overlap, progress=True, **settings)
            segment_to_file(out, data["image"], network, inferer, names)
        else:
            inferer = SlidingWindowInferer(WINDOW, 1, args.overlap, mode="gaussian")
            data["pred"] = MetaTensor(inferer(data["image"].as_tensor()[None], network)[0])
            data = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(data)
            LabelMapWriter("pred", out.parent, names)(data)
    return {
        "windows": network.windows,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "reading_seconds": round(read, 1),
        "reading_peak_gib": round(read_peak, 2),
        "peak_gib": round(peak_gib(), 2),
    }


def compare(args: argparse.Namespace, ways: Sequence[str] = ("monai", "bricks")) -> dict[str, object]:
    """Run ways in processes of their own, on the scan that is given or a phantom."""
    with tempfile.TemporaryDirectory() as folder:
        scan = args.scan or phantom(Path(folder) / "scan.nii.gz", args.shape)
        found: dict[str, Any] = {}
        for way in ways:
            command = [sys.executable, __file__, "--way", way, "--scan", str(scan), "--out", f"{folder}/{way}.nii.gz"]
            command += ["--classes", str(args.classes), "--overlap", str(args.overlap), "--work", str(args.work)]
            command += ["--network", args.network]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
        for way in ways[1:]:
            for key in ("seconds", "cpu_seconds", "peak_gib"):
                found[f"{way}_{key}_ratio"] = round(found[way][key] / found["monai"][key], 2)
        case = case_id(scan)
        maps = [Path(folder) / case / f"{case}_seg.nii.gz", Path(folder) / "bricks.nii.gz"]
        one, two = (np.asarray(nib.load(path).dataobj) for path in maps)
        found["labels_that_differ"] = float(np.mean(one != two))
    return found


def torso(args: argparse.Namespace) -> dict[str, object]:
    """Compare on a real scan in air, as far as a scanner sees: 500 mm."""
    image = nib.load(args.torso)
    edges = image.header.get_zooms()
    wanted = [max(size, round(500 / edges[axis])) if axis < 2 else size for axis, size in enumerate(image.shape)]
    before = [(full - size) // 2 for size, full in zip(image.shape, wanted, strict=True)]
    pads = [(low, full - size - low) for low, size, full in zip(before, image.shape, wanted, strict=True)]
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ before
    padded = nib.Nifti1Image(np.pad(np.asarray(image.dataobj), pads, constant_values=-1000), affine, image.header)
    with tempfile.TemporaryDirectory() as folder:
        args.scan = Path(folder) / "torso.nii.gz"
        nib.save(padded, args.scan)
        return {"shape": list(padded.shape)} | compare(args, ("monai", "bricks", "body"))


class RandomLogits(torch.nn.Module):
    """Logits of 118 classes that differ with the place in a window and with its content."""

    def __init__(self) -> None:
        super().__init__()
        self.ramp = torch.randn((118, *SMALL), generator=torch.Generator().manual_seed(2))

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.ramp * (window - 0.3) + window.mean(dim=(2, 3, 4), keepdim=True) * self.ramp.flip(0)


def agree() -> None:
    """Count labels that differ from MONAI's inferer on volumes of odd sizes, some smaller than the window."""
    network, generator = RandomLogits(), torch.Generator().manual_seed(3)
    cases: list[tuple[float, list[int], str]] = [(overlap, [], "float32") for overlap in (0.25, 0.5, 0.6, 0.75)]
    cases += [(0.5, [1, 2], "float32"), (0.5, [], "float16"), (0.5, [], "bfloat16")]
    for overlap, mirror, kind in cases:
        differ, voxels, margin = 0, 0, 0.0
        for shape in ((53, 61, 71), (19, 67, 83), (17, 23, 21)):
            image = torch.rand((1, 1, *shape), generator=generator)
            with torch.inference_mode():
                expected = MirroredSlidingWindow(SMALL, 2, overlap, mirror)(image, network)
                found = BrickInferer(SMALL, 2, overlap, mirror, kind)(image, network)
            apart = found.argmax(dim=1) != expected.argmax(dim=1)
            best = expected.movedim(1, -1)[apart].topk(2).values
            margin = max(margin, float((best[:, 0] - best[:, 1]).max()) if len(best) else 0.0)
            differ, voxels = differ + int(apart.sum()), voxels + apart.numel()
        row = {"overlap": overlap, "mirror_axes": mirror, "sums": kind, "voxels": voxels, "differ": differ}
        print(json.dumps(row | {"share": differ / voxels, "largest_margin": margin}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=["bricks", "body", "monai"], default="bricks")
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 1000])
    parser.add_argument("--classes", type=int, default=118)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--sums", default="float32")
    parser.add_argument("--work", type=int, default=0, help="convolutions of the fake predictor")
    parser.add_argument("--network", choices=["fake", "tiny"], default="fake")
    parser.add_argument("--scratch", type=Path, help="a folder for sums that wait, instead of memory")
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--torso", type=Path)
    parser.add_argument("--agree", action="store_true")
    args = parser.parse_args()
    if args.torso:
        print(json.dumps(torso(args), indent=1))
    elif args.compare:
        print(json.dumps(compare(args), indent=1))
    elif args.agree:
        agree()
    elif args.scan:
        print(json.dumps(run(args, args.scan, args.out)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            # In a process of its own, for making the phantom takes memory too.
            scan = phantom(Path(folder) / "scan.nii.gz", args.shape)
            command = [
                sys.executable,
                __file__,
                "--scan",
                str(scan),
                "--out",
                f"{folder}/out.nii.gz",
                "--way",
                args.way,
            ]
            command += ["--classes", str(args.classes), "--overlap", str(args.overlap), "--work", str(args.work)]
            command += [
                "--network",
                args.network,
                "--sums",
                args.sums,
                *(["--scratch", str(args.scratch)] if args.scratch else []),
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
