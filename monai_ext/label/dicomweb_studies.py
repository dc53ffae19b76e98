"""A PACS as the server's datastore: series are fetched once, labels are DICOM SEG with the model's ids and names."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dicomweb_client import DICOMwebClient
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom import dcmread

from monai_ext import __version__
from monai_ext.base import ManifestError, ScanError
from monai_ext.label.dicomweb_client import fetch_series, find_series, store, study_of
from monai_ext.label.dicomweb_labels import ReviewedSegs, labels_of_seg
from monai_ext.label.label_names import names_of_label
from monai_ext.label.names import HEAT_MAP, label_tag, series_uid
from monai_ext.label.volume_files import write_volume
from monai_ext.label.volume_task import new_file, removed_on_error
from monai_ext.outputs.dicom_seg import write_dicom_seg
from monai_ext.volumes import DicomSeries, open_series, quiet_pydicom, read_labels

FINAL = DefaultLabelTag.FINAL.value


class DicomWebStudies(DICOMWebDatastore):
    """MONAI Label's datastore over DICOMweb, with reading and writing of DICOM of our own.

    The id of an image is its series instance UID, which also names its files in the cache; nothing that names a
    patient is kept beside them. A final label is a SEG in the archive that a person had a hand in; a model's own SEG,
    which says AUTOMATIC, does not count as one.

    Args:
        client: of the archive.
        search_filter: which series are images, such as ``{"Modality": "CT"}``.
        cache: a folder for what was fetched.
        names: of the labels that a final label can hold, by id.
    """

    def __init__(
        self, client: DICOMwebClient, search_filter: Mapping[str, Any], cache: Path, names: Mapping[int, str]
    ) -> None:
        self.names = dict(names)
        self._segs = ReviewedSegs(client)
        super().__init__(client, dict(search_filter), cache_path=str(cache))

    # Images

    def list_images(self) -> list[str]:
        """Return the UIDs of the series that the archive has now."""
        return sorted(find_series(self._client, self._search_filter))

    def series(self, id: str) -> DicomSeries:
        """Fetch and open a series.

        Raises:
            ManifestError: there is no such series.
            ScanError, GeometryError: it is refused.
        """
        uid = series_uid(id)
        try:
            return open_series(self.image_for_models(uid), uid)
        except ScanError:
            self.forget(uid)
            raise

    def image_for_models(self, id: str) -> Path:
        """Return the folder of a series, where models read it from."""
        uid = series_uid(id)
        return fetch_series(self._client, uid, self._root / "series" / uid)

    def forget(self, id: str) -> None:
        """Fetch a series anew the next time: it was refused, and may be mended in the archive."""
        shutil.rmtree(self._root / "series" / series_uid(id), ignore_errors=True)

    def get_image_uri(self, id: str) -> str:
        """Return a series as a NIfTI of the same voxels, for clients and for training."""
        uid = series_uid(id)
        path = self._root / f"{uid}.nii.gz"
        if not path.is_file():
            scan = self.series(uid).read()
            whole = np.array_equal(scan.voxels, np.rint(scan.voxels)) and np.abs(scan.voxels).max() < 2**15
            temporary = new_file(".nii.gz")
            write_volume(temporary, scan.voxels.astype(np.int16) if whole else scan.voxels, scan.affine)
            study = study_of(self._client, uid)
            LocalDatastore.add_image(
                self, uid, str(temporary), {"SeriesInstanceUID": uid, "StudyInstanceUID": study, "Modality": "CT"}
            )
            temporary.unlink()
        return str(path)

    def get_image_info(self, id: str) -> dict[str, Any]:
        """Return what is kept about an image."""
        info: dict[str, Any] = super().get_image_info(series_uid(id))
        return info | ({"path": Path(info["path"]).name} if "path" in info else {})

    def update_image_info(self, id: str, info: dict[str, Any]) -> None:
        """Add to what is kept about an image, which is fetched for it."""
        self.get_image_uri(id)
        super().update_image_info(series_uid(id), info)

    def add_image(self, id: str, filename: str, info: dict[str, Any]) -> str:
        """Refuse: images come from the archive.

        Raises:
            ManifestError: always.
        """
        raise ManifestError("upload: send new images to the archive, not to this server", code="label.archive")

    def remove_image(self, id: str) -> None:
        """Refuse: images are removed in the archive.

        Raises:
            ManifestError: always.
        """
        raise ManifestError("removal: remove images in the archive, not on this server", code="label.archive")

    # Labels

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the series for which the archive has a SEG that a person had a hand in."""
        return sorted(set(self._final_segs()) & set(self.list_images()))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the other series."""
        return sorted(set(self.list_images()) - set(self._final_segs()))

    def get_labels_by_image_id(self, id: str) -> dict[str, str]:
        """Return the tags of an image's labels."""
        kept = {tag: id for tag in super().get_labels_by_image_id(series_uid(id)) if tag != FINAL}
        return kept | ({FINAL: id} if id in self._final_segs() else {})

    def get_label_uri(self, id: str, tag: str, image_id: str = "") -> str:
        """Return a label as a NIfTI on its image's grid; a final one as the archive has it now.

        Raises:
            LabelError: a SEG whose numbers contradict the models' names.
        """
        uid, tag = series_uid(image_id or id), label_tag(tag)
        if tag != FINAL:
            return str(LocalDatastore.get_label_uri(self, uid, tag))
        seg = self._final_segs().get(uid)
        return str(self._fetched_label(uid, seg[1])) if seg else ""

    def save_label(self, id: str, filename: str, tag: str, info: dict[str, Any], label_id: str = "") -> str:
        """Keep a label of an image; a final one goes to the archive as SEG.

        Raises:
            ManifestError: no such image, or a tag that could not name a folder.
            LabelError, GeometryError: ids without a name, or not on the image's grid.
            WriteError: the archive did not keep it.
        """
        uid, tag = series_uid(id), label_tag(tag)
        self.get_image_uri(uid)
        kept = {"model": str(info.get("model", ""))[:64]} if info else {}
        if tag == FINAL:
            names = names_of_label(info.get("label_info"), self.names, filename, uid)
            path = self.seg_file(uid, Path(filename), names, automatic=False)
            try:
                self.send(path, uid)
            finally:
                path.unlink()
        elif tag != HEAT_MAP:  # the models' own, which is no label map
            read_labels(filename, like=self.series(uid).read(), case=uid)
        return str(LocalDatastore.save_label(self, uid, filename, tag, kept))

    def remove_label(self, id: str, tag: str) -> None:
        """Remove a label that is not in the archive.

        Raises:
            ManifestError: a final label, which only the archive can remove.
        """
        uid, tag = series_uid(id), label_tag(tag)
        if tag == FINAL:
            raise ManifestError("removal: remove final labels in the archive, not on this server", code="label.archive")
        if LocalDatastore.get_label_uri(self, uid, tag):
            super().remove_label(uid, tag)

    def seg_file(self, id: str, label: Path, names: Mapping[int, str], *, automatic: bool) -> Path:
        """Return a new DICOM SEG of a label volume, with every name whether present or not.

        Args:
            id: of the image.
            label: a volume on the image's grid.
            names: of the segments by id.
            automatic: whether no person had a hand in it.
        """
        series = self.series(id)
        found = read_labels(label, like=series.read(), classes=list(names), case=id)
        path = new_file(".dcm")
        with removed_on_error(path):
            write_dicom_seg(
                path,
                found.voxels,
                series.affine,
                series.headers(),
                names,
                algorithm="monai-ext",
                version=__version__,
                series_description="Segmentation, not reviewed" if automatic else "Segmentation, reviewed",
                automatic=automatic,
                case=id,
            )
        return path

    def send(self, path: Path, id: str) -> None:
        """Store a DICOM file in the archive."""
        with quiet_pydicom():
            instance = dcmread(path)
        store(self._client, instance, id)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return the images that have a final label, both as NIfTI, for training."""
        return [
            {"image": self.get_image_uri(uid), "label": self.get_label_uri(uid, FINAL)}
            for uid in self.get_labeled_images()
        ]

    @property
    def _root(self) -> Path:
        return Path(self._datastore_path).resolve()

    def _final_segs(self) -> dict[str, tuple[str, str]]:
        return self._segs.now()

    def _fetched_label(self, uid: str, series: str) -> Path:
        """Return a SEG as a NIfTI, made anew when the archive has another one than the last time."""
        told = LocalDatastore.get_label_info(self, uid, FINAL)
        if told.get("seg") == series and Path(LocalDatastore.get_label_uri(self, uid, FINAL)).is_file():
            return Path(LocalDatastore.get_label_uri(self, uid, FINAL))
        folder = fetch_series(self._client, series, self._root / "segs" / series)
        image = self.series(uid)
        labels = labels_of_seg(folder, image, self.names)
        self.get_image_uri(uid)
        temporary = new_file(".nii.gz")
        try:
            write_volume(temporary, labels, image.affine)
            LocalDatastore.save_label(self, uid, str(temporary), FINAL, {"seg": series})
        finally:
            temporary.unlink()
        return Path(LocalDatastore.get_label_uri(self, uid, FINAL))
