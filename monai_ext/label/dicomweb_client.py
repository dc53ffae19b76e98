"""What the app asks of a PACS over DICOMweb (PS3.18): which series it has, the files of one, a SEG to keep."""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from pydicom.dataset import Dataset

from monai_ext.base import ManifestError, WriteError
from monai_ext.label.names import series_uid

# As they are stored: some archives cannot decompress what they hold, and every codec is read here.
_AS_STORED = (("application/dicom", "*"),)


def connect(url: str) -> DICOMwebClient:
    """Return a client; user and password are the server's settings, from its environment."""
    session = None
    if settings.MONAI_LABEL_DICOMWEB_USERNAME and settings.MONAI_LABEL_DICOMWEB_PASSWORD:
        session = create_session_from_user_pass(
            settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        )
    return DICOMwebClientX(
        url=url,
        session=session,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )


def find_series(client: DICOMwebClient, filters: Mapping[str, Any]) -> dict[str, str]:
    """Return the study of each series that fits, by UID."""
    found = {}
    for row in client.search_for_series(search_filters=dict(filters)):
        data = Dataset.from_json(row)
        series, study = str(data.get("SeriesInstanceUID") or ""), str(data.get("StudyInstanceUID") or "")
        if series and study:
            found[series_uid(series)] = series_uid(study)
    return found


def study_of(client: DICOMwebClient, series: str) -> str:
    """Return the study of a series.

    Raises:
        ManifestError: the archive has no such series.
    """
    study = find_series(client, {"SeriesInstanceUID": series_uid(series)}).get(series)
    if study is None:
        raise ManifestError(f"{series}: the archive has no such series; refresh the list", code="label.image")
    return study


def headers_of(client: DICOMwebClient, study: str, series: str) -> list[Dataset]:
    """Return the headers of a series' instances."""
    return [Dataset.from_json(row) for row in client.retrieve_series_metadata(study, series)]


def fetch_series(client: DICOMwebClient, series: str, folder: Path) -> Path:
    """Fetch a series into a folder of its own, whole or not at all.

    Raises:
        ManifestError: the archive has no such series, or sends instances of another one.
    """
    if folder.is_dir():
        return folder
    study = study_of(client, series)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as place:
        whole = Path(place) / "series"
        whole.mkdir()
        instances = client.retrieve_series(study, series, media_types=_AS_STORED)
        for number, instance in enumerate(instances):
            if str(instance.get("SeriesInstanceUID")) != series:
                raise ManifestError(f"{series}: the archive sent an instance of another series", code="label.archive")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom quotes values that break the standard
                instance.save_as(whole / f"{number:05d}.dcm")
        if not instances:
            raise ManifestError(f"{series}: the archive sent no instances; refresh the list", code="label.archive")
        whole.replace(folder)
    return folder


def store(client: DICOMwebClient, instance: Dataset, case: str) -> None:
    """Store one instance, and believe the archive only when it says that it has it.

    Raises:
        WriteError: it was refused.
    """
    reply = client.store_instances([instance])
    kept = [str(item.ReferencedSOPInstanceUID) for item in reply.get("ReferencedSOPSequence") or []]
    if reply.get("FailedSOPSequence") or str(instance.SOPInstanceUID) not in kept:
        raise WriteError(f"{case}: the archive did not keep the result; see its log", code="label.archive", case=case)
