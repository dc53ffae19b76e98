"""What the app asks of a PACS over DICOMweb (PS3.18): which series it has, the files of one, a SEG to keep."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from pydicom.dataset import Dataset

from monai_ext.base import ManifestError, WriteError
from monai_ext.label.names import series_uid
from monai_ext.volumes import quiet_pydicom

# As they are stored: some archives cannot decompress what they hold, and every codec is read here.
_AS_STORED = (("application/dicom", "*"),)


@contextmanager
def asking() -> Iterator[None]:
    """Turn trouble with the archive into one sentence, and keep headers out of the log, which pydicom quotes there.

    Raises:
        ManifestError: it does not answer, or refuses.
    """
    try:
        with quiet_pydicom():
            yield
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else "an error"
        raise ManifestError(
            f"archive: answers {code}; check its address (--studies), user and password, and its log",
            code="label.archive",
        ) from error
    except requests.RequestException as error:
        raise ManifestError(
            "archive: does not answer; check that it runs, and its address (--studies)", code="label.archive"
        ) from error


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
    return {series: study for series, study, _ in _rows(client, filters)}


def _rows(client: DICOMwebClient, filters: Mapping[str, Any]) -> list[tuple[str, str, int | None]]:
    """Return series, study and, where the archive tells it, the number of instances."""
    found = []
    with asking():
        for row in client.search_for_series(search_filters=dict(filters)):
            data = Dataset.from_json(row)
            series, study = str(data.get("SeriesInstanceUID") or ""), str(data.get("StudyInstanceUID") or "")
            count = data.get("NumberOfSeriesRelatedInstances")
            if series and study:
                found.append((series_uid(series), series_uid(study), None if count is None else int(count)))
    return found


def study_of(client: DICOMwebClient, series: str) -> str:
    """Return the study of a series.

    Raises:
        ManifestError: the archive has no such series.
    """
    return _row(client, series)[0]


def _row(client: DICOMwebClient, series: str) -> tuple[str, int | None]:
    """Return the study of a series and, where the archive tells it, the number of instances."""
    wanted = {"SeriesInstanceUID": series_uid(series)}
    row = next((row for row in _rows(client, wanted) if row[0] == series), None)
    if row is None:
        raise ManifestError(f"{series}: the archive has no such series; refresh the list", code="label.image")
    return row[1:]


def headers_of(client: DICOMwebClient, study: str, series: str) -> list[Dataset]:
    """Return the headers of a series' instances."""
    with asking():
        return [Dataset.from_json(row) for row in client.retrieve_series_metadata(study, series)]


def fetch_series(client: DICOMwebClient, series: str, folder: Path) -> Path:
    """Fetch a series into a folder of its own, whole or not at all; again where the archive has come to hold more.

    Raises:
        ManifestError: the archive has no such series, or sends instances of another one.
    """
    study, count = _row(client, series)
    if folder.is_dir():
        if count in (None, len(list(folder.iterdir()))):
            return folder
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as place:
        whole = Path(place) / "series"
        whole.mkdir()
        with asking():
            instances = client.retrieve_series(study, series, media_types=_AS_STORED)
            for number, instance in enumerate(instances):
                if str(instance.get("SeriesInstanceUID")) != series:
                    raise ManifestError(f"{series}: the archive sent another series' instance", code="label.archive")
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
    with asking():
        reply = client.store_instances([instance])
    kept = [str(item.ReferencedSOPInstanceUID) for item in reply.get("ReferencedSOPSequence") or []]
    if reply.get("FailedSOPSequence") or str(instance.SOPInstanceUID) not in kept:
        raise WriteError(f"{case}: the archive did not keep the result; see its log", code="label.archive", case=case)
