"""Scans that two lists share: each kind of change is found, other scans are not, and what cannot be read is told."""

import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_ext.base import ManifestError, SettingError, WriteError
from monai_ext.curation import LeakageSummary, find_leakage
from monai_ext.curation.fingerprints import fingerprint_path, load_fingerprint
from monai_ext.curation.leakage_search import KINDS
from monai_ext.curation.thumbnails import overlap_matrix, volume_thumbnail
from monai_ext.curation.turns import all_turns
from monai_ext.manifests import DatasetCard, Manifest, ManifestEntry, Relation
from monai_ext.volumes import phantom_torso, read_scan
from monai_ext.volumes.prepare_grid import to_ras, to_spacing

SAME_FILE, SAME_VOXELS, NEAR = KINDS
PATIENTS, COARSE = 8, ((53, 41, 47), (7.0, 7.0, 7.0))
AFFINE = np.diag([7.0, 7.0, 7.0, 1.0])
Voxels = np.ndarray


@pytest.fixture(scope="module")
def patients() -> list[Voxels]:
    return [phantom_torso(seed, *COARSE).hu for seed in range(500, 500 + PATIENTS)]


def save(path: Path, voxels: Voxels, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, affine).to_filename(path)
    return path


def manifest(name: str, *paths: str, split: str = "training") -> Manifest:
    entries = [ManifestEntry(Path(path).name.split(".")[0], name, path, split=split) for path in paths]
    return Manifest(name, {name: DatasetCard(name)}, entries=entries)


@pytest.fixture(scope="module")
def corpus(patients: list[Voxels], tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """The training list, and its root."""
    root = tmp_path_factory.mktemp("corpus")
    names = [f"images/p{number:02}.nii.gz" for number in range(PATIENTS)]
    for name, voxels in zip(names, patients, strict=True):
        save(root / name, voxels)
    return manifest("corpus", *names), root


def found_in(corpus: tuple[Manifest, Path], other: Manifest, root: Path) -> LeakageSummary:
    return find_leakage(corpus[0], other, first_root=corpus[1], second_root=root, jobs=0)


def resampled(voxels: Voxels) -> Voxels:
    return np.rint(to_spacing(voxels.astype(np.float32), AFFINE, (10.0, 5.5, 8.5))[0]).astype(np.int16)


def cropped_sides(voxels: Voxels) -> Voxels:
    return voxels[3:-3, 2:-2, 2:-2]


def cropped_once(voxels: Voxels) -> Voxels:
    return voxels[3:, :-2, 2:]


def other_grey(voxels: Voxels) -> Voxels:
    return (8 * np.rint(np.clip(1.06 * voxels - 20, -900, 600) / 8)).astype(np.int16)


def turned(voxels: Voxels) -> Voxels:
    return voxels.transpose(2, 0, 1)[::-1, :, ::-1]


def mirrored_and_resampled(voxels: Voxels) -> Voxels:
    return turned(other_grey(resampled(voxels)))


NEARLY = [resampled, cropped_sides, cropped_once, other_grey, mirrored_and_resampled]


@pytest.mark.parametrize("change", NEARLY)
def test_a_changed_copy_is_found_and_nothing_else(
    corpus: tuple[Manifest, Path], patients: list[Voxels], tmp_path: Path, change: Callable[[Voxels], Voxels]
) -> None:
    for number in (1, 4):
        save(tmp_path / f"x{number}.nii.gz", change(patients[number]))
    summary = found_in(corpus, manifest("test", "x1.nii.gz", "x4.nii.gz", split="test"), tmp_path)
    found = {(pair.first.id, pair.second.id, pair.kind) for pair in summary.pairs}
    assert found == {("p01", "x1", NEAR), ("p04", "x4", NEAR)}
    assert all(0.92 <= pair.score < 1 for pair in summary.pairs)
    assert (summary.exit_code, summary.compared) == (1, PATIENTS + 2)


def test_other_patients_are_not_found(corpus: tuple[Manifest, Path], tmp_path: Path) -> None:
    for seed in range(3):
        save(tmp_path / f"x{seed}.nii.gz", phantom_torso(seed, *COARSE).hu)
    summary = found_in(corpus, manifest("test", "x0.nii.gz", "x1.nii.gz", "x2.nii.gz"), tmp_path)
    assert (summary.pairs, summary.problems, summary.exit_code) == ([], [], 0)
    alone = find_leakage(corpus[0], first_root=corpus[1], jobs=0)
    assert (alone.pairs, alone.problems, alone.exit_code) == ([], [], 0)


def test_exact_copies_are_told_from_one_another(
    corpus: tuple[Manifest, Path], patients: list[Voxels], tmp_path: Path
) -> None:
    folder = corpus[1] / "images"
    shutil.copy(folder / "p00.nii.gz", tmp_path / "renamed.nii.gz")
    (tmp_path / "unpacked.nii").write_bytes(gzip.decompress((folder / "p01.nii.gz").read_bytes()))
    save(
        tmp_path / "claims.nii.gz", patients[2], np.array([[0, 3, 0, 9], [-2, 0, 0, 5], [0, 0, 1.5, 7], [0, 0, 0, 1.0]])
    )
    save(tmp_path / "turned.nii.gz", turned(patients[3]))
    save(tmp_path / "floats.nii.gz", patients[4].astype(np.float32))
    names = ["renamed.nii.gz", "unpacked.nii", "claims.nii.gz", "turned.nii.gz", "floats.nii.gz"]
    summary = found_in(corpus, manifest("test", *names), tmp_path)
    assert [(pair.first.id, pair.second.id, pair.kind, pair.score) for pair in summary.pairs] == [
        ("p00", "renamed", SAME_FILE, 1.0),
        ("p01", "unpacked", SAME_VOXELS, 1.0),
        ("p02", "claims", SAME_VOXELS, 1.0),
        ("p03", "turned", SAME_VOXELS, 1.0),
        ("p04", "floats", SAME_VOXELS, 1.0),
    ]


def test_many_copies_are_all_named(corpus: tuple[Manifest, Path], patients: list[Voxels], tmp_path: Path) -> None:
    # More than the nearest that are kept of one scan, and copies of copies.
    names = []
    for edge in range(9):
        voxels = patients[5][edge % 3 : -1 - edge // 3]
        names += [f"c{edge}.nii.gz", f"again{edge}.nii.gz"]
        save(tmp_path / names[-2], voxels)
        save(tmp_path / names[-1], turned(voxels))
    summary = found_in(corpus, manifest("test", *names), tmp_path)
    assert {pair.first.id for pair in summary.pairs} == {"p05"}
    assert sorted(pair.second.id for pair in summary.pairs) == sorted(name.split(".")[0] for name in names)


def test_one_list_expects_likeness_within_a_patient_and_split(patients: list[Voxels], tmp_path: Path) -> None:
    for name, voxels in [("a", patients[0]), ("b", cropped_once(patients[0])), ("c", patients[1])]:
        save(tmp_path / f"{name}.nii.gz", voxels)
    shutil.copy(tmp_path / "c.nii.gz", tmp_path / "d.nii.gz")
    alone = manifest("own", *(f"{name}.nii.gz" for name in "abcd"))
    same = replace(alone, entries=[replace(entry, group="p") for entry in alone.entries])
    parted = replace(
        same, entries=[replace(entry, split="test") if entry.id == "b" else entry for entry in same.entries]
    )
    kinds = {("a", "b"): NEAR, ("c", "d"): SAME_FILE}
    for listed, expected in [(alone, kinds), (same, {("c", "d"): SAME_FILE}), (parted, kinds)]:
        summary = find_leakage(listed, first_root=tmp_path, jobs=0)
        assert {(pair.first.id, pair.second.id): pair.kind for pair in summary.pairs} == expected
        assert bool(summary.notes) == (listed is same)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    corpus: tuple[Manifest, Path], patients: list[Voxels], tmp_path: Path
) -> None:
    root = tmp_path / "Doe^Jane"
    save(root / "good.nii.gz", patients[6])
    (root / "torn.nii.gz").write_bytes((root / "good.nii.gz").read_bytes()[:-900])
    (root / "empty.png").write_bytes(b"")
    save(root / "nan.nii.gz", np.full((5, 6, 7), np.nan, np.float32))
    save(tmp_path / "outside.nii.gz", patients[7])
    names = ["good.nii.gz", "torn.nii.gz", "gone.nii.gz", "nan.nii.gz", "empty.png", "../outside.nii.gz"]
    summary = found_in(corpus, manifest("test", *names), root)
    assert [(problem.case, problem.kind) for problem in sorted(summary.problems, key=lambda one: one.case)] == [
        ("empty", "picture.unreadable"),
        ("gone", "scan.missing"),
        ("nan", "scan.not_finite"),
        ("outside", "manifest.outside_root"),
        ("torn", "scan.damaged"),
    ]
    assert not any("Doe" in problem.sentence or "/" in problem.sentence for problem in summary.problems)
    assert [pair.second.id for pair in summary.pairs] == ["good"]
    unread = found_in(corpus, manifest("test", "gone.nii.gz"), root)
    assert (unread.pairs, unread.exit_code) == ([], 1)


def test_fingerprints_are_kept_by_checksum_and_hold_no_name(
    corpus: tuple[Manifest, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    settings = {"first_root": corpus[1], "jobs": 0, "cache": cache}
    listed = replace(corpus[0], entries=corpus[0].entries[:4])
    find_leakage(listed, **settings)
    kept = sorted(path for path in cache.rglob("*") if path.is_file())
    assert len(kept) == 4
    assert not any(name in path.as_posix().removeprefix(str(tmp_path)) for path in kept for name in ("p0", "images"))
    assert not any(b"images" in path.read_bytes() or b"corpus" in path.read_bytes() for path in kept)
    reads = []

    def counted(path: Path, **more: object) -> object:
        reads.append(path.name)
        return read_scan(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("monai_ext.curation.fingerprints.read_scan", counted)
    kept[0].write_bytes(kept[0].read_bytes()[:-20])
    kept[1].write_bytes(b"")
    find_leakage(listed, **settings)
    assert len(reads) == 2  # damaged ones are taken anew, and only those
    assert load_fingerprint(kept[0], 3) is not None
    find_leakage(listed, **settings)
    assert len(reads) == 2


def test_a_fingerprint_runs_no_code(tmp_path: Path) -> None:
    path = fingerprint_path(tmp_path, "ab" * 32, 3)
    path.parent.mkdir(parents=True)
    evil = np.array([{"any": "object"}], dtype=object)
    np.savez(path, voxels=evil, cells=evil, reach=evil)
    assert load_fingerprint(path, 3) is None


def test_processes_find_what_one_does(corpus: tuple[Manifest, Path], patients: list[Voxels], tmp_path: Path) -> None:
    save(tmp_path / "x.nii.gz", cropped_once(patients[7]))
    other = manifest("test", "x.nii.gz")
    two = find_leakage(corpus[0], other, first_root=corpus[1], second_root=tmp_path, jobs=2)
    assert two.pairs == found_in(corpus, other, tmp_path).pairs
    assert two.pairs[0].second.id == "x"


def picture(seed: int, size: int = 96) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        ndimage.zoom(rng.uniform(0, 255, (edge, edge, 3)), (size / edge, size / edge, 1), order=1) for edge in (4, 12)
    ]
    return np.clip(0.5 * layers[0] + 0.5 * layers[1], 0, 255).astype(np.uint8)


def test_pictures_are_compared_too(tmp_path: Path) -> None:
    for seed in range(8):
        Image.fromarray(picture(seed)).save(tmp_path / f"n{seed}.png")
    Image.fromarray(picture(0)).save(tmp_path / "bmp.bmp")
    Image.fromarray(np.ascontiguousarray(picture(1)[:, ::-1])).save(tmp_path / "flipped.png")
    Image.fromarray(picture(2)).resize((61, 70)).save(tmp_path / "small.jpg", quality=60)
    Image.fromarray(picture(3)[4:-4, 5:]).save(tmp_path / "cropped.png")
    Image.fromarray(picture(11)).save(tmp_path / "other.png")
    first = manifest("first", *(f"n{seed}.png" for seed in range(8)))
    second = manifest("second", "bmp.bmp", "flipped.png", "small.jpg", "cropped.png", "other.png")
    summary = find_leakage(first, second, first_root=tmp_path, jobs=0)
    assert {(pair.first.id, pair.second.id): pair.kind for pair in summary.pairs} == {
        ("n0", "bmp"): SAME_VOXELS,
        ("n1", "flipped"): SAME_VOXELS,
        ("n2", "small"): NEAR,
        ("n3", "cropped"): NEAR,
    }


def test_real_ct_is_found_after_changes_and_not_mistaken(shared_ct: Path, tmp_path: Path) -> None:
    names = ["torso_3mm", "heart_1p5mm"]
    for name in names:
        voxels, affine = to_ras(*(lambda scan: (scan.voxels, scan.affine))(read_scan(shared_ct / f"{name}.nii.gz")))
        save(tmp_path / f"{name}.nii.gz", voxels, affine)
        cut = [round(0.05 * size) for size in voxels.shape]
        smaller = voxels[tuple(slice(edge, -edge) for edge in cut)]
        edges = (4.0, 2.5, 5.0)
        save(
            tmp_path / f"copy_{name}.nii.gz",
            turned(to_spacing(smaller, affine, edges)[0]),
            np.diag([1.0, 2.0, 3.0, 1.0]),
        )
    first, second = (
        manifest("first", *(f"{n}.nii.gz" for n in names)),
        manifest("second", *(f"copy_{n}.nii.gz" for n in names)),
    )
    summary = find_leakage(first, second, first_root=tmp_path, jobs=0, looks=True)
    assert {(pair.first.id, pair.second.id) for pair in summary.pairs} == {(name, f"copy_{name}") for name in names}
    for pair in summary.pairs:
        assert pair.looks is not None
        assert np.corrcoef(pair.looks[0].ravel(), pair.looks[1].ravel())[0, 1] > 0.8  # turned alike


def test_known_overlaps_are_told(corpus: tuple[Manifest, Path], tmp_path: Path) -> None:
    livers = DatasetCard("livers", contains=(Relation("corpus", "8 volumes", "high"), Relation("moon", "none")))
    described = Manifest("livers", {"livers": livers})
    summary = find_leakage(corpus[0], described, first_root=corpus[1], jobs=0)
    assert [(one.first, one.second, one.what, one.severity) for one in summary.overlaps] == [
        ("corpus", "livers", "8 volumes", "high")
    ]
    assert summary.exit_code == 0  # the scans at hand were compared, and none was found
    empty = Manifest("corpus", {"corpus": DatasetCard("corpus")})
    assert find_leakage(empty, described, first_root=tmp_path, jobs=0).exit_code == 1
    both = replace(described, datasets={**described.datasets, "corpus": DatasetCard("corpus")})
    assert len(find_leakage(both, first_root=tmp_path, jobs=0).overlaps) == 1


def test_wrong_settings_end_in_one_sentence(corpus: tuple[Manifest, Path], tmp_path: Path) -> None:
    listed, root = corpus
    with pytest.raises(SettingError, match=r"threshold: 1\.5 is no correlation"):
        find_leakage(listed, first_root=root, threshold=1.5)
    with pytest.raises(SettingError, match="jobs: -1"):
        find_leakage(listed, first_root=root, jobs=-1)
    with pytest.raises(ManifestError, match="nowhere: no such folder"):
        find_leakage(listed, first_root=tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="file: is no folder"):
        find_leakage(listed, first_root=root, cache=tmp_path / "file")


def test_a_row_is_averaged_over_equal_cells() -> None:
    row = np.array([1.0, 5.0, 9.0])
    np.testing.assert_allclose(overlap_matrix(3, 0, 3, 2) @ row, [(1 + 0.5 * 5) / 1.5, (0.5 * 5 + 9) / 1.5], rtol=1e-6)
    np.testing.assert_allclose(overlap_matrix(3, -2, 5, 7) @ row, [1, 1, 1, 5, 9, 9, 9], rtol=1e-6)  # edges repeat


def test_a_thumbnail_needs_neither_hu_nor_air(patients: list[Voxels]) -> None:
    thumbnail = volume_thumbnail(patients[0])
    assert thumbnail.cells.shape == (32, 32, 32)
    raw = volume_thumbnail(2.0 * patients[0] + 2048)  # stored values without their rescale
    assert np.abs(thumbnail.cells.astype(int) - raw.cells).max() <= 1  # rounding
    padded = volume_thumbnail(np.pad(patients[0], ((9, 30), (5, 5), (0, 0)), constant_values=-1000))
    assert np.abs(thumbnail.cells.astype(int) - padded.cells).mean() < 4
    for turn in all_turns(3)[::7]:
        cells = volume_thumbnail(turn.apply(patients[0])).cells.astype(int)
        assert np.abs(cells - turn.apply(thumbnail.cells)).max() <= 1  # sums in another order round otherwise
