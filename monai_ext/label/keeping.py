"""Where results stay: in the datastore, and as SEG in the archive."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from monai_ext.base import SettingError
from monai_ext.label.dicomweb_studies import DicomWebStudies
from monai_ext.label.names import HEAT_MAP, label_tag
from monai_ext.label.options import Option, coerced

_OPTIONS = {
    "save_label": Option(False),
    "label_tag": Option(DefaultLabelTag.ORIGINAL.value, low=1, high=32),
    "store_seg": Option(False),
}


@dataclass(frozen=True)
class Wish:
    """What a request wants to be kept of its result.

    Attributes:
        tag: of the label in the datastore.
        label: whether it is kept there.
        seg: the names by id of the SEG in the archive, ``None`` where none is wanted.
    """

    tag: str
    label: bool
    seg: Mapping[int, str] | None


def what_to_keep(request: Mapping[str, Any], name: str, store: Datastore, task: InferTask) -> Wish:
    """Read it from a request, and refuse what cannot be done before the model runs.

    Args:
        request: ``save_label``, ``label_tag`` and ``store_seg`` of it.
        name: of the model, for messages.
        store: the datastore.
        task: the model.

    Raises:
        SettingError: a final label, which only a person makes, or a SEG where there is no archive or no label map.
        ManifestError: a tag that could not name a folder.
    """
    asked = coerced({key: request[key] for key in _OPTIONS if key in request}, _OPTIONS, name)
    tag = label_tag(asked["label_tag"])
    if tag == DefaultLabelTag.FINAL.value:
        raise SettingError(
            f"{name}: label_tag is final, but a model's result is none until somebody submits it; give original",
            code="label.final",
        )
    if asked["store_seg"] and (not isinstance(store, DicomWebStudies) or task.type != InferType.SEGMENTATION.value):
        raise SettingError(
            f"{name}: store_seg is for label maps of images in a DICOMweb archive; serve with --studies ADDRESS",
            code="label.store_seg",
        )
    names = {number: text for text, number in dict(task.labels).items()} if asked["store_seg"] else None
    return Wish(tag, asked["save_label"] and task.type != InferType.DETECTION.value, names)


def keep_results(
    wish: Wish, store: Datastore, image: str, file: str, told: dict[str, Any], kept: Mapping[str, str]
) -> None:
    """Put results of an image into the datastore and, where wished, into the archive.

    Args:
        wish: what to keep.
        store: the datastore.
        image: id of the image.
        file: the result for the client.
        told: what the client is told; entries are added.
        kept: further files by their tag.
    """
    if HEAT_MAP in kept:
        store.save_label(image, kept[HEAT_MAP], HEAT_MAP, {})
        told["heatmap_tag"] = HEAT_MAP
    if wish.label:
        about = {"provenance": told["provenance"]} if "provenance" in told else {}  # the scribbles' histogram has none
        store.save_label(image, file, wish.tag, {"model": told.get("bundle", "")} | about)
    if wish.seg is not None and isinstance(store, DicomWebStudies):
        path = store.seg_file(image, Path(file), wish.seg, automatic=True)
        try:
            store.send(path, image)
        finally:
            path.unlink()
        told["seg_stored"] = True
