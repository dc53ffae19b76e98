"""What a run tells of itself: the keys are fixed, a failure is told, and nobody's name is in it."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine

from monai_ext.base import ScanError
from monai_ext.handlers import RunProvenance
from monai_ext.outputs.provenance import data_sha256, input_sha256, settings_sha256, versions

# Programs read these: a change needs another FORMAT.
KEYS = {
    "format", "state", "started", "seconds", "bundle", "config", "versions", "git_commit", "settings_sha256",
    "changed_settings", "weights_sha256", "device", "ranks", "precision", "seed", "inputs", "cases_done",
    "cases_failed", "warnings", "error",
}  # fmt: skip


def told(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text())


def handler(folder: Path, **changes) -> RunProvenance:
    settings = {"batch_size": 3, "seed": 5, "window_hu": [-175, 250]}
    given = {"settings": settings, "device": "cpu", "precision": "fp32", "seed": 5, **changes}
    return RunProvenance(str(folder), "hi_end_mae_ct_segmentation", "train", **given)


def test_a_run_is_told_while_it_runs_and_when_it_is_done(tmp_path):
    seen = []

    def step(engine: Engine, batch: int) -> None:
        seen.append(told(tmp_path / "run"))
        warnings.warn("PLANTED^NAME", UserWarning, stacklevel=1)

    torch.save({}, tmp_path / "Doe.pt")
    engine = Engine(step)
    handler(tmp_path / "run", weights={"pretrained": str(tmp_path / "Doe.pt"), "clip": "openai"}).attach(engine)
    with pytest.warns(UserWarning, match="PLANTED"):
        engine.run([1, 2])
    content = told(tmp_path / "run")
    assert set(content) == set(seen[0]) == KEYS
    assert (seen[0]["state"], content["state"]) == ("running", "completed")
    assert content["warnings"]["UserWarning"] == 2
    assert content["weights_sha256"] == {"pretrained": input_sha256(tmp_path / "Doe.pt"), "clip": None}
    assert content["changed_settings"] == {"batch_size": 3, "seed": 5}  # the window is the bundle's own
    assert content["versions"] == versions()
    assert content["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert len(content["git_commit"] or 40 * "0") == 40
    assert not [word for word in ("PLANTED", "Doe", str(tmp_path)) if word in json.dumps(content)]


def test_of_a_path_among_the_settings_no_folder_is_told(tmp_path):
    (tmp_path / "DOE^JANE").mkdir()
    weights = tmp_path / "DOE^JANE" / "clip.pt"
    weights.touch()
    settings = {"batch_size": 1, "learning_rate": str(weights), "spacing_mm": f"local-dir:{weights.parent / 'ViT'}"}
    handler(tmp_path / "run", settings=settings).attach(engine := Engine(lambda *_: None))
    engine.run([1])
    assert told(tmp_path / "run")["changed_settings"] == {"learning_rate": "clip.pt", "spacing_mm": "local-dir:ViT"}
    assert "DOE" not in (tmp_path / "run" / "provenance.json").read_text()


@pytest.mark.parametrize("error", [ScanError("ct: torn", code="scan.truncated"), OSError("/data/PLANTED/x.nii")])
def test_a_failure_is_told_by_its_kind_and_handed_on(tmp_path, error):
    def step(engine: Engine, batch: int) -> None:
        raise error

    before = warnings.showwarning
    engine = Engine(step)
    handler(tmp_path).attach(engine)
    with pytest.raises(type(error)):
        engine.run([1])
    assert told(tmp_path)["state"] == "failed"
    assert told(tmp_path)["error"] == getattr(error, "code", "OSError")
    assert "PLANTED" not in json.dumps(told(tmp_path))
    assert warnings.showwarning is before


def test_checksums_tell_inputs_apart_whatever_they_are_called(tmp_path):
    for folder, names in (("a", "xy"), ("b", "yx"), ("c", "xy")):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, ("1", "2" if folder != "c" else "3"), strict=True):
            (tmp_path / folder / f"{name}.dcm").write_text(content)
    assert input_sha256(tmp_path / "a") == input_sha256(tmp_path / "b") != input_sha256(tmp_path / "c")
    assert input_sha256(tmp_path / "none#3") is None
    (tmp_path / "a" / "v.json").write_text("{}")
    before = data_sha256(tmp_path / "a")
    (tmp_path / "a" / "v.json").write_text("{ }")
    assert before != data_sha256(tmp_path / "a")
    assert settings_sha256({"a": 1}) != settings_sha256({"a": 2})


def test_a_run_that_sums_up_cases_is_told_by_one_file_and_one_checksum_of_theirs(tmp_path):
    def run(content: str) -> dict:
        data = [{"case": name, "image": str(tmp_path / f"{name}.nii")} for name in ("a", "b", "c")]
        for item in data:
            Path(item["image"]).write_text(content if item["case"] == "b" else item["case"], encoding="utf-8")
        (tmp_path / "out" / "a").mkdir(parents=True, exist_ok=True)  # of an inference into the same folder
        step = SimpleNamespace(done=[], failures={"c": "c: torn"})

        def once(engine: Engine, batch: dict) -> None:
            if batch["case"][0] != "c":
                step.done.append(batch["case"][0])

        engine = Engine(once)
        more = {"config": "inference+evaluate", "file": "scores_provenance.json", "beside_results": False}
        settings = {"tolerance_mm": 3.0, "overlap": 0.75}
        RunProvenance(
            str(tmp_path / "out"), "hi_end_mae_ct_segmentation", settings=settings, device="cpu", precision="fp32",
            inputs=SimpleNamespace(data=data), step=step, **more,
        ).attach(engine)  # fmt: skip
        engine.run([{"case": [item["case"]]} for item in data])
        return json.loads((tmp_path / "out" / "scores_provenance.json").read_text())

    told, again, other = run("b"), run("b"), run("x")
    assert [str(path.name) for path in (tmp_path / "out").rglob("*.json")] == ["scores_provenance.json"]
    assert set(told) == KEYS
    assert (told["cases_done"], told["cases_failed"]) == (2, {"c": "c: torn"})
    assert told["inputs"].keys() == {"cases_sha256"}
    assert told["inputs"] == again["inputs"] != other["inputs"]
    assert told["changed_settings"] == {"tolerance_mm": 3.0, "overlap": 0.75}  # one of each configuration
