"""Which image to label next."""

from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from monai_ext.base import ScanError
from monai_ext.label.scoring import ModelUncertainty

AT_ONCE = 4  # images that a request for the next one waits for; a scoring run does all of them


class MostUncertainImage(Strategy):
    """The unlabelled image that the model is most unsure about, among those scored.

    Args:
        scoring: scores those that need it, a few at each request.
    """

    def __init__(self, scoring: ModelUncertainty) -> None:
        super().__init__("Image without a final label that the model is most unsure about")
        self.scoring = scoring

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return its id and entropy, ``None`` when all are labelled.

        Raises:
            InputError: the model has no weights, or can read none of the images.
        """
        if not datastore.get_unlabeled_images():
            return None
        self.scoring.task.require_weights()
        scores = self.scoring({"max_samples": AT_ONCE}, datastore)
        if not scores:
            raise ScanError("next image: none can be read by the model; see the server's log", code="label.unreadable")
        image = max(sorted(scores), key=scores.__getitem__)
        return {"id": image, "uncertainty": scores[image]}
