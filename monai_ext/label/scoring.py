"""Scores of the labels and images in the datastore: Dice of each class, and how unsure the model is."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod

from monai_ext.base import InputError, WeightsError, is_number
from monai_ext.label.options import Option, coerced
from monai_ext.label.segmentation_task import CtSegmentationTask
from monai_ext.metrics import case_scores
from monai_ext.volumes import read_labels

UNCERTAINTY = "uncertainty"


class ClassDice(ScoringMethod):
    """Dice of each class between what the model proposed and what the annotator made of it.

    Args:
        names: of the classes by id.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__("Dice of each class between final and original labels")
        self.names = dict(names)
        tags = {"y": DefaultLabelTag.FINAL.value, "y_pred": DefaultLabelTag.ORIGINAL.value}
        self.options = {name: Option(tag, low=1, high=32) for name, tag in tags.items()}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score every image that has both labels; the result is kept with the image too.

        Returns:
            Of each image the Dice by class name and their mean; a class absent from both is left out. Of one whose
            labels cannot be read, the reason as ``error``.
        """
        tags = coerced(request, self.options, "scoring")
        scores: dict[str, dict[str, Any]] = {}
        for image in sorted(datastore.list_images()):
            have = datastore.get_labels_by_image_id(image)
            if tags["y"] in have and tags["y_pred"] in have:
                try:
                    scores[image] = self._score(image, datastore, tags)
                except InputError as error:  # the other images are worth their scores
                    scores[image] = {"error": str(error)}
                datastore.update_image_info(image, {"dice": scores[image]})
        return scores

    def _score(self, image: str, datastore: Datastore, tags: Mapping[str, str]) -> dict[str, float]:
        final = read_labels(datastore.get_label_uri(image, tags["y"]), case=image)
        proposed = read_labels(datastore.get_label_uri(image, tags["y_pred"]), like=final, case=image)
        found = case_scores(image, proposed.voxels, final.voxels, list(self.names), final.spacing_mm, surfaces=False)
        dice = {self.names[one.class_id]: one.dice for one in found if not math.isnan(one.dice)}
        return dice | {"mean": math.fsum(dice.values()) / len(dice) if dice else math.nan}


class ModelUncertainty(ScoringMethod):
    """How unsure the model is about each image that nobody has labelled yet, for choosing the next one.

    Args:
        task: the model.
    """

    def __init__(self, task: CtSegmentationTask) -> None:
        super().__init__("Mean entropy of the model over an image: the higher, the more a label would teach")
        self.task = task
        self.options = {"max_samples": Option(0, low=0, high=1_000_000)}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, float]:
        """Score the unlabelled images that these weights have not seen yet, at most ``max_samples`` where it is not 0.

        Returns:
            Of each unlabelled image the entropy in nats; images that cannot be read are left out, and logged.
        """
        most = coerced(request, self.options, "scoring")["max_samples"]
        version = self.task.model.watched[0].stat().st_mtime_ns if self.task.is_valid() else 0
        scores: dict[str, float] = {}
        done = 0
        for image in sorted(datastore.get_unlabeled_images()):
            known = datastore.get_image_info(image)
            if known.get("uncertainty_of") == version and version and is_number(known.get(UNCERTAINTY)):
                scores[image] = float(known[UNCERTAINTY])
            elif not most or done < most:
                done += 1
                scores |= self._score(image, datastore, version)
        return scores

    def _score(self, image: str, datastore: Datastore, version: int) -> dict[str, float]:
        try:
            entropy = self.task.uncertainty(datastore.get_image_uri(image), image)
        except WeightsError:
            raise
        except InputError as error:
            logging.getLogger("monai_ext").warning("uncertainty: %s", error)
            return {}
        datastore.update_image_info(image, {UNCERTAINTY: entropy, "uncertainty_of": version})
        return {image: entropy}
