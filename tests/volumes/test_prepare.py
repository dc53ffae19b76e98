"""From raw files to a store: what is done, skipped, redone and refused, and what a kill leaves behind."""

import errno
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_ext.base import InputError, ManifestError, ScanError, SettingError, StoreError, WriteError
from monai_ext.volumes import PrepareSummary, VolumeStore, prepare, read_scan
from monai_ext.volumes.prepare_grid import to_ras

SHAPE = (23, 19, 17)
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def patient(seed: int) -> np.ndarray:
    """A block of tissue in air, with noise."""
    hu = np.full(SHAPE, -1000.0)
    hu[4:19, 3:16, 2:15] = 40
    return np.rint(hu + np.random.default_rng(seed).normal(0, 8, SHAPE)).astype(np.int16)


def write_nifti(path: Path, voxels: np.ndarray, spacing: float = 3.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.diag([-spacing, -spacing, spacing, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def run(source: Path, store: Path, **options: object) -> PrepareSummary:
    return prepare(source, store, **{"workers": 0, **options})  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (".lock", ".index")}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number, name in enumerate(["a", "b", "x/a"]):
        write_nifti(tmp_path / "scans" / f"{name}.nii.gz", patient(number))
    return tmp_path / "scans"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_folder(scans, store):
    summary = run(scans, store, spacing_mm=(3, 3, 3))
    opened = VolumeStore(store)
    assert opened.ids == summary.done
    assert [name[:2] for name in summary.done] == ["a-", "a-", "b"]
    record = opened.record("b")
    assert (record.source, record.source_shape, record.spacing_mm) == ("b.nii.gz", SHAPE, (3.0, 3.0, 3.0))
    assert np.array_equal(opened.volume("b"), patient(1)[::-1, ::-1])  # mirrored to RAS, nothing resampled
    scan = read_scan(scans / "b.nii.gz")
    assert np.array_equal(record.source_affine, scan.affine)
    assert np.array_equal(record.affine, to_ras(scan.voxels, scan.affine)[1])
    # Found on cells of two 3 mm voxels.
    assert np.abs(np.subtract(record.body_box, ((4, 3, 2), (19, 16, 15)))).max() <= 2
    text = (store / "b.json").read_text()
    assert str(scans) not in text
    assert scans.parent.name not in text


def test_resampled_voxels_lie_where_the_affine_says(scans, store):
    """A ramp along each axis is its own interpolation: every stored voxel tells its place."""
    x, y, z = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    write_nifti(scans / "ramp.nii.gz", (-1000 + 20 * x + 10 * y + 30 * z).astype(np.int16))
    run(scans / "ramp.nii.gz", store, spacing_mm=(1.1, 1.3, 0.7))
    opened = VolumeStore(store)
    record = opened.record("ramp")
    voxels = np.argwhere(np.ones(record.shape, bool))
    there = np.c_[voxels, np.ones(len(voxels))] @ np.linalg.solve(record.source_affine, record.affine).T
    expected = -1000 + there[:, :3] @ (20, 10, 30)
    # Rounded to whole HU. The last voxel may lie half a step beyond the scan, where its edge goes on.
    inside = (there[:, :3] < np.array(SHAPE) - 1 + 1e-9).all(axis=1) & (there[:, :3] > -1e-9).all(axis=1)
    assert inside.mean() > 0.8
    assert np.abs(opened.volume("ramp")[tuple(voxels[inside].T)] - expected[inside]).max() <= 0.5 + 1e-3


def test_second_run_skips_what_is_done(scans, store):
    first = run(scans, store)
    before = files(store)
    second = run(scans, store)
    assert (second.done, second.skipped) == ([], first.done)
    assert files(store) == before


def test_changed_source_is_redone_under_its_id(scans, store):
    first = run(scans, store)
    path, times = scans / "b.nii.gz", os.stat(scans / "b.nii.gz")
    write_nifti(path, patient(9))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the date does not tell, the content does
    second = run(scans, store)
    assert second.done == ["b"]
    assert sorted(second.done + second.skipped) == first.done


@pytest.mark.parametrize("options", [{"spacing_mm": (2.0, 3.0, 3.0)}, {"assume_hu": True}])
def test_other_settings_redo(scans, store, options):
    first = run(scans, store)
    assert run(scans, store, **options).done == first.done


@pytest.mark.parametrize("damage", ["voxels", "sidecar", "no data", "no sidecar"])
def test_damaged_volume_is_redone(scans, store, damage):
    run(scans, store)
    before = files(store)
    path = store / ("b.b2nd" if damage in ("voxels", "no data") else "b.json")
    if damage.startswith("no"):
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert run(scans, store).done == ["b"]
    assert files(store) == before


def test_scan_added_later_takes_no_id(scans, store):
    run(scans / "b.nii.gz", store, root=scans)
    write_nifti(scans / "y" / "b.nii.gz", patient(5))
    summary = run(scans, store)
    assert summary.skipped == ["b"]
    assert [name[:2] for name in summary.done] == ["a-", "a-", "b-"]


def test_moved_folder_is_known_by_its_content(scans, store, tmp_path):
    first = run(scans, store)
    scans.rename(tmp_path / "moved")
    assert run(tmp_path / "moved", store).skipped == first.done


def test_like_named_scan_of_another_folder_is_added(scans, store, tmp_path):
    run(scans, store)
    before = files(store)
    write_nifti(tmp_path / "other" / "b.nii.gz", patient(7))
    (added,) = run(tmp_path / "other", store).done
    assert added.startswith("b-")
    assert {name: files(store)[name] for name in before} == before


def broken(folder: Path) -> dict[str, str]:
    """Write one broken scan of each kind; return for each the beginning of its reason."""
    good = write_nifti(folder / "good.nii.gz", patient(0)).read_bytes()
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "cut.nii.gz").write_bytes(good[: len(good) // 2])
    (folder / "text.nrrd").write_text("no image")
    hole = patient(0).astype(np.float32)
    hole[3, 5, 7] = np.nan
    write_nifti(folder / "hole.nii.gz", hole)
    write_nifti(folder / "constant.nii.gz", np.full(SHAPE, 7, np.int16))
    write_nifti(folder / "mr.nii.gz", np.abs(patient(0)) % 400)
    write_nifti(folder / "flat.nii.gz", patient(0)[:, :, 0])
    write_nifti(folder / "four.nii.gz", np.stack([patient(0)] * 3, axis=-1))
    (folder / "series").mkdir()
    (folder / "series" / "1.dcm").write_bytes(b"")
    air = np.full(SHAPE, -1000, np.int16)
    air[::2] = -990
    write_nifti(folder / "air.nii.gz", air)
    os.symlink(folder.parent / "out.nii.gz", folder / "link.nii.gz")
    write_nifti(folder.parent / "out.nii.gz", patient(0))
    names = ["empty", "cut", "text", "hole", "constant", "mr", "flat", "four", "series", "air", "link"]
    return {name: f"{name}: " for name in names}


def test_broken_scans_are_named_and_the_others_go_on(tmp_path, store):
    (tmp_path / "in").mkdir()
    reasons = broken(tmp_path / "in")
    summary = run(tmp_path / "in", store)
    assert summary.done == ["good"]
    assert {outcome.id: outcome.reason[: len(outcome.id) + 2] for outcome in summary.failed} == reasons
    for outcome in summary.failed:
        assert str(tmp_path) not in outcome.reason
        assert "\n" not in outcome.reason
        assert ";" in outcome.reason  # what is wrong; what to do
        assert "." in outcome.code
    assert set(files(store)) == {"good.b2nd", "good.json"}
    assert summary.exit_code == 1
    assert run(tmp_path / "in" / "good.nii.gz", store).exit_code == 0


def test_broken_scans_of_one_name_are_told_apart(scans, store, tmp_path):
    (scans / "a.nii.gz").write_bytes(b"")
    os.symlink(write_nifti(tmp_path / "away.nii.gz", patient(4)), scans / "x" / "b.nii.gz")
    summary = run(scans, store)
    (closed, empty) = sorted(summary.failed, key=lambda outcome: outcome.code)
    assert empty.reason.startswith(f"{empty.id}: the file cannot be used, it is empty")
    assert closed.reason.startswith(f"{closed.id}: a link leads out")
    assert [empty.id[:2], closed.id[:2]] == ["a-", "b-"]


def test_scan_that_broke_loses_its_old_volume_only_when_it_is_replaced(scans, store):
    run(scans, store)
    (scans / "b.nii.gz").write_bytes(b"")
    summary = run(scans, store)
    assert [outcome.id for outcome in summary.failed] == ["b"]
    VolumeStore(store).verify("b")  # the last good one


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "x"), KeyError("/data/Doe^Jane")])
def test_unforeseen_errors_cost_one_scan_and_show_no_path(scans, store, monkeypatch, error):
    module = sys.modules["monai_ext.volumes.prepare_volume"]
    read = module.read_scan

    def fails(path: Path, **options: object) -> object:
        if Path(path).parent.name == "x":
            raise error
        return read(path, **options)

    monkeypatch.setattr(module, "read_scan", fails)
    summary = run(scans, store)
    (outcome,) = summary.failed
    assert outcome.reason.startswith(f"{outcome.id}: ")
    assert "Doe" not in outcome.reason
    assert len(summary.done) == 2


def test_full_disk_fails_one_scan_and_later_ones_go_on(scans, store, monkeypatch):
    calls, flush = iter(range(99)), os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == 6:  # six for each volume: the second one's data
            raise OSError(errno.ENOSPC, "full")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    summary = run(scans, store)
    assert len(summary.done) == 2
    assert "No space left on device" in summary.failed[0].reason
    assert len(files(store)) == 4
    monkeypatch.undo()
    assert len(run(scans, store).done) == 1


@forks
@pytest.mark.parametrize("moment", range(0, 12))
def test_killed_run_is_completed_by_the_next(labelled, store, tmp_path, moment):
    """Killed right before or after every renaming, the store becomes what an uninterrupted run makes."""
    whole = tmp_path / "whole"
    run(labelled, whole)

    def killed() -> None:
        replace, calls = os.replace, iter(range(99))

        def deadly(*paths: object) -> None:
            now = next(calls)
            if now == moment // 2 and moment % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)
            if now == moment // 2:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = deadly
        run(labelled, store)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    for volume_id in VolumeStore(store):
        VolumeStore(store).verify(volume_id)  # what is in the store is whole at any time
    summary = run(labelled, store)
    assert files(store) == files(whole)
    assert len(summary.done) + len(summary.skipped) == 2


@forks
def test_two_runs_fill_one_store(scans, store, tmp_path):
    run(scans, tmp_path / "whole")
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=run, args=(scans, store)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
        assert process.exitcode == 0
    assert files(store) == files(tmp_path / "whole")


def test_workers_give_the_same_store(scans, store, tmp_path):
    run(scans, tmp_path / "alone")
    summary = run(scans, store, workers=2)
    assert len(summary.done) == 3
    assert files(store) == files(tmp_path / "alone")


def test_death_of_a_worker_is_reported(scans, store, monkeypatch):
    module = sys.modules["monai_ext.volumes.prepare_run"]
    monkeypatch.setattr(module, "run_jobs", lambda work, jobs, workers, died: map(died, jobs))
    outcome = run(scans, store).failed[0]
    died = f"{outcome.id}: its worker process died, most likely for lack of memory; prepare it with fewer"
    assert outcome.reason.startswith(died)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    entries = []
    for number, name in enumerate("ab"):
        write_nifti(tmp_path / "data" / f"{name}.nii.gz", patient(number))
        label = np.zeros(SHAPE, np.uint8)
        label[5:9, 4:12, 3:11], label[12:15, 4:9, 3:11] = 1, 3
        write_nifti(tmp_path / "data" / f"{name}_label.nii.gz", label)
        entries.append({"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz", "id": f"case {name}"})
    path = tmp_path / "data" / "list.json"
    path.write_text(json.dumps({"labels": {"0": "background", "1": "liver", "3": "spleen"}, "training": entries}))
    return path


def test_labels_of_a_datalist(labelled, store):
    assert run(labelled, store, spacing_mm=(3, 3, 1.5)).done == ["case_a", "case_b"]
    opened = VolumeStore(store)
    label, record = opened.volume("case_a", "label"), opened.record("case_a")
    assert label.dtype == np.uint8
    assert label.shape == opened.volume("case_a").shape
    source = np.asarray(nib.load(labelled.parent / "a_label.nii.gz").dataobj)[::-1, ::-1]
    assert np.array_equal(label[:, :, ::2], source)  # every other plane is one of the scan's
    assert record.label_source is not None
    assert record.label_source.ids == (0, 1, 3)
    assert record.label_source.names == {0: "background", 1: "liver", 3: "spleen"}
    assert record.label_source.source == "a_label.nii.gz"
    assert run(labelled, store, spacing_mm=(3, 3, 1.5)).skipped == ["case_a", "case_b"]


def test_changed_label_or_names_redo(labelled, store):
    run(labelled, store)
    write_nifti(labelled.parent / "a_label.nii.gz", np.ones(SHAPE, np.uint8))
    assert run(labelled, store).done == ["case_a"]
    names = {1: "hepar", 3: "lien"}
    assert run(labelled, store, label_names=names).done == ["case_a", "case_b"]


def test_labels_that_do_not_fit_fail_alone(labelled, store):
    write_nifti(labelled.parent / "a_label.nii.gz", np.full(SHAPE, 2, np.uint8))
    write_nifti(labelled.parent / "b_label.nii.gz", np.zeros((5, 7, 11), np.uint8))
    reasons = [outcome.reason for outcome in run(labelled, store).failed]
    assert reasons[0].startswith("case a: label ids 2 are not among the classes 0, 1, 3")
    assert reasons[1].startswith("case b: 5x7x11")
    assert not files(store)


def test_many_labels_take_uint16(labelled, store):
    label = np.zeros(SHAPE, np.uint16)
    label[3:7, 3:7, 3:7] = 300
    write_nifti(labelled.parent / "a_label.nii.gz", label)
    run(labelled, store, label_names={300: "one", 1: "two", 3: "three"}, spacing_mm=(3, 3, 3))
    opened = VolumeStore(store)
    assert opened.volume("case_a", "label").max() == 300
    assert opened.volume("case_b", "label").dtype == np.uint16  # one type for a data set
    label[0, 0, 0] = 1
    write_nifti(labelled.parent / "a_label.nii.gz", label.astype(np.int32) * 300)
    reason = run(labelled, store, label_names={}).failed[0].reason
    assert reason.startswith("case a: label id 90000 is above 65535; renumber")


def test_detached_data_are_part_of_the_source(tmp_path, store):
    image = SimpleITK.GetImageFromArray(patient(0).transpose(2, 1, 0))
    (tmp_path / "in").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "in" / "a.mhd"))
    assert run(tmp_path / "in", store).done == ["a"]
    assert run(tmp_path / "in", store).skipped == ["a"]
    raw = tmp_path / "in" / "a.raw"
    raw.write_bytes(raw.read_bytes()[:-2] + b"\x07\x00")
    assert run(tmp_path / "in", store).done == ["a"]


def test_pipes_do_not_wait_for_ever(scans, store):
    os.mkfifo(scans / "pipe.nii.gz")
    (failed,) = run(scans, store).failed
    assert failed.reason == "pipe: it is no regular file, but a pipe, a device or a socket; save it as a file"


def test_entries_that_point_outside_fail_alone(scans, store, tmp_path):
    write_nifti(tmp_path / "secret.nii.gz", patient(8))
    entries = [
        {"image": name} for name in ("a.nii.gz", "../secret.nii.gz", str(tmp_path / "secret.nii.gz"), "b.nii.gz")
    ]
    (scans / "list.json").write_text(json.dumps({"training": [*entries, {"imag": "x/a.nii.gz"}]}))
    summary = run(scans / "list.json", store)
    assert summary.done == ["a", "b"]
    assert {item.code for item in summary.failed} == {"manifest.outside_root", "manifest.path"}
    assert [item.reason.partition(":")[0][:7] for item in summary.failed] == ["secret-", "secret-", "trainin"]
    assert str(tmp_path) not in str(summary.failed)


def test_label_that_cannot_be_read_is_called_so(labelled, store):
    (labelled.parent / "a_label.nii.gz").write_bytes(b"")
    (labelled.parent / "b_label.nii.gz").unlink()
    first, second = run(labelled, store).failed
    assert first.reason.startswith("labels of case a: the file cannot be used, it is empty")
    assert second.reason == "labels of case b: there is no such file or folder; check the path"


def test_nothing_found_is_one_sentence(tmp_path, store):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ScanError, match=r"^nothing: no scan found; give a folder with") as caught:
        run(tmp_path / "nothing", store)
    assert caught.value.code == "prepare.nothing_found"
    assert not store.exists()


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1), (1, 1, float("nan")), (1, 1, 1000)])
def test_impossible_spacing(scans, store, spacing):
    with pytest.raises(SettingError, match=r"^spacing_mm: .* give mm along x, y, z"):
        run(scans, store, spacing_mm=spacing)


def test_other_settings_out_of_range(scans, store, labelled):
    with pytest.raises(SettingError, match=r"^workers: -1 is negative"):
        run(scans, store, workers=-1)
    with pytest.raises(ManifestError, match=r"no section 'train'; it has 'training'"):
        run(labelled, store, sections=["train"])


def test_store_that_is_none(scans, store, tmp_path):
    with pytest.raises(StoreError, match=r"^b\.nii\.gz: a store is a folder"):
        run(scans, scans / "b.nii.gz")
    run(scans, store)
    (store / "notes.json").write_text("{}")
    with pytest.raises(StoreError, match=r"^notes\.json: not a sidecar of a volume store; move it out"):
        run(scans, store)
    (store / "notes.json").unlink()
    sidecar = store / "b.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "version": 2}))
    before = files(store)
    with pytest.raises(StoreError, match=r"^b: store format 2"):
        run(scans, store)
    assert files(store) == before  # a newer version's work is not undone


def test_closed_folder_is_said_once_and_not_by_every_scan(scans, store, monkeypatch):
    store.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, as which tests may run, may write everywhere
    with pytest.raises(WriteError, match=r"^store: the store cannot be written \(Permission denied\); choose"):
        run(scans, store)


def test_folder_that_cannot_be_made(scans):
    with pytest.raises(WriteError, match=r"^store: the store cannot be written \(.*\); choose a writable folder"):
        run(scans, Path("/proc/store"))


def test_errors_are_typed(scans, store):
    for source in ("none", "x.txt"):
        with pytest.raises(InputError):
            run(scans / source, store)


def test_real_ct(shared_ct, store):
    for source in (shared_ct / "torso_3mm.nii.gz", shared_ct / "dicom_jpeg2000"):
        assert run(source, store, spacing_mm=(3, 3, 3)).exit_code == 0
        assert run(shared_ct / source.name, store, spacing_mm=(3, 3, 3)).skipped == [source.name.split(".")[0]]
    opened = VolumeStore(store)
    torso = np.asarray(nib.load(shared_ct / "torso_3mm.nii.gz").dataobj)
    assert np.array_equal(opened.volume("torso_3mm"), torso)
    record = opened.record("dicom_jpeg2000")
    assert record.source_shape == (512, 512, 20)
    assert np.allclose(np.array(record.shape) * 3, np.array([500, 500, 40]), atol=3)
    assert 40 < np.median(opened.volume("dicom_jpeg2000")[tuple(record.body_voxels.T)]) + 60 < 160
