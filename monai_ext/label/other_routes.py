"""The rest of the server's addresses: sessions, the archive for OHIF, OHIF itself, and what is refused."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import monailabel
import requests
from fastapi import APIRouter, Depends, File, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, Response
from monailabel.config import settings
from monailabel.endpoints import model as served_model
from monailabel.endpoints.user.auth import RBAC, User

from monai_ext.label.checked_routes import the_app
from monai_ext.label.dicomweb_client import asking
from monai_ext.label.local_studies import IMAGE_ENDINGS
from monai_ext.label.names import ending_of, session_id
from monai_ext.label.volume_task import RESEARCH_ONLY

_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
_OHIF = Path(monailabel.__file__).parent / "endpoints" / "static" / "ohif"
# Else OHIF asks Google for its fonts, and tells it where patients are looked at.
_OWN_ALONE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"
_DICOMWEB = ("studies", "series", "instances")
_PASSED_ON = ("accept", "content-type")
_PASSED_BACK = ("content-type", "etag", "last-modified")


router = APIRouter()


@router.get("/", include_in_schema=False)
def start() -> Response:
    """Say what this is, and where to go on."""
    return HTMLResponse(
        f"<!doctype html><title>monai-ext</title><h1>monai-ext</h1><p>A MONAI Label server. {RESEARCH_ONLY}</p>"
        '<p>3D Slicer\'s MONAI Label module takes this address. <a href="info/">What is served</a>, '
        '<a href="openapi.json">all addresses</a>, <a href="ohif/">OHIF</a> (on a DICOMweb archive).</p>'
    )


@router.put("/session/", tags=["Session"])
def create_session(
    files: Annotated[list[UploadFile], File()], uncompress: bool = False, expiry: int = 0, user: User = _USER
) -> Any:
    """Take in one image for several requests."""
    if uncompress or len(files) != 1:
        raise HTTPException(400, "session: send one volume, not an archive or several files")
    ending = ending_of(files[0].filename, IMAGE_ENDINGS)
    sessions = the_app().sessions()
    if sessions is None:
        raise HTTPException(406, "sessions are switched off on this server")
    with tempfile.TemporaryDirectory(prefix="monai_ext-") as folder:
        path = Path(folder) / f"image{ending}"
        with path.open("wb") as file:
            shutil.copyfileobj(files[0].file, file)
        name, info = sessions.add_session(str(path), max(0, min(expiry, 86_400)), False)
    return {"session_id": name, "session_info": _told(info)}


@router.get("/session/{id}", tags=["Session"])
def get_session(id: str, update_ts: bool = False, image: bool = False, user: User = _USER) -> Any:
    """Return what is known of a session, or its image."""
    info = _session(id, update_ts)
    return FileResponse(info.image, filename=Path(info.image).name) if image else _told(info)


@router.delete("/session/{id}", tags=["Session"])
def remove_session(id: str, user: User = _USER) -> Any:
    """End a session and remove its image."""
    info = _session(id, False)
    the_app().sessions().remove_session(session_id(id))
    return _told(info)


def _session(id: str, update: bool) -> Any:
    sessions = the_app().sessions()
    info = sessions.get_session(session_id(id), update_ts=update) if sessions else None
    if info is None:
        raise HTTPException(404, "no such session; make a new one")
    return info


def _told(info: Any) -> dict[str, Any]:
    """Return the entries that say nothing of where files lie on the server."""
    names = ("name", "create_ts", "last_access_ts", "expiry")
    return {name: value for name, value in info.to_json().items() if name in names}


@router.get("/model/info/{model}", tags=["Model"])
def model_info(model: str, user: User = _ADMIN) -> Any:
    """Return checksum and age of a model's weights, and what its training reached."""
    return served_model.model_info(model)


@router.get("/model/{model}", tags=["Model"])
def download_model(model: str, user: User = _ADMIN) -> Any:
    """Return a model's weights."""
    return served_model.download_model(model)


@router.put("/model/{model}", tags=["Model"])
@router.delete("/model/{model}", tags=["Model"])
def refuse_model(model: str) -> None:
    """Refuse: weights come from whoever serves."""
    raise HTTPException(403, "weights are not taken from clients; put them in place with label-app on the server")


@router.post("/reload", include_in_schema=False)
def refuse_reload() -> None:
    """Refuse: it would run the app's code anew for anyone."""
    raise HTTPException(403, "reloading is off; restart the server")


@router.api_route("/proxy/dicom/{path:path}", methods=["GET", "POST"], include_in_schema=False)
async def archive(request: Request, path: str, user: User = _USER) -> Response:
    """Pass a request of OHIF on to the archive, below its DICOMweb address and nowhere else."""
    from fastapi.concurrency import run_in_threadpool

    return await run_in_threadpool(_ask_archive, request, path, await request.body())


def _ask_archive(request: Request, path: str, body: bytes) -> Response:
    address = settings.MONAI_LABEL_STUDIES.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise HTTPException(404, "no archive is served, but a folder; OHIF needs --studies ADDRESS")
    operation, _, rest = path.partition("/")
    prefixes = {
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    parts = (rest if operation in prefixes else path).split("/")
    if parts[0] not in _DICOMWEB or any(part in ("", ".", "..") or not _harmless(part) for part in parts):
        raise HTTPException(400, "proxy: no DICOMweb address; ask for studies, series, instances or frames")
    if request.method == "POST" and (operation != "stow" or parts[0] != "studies"):
        raise HTTPException(403, "proxy: only instances to store can be sent")
    prefix = [prefixes[operation]] if prefixes.get(operation) else []
    password = settings.MONAI_LABEL_DICOMWEB_PASSWORD
    with asking():
        answer = requests.request(
            request.method,
            "/".join([address, *prefix, *parts]),
            params=list(request.query_params.multi_items()),
            data=body or None,
            headers={name: request.headers[name] for name in _PASSED_ON if name in request.headers},
            auth=(settings.MONAI_LABEL_DICOMWEB_USERNAME, password) if password else None,
            timeout=settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT,
            allow_redirects=False,
        )
    back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    return Response(answer.content, answer.status_code, back)


def _harmless(part: str) -> bool:
    return part.isascii() and all(sign.isalnum() or sign in ".-_,&=" for sign in part)


@router.get("/ohif/{path:path}", include_in_schema=False)
def ohif(path: str, user: User = _USER) -> Response:
    """Return a file of OHIF, which lies inside MONAI Label, and its page for its own addresses."""
    file = _OHIF / "index.html"
    with suppress(OSError, ValueError):  # names that no file has
        asked = (_OHIF / path).resolve()
        file = asked if asked.is_file() and asked.is_relative_to(_OHIF.resolve()) else file
    return FileResponse(file, headers={"Content-Security-Policy": _OWN_ALONE})
