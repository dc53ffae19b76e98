"""What a store holds is known from the first lines of its sidecars, and nothing more of them is read."""

import json
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import StoreError
from monai_ext.volumes import Body
from monai_ext.volumes import store_heads as module
from monai_ext.volumes.store_heads import has_whole_sidecar, stored_sources
from monai_ext.volumes.store_write import NewVolume, write_volume


def add(folder: Path, name: str, source: str) -> None:
    write_volume(
        folder,
        NewVolume(
            id=name,
            hu=np.arange(5 * 7 * 11, dtype=np.int16).reshape(5, 7, 11),
            affine=np.eye(4),
            spacing_mm=(1.0, 1.0, 1.0),
            source=source,
            source_root="0123abcd",
            source_sha256="0f" * 32,
            source_shape=(5, 7, 11),
            source_affine=np.eye(4),
            settings={},
            body=Body(((0, 0, 0), (5, 7, 11)), np.array([[1, 2, 3]])),
        ),
    )


def test_sources_are_known_without_reading_a_record(tmp_path, monkeypatch):
    paths = {"a": "x/a.nii.gz", "b": 'quote" and \\ and ü.nii', "c": "c" * 200}
    for name, source in paths.items():
        add(tmp_path, name, source)
    monkeypatch.setattr(module, "read_record", None)
    assert stored_sources(tmp_path) == {name: ("0123abcd", source) for name, source in paths.items()}


def test_long_paths_and_other_forms_are_read_whole(tmp_path):
    add(tmp_path, "a", "folder/" * 900 + "a.nii")
    add(tmp_path, "b", "b.nii")
    content = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps(dict(sorted(content.items()))))  # another order, without lines
    assert stored_sources(tmp_path) == {
        "a": ("0123abcd", "folder/" * 900 + "a.nii"),
        "b": ("0123abcd", "b.nii"),
    }


def test_torn_heads_are_passed_over_and_foreign_files_refused(tmp_path):
    add(tmp_path, "a", "a.nii")
    add(tmp_path, "b", "b.nii")
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text()[:200])
    assert stored_sources(tmp_path) == {"a": ("0123abcd", "a.nii")}
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(StoreError, match=r"^notes\.json: not a sidecar"):
        stored_sources(tmp_path)
    (tmp_path / "notes.json").unlink()
    (tmp_path / "b.json").write_text((tmp_path / "a.json").read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StoreError, match=r"^b: store format 2"):
        stored_sources(tmp_path)


def test_copy_of_another_sidecar_gives_no_scan_a_second_name(tmp_path):
    add(tmp_path, "a", "a.nii")
    add(tmp_path, "b", "b.nii")
    (tmp_path / "b.json").write_text((tmp_path / "a.json").read_text())
    assert stored_sources(tmp_path) == {"a": ("0123abcd", "a.nii")}


def test_damage_behind_the_head_is_seen_when_it_is_asked_for(tmp_path):
    add(tmp_path, "a", "a.nii")
    assert has_whole_sidecar(tmp_path, "a")
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace('"source": "a.nii"', '"source": "o.nii"'))
    assert stored_sources(tmp_path) == {"a": ("0123abcd", "o.nii")}
    assert not has_whole_sidecar(tmp_path, "a")


def test_volume_that_vanishes_meanwhile_is_passed_over(tmp_path, monkeypatch):
    """A second run takes a sidecar away while it replaces the volume."""
    add(tmp_path, "a", "a.nii")
    found = list(tmp_path.glob("*.json"))
    (tmp_path / "a.json").unlink()
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(found))
    assert stored_sources(tmp_path) == {}
