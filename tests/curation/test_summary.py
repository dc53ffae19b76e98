"""A summary counts, measures along the patient's axes, and becomes one page that runs nothing."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ext.base import ManifestError, SettingError, StoreError
from monai_ext.curation import summarize_manifest, write_summary_page
from monai_ext.manifests import Fact, ManifestEntry, read_manifest, read_shipped, write_manifest
from monai_ext.volumes import Origin


def write_scan(path: Path, shape, affine) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.zeros(shape, np.int16), affine).to_filename(path)


@pytest.fixture
def listed(tmp_path):
    """Two data sets: four scans of one size along several axes, and three that are not there."""
    lidc, btcv = read_shipped("lidc"), read_shipped("btcv")
    upright = np.diag([0.5, 0.75, 3.0, 1])
    lying = np.array([[0, 0.5, 0, 0], [0, 0, -0.75, 40], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    write_scan(tmp_path / "scans/a.nii.gz", (7, 9, 5), upright)
    write_scan(tmp_path / "scans/b.nii.gz", (5, 7, 9), lying)
    (tmp_path / "scans/torn.nii.gz").write_bytes(b"\x1f\x8b")
    entries = [
        *(
            ManifestEntry(name, "lidc", f"scans/{name}.nii.gz", split="training", group="p" if name in "ab" else "")
            for name in ("a", "b", "torn")
        ),
        *(
            ManifestEntry(f"img{n}", "btcv", f"btcv/{n}.nii.gz", label="l" if n else None, split=split, weight=2.5)
            for n, split in enumerate(("training", "test"))
        ),
    ]
    path = tmp_path / "list.json"
    both = replace(
        lidc,
        name="both",
        title="Two <b>sets</b>",
        datasets={**lidc.datasets, **btcv.datasets},
        sources={**lidc.sources, **btcv.sources},
        entries=entries,
    )
    write_manifest(path, both)
    return path


def test_scans_patients_labels_and_shares_are_counted(listed):
    summary = summarize_manifest(listed, headers=0)
    assert summary.sizes is None
    rows = {(row.dataset, row.split): row for row in summary.counts}
    assert set(rows) == {("lidc", "training"), ("btcv", "training"), ("btcv", "test")}
    lidc = rows["lidc", "training"]
    assert (lidc.scans, lidc.patients, lidc.labelled, lidc.share) == (3, 2, 0, pytest.approx(3 / 5.5))
    assert (rows["btcv", "test"].labelled, rows["btcv", "test"].share) == (1, 1)
    assert {row.dataset: row.scans for row in summary.totals} == {"lidc": 3, "btcv": 2}
    assert summary.leaks[0].evaluation == "btcv"


def test_sizes_are_along_the_axes_of_the_patient(listed):
    summary = summarize_manifest(listed, jobs=0)
    assert {(size.shape, size.spacing_mm) for size in summary.sizes.sizes} == {((7, 9, 5), (0.5, 0.75, 3.0))}
    (one,) = summary.ranges
    assert (one.count, one.plane_mm[1], one.slice_mm, one.plane[0], one.height_mm[2]) == (2, 0.625, (3, 3, 3), 9, 15)


def test_a_header_that_cannot_be_read_is_told_and_the_rest_goes_on(listed):
    summary = summarize_manifest(listed, jobs=0)
    assert [problem.case for problem in summary.sizes.problems] == ["torn", "img0", "img1"]
    assert summary.exit_code == 1
    assert str(listed.parent) not in " ".join(problem.sentence for problem in summary.sizes.problems)


def test_a_link_out_of_the_root_is_not_followed(listed, tmp_path):
    (tmp_path / "scans" / "torn.nii.gz").unlink()
    write_scan(tmp_path / "elsewhere" / "Doe^Jane.nii.gz", (3, 4, 5), np.eye(4))
    (tmp_path / "root").mkdir()
    (tmp_path / "scans").rename(tmp_path / "root" / "scans")
    (tmp_path / "root" / "scans" / "torn.nii.gz").symlink_to(tmp_path / "elsewhere" / "Doe^Jane.nii.gz")
    problems = summarize_manifest(listed, tmp_path / "root", jobs=0).sizes.problems
    sentence = next(problem.sentence for problem in problems if problem.kind == "manifest.outside_root")
    assert "points outside its root folder" in sentence
    assert "Doe" not in sentence


def test_few_headers_are_spread_over_the_data_sets(tmp_path):
    manifest = read_shipped("lidc")
    datasets = {"lidc": manifest.datasets["lidc"], "luna16": read_shipped("luna16").datasets["luna16"]}
    sources = {**manifest.sources, **read_shipped("luna16").sources}
    entries = [
        ManifestEntry(f"{name}_{n}", name, f"{name}/{n}.nii", split="training")
        for name, count in (("lidc", 30), ("luna16", 10))
        for n in range(count)
    ]
    for entry in entries:
        write_scan(tmp_path / entry.image, (4, 5, 3), np.eye(4))
    write_manifest(tmp_path / "m.json", replace(manifest, datasets=datasets, sources=sources, entries=entries))
    summary = summarize_manifest(tmp_path / "m.json", headers=8, jobs=0)
    assert {one.dataset: one.count for one in summary.ranges} == {"lidc": 6, "luna16": 2}
    assert (summary.sizes.looked_at, summary.sizes.total) == (8, 40)
    assert summary.exit_code == 0


def test_where_no_scan_is_sizes_are_left_out(listing, tmp_path):
    path = listing("lidc", 3, "a")
    assert summarize_manifest(path).sizes is None
    assert len(summarize_manifest(path, tmp_path, jobs=0).sizes.problems) == 3  # asked for, and not there
    with pytest.raises(ManifestError, match=r"^none: no such folder"):
        summarize_manifest(path, tmp_path / "none")
    with pytest.raises(SettingError, match="headers: -1 is negative"):
        summarize_manifest(path, headers=-1)


def test_a_store_tells_sizes_from_before_it_resampled(listed, tmp_path, add_volume):
    store = tmp_path / "store"
    for number in range(3):
        add_volume(
            store,
            f"v{number}",
            number,
            source_shape=(11 + number, 13, 17),
            source_affine=np.diag([0.5, 0.75, 3.0, 1]),
            origin=Origin("lidc", "CC-BY-3.0", "p", "training"),
        )
    add_volume(store, "other", 9, origin=Origin("stoic21", "CC-BY-NC-4.0", "q", "training"))
    summary = summarize_manifest(listed, store=store)
    assert (summary.sizes.looked_at, summary.sizes.total) == (3, 3)
    assert {size.shape for size in summary.sizes.sizes} == {(11, 13, 17), (12, 13, 17), (13, 13, 17)}
    assert summary.ranges[0].slice_mm == (3, 3, 3)
    add_volume(tmp_path / "bare", "v", 1)
    with pytest.raises(StoreError, match=r"^bare: the store holds no volume of the data sets of this manifest"):
        summarize_manifest(listed, store=tmp_path / "bare")


def test_the_page_needs_nothing_beside_it_and_runs_nothing(listed, tmp_path):
    manifest = read_manifest(listed)
    card = manifest.datasets["lidc"]
    homepage = Fact("javascript:alert(1)", "high", ())
    licence = Fact("LicenseRef-<script>", "low", (), '" onload="alert(2)')
    card = replace(card, facts={**card.facts, "homepage": homepage, "licence": licence})
    write_manifest(listed, replace(manifest, datasets={**manifest.datasets, "lidc": card}))
    write_summary_page(tmp_path / "page.html", summarize_manifest(listed, jobs=0))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "javascript:" not in page
    assert 'onload="' not in page
    assert "Two &lt;b&gt;sets&lt;/b&gt;" in page
    assert "LicenseRef-&lt;script&gt;" in page
    assert not re.search(r'(?:src|href)="(?!data:|https?://)', page)
    assert len(re.findall(r'src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]{1000,}"', page)) == 2
    for part in ("is itself evaluated on", "0.62", "3 could not be read", "registration"):
        assert part in page
    first = (tmp_path / "page.html").read_bytes()
    write_summary_page(tmp_path / "page.html", summarize_manifest(listed, jobs=0))
    assert (tmp_path / "page.html").read_bytes() == first


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    from monai_ext.cli.app import main

    monkeypatch.setattr(sys, "argv", ["monai_ext", "manifest", "summary", *words])
    monkeypatch.setenv("COLUMNS", "170")
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_command_prints_and_writes_the_page(listed, tmp_path, monkeypatch, capsys):
    page = tmp_path / "pages" / "list.html"
    assert run(monkeypatch, str(listed), "--html", str(page), "--jobs", "0") == 1
    printed = capsys.readouterr()
    for part in ("CC-BY-3.0", "0.62 (0.62 to 0.62)", "54.5%", "of 5 of 5 scans", "is itself evaluated on", "page: "):
        assert part in printed.out
    assert "3 scans could not be read: torn: the file cannot be used" in printed.err
    assert page.is_file()
    content = json.loads(listed.read_text())
    listed.write_text(json.dumps({**content, "schema_version": "3.0"}))
    assert run(monkeypatch, str(listed)) == 2
    assert "schema_version is '3.0', but this package reads 1.x" in capsys.readouterr().err


def test_a_mere_description_is_summarized_too(tmp_path, monkeypatch, capsys):
    from monai_ext.manifests import shipped_manifests

    page = tmp_path / "voco.html"
    assert run(monkeypatch, str(shipped_manifests()["lists/voco_10k"]), "--html", str(page)) == 0
    printed = capsys.readouterr().out
    assert "LicenseRef-TCIA-Restricted (low confidence)" in printed
    assert "4,000" in printed
    assert "describes data sets and lists no scans" in page.read_text(encoding="utf-8")
