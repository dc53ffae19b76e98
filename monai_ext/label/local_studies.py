"""A folder of scans as the server's datastore, with every id, tag and label of a client looked at first."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from monai_ext.base import ManifestError, ScanError
from monai_ext.label.label_names import names_of_label
from monai_ext.label.names import HEAT_MAP, image_id, label_tag
from monai_ext.volumes import read_labels, read_scan

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


class LocalStudies(LocalDatastore):
    """MONAI Label's datastore over a folder, which cannot be led out of the folder.

    Labels for training and scoring must lie on the grid of their image, or they are refused when they are saved.

    Args:
        folder: of the scans; labels go to ``labels/TAG`` in it.
        auto_reload: watch the folder for scans that others put there.
        names: of the labels that a final label can hold, by id; any where none are given.
    """

    def __init__(self, folder: str, auto_reload: bool = True, names: Mapping[int, str] | None = None) -> None:
        self.names = dict(names or {})
        self._busy = threading.RLock()  # requests come in threads, and the server's own form walks what others change
        super().__init__(folder, extensions=[f"*{ending}" for ending in IMAGE_ENDINGS], auto_reload=auto_reload)

    def _to_id(self, file: str) -> tuple[str, str]:
        # The server's own form removes the ending wherever it stands in the name.
        ending = next((one for one in IMAGE_ENDINGS if file.endswith(one)), Path(file).suffix)
        return file.removesuffix(ending), ending

    def get_image_uri(self, id: str) -> str:
        """Return the path of an image.

        Raises:
            ManifestError: there is no such image.
        """
        name = self._known(id)
        path = str(super().get_image_uri(name))
        if not Path(path).is_relative_to(Path(self._datastore_path).resolve()):
            raise ManifestError(f"{name}: a link leads out of the folder of scans; put a copy there", code="label.link")
        return path

    def get_image_info(self, id: str) -> dict[str, Any]:
        """Return what is kept about an image, its path inside the folder of scans among it."""
        info: dict[str, Any] = super().get_image_info(self._known(id))
        return info | {"path": Path(info["path"]).name}

    def get_label_uri(self, id: str, tag: str) -> str:
        """Return the path of a label, an empty text where there is none with that tag."""
        return str(super().get_label_uri(self._known(id), label_tag(tag)))

    def get_label_info(self, id: str, tag: str) -> dict[str, Any]:
        """Return what is kept about a label."""
        info: dict[str, Any] = super().get_label_info(self._known(id), label_tag(tag))
        return info

    def add_image(self, id: str, filename: str, info: dict[str, Any]) -> str:
        """Take an image into the folder, after it was read as strictly as any scan.

        Raises:
            ManifestError: the id is no plain name, or taken.
            ScanError: the file is refused.
        """
        name = image_id(id or self._to_id(Path(filename).name)[0])
        if name in self._datastore.objects:
            raise ManifestError(
                f"{name}: there is an image of this id; choose another one, or remove that first", code="label.taken"
            )
        if self._to_id(filename)[1] not in IMAGE_ENDINGS:
            raise ScanError(f"{name}: none of {', '.join(IMAGE_ENDINGS)}; convert it first", code="scan.format")
        read_scan(filename, assume_hu=True, case=name)  # units are a matter of the models, not of keeping
        with self._busy:
            return str(super().add_image(name, filename, _plain(info)))

    def remove_image(self, id: str) -> None:
        """Remove an image and its labels.

        Raises:
            ManifestError: there is no such image, or it is a link, whose target would go.
        """
        name = self._known(id)
        if (Path(self._datastore.image_path()) / self._filename(name, self._ext(name))).is_symlink():
            raise ManifestError(f"{name}: is a link; remove it in the folder of scans", code="label.link")
        with self._busy:
            super().remove_image(name)
            self.refresh()  # the watcher would, but after the answer

    def save_label(self, id: str, filename: str, tag: str, info: dict[str, Any]) -> str:
        """Keep a label of an image.

        Raises:
            ManifestError: no such image, or a tag that could not name a folder.
            LabelError, GeometryError: no label ids, or not on the image's grid.
        """
        name, tag = self._known(id), label_tag(tag)
        if tag != HEAT_MAP:  # the models' own, which is no label map
            image = read_scan(self.get_image_uri(name), assume_hu=True, case=name)
            read_labels(filename, like=image, case=name)
        if tag == DefaultLabelTag.FINAL.value and self.names:
            names_of_label((info or {}).get("label_info"), self.names, filename, name)
        with self._busy:
            return str(super().save_label(name, filename, tag, _plain(info)))

    def remove_label(self, id: str, tag: str) -> None:
        """Remove a label."""
        if self.get_label_uri(id, tag):
            with self._busy:
                super().remove_label(self._known(id), label_tag(tag))
                self.refresh()

    def update_image_info(self, id: str, info: dict[str, Any]) -> None:
        """Add to what is kept about an image."""
        super().update_image_info(self._known(id), _plain(info))

    def update_label_info(self, id: str, tag: str, info: dict[str, Any]) -> None:
        """Add to what is kept about a label."""
        super().update_label_info(self._known(id), label_tag(tag), _plain(info))

    def refresh(self) -> None:
        """Look again at what lies in the folder."""
        with self._busy:
            super().refresh()

    def list_images(self) -> list[str]:
        """Return the ids of all images."""
        with self._busy:
            return list(super().list_images())

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the ids of the images with a final label."""
        with self._busy:
            return list(super().get_labeled_images(label_tag, labels))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the ids of the others."""
        with self._busy:
            return list(super().get_unlabeled_images(label_tag, labels))

    def status(self) -> dict[str, Any]:
        """Return counts."""
        with self._busy:
            return dict(super().status())

    def json(self) -> dict[str, Any]:
        """Return what is kept of every image and label."""
        with self._busy:
            return dict(super().json())

    def _ext(self, name: str) -> str:
        return str(self._datastore.objects[name].image.ext)

    def _known(self, id: str) -> str:
        name = image_id(id)
        if name not in self._datastore.objects:
            raise ManifestError(
                f"{name}: there is no such image; the list of images shows those known", code="label.image"
            )
        return name

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        # Names that clients could not send back, and links that lead out of the folder, are not offered.
        found = super()._list_files(path, patterns)
        return {name: file for name, file in found.items() if _offered(self._datastore_path, path, file)}


def _offered(root: str, folder: str, file: str) -> bool:
    try:
        image_id(file)
    except ManifestError:
        return False
    path = Path(folder) / file
    return path.is_file() and path.resolve().is_relative_to(Path(root).resolve())


def _plain(info: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a client tells about a file, if it is small and plain enough to be kept."""
    kept = {str(key)[:64]: value for key, value in (info or {}).items() if isinstance(key, str) and key.isprintable()}
    if len(repr(kept)) > 100_000:
        raise ManifestError("info: more than 100000 letters about one file; send less", code="label.info")
    return kept
