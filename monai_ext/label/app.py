"""The app itself: models, training, scoring and strategies over one datastore."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.others.generic import remove_file

from monai_ext._version import __version__
from monai_ext.base import InputError, ScanError
from monai_ext.label.app_folder import AppSettings, read_app
from monai_ext.label.bundle_model import BundleModel
from monai_ext.label.dicomweb_client import connect
from monai_ext.label.dicomweb_studies import DicomWebStudies
from monai_ext.label.keeping import keep_results, what_to_keep
from monai_ext.label.local_studies import LocalStudies
from monai_ext.label.localization_task import LesionCandidatesTask, LesionHeatTask, LesionMaskTask
from monai_ext.label.options import Option, chosen, coerced
from monai_ext.label.scoring import ClassDice, ModelUncertainty
from monai_ext.label.scribbles import HistogramScribbles
from monai_ext.label.segmentation_task import CtSegmentationTask
from monai_ext.label.strategies import MostUncertainImage
from monai_ext.label.training_task import CtSegmentationTraining
from monai_ext.label.volume_task import KEPT, RESEARCH_ONLY

SEGMENTATION, LESIONS = "ct_segmentation", "lesion_localization"
_BATCH = {
    "images": Option("all", ("all", "labeled", "unlabeled")),
    "max_batch_size": Option(0, low=0, high=1_000_000),
    "device": Option("cpu", low=1, high=16),
    "label_tag": Option("original", low=1, high=32),
}


class CtLabelApp(MONAILabelApp):
    """Both bundles in 3D Slicer and OHIF.

    Args:
        app_dir: a folder that ``label-app`` wrote.
        studies: a folder of scans, or the address of a DICOMweb archive.
        conf: nothing of it is used; what the app is lies in its folder.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self.described: AppSettings = read_app(Path(app_dir))
        folder = Path(app_dir)
        for name in ("model", "passing", "trainings"):
            (folder / name).mkdir(exist_ok=True)
        self.segmenter = self._model(folder, self.described.segmentation)
        self.localizer = self._model(folder, self.described.localization)
        self._task = CtSegmentationTask(self.segmenter) if self.segmenter else None
        names = dict(self._task.names) if self._task else {1: "lesion candidate"}
        self.names: dict[int, str] = names
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf or {}),
            name="monai-ext",
            description=f"CT segmentation (Hi-End-MAE) and zero-shot lesion localization (AA-CLIP). {RESEARCH_ONLY}",
            version=__version__,
            # Clients offer the models' labels; where the model is yet to be trained, those that it will have.
            labels=list(names.values()) if self.segmenter is not None and not self.segmenter.ready else None,
        )

    @staticmethod
    def _model(folder: Path, part: Mapping[str, Any] | None) -> BundleModel | None:
        if part is None:
            return None
        files = {setting: folder / name for setting, name in part["files"].items()}
        settings = part["settings"] | {setting: str(path) for setting, path in files.items()}
        return BundleModel(part["bundle"], part["configs"], settings, list(files.values()), folder / "passing")

    def init_datastore(self) -> Datastore:
        """Return the folder or the archive, guarded."""
        studies = str(self.studies)
        if studies.startswith(("http://", "https://")):
            cache = Path(self.app_dir) / "cache"
            return DicomWebStudies(
                connect(studies.strip().rstrip("/")), settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER, cache, self.names
            )
        return LocalStudies(studies, settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD, self.names)

    def init_infers(self) -> dict[str, InferTask]:
        """Return the models."""
        models: dict[str, InferTask] = {}
        if self._task is not None:
            models[SEGMENTATION] = self._task
        if self.localizer is not None:
            classes = self.described.localization["classes"]  # type: ignore[index]
            models[LESIONS] = LesionMaskTask(self.localizer, classes)
            models["lesion_heatmap"] = LesionHeatTask(self.localizer, classes)
            models["lesion_candidates"] = LesionCandidatesTask(self.localizer, classes)
        models["histogram_scribbles"] = HistogramScribbles()
        return models

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return the training of the segmentation."""
        if self.segmenter is None or self.described.segmentation is None:
            return {}
        part = self.described.segmentation
        state = Path(self.app_dir) / "trainings"
        return {SEGMENTATION: CtSegmentationTraining(self.segmenter, part["train_configs"], part["settings"], state)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the ways to choose the next image."""
        ways: dict[str, Strategy] = {"random": Random(), "first": First()}
        if self._task is not None:
            ways["uncertainty"] = MostUncertainImage(ModelUncertainty(self._task))
        return ways

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Return the scores."""
        if self._task is None:
            return {}
        return {"dice": ClassDice(self.names), "uncertainty": ModelUncertainty(self._task)}

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run a model on an image of the datastore, or on a file that the server took in itself.

        Args:
            request: ``model``, ``image`` and the options of the model; ``save_label`` and ``label_tag``, where the
                result is kept; ``store_seg``, whether it goes to the archive as SEG. An ``image`` that is a ``Path``
                is a file of the server's; text is the id of an image.
            datastore: another one than the app's.

        Raises:
            SettingError: no such model, or an option that cannot be used.
            ManifestError: no such image.
        """
        name = str(request.get("model") or "")
        task: InferTask = chosen("model", name, self._infers)
        store = datastore or self.datastore()
        wish = what_to_keep(request, name, store, task)
        image = request.get("image")
        known = not isinstance(image, os.PathLike)
        path = image if not known else self._path_of(store, image)
        try:
            file, told = task({**request, "image": str(path), **({"case": image} if known else {})})
        except ScanError:
            if known and isinstance(store, DicomWebStudies):
                store.forget(str(image))
            raise
        kept = told.pop(KEPT, {})
        try:
            if known:
                keep_results(wish, store, str(image), file, told, kept)
        except Exception:
            remove_file(file)
            raise
        finally:
            for extra in kept.values():
                remove_file(extra)
        return {"label": file, "tag": wish.tag, "file": file, "params": told}

    def _path_of(self, store: Datastore, image: Any) -> str:
        if isinstance(store, DicomWebStudies):
            return str(store.image_for_models(image))
        path: str = store.get_image_uri(image)
        return path

    def batch_infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run a model over the images of the datastore, one after another, and keep each result.

        Returns:
            Of each image what became of it; one that cannot be used is told with its reason, and the others go on.
        """
        model = str(request.get("model") or "")
        chosen("model", model, self._infers)
        asked = coerced(request, _BATCH, "batch")
        store = datastore or self.datastore()
        images = self._batch_infer.get_images({"images": asked["images"]}, store)
        most = asked["max_batch_size"] or len(images)
        return {image: self._one_of_batch(image, model, asked, request, store) for image in sorted(images)[:most]}

    def _one_of_batch(
        self, image: str, model: str, asked: Mapping[str, Any], request: Mapping[str, Any], store: Datastore
    ) -> dict[str, Any]:
        wanted = {**request, "model": model, "image": image, "save_label": True, "label_tag": asked["label_tag"]}
        try:
            result = self.infer(wanted, store)
        except InputError as error:
            return {"error": str(error)}
        remove_file(result.pop("file"))
        return {"tag": result["tag"], "params": result["params"]}

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the image to label next; no path of the server is told."""
        name = str(request.get("strategy") or "random")
        found: dict[str, Any] = (
            chosen("strategy", name, self._strategies, "label.strategy")({"strategy": name}, self.datastore()) or {}
        )
        return found

    def train(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Train a model on the final labels."""
        trainer = chosen("training", request.get("model"), self._trainers)
        result: dict[str, Any] = trainer(request, self.datastore())
        return result

    def scoring(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run a scoring method."""
        scorer = chosen("scoring", request.get("method"), self._scoring_methods, "label.method")
        result: dict[str, Any] = scorer(request, datastore or self.datastore())
        return result

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """Say nothing: the server's own form logs ids."""
