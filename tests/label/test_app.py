"""The app before there are weights, in this process."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: pip install 'monai-ext[label]'")

from monai_ext.base import LabelError, SettingError, WeightsError
from monai_ext.label.app_folder import segmentation_part, write_app


@pytest.fixture
def app(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from monailabel.config import settings

    from monai_ext.label.app import CtLabelApp

    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    monkeypatch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "sessions"))
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "ras.nii.gz").write_bytes((scans / "ras.nii.gz").read_bytes())
    folder = write_app(tmp_path / "app", segmentation_part(None, tiny=True), None)
    return CtLabelApp(str(folder), str(tmp_path / "studies"), {})


def test_labels_are_offered_before_the_model_can_be(app: Any) -> None:
    told = app.info()
    assert list(told["models"]) == ["histogram_scribbles"]
    assert told["labels"][:3] == ["liver", "spleen", "kidney_right"]
    assert list(told["trainers"]) == ["ct_segmentation"]


def test_what_needs_weights_says_so(app: Any) -> None:
    for asked in (
        lambda: app.infer({"model": "ct_segmentation", "image": "ras"}),
        lambda: app.next_sample({"strategy": "uncertainty"}),
    ):
        with pytest.raises(WeightsError, match=r"segmentation\.pt: this model has no weights yet; train it"):
            asked()
    assert app.next_sample({"strategy": "first"})["id"] == "ras"


def test_training_without_labels_says_so(app: Any) -> None:
    with pytest.raises(LabelError, match="no image has a final label yet"):
        app.train({"model": "ct_segmentation"})


@pytest.mark.parametrize("ask", ["infer", "train", "scoring", "next_sample", "batch_infer"])
def test_unknown_tasks_are_named_with_those_there_are(app: Any, ask: str) -> None:
    wanted = {"model": "x", "method": "x", "strategy": "x", "image": "ras"}
    with pytest.raises(SettingError, match=r"'x': choose one of \w+"):
        getattr(app, ask)(wanted)
