"""The server's addresses that take something from a client, each with its values checked before the server's own code.

Handlers are plain functions, which FastAPI runs in threads: an inference does not hold up the others' requests.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.endpoints import activelearning, batch_infer, scoring, train
from monailabel.endpoints.infer import ResultType, send_response
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from monai_ext.base import SettingError
from monai_ext.label.app import CtLabelApp
from monai_ext.label.dicomweb_studies import DicomWebStudies
from monai_ext.label.local_studies import IMAGE_ENDINGS
from monai_ext.label.names import ending_of
from monai_ext.label.names import session_id as checked_session
from monai_ext.label.options import Option, chosen, coerced
from monai_ext.label.told_info import json_object

_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
_ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))


router = APIRouter()


def the_app() -> CtLabelApp:
    """Return the app that is served."""
    app: CtLabelApp = app_instance()
    return app


def passing() -> Iterator[Path]:
    """Give a request a folder for what it sent; it goes with the answer, also where that is a refusal."""
    with tempfile.TemporaryDirectory(prefix="monai_ext-") as folder:
        yield Path(folder)


Passing = Annotated[Path, Depends(passing)]


def received(upload: UploadFile, endings: tuple[str, ...], folder: Path) -> Path:
    """Write an upload into the request's folder."""
    path = folder / f"{len(list(folder.iterdir()))}{ending_of(upload.filename, endings)}"
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return path


@router.post("/infer/{model}", tags=["Infer"])
def infer(
    tasks: BackgroundTasks,
    folder: Passing,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
    output: ResultType | None = None,
    user: User = _USER,
) -> Any:
    """Run a model on an image of the datastore, of a session or of the request itself."""
    app, wanted = the_app(), json_object(params)
    wanted |= {"model": model, "image": _image(app, folder, image, session_id, file)}
    wanted["label"] = str(received(label, IMAGE_ENDINGS, folder)) if label else None
    if output == ResultType.dicom_seg and (not isinstance(app.datastore(), DicomWebStudies) or not image):
        raise SettingError("output: DICOM SEG is for images of a DICOMweb archive alone", code="label.output")
    result = app.infer(wanted)
    if output == ResultType.dicom_seg:
        return _seg(app, tasks, model, image, Path(result["file"]))
    return send_response(app.datastore(), result, output, tasks)


def _image(app: CtLabelApp, folder: Path, image: str, session: str, file: UploadFile | None) -> Any:
    """Return a path for what the client sent, and text for the id of an image."""
    if file is not None:
        return received(file, IMAGE_ENDINGS, folder)
    if session:
        found = app.sessions().get_session(checked_session(session)) if app.sessions() else None
        if found is None:
            raise HTTPException(404, "no such session; make a new one")
        return Path(found.image)
    if not image:
        raise SettingError("infer: no image; give the id of one, or send a file", code="label.image")
    return image


def _seg(app: CtLabelApp, tasks: BackgroundTasks, model: str, image: str, label: Path) -> Response:
    store: DicomWebStudies = app.datastore()
    names = {number: name for name, number in app._infers[model].labels.items()}
    try:
        path = store.seg_file(image, label, names, automatic=True)
    finally:
        remove_file(str(label))
    tasks.add_task(remove_file, str(path))
    return Response(path.read_bytes(), media_type="application/dicom")


@router.post("/batch/infer/{model}", tags=["Infer"])
def batch(
    model: str,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    user: User = _ADMIN,
) -> Any:
    """Run a model over the images, at once or in the background."""
    found = batch_infer.run(model, images, _without_paths(params), run_sync)
    return found if run_sync else told_of(found)


@router.post("/train/{model}", tags=["Train"])
def train_model(
    model: str,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
    user: User = _ADMIN,
) -> Any:
    """Train a model, at once or in the background."""
    trainer = chosen("training", model, the_app()._trainers)
    found = train.run_model(model, coerced(params or {}, trainer.options, "training"), run_sync, enqueue)
    return found if run_sync else told_of(found)


@router.post("/scoring/{method}", tags=["Scoring"])
def score(method: str, params: dict[str, Any] | None = None, run_sync: bool = False, user: User = _ANNOTATOR) -> Any:
    """Run a scoring method, at once or in the background."""
    scorer = chosen("scoring", method, the_app()._scoring_methods, "label.method")
    found = scoring.run_method(method, coerced(params or {}, scorer.options, "scoring"), run_sync)
    return found if run_sync else told_of(found)


@router.post("/activelearning/{strategy}", tags=["ActiveLearning"])
def next_sample(strategy: str, params: dict[str, Any] | None = None, user: User = _USER) -> Any:
    """Return the image to label next."""
    client = coerced(params or {}, {"client_id": Option("", low=0, high=64, shown=False)}, "next image")
    return activelearning.sample(strategy, client, user.username)


_BACKGROUND = {
    "/train/": (train, "Train"),
    "/scoring/": (scoring, "Scoring"),
    "/batch/infer": (batch_infer, "Infer"),
}


def _add_background(address: str, module: Any, tag: str) -> None:
    """Let clients ask after a task in the background, and end it."""

    @router.get(address, tags=[tag], name=f"{tag} status")
    def status(all: bool = False, check_if_running: bool = False, user: User = _USER) -> Any:
        found = module.status(all, check_if_running)
        return [told_of(task) for task in found] if isinstance(found, list) else told_of(found)

    @router.delete(address, tags=[tag], name=f"{tag} stop")
    def stop(user: User = _ADMIN) -> Any:
        return told_of(module.stop() or {})


for _address, (_module, _tag) in _BACKGROUND.items():
    _add_background(_address, _module, _tag)


def told_of(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task as clients are told of it: its output and request name folders of the server."""
    told = {name: value for name, value in task.items() if name in ("id", "status", "start_ts", "end_ts")}
    request = {name: value for name, value in task.get("request", {}).items() if name != "bundle_path"}
    # Clients look into both; the last line of a task that failed says why.
    last = list(task.get("details", []))[-1:] if task.get("status") == "ERROR" else []
    return told | {"request": request, "details": [line.rpartition("Error: ")[2] for line in last]}


def _without_paths(params: dict[str, Any] | None) -> dict[str, Any]:
    """Return parameters of a batch: text, numbers and switches alone; the app checks each by its options."""
    found = {}
    for name, value in (params or {}).items():
        if not isinstance(value, str | int | float | bool) and value is not None:
            raise SettingError(f"batch: {str(name)[:40]!r} is no text, number or switch; send one", code="label.type")
        if name not in ("model", "image", "images", "label", "gpus"):
            found[str(name)] = value
    return found
