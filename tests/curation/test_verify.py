"""Every kind of trouble has its own word, names its entry, and stops nothing else."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_ext.base import ManifestError, ScanError
from monai_ext.curation import ManifestVerification, build_manifest, verify_manifest, write_report
from monai_ext.volumes.picture_checks import check_picture_here


@pytest.fixture
def listed(toys: Path, card_file: Path) -> Path:
    """The manifest of the toys."""
    build_manifest(toys, dataset=str(card_file), jobs=0)
    return toys / "manifest.json"


def change(path: Path, work: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(path.read_text(encoding="utf-8"))
    work(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(path: Path, **settings: Any) -> ManifestVerification:
    return verify_manifest(path, jobs=0, **settings)


def kinds(summary: ManifestVerification) -> dict[str, str]:
    return {problem.kind: problem.sentence for problem in summary.problems}


@pytest.mark.parametrize("deep", [False, True])
def test_what_was_built_is_sound(listed: Path, deep: bool) -> None:
    summary = run(listed, deep=deep)
    assert (summary.problems, summary.exit_code) == ([], 0)
    assert ("voxels of images were not read; --deep reads them" in summary.notes) != deep
    assert len(summary.manifest.entries) == 5


def test_files_that_are_gone_changed_or_empty_are_told_apart(listed: Path) -> None:
    root = listed.parent
    (root / "imagesTr/toy_2.nii.gz").unlink()
    (root / "labelsTr/toy_3.nii.gz").unlink()
    (root / "labelsTr/toy_11.nii.gz").write_bytes(b"")
    path = root / "imagesTs/toy_7-1.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=1))
    summary = run(listed)
    assert summary.exit_code == 1
    found = {(problem.kind, problem.case) for problem in summary.problems}
    assert found == {
        ("image.missing", "toy_2"),
        ("label.missing", "toy_3"),
        ("label.empty", "toy_11"),
        ("image.checksum", "toy_7-1"),
    }
    sentence = kinds(summary)["image.checksum"]
    assert sentence.startswith("toy_7-1: its image is not the file that was listed (SHA-256 ")
    assert kinds(run(listed, checksums=False)).keys() == {"image.missing", "label.missing", "label.empty"}


def test_scans_that_cannot_be_read_are_told(
    listed: Path, write_ct: Callable[..., Path], write_label: Callable[..., Path]
) -> None:
    root = listed.parent
    (root / "imagesTr/toy_2.nii.gz").write_bytes(gzip.compress(b"no scan"))
    write_ct(root / "imagesTr/toy_3.nii.gz", 3, x_mm=0.001)
    write_label(root / "labelsTr/toy_11.nii.gz", 7)
    write_ct(root / "imagesTs/toy_7-1.nii.gz", voxels=np.full((5, 7, 6), 12, np.int16))
    deep = kinds(run(listed, checksums=False, deep=True))
    assert deep.pop("scan.constant").startswith("toy_7-1: every voxel is 12")
    assert kinds(run(listed, checksums=False)) == deep
    assert deep == {
        "scan.damaged": "toy_2: the file cannot be used, its first bytes are not the header of a single-file NIfTI; "
        "copy or export it again",
        "scan.spacing": "toy_3: spacing along x is 0.001 mm; correct the header to a value from 0.01 to 100 mm",
        "label.classes": "toy_11: label ids 7 are not among the classes 0, 1; "
        "correct the labels or the list of classes",
    }


def test_labels_must_lie_on_their_image(listed: Path, write_label: Callable[..., Path]) -> None:
    root = listed.parent
    write_label(root / "labelsTr/toy_2.nii.gz", shape=(5, 7, 5))
    write_label(root / "labelsTr/toy_3.nii.gz", x_mm=2.5)
    found = kinds(run(listed, checksums=False))
    assert found.keys() == {"label.shape", "label.affine"}
    assert found["label.shape"].startswith("toy_2: 5x7x5 label voxels, but 5x7x6 image voxels")


def test_faults_of_the_list_are_told_beside_those_of_files(listed: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        first, second, third = content["training"]
        content["training"] += [
            {**first, "image": second["image"], "group": "x"},
            {**first, "id": "a", "image": "/DOE^JANE/a.nii.gz"},
            {**first, "id": "b", "image": "../DOE^JANE/b.nii.gz"},
            {"id": "c", "dataset": "toys", "label": first["label"]},
        ]
        content["validation"] = [{**third, "id": "again", "group": third["id"]}]

    (listed.parent / "imagesTs/toy_7-2.nii.gz").unlink()
    summary = run(change(listed, spoil))
    counts = Counter(problem.kind for problem in summary.problems)
    assert counts == {
        "manifest.duplicate_id": 1,
        "manifest.outside_root": 2,
        "manifest.label_alone": 1,
        "manifest.patient_in_two_splits": 1,
        "manifest.image_in_two_splits": 1,
        "image.in_two_splits": 1,
        "image.missing": 1,
    }
    assert "DOE" not in repr(summary.problems)


def test_the_same_image_under_other_names_is_found(listed: Path) -> None:
    root = listed.parent
    (root / "imagesTs/toy_7-2.nii.gz").write_bytes((root / "imagesTs/toy_7-1.nii.gz").read_bytes())
    (root / "imagesTr/toy_2.nii.gz").write_bytes((root / "imagesTs/toy_7-1.nii.gz").read_bytes())
    found = [problem for problem in run(listed).problems if problem.kind != "image.checksum"]
    assert [(problem.kind, problem.case) for problem in found] == [
        ("image.in_two_splits", "toy_7-1"),
        ("image.in_two_splits", "toy_7-2"),
    ]
    assert found[0].sentence == (
        "toy_7-1: its image is the same file as that of toy_2, in test, and toy_2 in training; leave one out"
    )


def test_a_link_out_of_the_root_is_not_read(listed: Path, tmp_path: Path) -> None:
    path = listed.parent / "imagesTr/toy_2.nii.gz"
    path.rename(tmp_path / "elsewhere.nii.gz")
    path.symlink_to(tmp_path / "elsewhere.nii.gz")
    assert kinds(run(listed)).keys() == {"manifest.outside_root"}
    assert run(listed, root=tmp_path.parent).exit_code == 1


def test_pictures_and_masks_are_looked_at(tmp_path: Path, card: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    for name, size in (("a.png", (6, 5)), ("a_mask.png", (6, 5)), ("b.png", (6, 5)), ("b_mask.png", (5, 6))):
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "d.jpg")
    card["test"] = [
        {"id": name, "dataset": "toys", "image": f"{name}.png", "class_name": "x", "abnormal": int(mask is not None)}
        | ({"label": mask} if mask else {})
        for name, mask in (("a", "a_mask.png"), ("b", "b_mask.png"), ("c", None), ("d", "d.jpg"))
    ]
    (tmp_path / "d.png").write_bytes((tmp_path / "b.png").read_bytes())
    (tmp_path / "m.json").write_text(json.dumps(card))
    shallow = {(problem.kind, problem.case) for problem in run(tmp_path / "m.json", checksums=False).problems}
    assert shallow == {("label.shape", "b"), ("label.jpeg", "d")}
    deep = run(tmp_path / "m.json", deep=True)
    assert {(problem.kind, problem.case) for problem in deep.problems} - shallow == {
        ("picture.unreadable", "c"),
        ("image.twice", "d"),
    }
    assert not any("label ids" in note for note in deep.notes)


def test_a_picture_that_training_would_refuse_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    check_picture_here(tmp_path / "a.jpg", "a", whole=False)
    with pytest.raises(ScanError, match=r"^a: the picture is to be turned when shown") as caught:
        check_picture_here(tmp_path / "a.jpg", "a", whole=True)
    assert caught.value.code == "picture.orientation"


def test_what_cannot_be_checked_is_noted(tmp_path: Path, write_ct: Callable[..., Path]) -> None:
    write_ct(tmp_path / "scans" / "images" / "a.nii.gz")
    write_ct(tmp_path / "scans" / "labels" / "a.nii.gz", voxels=np.eye(30, 7, dtype=np.uint8).reshape(5, 7, 6))
    build_manifest(tmp_path / "scans", jobs=0, checksums=False)
    assert run(tmp_path / "scans/manifest.json").notes == [
        "licence unknown: scans; find it out before you use or share these scans",
        "1 entries have no checksum to compare; 'manifest build' notes them",
        "label ids were not checked, for nothing names those of scans",
        "voxels of images were not read; --deep reads them",
    ]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda content: content.update(schema_version="2.0"), "manifest.version"),
        (lambda content: content.pop("schema_version"), "manifest.no_version"),
        (lambda content: content["datasets"]["toys"].pop("licence"), "manifest.schema"),
        (lambda content: [content.pop(key, None) for key in ("training", "test")], "manifest.empty"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_an_error(listed: Path, spoil: Callable[..., object], code: str) -> None:
    with pytest.raises(ManifestError) as caught:
        run(change(listed, spoil))
    assert caught.value.code == code


def test_a_root_that_is_none_is_an_error(listed: Path) -> None:
    with pytest.raises(ManifestError, match="nowhere: no such folder; give the one that the paths start from"):
        run(listed, root=listed.parent / "nowhere")


def test_processes_find_the_same_and_write_it_down(listed: Path, tmp_path: Path) -> None:
    (listed.parent / "imagesTr/toy_2.nii.gz").unlink()
    alone, together = run(listed), verify_manifest(listed, jobs=2)
    assert together.problems == alone.problems
    write_report(tmp_path / "report.jsonl", together.problems)
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [line["case"] for line in lines] == ["toy_2"]
    assert lines[0].keys() == {"kind", "case", "sentence"}
