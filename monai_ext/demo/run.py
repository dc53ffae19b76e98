"""The whole way on made-up patients: prepare, pretrain, fine-tune, evaluate, segment, localize lesions, report."""

import json
import shutil
from pathlib import Path

from rich.console import Console

from monai_ext.base import ManifestError, ScanError, SettingError, check_output, replacing
from monai_ext.demo.localization import demonstrate_localization
from monai_ext.demo.plan import plan_demo
from monai_ext.demo.report import write_report
from monai_ext.demo.result import DemoResult
from monai_ext.demo.segmentation import SHOWN, demonstrate_segmentation
from monai_ext.volumes import find_scans, read_scan

# Nine classes of float32 logits on the scan's own grid; this many voxels need about 9 GB of memory.
LARGEST_VOXELS = 80_000_000
MARK = "demo.json"  # by which a demonstration's folder is known, so it goes last and comes first
# Its parts are overwritten by a new demonstration; anything else in the folder is left alone.
_OURS = (
    "phantoms",
    "store",
    "pretraining",
    "finetuning",
    "evaluation",
    "segmentations",
    "lesions",
    "index.html",
)


def run_demo(
    output: str | Path,
    scan: str | Path | None = None,
    minutes: float = 10,
    seed: int = 0,
    assume_hu: bool = False,
    lesions: bool = True,
) -> DemoResult:
    """Run the demonstration and write ``index.html``.

    Args:
        output: its folder; an earlier demonstration there is replaced, another folder's content refused.
        scan: a CT scan of the user's to segment too, a file or a DICOM series folder.
        minutes: for everything, on two CPU cores; training is scaled to it.
        seed: chooses phantoms, weights and every draw.
        assume_hu: take the user's scan for HU although it does not look so.
        lesions: whether the second half, the small CLIP, is shown too.

    Raises:
        SettingError: too little time, or the folder holds something else, such as the scan.
        ScanError: the scan cannot be used.
        WriteError: the folder cannot be written.
    """
    folder = Path(output).absolute()
    plan = plan_demo(minutes, lesions)
    result = DemoResult(folder, minutes)
    check_output(folder)
    chosen = _check_scan(scan, result, assume_hu)
    _make_room(folder)
    demonstrate_segmentation(result, plan, seed, chosen, assume_hu)
    if lesions:
        demonstrate_localization(result, plan, seed)
    with replacing(folder / MARK) as temporary:
        temporary.write_text(json.dumps({"minutes": minutes, "seconds": result.seconds}), encoding="utf-8")
    write_report(result, plan)
    return result


def _check_scan(scan: str | Path | None, result: DemoResult, assume_hu: bool) -> list[Path]:
    """Read the user's scan before minutes are spent, and set aside one that the demonstration cannot hold."""
    if scan is None:
        return []
    found = find_scans(scan)
    if len(found) != 1:
        raise ScanError(
            f"{Path(scan).name}: holds {len(found)} scans and the demo takes one; name one of them",
            code="scan.several",
        )
    path, case = found[0].image, found[0].case
    if found[0].problem:
        raise ManifestError(found[0].problem, code="manifest.entry", case=case)
    if case == SHOWN:
        raise ScanError(f"{case}: a patient of the demo has that name; rename the scan", code="scan.name", case=case)
    if path.resolve().is_relative_to(result.folder.resolve()):
        raise SettingError(
            f"{case}: lies inside the output folder, which a new demo clears; choose another --output",
            code="setting.output",
        )
    voxels = read_scan(path, case=case, assume_hu=assume_hu).voxels.size
    if voxels > LARGEST_VOXELS:
        result.notes.append(
            f"{case} has {voxels / 1e6:.0f} million voxels, more than the {LARGEST_VOXELS / 1e6:.0f} million that "
            "this demonstration segments in memory; it was left out. Crop it, or resample it to 1.5 mm."
        )
        Console(stderr=True).print(result.notes[-1], style="yellow", markup=False)
        return []
    return [path]


def _make_room(folder: Path) -> None:
    """Clear what an earlier demonstration left, also one that was interrupted; nothing else is touched."""
    mark = folder / MARK
    if folder.exists():
        there = sorted(path.name for path in folder.iterdir())
        if there and not mark.exists():
            raise SettingError(
                f"output: {folder.name!r} already holds {there[0]!r}; choose an empty or a new folder",
                code="setting.output",
            )
        for name in _OURS:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    with replacing(mark) as temporary:
        temporary.write_text("{}", encoding="utf-8")
