"""A folder becomes a manifest: everything that can be used is in it, and everything else is told."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_ext.base import ManifestError, SettingError, WriteError, sha256_of
from monai_ext.curation import BuildSummary, build, build_manifest, checksum_notes, dataset_files
from monai_ext.curation.scan_files import checksum_of
from monai_ext.manifests import read_card, read_manifest
from monai_ext.volumes import source_checksum


@pytest.fixture(autouse=True)
def _only_toys(monkeypatch: pytest.MonkeyPatch, card: dict[str, Any]) -> None:
    cards = {key: (read_card(key, value), card["sources"]) for key, value in card["datasets"].items()}
    monkeypatch.setattr(build, "shipped_descriptions", lambda: cards)


def run(root: Path, **settings: Any) -> BuildSummary:
    return build_manifest(root, jobs=0, **settings)


def kinds(summary: BuildSummary) -> dict[str, str]:
    return {problem.kind: problem.sentence for problem in summary.problems}


def test_a_download_is_recognised_and_listed_whole(toys: Path) -> None:
    summary = run(toys)
    assert summary.exit_code == 0, summary.problems
    manifest = read_manifest(toys / "manifest.json")
    assert manifest == summary.manifest
    entries = {entry.id: entry for entry in manifest.entries}
    assert sorted(entries) == ["toy_11", "toy_2", "toy_3", "toy_7-1", "toy_7-2"]
    one, other = entries["toy_11"], entries["toy_7-1"]
    assert (one.image, one.label) == ("imagesTr/toy_11.nii.gz", "labelsTr/toy_11.nii.gz")
    assert (one.split, one.group, one.dataset) == ("training", "toy_11", "toys")
    assert (one.sha256, one.label_sha256) == (sha256_of(toys / one.image), sha256_of(toys / str(one.label)))
    assert (other.split, other.group, other.label) == ("test", "p7", None)
    assert entries["toy_7-2"].patient == other.patient
    assert manifest.labels == {0: "background", 1: "ball"}
    assert manifest.datasets["toys"].licence == "CC-BY-4.0"
    assert summary.left_out == {"MR, not CT": ["toy_507"]}
    assert (summary.other, summary.junk) == ({".json": 1}, 4)
    sentence = (
        "recognised as toys by its layout: 10 of 10 files fit; its layout is of unknown confidence, so look at it"
    )
    assert summary.told == sentence


def test_no_folder_above_the_root_is_told_to_anyone(toys: Path) -> None:
    (toys / "imagesTr/toy_4.nii.gz").write_bytes(b"")
    (toys / "labelsTr/toy_5.nii.gz").write_bytes(b"x")
    summary = run(toys)
    written = "".join(path.read_text() for path in toys.iterdir() if path.is_file())
    assert len(summary.problems) == 2
    assert "DOE" not in written + repr(summary.problems)
    assert "imagesTr" not in (toys / ".manifest.json.checksums").read_text()


def test_the_paths_start_from_the_root_wherever_the_manifest_lies(toys: Path, tmp_path: Path) -> None:
    summary = run(toys, out=tmp_path / "lists" / "toys.json", checksums=False)
    assert {entry.image.partition("/")[0] for entry in summary.manifest.entries} == {"imagesTr", "imagesTs"}
    assert {entry.sha256 for entry in summary.manifest.entries} == {None}
    assert not (toys / "manifest.json").exists()


def test_the_folder_may_be_below_the_root(toys: Path) -> None:
    summary = run(toys.parent, checksums=False)
    assert {entry.image.split("/")[:2][1] for entry in summary.manifest.entries} == {"imagesTr", "imagesTs"}


def test_no_file_name_steers_the_terminal(toys: Path) -> None:
    for name in ("a\nb.nii.gz", "a\x1b[31m.nii.gz", "a\x9b31m.nii.gz", "notes.\x1b[31m"):
        (toys / "imagesTr" / name).write_bytes(b"x")
    (toys / "imagesTr" / "c\x1b[31m").symlink_to(toys.parent)
    summary = run(toys)
    assert sorted(problem.case for problem in summary.problems) == ["a_31m", "a_[31m", "a_b", "c_[31m"]
    assert all(problem.sentence.startswith(f"{problem.case}: ") for problem in summary.problems)
    assert all(ending.isprintable() for ending in summary.other)


def test_what_is_wrong_with_files_is_told_and_the_rest_goes_on(
    toys: Path, write_label: Callable[..., Path], tmp_path: Path
) -> None:
    write_label(toys / "labelsTr/toy_12.nii.gz")
    (toys / "imagesTr/toy_4.nii.gz").write_bytes(b"")
    elsewhere = write_label(tmp_path / "elsewhere" / "x.nii.gz")
    (toys / "imagesTr/toy_13.nii.gz").symlink_to(elsewhere)
    (toys / "more").symlink_to(elsewhere.parent)
    (toys / "imagesTr/toy_14.nii.gz").symlink_to(toys / "nowhere")
    (toys / "imagesTs/toy_7-3.nii.gz").symlink_to(toys / "imagesTs/toy_7-2.nii.gz")
    (toys / os.fsdecode(b"imagesTr/toy_\xfc.nii.gz")).write_bytes(b"x")
    (toys / "imagesTr/other.nii.gz").write_bytes(b"x")
    summary = run(toys)
    assert summary.exit_code == 1
    assert {kind: sentence.partition(";")[0] for kind, sentence in kinds(summary).items()} == {
        "label.alone": "toy_12: a label without an image",
        "file.empty": "toy_4: the file is empty",
        "file.outside_root": "toy_13: a link leads out of the folder and is not followed",
        "file.closed": "toy_14: it cannot be read (No such file or directory)",
        "file.name": "toy__: its path holds a character that no list can hold",
    }
    assert [problem.case for problem in summary.problems if problem.kind == "file.outside_root"] == ["more", "toy_13"]
    assert summary.left_out["fit no pattern of the layout"] == ["other"]
    assert len(summary.manifest.entries) == 6
    assert "toy_7-3" in {entry.id for entry in summary.manifest.entries}


def test_a_file_that_cannot_be_read_is_told(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> str:
        if Path(path).name in ("toy_3.nii.gz", "toy_7-1.nii.gz"):
            raise PermissionError(13, "Permission denied", str(path))
        return sha256_of(path)

    monkeypatch.setattr("monai_ext.volumes.checksums.sha256_of", closed)
    summary = run(toys)
    assert [problem.kind for problem in summary.problems] == ["scan.unreadable"] * 3
    assert summary.problems[0].sentence.startswith("toy_3: it cannot be read (Permission denied); check")
    assert sorted(entry.id for entry in summary.manifest.entries) == ["toy_11", "toy_2", "toy_7-2"]


def test_a_folder_that_cannot_be_listed_is_told(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = os.walk

    def closed(top: Path, onerror: Callable[[OSError], None], followlinks: bool) -> Any:
        for place, folders, files in walk(top, followlinks=followlinks):
            if place.endswith("imagesTs"):
                onerror(PermissionError(13, "Permission denied", place))
            else:
                yield place, folders, files

    monkeypatch.setattr(dataset_files.os, "walk", closed)
    summary = run(toys, checksums=False)
    assert kinds(summary) == {
        "folder.closed": "imagesTs: the folder cannot be listed (Permission denied); make it readable"
    }
    assert len(summary.manifest.entries) == 3


def test_a_patient_in_two_splits_stays_in_the_one_that_is_evaluated_on(toys: Path, card: dict[str, Any]) -> None:
    card["datasets"]["toys"]["layout"][1] |= {"group": "p{number}"}
    (toys.parent / "toys.json").write_text(json.dumps(card))
    (toys / "imagesTr/toy_2.nii.gz").rename(toys / "imagesTr/toy_7.nii.gz")
    (toys / "labelsTr/toy_2.nii.gz").rename(toys / "labelsTr/toy_7.nii.gz")
    summary = run(toys, dataset=str(toys.parent / "toys.json"))
    assert kinds(summary) == {
        "manifest.patient_in_two_splits": "toy_7: its patient is in another split too, so it is left out of training; "
        "keep all scans of one patient in one split"
    }
    assert sorted(entry.id for entry in summary.manifest.entries) == ["toy_11", "toy_3", "toy_7-1", "toy_7-2"]


@pytest.mark.parametrize(
    ("prepare", "settings", "code", "sentence"),
    [
        (lambda root: None, {}, "build.empty", r"empty: the folder holds no scan or picture; give the folder"),
        (
            lambda root: (root / "a.nii").touch(),
            {},
            "build.empty",
            r"no scan or picture that can be used \(a: the file is empty\)",
        ),
        (lambda root: root.rmdir(), {}, "build.no_folder", "empty: the folder of the data set is not there"),
        (
            lambda root: (root / "a.nii").write_bytes(b"x"),
            {"dataset": "toys"},
            "build.layout",
            r"empty: no file fits the layout of toys, which has imagesTr/toy_\{number\}\.nii\.gz",
        ),
        (
            lambda root: (root / "a.nii").write_bytes(b"x"),
            {"dataset": "nonesuch"},
            "build.dataset",
            "no data set of that name is shipped; give a file that describes it, or one of toys",
        ),
    ],
)
def test_what_cannot_be_built_is_one_sentence(
    tmp_path: Path, prepare: Callable[[Path], object], settings: dict[str, Any], code: str, sentence: str
) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    prepare(root)
    with pytest.raises(ManifestError, match=sentence) as caught:
        run(root, **settings)
    assert caught.value.code == code
    assert not (root / "manifest.json").exists()


def test_a_negative_number_of_jobs_is_refused(toys: Path) -> None:
    with pytest.raises(SettingError, match="jobs: -2 is negative"):
        build_manifest(toys, jobs=-2)


def test_a_full_disk_leaves_the_earlier_manifest(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(toys, checksums=False)
    before = (toys / "manifest.json").read_bytes()

    def full(self: Path, *args: Any, **settings: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    for checksums in (True, False):
        with pytest.raises(WriteError, match=r"manifest\.json: .*could not be written \(No space left on device\)"):
            run(toys, checksums=checksums)
    assert (toys / "manifest.json").read_bytes() == before
    assert not list(toys.glob(".writing-*"))


def test_an_unknown_folder_is_listed_for_what_it_is(tmp_path: Path, write_ct: Callable[..., Path]) -> None:
    root = tmp_path / "our scans"
    for number, name in enumerate(("a/ct.nii.gz", "b/ct.nii.gz", "images/x.nii.gz", "labels/x.nii.gz", "y_seg.nii.gz")):
        write_ct(root / name, number)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(root / "shot.JPG")
    summary = run(root, split="training")
    manifest = summary.manifest
    assert manifest.name == "our_scans"
    (card,) = manifest.datasets.values()
    assert (card.licence, card.commercial_use) == ("unknown", "unknown")
    assert "no known layout" in manifest.status
    assert [entry.id.partition("-")[0] for entry in manifest.entries] == ["ct", "ct", "x", "shot"]
    assert len({entry.id for entry in manifest.entries}) == 4
    assert [entry.label for entry in manifest.entries] == [None, None, "labels/x.nii.gz", None]
    assert {entry.split for entry in manifest.entries} == {"training"}
    assert summary.left_out == {"named like labels, of which no image is known": ["y_seg"]}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ('{"labels": {"0": "background", "1": "ball"}}', {0: "background", 1: "ball"}),
        ('{"labels": {"background": 0, "ball": 1}}', {0: "background", 1: "ball"}),
        ('{"labels": {"background": 0, "whole": [1, 2]}}', None),
        ('{"labels": ["ball"]}', None),
        ("{", None),
    ],
)
def test_label_names_of_the_download_are_taken_where_none_are_known(
    toys: Path, card: dict[str, Any], tmp_path: Path, content: str, names: dict[int, str] | None
) -> None:
    del card["datasets"]["toys"]["label_names"]
    (tmp_path / "toys.json").write_text(json.dumps(card))
    (toys / "dataset.json").write_text(content)
    manifest = run(toys, dataset=str(tmp_path / "toys.json"), checksums=False).manifest
    assert manifest.labels == names
    assert ("dataset.json" in manifest.sources) == (names is not None)


def test_a_folder_of_nnunet_is_told_to_be_imported(toys: Path) -> None:
    assert "import-nnunet" not in run(toys, checksums=False).told
    (toys / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"background": 0}}')
    assert run(toys, checksums=False).told.endswith("form of nnU-Net, which 'manifest import-nnunet' reads")


class TestDicom:
    """Folders of DICOM files are scans; series of one patient stay together."""

    @pytest.fixture
    def folder(self, tmp_path: Path, write_series: Callable[..., Path]) -> Path:
        rng = np.random.default_rng(3)
        voxels = rng.integers(-1000, 100, (5, 7, 4))
        root = tmp_path / "hospital"
        for number, (place, patient) in enumerate((("s1", "P1"), ("s2", "P2"), ("deep/s3", "P1"))):
            write_series(root / place, voxels + number, PatientID=patient, SeriesInstanceUID=f"2.25.{number + 1}")
        write_series(root / "mr", voxels, Modality="MR", PatientID="P3", SeriesInstanceUID="2.25.9")
        return root

    def test_of_an_unknown_folder_patients_are_told_apart_but_not_named(self, folder: Path) -> None:
        summary = run(folder)
        entries = {entry.id: entry for entry in summary.manifest.entries}
        assert sorted(entries) == ["mr", "s1", "s2", "s3"]
        assert entries["s3"].patient == entries["s1"].patient != entries["s2"].patient
        assert entries["s3"].image == "deep/s3"
        assert entries["s3"].sha256 == source_checksum(folder / "deep/s3", "s3")
        assert "P1" not in (folder / "manifest.json").read_text()

    def test_a_layout_of_folders_takes_ct_alone(self, folder: Path, card: dict[str, Any], tmp_path: Path) -> None:
        card["datasets"]["toys"]["layout"] = [{"image": "hospital/{id}/", "group": "{id}", "split": "unassigned"}]
        (tmp_path / "toys.json").write_text(json.dumps(card))
        summary = run(folder, dataset=str(tmp_path / "toys.json"))
        assert [entry.id for entry in summary.manifest.entries] == ["s1", "s2"]
        assert summary.left_out["series of modality MR, not CT"] == ["mr"]
        assert summary.left_out["fit no pattern of the layout"] == ["s3"]

    def test_several_series_of_a_folder_are_several_entries(self, folder: Path) -> None:
        for path in (folder / "s2").iterdir():
            path.rename(folder / "s1" / f"second_{path.name}")
        summary = run(folder)
        first, second = (entry for entry in summary.manifest.entries if entry.image.startswith("s1#3-"))
        assert first.patient != second.patient
        assert first.sha256 != second.sha256

    def test_a_damaged_folder_is_told(self, folder: Path) -> None:
        path = next((folder / "s2").iterdir())
        path.write_bytes(path.read_bytes()[:300])
        summary = run(folder)
        assert [problem.case for problem in summary.problems] == ["s2"]
        assert len(summary.manifest.entries) == 3


class TestGoingOn:
    """Checksums are used again only for files that cannot have changed."""

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of the files that were read, which lately changed files otherwise all are."""
        names: list[str] = []

        def noted(path: Path) -> str:
            names.append(path.name)
            return sha256_of(path)

        monkeypatch.setattr(checksum_notes, "_SETTLED_NS", 0)
        monkeypatch.setattr("monai_ext.volumes.checksums.sha256_of", noted)
        return names

    def test_unchanged_files_are_not_read_again(self, toys: Path, read: list[str]) -> None:
        first = run(toys)
        assert len(read) == 8
        read.clear()
        again = run(toys)
        assert read == []
        assert (again.reused, again.manifest) == (8, first.manifest)

    def test_a_file_changed_behind_its_date_is_read_again(self, toys: Path, read: list[str]) -> None:
        run(toys)
        read.clear()
        path = toys / "imagesTr/toy_3.nii.gz"
        state, content = path.stat(), bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert path.stat().st_mtime_ns == state.st_mtime_ns
        summary = run(toys)
        assert read == ["toy_3.nii.gz"]
        assert {entry.id: entry.sha256 for entry in summary.manifest.entries}["toy_3"] == sha256_of(path)

    def test_a_killed_run_goes_on(self, toys: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checksum_notes, "_EVERY_S", -1.0)
        monkeypatch.setattr(build, "write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        monkeypatch.setattr(checksum_notes.ChecksumNotes, "write", lambda self: None)  # never reached when killed
        with pytest.raises(KeyboardInterrupt):
            run(toys)
        read.clear()
        monkeypatch.undo()
        monkeypatch.setattr(checksum_notes, "_SETTLED_NS", 0)
        assert run(toys, dataset=None).reused == 8

    def test_an_interrupted_run_goes_on(self, toys: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(job: Any) -> Any:
            if len(read) == 5:
                raise KeyboardInterrupt
            return checksum_of(job)

        with monkeypatch.context() as patch:
            patch.setattr(build, "checksum_of", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(toys)
        assert run(toys).reused == 5
        assert len(read) == 8

    def test_what_changed_a_moment_ago_is_read_again(self, toys: Path) -> None:
        run(toys)
        assert run(toys).reused == 0

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 1, "checksums": [1]}'])
    def test_notes_that_are_none_are_passed_over(self, toys: Path, read: list[str], content: str) -> None:
        (toys / ".manifest.json.checksums").write_text(content)
        assert run(toys).reused == 0


def test_processes_find_the_same(toys: Path) -> None:
    alone = run(toys)
    together = build_manifest(toys, jobs=2)
    assert together.manifest == alone.manifest
