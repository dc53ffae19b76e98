"""The page on manifests: every command of it is run, in order, and ends as the page says."""

import json
import re
import shlex
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ext.cli.app import main
from monai_ext.manifests import read_manifest
from monai_ext.volumes import VolumeStore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "manifests.md"


def write_volumes(image: Path, label: Path | None, seed: int) -> None:
    """Write a block of soft tissue with bones of chance in air, and perhaps a label."""
    generator = np.random.default_rng(seed)
    voxels = np.full((31, 29, 23), -1000, np.int16)
    voxels[5:26, 4:25, :] = generator.integers(-60, 90, (21, 21, 23))
    for _ in range(5):
        x, y, z = generator.integers((5, 4, 0), (20, 20, 17))
        voxels[x : x + 6, y : y + 5, z : z + 6] = generator.integers(200, 900)
    affine = np.diag([3.0, 3.0, 4.0, 1.0])
    for path, data in ((image, voxels), (label, (voxels > 150).astype(np.uint8))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.Nifti1Image(data, affine).to_filename(path)


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    spleen, kits = tmp_path / "Task09_Spleen", tmp_path / "kits23"
    for number in (2, 3, 11, 12):
        name = f"spleen_{number}.nii.gz"
        write_volumes(spleen / "imagesTr" / name, spleen / "labelsTr" / name, number)
    labels = {"labels": {"0": "background", "1": "spleen"}}
    (spleen / "dataset.json").write_text(json.dumps(labels), encoding="utf-8")
    write_volumes(spleen / "imagesTs" / "spleen_7.nii.gz", None, 7)
    for number in (0, 1, 4):
        case = kits / f"case_{number:05}"
        write_volumes(case / "imaging.nii.gz", case / "segmentation.nii.gz", 100 + number)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def commands() -> list[tuple[str, int]]:
    blocks = re.findall(r"<!-- run(?:: (\d))? -->\n```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [(line, int(code or 0)) for code, block in blocks for line in block.splitlines()]


def test_every_command_of_the_page_does_what_it_says(downloads, monkeypatch, capsys):
    for line, expected in commands():
        python, dash, package, *words = shlex.split(line)
        assert (python, dash, package) == ("python", "-m", "monai_ext")
        # As many processes as there are cores take longer to start than this takes.
        alone = {
            "build": "--jobs",
            "verify": "--jobs",
            "leakage": "--jobs",
            "summary": "--jobs",
            "prepare": "--workers",
        }
        verb = words[1] if words[0] == "manifest" else words[0]
        monkeypatch.setattr(sys, "argv", ["monai_ext", *words, *([alone[verb], "0"] if verb in alone else [])])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        assert int(caught.value.code or 0) == expected, f"{line}\n{told.out}\n{told.err}"
    mix = read_manifest("mix.json")
    share = sum(e.weight for e in mix.entries if e.dataset == "kits23" and e.split == "training")
    assert share / sum(e.weight for e in mix.entries if e.split == "training") == pytest.approx(0.3, rel=1e-4)
    assert {entry.dataset for entry in read_manifest("commercial.json").entries} == {"msd_spleen"}
    assert not Path("leaky.json").exists()
    store = VolumeStore("store")
    assert set(store.index.datasets.tolist()) == {"msd_spleen", "kits23"}
    assert len(store) == 7
    assert sum(entry.split == "training" for entry in read_manifest("Task09_Spleen/1-shot.json").entries) == 1
    assert len(read_manifest("nnunet.json").entries) == 5
    assert json.loads(Path("pairs.json").read_text(encoding="utf-8"))
    assert Path("problems.jsonl").read_text(encoding="utf-8") == ""
    assert "data:image/svg+xml" in Path("mix.html").read_text(encoding="utf-8")


def test_the_page_shows_every_verb():
    from monai_ext.cli.manifest import manifest

    verbs = {command.name or command.callback.__name__ for command in manifest.registered_commands if command.callback}
    assert {shlex.split(line)[4] for line, _ in commands() if " manifest " in line} == verbs
