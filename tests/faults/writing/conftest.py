"""Everything that this package writes, each by its public writer: what the faults of disks are tried on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_ext.base import remove_leftovers

SHAPE = (23, 19, 17)
AFFINE = np.diag([-1.5, -2.0, 2.5, 1.0]) + np.array([[0, 0, 0, 20.0], [0, 0, 0, -7], [0, 0, 0, 3], [0, 0, 0, 0]])
NAMES = {1: "liver", 2: "spleen"}


def labels(version: int) -> np.ndarray:
    return np.random.default_rng(version).integers(0, 3, SHAPE).astype(np.uint8)


def odds(version: int) -> np.ndarray:
    return np.random.default_rng(version).normal(-3, 2, SHAPE).astype(np.float32)


def scan(values: np.ndarray, case: str = "ct_7") -> MetaTensor:
    meta = {"case": case, "scan_sha256": case.encode().hex(), "filename_or_obj": f"{case}.nii.gz"}
    meta |= {"original_affine": AFFINE, "spatial_shape": SHAPE}
    return MetaTensor(torch.as_tensor(values), affine=torch.as_tensor(AFFINE), meta=meta)


def _mask(folder: Path, version: int, overlay: bool = False) -> None:
    from monai_ext.outputs import LabelMapWriter

    LabelMapWriter("pred", folder, NAMES, overlay=overlay)(
        {"pred": scan(labels(version)[None]), "image": scan(odds(version)[None])}
    )


def _localization(folder: Path, version: int, overlay: bool = False) -> None:
    from monai_ext.outputs import AnomalyWriter

    case = {"case": "ct_7", "kind": "volume", "score": 0.5, "detection": 0.25, "skipped": 0}
    AnomalyWriter("pred", folder, "tumour", threshold=1.0, overlay=overlay)(
        case | {"image": scan(100 * odds(version)[None]), "pred": scan(odds(version)[None])}
    )


def _reconstruction(folder: Path, version: int) -> None:
    from monai_ext.outputs import ReconstructionWriter

    ReconstructionWriter("pred", str(folder))({"case": "ct_7", "pred": scan(odds(version)[None] / 10 + 0.5)})


def _volume(folder: Path, version: int) -> None:
    from monai_ext.volumes import Body
    from monai_ext.volumes.store_write import NewVolume, write_volume

    hu = np.random.default_rng(version).integers(-1024, 3072, SHAPE).astype(np.int16)
    volume = NewVolume(
        id="ct_7",
        hu=hu,
        affine=AFFINE,
        spacing_mm=(1.5, 2.0, 2.5),
        source="ct_7.nii.gz",
        source_root="0123abcd",
        source_sha256=f"{version:064x}",
        source_shape=SHAPE,
        source_affine=AFFINE,
        settings={},
        body=Body(((0, 0, 0), SHAPE), np.array([[1, 2, 3]])),
        label=labels(version),
    )
    write_volume(folder, volume)


def _weights(ending: str) -> Callable[[Path, int], None]:
    def write(folder: Path, version: int) -> None:
        from monai_ext.networks.checkpoints import write_checkpoint

        tensors = {name: torch.full((3000,), float(version)) for name in ("first", "second")}
        write_checkpoint(tensors, folder / f"model{ending}")

    return write


def _history(folder: Path, version: int) -> None:
    from monai_ext.handlers import HistoryLines

    lines = HistoryLines(str(folder / "history.jsonl"), SimpleNamespace(param_groups=[{"lr": 0.1}]))
    state = SimpleNamespace(epoch=1, iteration=7, output=[{"loss": torch.tensor(float(version))}])
    engine: Any = SimpleNamespace(state=state)
    lines._add(engine)
    lines._write(engine)


def _manifest(folder: Path, version: int) -> None:
    from monai_ext.manifests import read_shipped, write_manifest

    write_manifest(folder / "list.json", read_shipped(("lidc", "btcv")[version % 2]))


def _page(folder: Path, version: int) -> None:
    from monai_ext import manifest_path
    from monai_ext.curation import summarize_manifest, write_summary_page

    summary = summarize_manifest(manifest_path(("lidc.json", "btcv.json")[version % 2]), headers=0)
    write_summary_page(folder / "page.html", summary)


def _scores(folder: Path, version: int) -> None:
    from monai_ext.metrics import case_scores, write_scores

    pairs = ((f"ct_{number}", labels(version + number), labels(number)) for number in range(3))
    scores = [one for case, found, meant in pairs for one in case_scores(case, found, meant, [1, 2], (1.5, 2.0, 2.5))]
    write_scores(folder / "scores.csv", scores, NAMES)


def _phantom(folder: Path, version: int) -> None:
    from monai_ext.volumes import write_phantoms

    write_phantoms(folder, {"training": 1}, seed=version, shape=(16, 14, 12), spacing_mm=(24, 24, 30))


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "mask": _mask,
    "mask and picture": partial(_mask, overlay=True),
    "localization": _localization,
    "localization and picture": partial(_localization, overlay=True),
    "reconstruction": _reconstruction,
    "store volume": _volume,
    "weights (.pt)": _weights(".pt"),
    "weights (.safetensors)": _weights(".safetensors"),
    "history": _history,
    "manifest": _manifest,
    "HTML page": _page,
    "scores": _scores,
    "phantoms": _phantom,
}
DICOM = ("SEG", "parametric map", "report")


@pytest.fixture
def write(write_series: Callable[..., Path], tmp_path: Path) -> Callable[[str, Path, int], None]:
    """Write by a writer's name into a folder, in one of two versions."""
    headers: list[Any] = []

    def series() -> Any:
        from monai_ext.volumes import open_series

        if not headers:
            pytest.importorskip("highdicom", reason="pip install 'monai-ext[dicom]'")
            hu = np.random.default_rng(5).integers(-200, 300, SHAPE)
            headers.append(open_series(write_series(tmp_path / "ct", hu)))
        return headers[0]

    def dicom(what: str, folder: Path, version: int) -> None:
        from monai_ext.outputs import find_candidates, write_dicom_seg, write_heat_map, write_lesion_report
        from monai_ext.outputs.candidates import candidate_rows

        about: dict[str, Any] = {"algorithm": "AA-CLIP", "version": "1", "case": "ct_7"}
        found, affine = series().headers(), series().affine
        if what == "SEG":
            write_dicom_seg(folder / "seg.dcm", labels(version), affine, found, NAMES, **about)
        elif what == "parametric map":
            write_heat_map(folder / "heat.dcm", odds(version), affine, found, quantity="log-odds", **about)
        else:
            rows = candidate_rows(one := find_candidates(odds(version), 1.0)[1], affine, [None] * len(one))
            write_lesion_report(folder / "report.dcm", rows, found, **about)

    def write_one(what: str, folder: Path, version: int) -> None:
        if what in DICOM:
            dicom(what, folder, version)
        else:
            WRITERS[what](folder, version)

    return write_one


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, hidden ones too, but for the lock and the index of a store."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".index")
    }


@pytest.fixture
def faults() -> SimpleNamespace:
    """What several modules here use; test modules cannot import one another."""
    return SimpleNamespace(
        writers=WRITERS, content=content, remove_leftovers=remove_leftovers, scan=scan, labels=labels, names=NAMES
    )


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Record a planted fault and its outcome; fail at the end of the test if any was not what it should be."""
    bad: list[str] = []

    def note(family: str, case: str, outcome: str, reason: object = "") -> None:
        record_property("fault", [family, case, outcome])
        if outcome not in ("caught", "passed"):
            bad.append(f"{case}: {outcome} ({reason})")

    note.bad = bad  # type: ignore[attr-defined]
    return note
