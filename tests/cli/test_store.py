"""The verbs about a store: what they find, what they print, and their exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from monai_ext.base import StoreError
from monai_ext.cli.store import store as app
from monai_ext.cli.store_verify import verify
from monai_ext.volumes import Origin, VolumeStore, store_info, verify_store
from monai_ext.volumes.store_record import LabelSource

NAMES = ["good", "bad [red]", "c", "d", "e"]


@pytest.fixture
def folder(tmp_path: Path, add_volume: Callable[..., None]) -> Path:
    folder = tmp_path / "PLANTED^NAME" / "store"
    folder.parent.mkdir()
    label = np.zeros((37, 41, 29), np.uint8)
    label[3:30, 4:40, 5:20] = 7
    for number, name in enumerate(NAMES):
        fields = {} if number else {"label": label, "label_source": LabelSource("l.nii", "ab", (0, 7), {7: "liver"})}
        origin = Origin("set_1", "CC0-1.0", f"p{number // 2}", "training", 0.5) if number < 3 else None
        add_volume(folder, name, number, origin=origin, **fields)
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_a_whole_store_passes(folder):
    code, output = run("verify", folder)
    assert code == 0
    assert "damaged" in output
    assert "prepare" not in output
    summary = verify_store(folder, workers=3)
    assert (summary.volumes, summary.damages) == (5, [])
    assert summary.data_bytes == sum(path.stat().st_size for path in folder.glob("*.b2nd"))


def damage(folder: Path) -> None:
    """Alter a chunk, tear a file and a sidecar, and take away a file and a sidecar: each of another volume."""
    ends = VolumeStore(folder).record("good").image.ends
    content = bytearray((folder / "good.b2nd").read_bytes())
    content[ends[1] + 3] ^= 1
    (folder / "good.b2nd").write_bytes(content)
    (folder / "bad [red].b2nd").write_bytes((folder / "bad [red].b2nd").read_bytes()[:-5])
    (folder / "c.json").write_text("{")
    (folder / "d.json").unlink()
    (folder / "e.b2nd").unlink()


def test_every_kind_of_damage_is_found_and_named(folder):
    damage(folder)
    summary = verify_store(folder)
    assert {found.id: found.code for found in summary.damages} == {
        "bad [red]": "torn",
        "c": "store.torn",
        "d": "no_sidecar",
        "e": "missing",
        "good": "altered",
    }
    reasons = {found.id: found.reason for found in summary.damages}
    assert reasons["good"] == "good: good.b2nd was altered in 1 of its 4 chunks"
    code, output = run("verify", folder, "--workers", 2)
    assert code == 1
    assert "bad [red].b2nd is torn" in output
    assert "To redo 5 scan(s), give the command again" in output
    assert "python -m monai_ext prepare SOURCE store" in output
    assert "PLANTED" not in output


def test_sidecars_that_prepare_leaves_alone_are_not_promised_to_be_redone(folder):
    content = json.loads((folder / "c.json").read_text())
    (folder / "c.json").write_text(json.dumps({**content, "version": 99}))
    code, output = run("verify", folder)
    assert code == 1
    assert "move 1 of them away" in output
    assert "To redo" not in output


def test_damage_outside_the_chunks_and_of_labels_is_found(folder):
    content = bytearray((folder / "c.b2nd").read_bytes())
    content[-1] ^= 1
    (folder / "c.b2nd").write_bytes(content)
    (folder / "good.label.b2nd").unlink()
    assert [found.reason for found in verify_store(folder).damages] == [
        "c: c.b2nd was altered outside its chunks",
        "good: good.label.b2nd is missing",
    ]


def test_info_counts(folder):
    content = store_info(folder).content
    assert (content["volumes"], content["labelled"]) == (5, 1)
    assert content["shape"]["median"] == [37, 41, 29]
    assert content["spacing_mm"] == [{"value": "1.5 x 2 x 2.5", "volumes": 5}]
    assert content["chunk"] == [{"value": "32 x 32 x 32 int16", "volumes": 5}]
    assert content["settings"] == [{"value": '{"orientation": "RAS"}', "volumes": 5}]
    assert content["datasets"] == [
        {"dataset": "", "licence": "", "volumes": 2, "patients": 2, "weight": 2.0, "splits": {"": 2}},
        {
            "dataset": "set_1",
            "licence": "CC0-1.0",
            "volumes": 3,
            "patients": 2,
            "weight": 1.5,
            "splits": {"training": 3},
        },
    ]
    assert content["labels"] == [{"id": 0, "name": "", "volumes": 1}, {"id": 7, "name": "liver", "volumes": 1}]
    images = sum(path.stat().st_size for path in folder.glob("*.b2nd")) - (folder / "good.label.b2nd").stat().st_size
    assert content["gigabytes"]["images"] == pytest.approx(images / 1e9)
    assert content["compression"]["images"] == pytest.approx(2 * 5 * 37 * 41 * 29 / images)
    assert content["compression"]["images_as_float32"] == 2 * content["compression"]["images"]
    assert content["body_fraction"] == pytest.approx(30 * 35 * 20 / (37 * 41 * 29))


def test_info_prints_tables_or_json(folder):
    code, output = run("info", folder)
    assert code == 0
    for words in ("5, 1 of them with labels", "set_1", "CC0-1.0", "liver", "1.5 x 2 x 2.5 in 5", "(none)"):
        assert words in output
    assert "PLANTED" not in output
    code, output = run("info", folder, "--json")
    assert code == 0
    assert json.loads(output) == store_info(folder).content


def test_an_empty_store_has_info_and_is_not_called_whole(tmp_path):
    assert store_info(tmp_path).content["volumes"] == 0
    assert run("info", tmp_path)[0] == 0
    with pytest.raises(StoreError, match=f"^{tmp_path.name}: no volume lies there") as caught:
        verify(tmp_path)
    assert caught.value.code == "store.empty"
