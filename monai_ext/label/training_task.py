"""Fine-tuning on the labels that annotators have finished, through the segmentation bundle."""

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import device_list, name_to_device

from monai_ext import bundle_path
from monai_ext.base import LabelError, SettingError, copy_weights, replacing
from monai_ext.label.bundle_model import BundleModel
from monai_ext.label.options import Option, coerced, shown_options


class CtSegmentationTraining(BundleTrainTask):
    """Train in a process of its own, then put the best weights in the place where the model reads them.

    The server's own form of this task writes values of a client into a configuration, which MONAI evaluates. Here a
    client chooses numbers and switches alone, each checked; paths and all else come from the app.

    Args:
        model: whose bundle is trained and whose weights are replaced.
        configs: names of the bundle's configurations for training, merged in this order.
        settings: values that replace those of the configurations, from whoever serves.
        state: a folder; each training gets one in it.
    """

    def __init__(self, model: BundleModel, configs: Sequence[str], settings: Mapping[str, Any], state: Path) -> None:
        super().__init__(bundle_path(model.bundle), {})
        self.model, self.configs, self.settings, self.state = model, list(configs), dict(settings), state
        devices = [str(name) for name in device_list()]
        self.options = {
            "device": Option(devices[0], devices),
            "max_epochs": Option(50, low=1, high=10_000),
            "pretrained": Option(True),
            "val_split": Option(0.2, low=0.0, high=0.9),
            "assume_hu": Option(False),
        }

    def config(self) -> dict[str, Any]:
        """Return the options as clients show them."""
        return shown_options(self.options)

    def stats(self) -> dict[str, Any]:
        """Return what the last training reached."""
        path = self.state / "last.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train on all images with a final label.

        Returns:
            What `stats` returns from then on.

        Raises:
            SettingError: an option cannot be used.
            LabelError: no image has a final label, or the training was refused; its reason is told.
        """
        options = coerced(request, self.options, "training")
        folder = self.state / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        folder.mkdir(parents=True)
        count = self._write_list(folder, datastore, options["val_split"])
        _write_json(folder / "settings.json", self._settings(folder, datastore, options))
        self._run(folder)
        best = folder / "run" / "models" / "model.pt"
        self._publish(best)
        told = {
            "scans": count,
            "epochs": options["max_epochs"],
            "pretrained": options["pretrained"],
            **_reached(folder),
        }
        _write_json(self.state / "last.json", told)
        return told

    def _publish(self, best: Path) -> None:
        """Put weights where the model reads them; those before stay beside, for the new ones may be worse."""
        weights = self.model.watched[0]
        if weights.is_file():
            copy_weights(weights, weights.with_name(f"{weights.stem}_before{weights.suffix}"))
        copy_weights(best, weights)

    def _write_list(self, folder: Path, datastore: Datastore, val_split: float) -> int:
        entries = sorted(datastore.datalist(), key=lambda entry: str(entry["image"]))
        if not entries:
            raise LabelError(
                "training: no image has a final label yet; label some in the viewer and submit them",
                code="label.no_labels",
            )
        root = Path(self._root(datastore))
        listed = [{key: str(Path(entry[key]).relative_to(root)) for key in ("image", "label")} for entry in entries]
        held = min(max(1, round(len(listed) * val_split)), len(listed) - 1)
        if not held:
            logging.getLogger("monai_ext").warning("training: one labelled image alone, so it also validates")
        lists = {"training": listed[held:], "validation": listed[:held] or listed}
        _write_json(folder / "dataset.json", lists)
        return len(listed)

    def _settings(self, folder: Path, datastore: Datastore, options: Mapping[str, Any]) -> dict[str, Any]:
        weights = self.model.watched[0]
        epochs = options["max_epochs"]
        return self.settings | {
            "dataset_dir": self._root(datastore),
            "data_list_file_path": str(folder / "dataset.json"),
            "output_dir": str(folder / "run"),
            "pretrained": str(weights) if options["pretrained"] and weights.is_file() else None,
            "epochs": epochs,
            "warmup_epochs": min(self.settings.get("warmup_epochs", 5), epochs - 1),
            "val_interval": max(1, epochs // 10),
            "assume_hu": options["assume_hu"],
            "device": f"$torch.device('{name_to_device(options['device'])}')",  # one of the choices
        }

    @staticmethod
    def _root(datastore: Any) -> str:
        return str(Path(datastore._datastore_path).resolve())

    def _run(self, folder: Path) -> None:
        configs = Path(self.bundle_path) / "configs"
        files = [str(configs / f"{name}.json") for name in self.configs] + [str(folder / "settings.json")]
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", json.dumps(files)]
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            reason = next((line[7:] for line in reversed(lines) if line.startswith("error: ")), "it broke off")
            raise SettingError(f"training: {reason} (log: {folder.name}/log.txt of the app)", code="label.training")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _reached(folder: Path) -> dict[str, Any]:
    lines = (folder / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    scores = [line["val_mean_dice"] for line in map(json.loads, lines) if "val_mean_dice" in line]
    return {"best_val_mean_dice": max(scores)} if scores else {}
