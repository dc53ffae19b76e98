"""The commands of the AA-CLIP bundle's README, as they stand there, in a folder of the user's."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fire import Fire
from monai.bundle import scripts
from PIL import Image
from typer.testing import CliRunner

import monai_ext
from monai_ext.cli.app import app
from monai_ext.networks import AAClip, load_clip, read_adapters

# What MONAI says about any bundle: that a configuration can run code.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

ROOT = Path(monai_ext.bundle_path("aa_clip_lesion_localization"))
TINY: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 40, "layers": 4, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 4},
}
RUN = {"architecture": "clip.json", "clip_weights": "clip.pt", "activation": "gelu", "image_size": 40, "num_workers": 0}
RUN |= {"text_epochs": 1, "epochs": 1, "held_out": 0.3, "replicates": 10}


def commands() -> Iterator[list[str]]:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if not line.startswith("CONFIGS="):
                yield shlex.split(line.replace("$CONFIGS", f"{ROOT}/configs"))


def write_pictures(folder: Path, class_name: str, count: int) -> None:
    """Write a set of the published form: half of its pictures have a bright square and its mask."""
    generator = np.random.default_rng(5)
    folder.mkdir()
    rows = []
    for n in range(count):
        row: dict[str, Any] = {"image_path": f"{n}.png", "label": n % 2, "class_name": class_name}
        picture = generator.integers(0, 120, (37, 29, 3), dtype=np.uint8)
        if n % 2:
            picture[7:20, 9:19] = 250
            mask = np.zeros((37, 29), np.uint8)
            mask[7:20, 9:19] = 255
            row["mask_path"] = f"{n}_mask.png"
            Image.fromarray(mask).save(folder / row["mask_path"])
        Image.fromarray(picture).save(folder / row["image_path"])
        rows.append(row)
    (folder / "full-shot.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_authors_files(folder: Path) -> list[str]:
    """Write a CLIP and adapters as the authors save them; return the options that name that CLIP."""
    clip = load_clip(TINY, None)
    (folder / "clip.json").write_text(json.dumps(TINY))
    torch.save(clip.model.state_dict(), folder / "clip.pt")
    adapters = AAClip(clip).adapters
    for kind, name in (("text_adapter", "text_adapter.pth"), ("image_adapter", "image_adapter_20.pth")):
        torch.save({"epoch": 20, kind: getattr(adapters, kind).state_dict()}, folder / name)
    return ["--architecture", "clip.json", "--clip-weights", "clip.pt"]


def test_the_commands_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "VisA_20220922", "candle", 8)
    write_pictures(tmp_path / "Brain_AD", "Brain", 4)
    write_pictures(tmp_path / "INPUTS", "Liver", 2)
    write_pictures(tmp_path / "NORMAL", "Liver", 40)
    for n in range(1, 40, 2):
        (tmp_path / "NORMAL" / f"{n}.png").unlink()
    own_clip = write_authors_files(tmp_path)
    done = []
    for words in commands():
        if words[:3] == ["python", "-m", "monai_ext"]:
            result = CliRunner().invoke(app, [*words[3:], *own_clip], catch_exceptions=False)
            assert result.exit_code == 0, result.output
        elif words[:3] == ["python", "-m", "monai.bundle"] and words[3] != "verify_metadata":
            small = dict(RUN)
            if words[3] == "verify_net_in_out":
                small["_meta_#network_data_format#inputs#image#spatial_shape"] = [40, 40]
            flags = [word for key, value in small.items() for word in (f"--{key}", str(value))]
            Fire(scripts, command=[*words[3:], *flags])
        else:
            continue
        done.append(words[3])
    assert done == ["run", "import-adapters", "run", "run", "run", "run", "run", "verify_net_in_out"]
    record = read_adapters(tmp_path / "published.safetensors")[1]
    assert (record.clip, record.activation) == ("own configuration/clip.pt", "gelu")
    assert len(list((tmp_path / "localizations").glob("*/*_candidates.json"))) == 2
    assert json.loads((tmp_path / "calibration" / "calibration.json").read_text())["level"]["cases"] == 20
    assert (tmp_path / "evaluation" / "scores.md").is_file()
    maps, scores = torch.export.load(tmp_path / "liver.pt2").module()(torch.rand(3, 3, 40, 40))
    assert (maps.shape, scores.shape) == ((3, 1, 40, 40), (3,))
