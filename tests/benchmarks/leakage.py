"""Planted duplicates: how many ``manifest leakage`` finds, and how many scans it calls duplicates that are none.

    python tests/benchmarks/leakage.py [--volumes 1000] [--jobs 2] [--ct CT_FOLDER] [--output FILE.json]

A corpus of phantoms is the training list. The test list holds 100 copies of some of them, 20 of each kind (renamed,
re-oriented, saved with another affine, resampled, cropped by 5 %), and as many phantoms of other patients as a tenth of
the corpus, at least 100. Phantoms of one generator are far more alike than patients are.

Three rows more: copies to which everything was done at once; the same patients scanned again, with other noise, which
is the grey zone between a duplicate and another scan; and, with ``--ct``, real CT, where every pair of different
volumes is a chance for a false alarm, and each is also cropped and resampled.

The threshold was chosen on phantoms of the seeds 9000 to 9249; those here are drawn from other ones.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_ext.base import derive_seed
from monai_ext.curation import LeakageSummary, LeakPair, find_leakage
from monai_ext.curation.leakage import THRESHOLD
from monai_ext.manifests import DatasetCard, Manifest, ManifestEntry
from monai_ext.volumes import phantom_torso, read_scan
from monai_ext.volumes.phantoms import paint_torso, scan_torso
from monai_ext.volumes.prepare_grid import to_ras, to_spacing

SHAPE, SPACING_MM = (64, 48, 56), (6.0, 6.0, 6.0)
KINDS = ("renamed", "re-oriented", "other affine", "resampled", "cropped by 5 %")
EACH = 20
LOW = 0.8  # searched from here on, to tell how far below the threshold different patients stay
RESAMPLED = (0.65, 1.5)  # voxel edges of the copy, as multiples
Volume = tuple[np.ndarray, np.ndarray]


def patient(number: int) -> int:
    """Return the seed of a phantom of the corpus."""
    return derive_seed("leakage benchmark", number)


def cropped(volume: Volume, rng: np.random.Generator) -> Volume:
    """Crop every axis by 5 %: half of the volumes at each side, half at one side of each axis."""
    voxels, affine = volume
    cut = [max(1, round(0.05 * size)) for size in voxels.shape]
    both = rng.random() < 0.5
    starts = [edge if both or rng.random() < 0.5 else 0 for edge in cut]
    stops = [
        size - edge if both or not start else size for size, edge, start in zip(voxels.shape, cut, starts, strict=True)
    ]
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ starts
    return voxels[tuple(slice(*ends) for ends in zip(starts, stops, strict=True))], moved


def resampled(volume: Volume, rng: np.random.Generator) -> Volume:
    """Resample to other voxel edges, another one along each axis."""
    voxels, affine = volume
    edges = np.linalg.norm(affine[:3, :3], axis=0) * rng.uniform(*RESAMPLED, 3)
    moved = to_spacing(voxels.astype(np.float32), affine, edges.tolist())
    return np.rint(moved[0]).astype(np.int16), moved[1]


def reoriented(volume: Volume, rng: np.random.Generator) -> Volume:
    """Store the axes in another order and direction, with the affine that says so."""
    turn = np.stack([rng.permutation(3), rng.choice([-1, 1], 3)], axis=1)
    voxels, affine = volume
    return nib.orientations.apply_orientation(voxels, turn), affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)


def other_affine(volume: Volume, rng: np.random.Generator) -> Volume:
    """Keep the voxels and claim that they lie otherwise: other axes, directions, edges and place."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3) * rng.uniform(0.5, 5, 3)
    affine[:3, 3] = rng.uniform(-500, 500, 3)
    return volume[0], affine


def other_grey(volume: Volume, rng: np.random.Generator) -> Volume:
    """Scale, shift, clip and coarsen the HU."""
    hu = volume[0] * rng.uniform(0.95, 1.05) + rng.uniform(-20, 20)
    return (4 * np.rint(np.clip(hu, -1000, 1000) / 4)).astype(np.int16), volume[1]


PLANTS: dict[str, Callable[[Volume, np.random.Generator], Volume]] = {
    "renamed": lambda volume, rng: volume,
    "re-oriented": reoriented,
    "other affine": other_affine,
    "resampled": resampled,
    "cropped by 5 %": cropped,
    "all at once": lambda volume, rng: other_affine(other_grey(resampled(cropped(volume, rng), rng), rng), rng),
}


def save(path: Path, volume: Volume) -> None:
    """Write a volume as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume[0], volume[1])
    image.set_qform(volume[1], code=1)
    image.set_sform(volume[1], code=1)
    image.to_filename(path)


def make(root: Path, job: tuple[str, int, str]) -> None:
    """Make one volume: its path, the number of its patient, and what is done to it."""
    name, number, kind = job
    if kind == "scanned again":
        painted = paint_torso(patient(number), SHAPE, SPACING_MM)
        phantom = scan_torso(painted._replace(patient=replace(painted.patient, seed=derive_seed("again", number))))
    else:
        phantom = phantom_torso(patient(number), SHAPE, SPACING_MM)
    volume = phantom.hu, phantom.affine
    if kind in PLANTS:
        volume = PLANTS[kind](volume, np.random.default_rng(derive_seed("plant", kind, number)))
    save(root / name, volume)


def manifest(name: str, paths: list[str], split: str) -> Manifest:
    """Return a manifest of volumes."""
    entries = [ManifestEntry(Path(path).name.split(".")[0], name, path, split=split) for path in paths]
    return Manifest(name, {name: DatasetCard(name)}, entries=entries)


def corpus(root: Path, volumes: int, jobs: int) -> tuple[Manifest, dict[str, tuple[str, str | None]]]:
    """Make corpus and copies; return the training list, and of each test scan its kind and what it is a copy of."""
    rng = np.random.default_rng(derive_seed("plants", volumes))
    chosen = rng.permutation(volumes)
    work = [(f"training/v{number:05}.nii.gz", number, "") for number in range(volumes)]
    truth: dict[str, tuple[str, str | None]] = {}
    copies = [(kind, EACH) for kind in KINDS] + [("all at once", EACH), ("scanned again", EACH)]
    kinds = [kind for kind, count in copies for _ in range(count)]
    planned = [(kind, int(number)) for kind, number in zip(kinds, chosen[: len(kinds)], strict=True)]
    planned += [("", volumes + number) for number in range(max(100, volumes // 10))]
    for place, (kind, number) in enumerate(planned):
        name = f"x{place:05}"
        work.append((f"test/{name}.nii.gz", number, kind))
        truth[name] = kind or "other patient", f"v{number:05}" if kind else None
    with ProcessPoolExecutor(jobs) as pool:
        list(pool.map(partial(make, root), work, chunksize=16))
    return manifest("training", [name for name, *_ in work[:volumes]], "training"), truth


def above(summary: LeakageSummary) -> list[LeakPair]:
    """Return the pairs that the default threshold reports, of a search with a lower one."""
    return [pair for pair in summary.pairs if pair.score >= THRESHOLD]


def score(summary: LeakageSummary, truth: dict[str, tuple[str, str | None]]) -> dict[str, Any]:
    """Count what was found of each kind, and pairs and scans that are false alarms."""
    found = {pair.second.id: pair for pair in above(summary) if pair.first.id == truth[pair.second.id][1]}
    wrong = [pair for pair in above(summary) if pair.first.id != truth[pair.second.id][1]]
    rows = {}
    for kind in dict.fromkeys(kind for kind, _ in truth.values()):
        mine = [name for name, (other, _) in truth.items() if other == kind]
        hits = [found[name] for name in mine if name in found]
        rows[kind] = {
            "scans": len(mine),
            "found": len(hits),
            "how": dict(Counter(pair.kind for pair in hits)),
            "lowest_score": min((pair.score for pair in hits), default=None),
            "false_alarm_pairs": sum(truth[pair.second.id][0] == kind for pair in wrong),
            "false_alarm_scans": len({pair.second.id for pair in wrong if truth[pair.second.id][0] == kind}),
        }
    return rows


def real(folder: Path, root: Path) -> dict[str, Any]:
    """Compare real CT with changed copies: different volumes are chances for a false alarm."""
    names = ["torso_3mm.nii.gz", "abdomen_slab_3mm.nii.gz", "heart_1p5mm.nii.gz", "dicom_jpeg2000"]
    truth: dict[str, str] = {}
    for name in names:
        scan = read_scan(folder / name)
        volume = to_ras(np.rint(scan.voxels).astype(np.int16), scan.affine)
        own = name.split(".")[0]
        save(root / "training" / f"{own}.nii.gz", volume)
        for kind, plant in PLANTS.items():
            for turn in range(3):
                copy = plant(volume, np.random.default_rng(derive_seed("real plant", own, kind, turn)))
                if min(copy[0].shape) > 1:
                    case = f"{own}-{kind.replace(' ', '_').replace('%', 'pc')}-{turn}"
                    save(root / "test" / f"{case}.nii.gz", copy)
                    truth[case] = own
    lists = [
        manifest(name, sorted(path.relative_to(root).as_posix() for path in (root / name).iterdir()), name)
        for name in ("training", "test")
    ]
    summary = find_leakage(*lists, first_root=root, jobs=0)
    right = {pair.second.id for pair in summary.pairs if pair.first.id == truth[pair.second.id]}
    scores = [pair.score for pair in summary.pairs if pair.first.id == truth[pair.second.id]]
    return {
        "volumes": len(names),
        "copies": len(truth),
        "found": len(right),
        "lowest_score": min(scores, default=None),
        "missed": sorted(truth.keys() - right),
        "false_alarm_pairs": sum(pair.first.id != truth[pair.second.id] for pair in summary.pairs),
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = ["| test scans | of them found | lowest score | false alarms: pairs | scans |", "|---|---|---|---|---|"]
    for kind, row in result["kinds"].items():
        hits = f"{row['found']} of {row['scans']}" if kind != "other patient" else f"- ({row['scans']} scans)"
        lowest = "-" if row["lowest_score"] is None else f"{row['lowest_score']:.3f}"
        lines.append(f"| {kind} | {hits} | {lowest} | {row['false_alarm_pairs']} | {row['false_alarm_scans']} |")
    corpus_row = result["within_corpus"]
    lines.append(
        f"| corpus with itself | - ({corpus_row['scans']} scans) | - | {corpus_row['false_alarm_pairs']} | "
        f"{corpus_row['false_alarm_scans']} |"
    )
    if "real_ct" in result:
        row = result["real_ct"]
        lines.append(
            f"| copies of {row['volumes']} real CT | {row['found']} of {row['copies']} | {row['lowest_score']:.3f} | "
            f"{row['false_alarm_pairs']} | |"
        )
    highest = result["highest_score_of_different_patients"]
    told = f"below {LOW:g}" if highest is None else f"{highest:.3f}"
    lines += ["", f"Different patients reach {told}; the threshold is {THRESHOLD:g}."]
    return "\n".join(lines)


def tell(part: str, **row: Any) -> None:
    """Print what is known so far as one line: ten thousand volumes take most of an hour."""
    print(json.dumps({"part": part, **row}), file=sys.stderr, flush=True)


def bench(root: Path, volumes: int, jobs: int, ct: Path | None) -> dict[str, Any]:
    """Make everything, search, and count."""
    started = time.perf_counter()
    training, truth = corpus(root, volumes, jobs)
    made = time.perf_counter()
    tell("made", volumes=len(training.entries), copies=len(truth), seconds=round(made - started))
    test = manifest("test", [f"test/{name}.nii.gz" for name in truth], "test")
    cache = root / "fingerprints"
    settings: dict[str, Any] = {"first_root": root, "jobs": jobs, "cache": cache, "threshold": LOW, "progress": True}
    summary = find_leakage(training, test, **settings)
    searched = time.perf_counter()
    wrong = [pair.score for pair in summary.pairs if pair.first.id != truth[pair.second.id][1]]
    kinds = score(summary, truth)
    tell("two lists", kinds=kinds, highest_score_of_different_patients=max(wrong, default=None))
    alone = find_leakage(training, **settings)
    planted = [kinds[kind] for kind in KINDS]
    result = {
        "volumes": volumes,
        "planted": sum(row["scans"] for row in planted),
        "found": sum(row["found"] for row in planted),
        "false_alarm_scans_share": round(
            sum(row["false_alarm_scans"] for row in kinds.values()) / sum(row["scans"] for row in kinds.values()), 4
        ),
        "kinds": kinds,
        "within_corpus": {
            "scans": volumes,
            "false_alarm_pairs": len(above(alone)),
            "false_alarm_scans": len({entry.id for pair in above(alone) for entry in (pair.first, pair.second)}),
        },
        "highest_score_of_different_patients": max([*wrong, *(pair.score for pair in alone.pairs)], default=None),
        "not_compared": len(summary.problems) + len(alone.problems),
        "seconds": {"making": round(made - started), "two_lists": round(searched - made)}
        | {"one_list_cached": round(time.perf_counter() - searched)},
        "peak_mb": {
            who: round(resource.getrusage(number).ru_maxrss / 1024)
            for who, number in (("own", resource.RUSAGE_SELF), ("largest_worker", resource.RUSAGE_CHILDREN))
        },
    }
    if ct is not None:
        result["real_ct"] = real(ct, root / "real")
    return result


def main() -> None:
    """Print the result as JSON and as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=1000, help="phantoms in the training list, at least 140")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--ct", type=Path, help="folder of real CT, shared/ct")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    if arguments.volumes < EACH * (len(KINDS) + 2):
        parser.error(f"--volumes: give at least {EACH * (len(KINDS) + 2)}, one for each copy")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        result = bench(Path(folder), arguments.volumes, arguments.jobs, arguments.ct)
    text = json.dumps(result, indent=1)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\n{table(result)}")


if __name__ == "__main__":
    main()
