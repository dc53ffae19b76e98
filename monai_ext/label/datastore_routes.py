"""The server's addresses for images and labels: ids and tags are checked by the datastore, files by strict readers."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, UploadFile
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints import datastore as served
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.utils.others.generic import get_mime_type

from monai_ext.base import SettingError
from monai_ext.label.checked_routes import Passing, received, the_app
from monai_ext.label.local_studies import IMAGE_ENDINGS
from monai_ext.label.names import HEAT_MAP
from monai_ext.label.told_info import told_info

_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
_ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))


router = APIRouter(prefix="/datastore", tags=["Datastore"])


@router.get("/")
def listed(output: served.ResultType | None = None, user: User = _USER) -> Any:
    """Return counts, or every image and label by id; where files lie on the server is not told."""
    if output == served.ResultType.train:
        return [{key: Path(path).name for key, path in entry.items()} for entry in the_app().datastore().datalist()]
    return served.datastore(output)


@router.put("/")
@router.put("/image")
def add_image(
    folder: Passing,
    file: Annotated[UploadFile, File()],
    image: str = "",
    params: str = Form("{}"),
    user: User = _ANNOTATOR,
) -> Any:
    """Take in an image."""
    path = received(file, IMAGE_ENDINGS, folder)
    name = image or Path(str(file.filename)).name.removesuffix("".join(path.suffixes))
    return {"image": the_app().datastore().add_image(name, str(path), told_info(params))}


@router.delete("/")
@router.delete("/image")
def remove_image(id: str, user: User = _ADMIN) -> Any:
    """Remove an image and its labels."""
    the_app().datastore().remove_image(id)
    return {}


@router.head("/image")
@router.get("/image")
def image(image: str, check_sum: str | None = None, user: User = _USER) -> Any:
    """Return an image."""
    return _file(the_app().datastore().get_image_uri(image), "image")


@router.get("/image/info")
def image_info(image: str, user: User = _USER) -> Any:
    """Return what is kept about an image."""
    return the_app().datastore().get_image_info(image)


@router.put("/image/info")
def update_image_info(image: str, info: str = Form("{}"), user: User = _ANNOTATOR) -> Any:
    """Add to what is kept about an image."""
    return the_app().datastore().update_image_info(image, told_info(info))


@router.put("/label")
def save_label(
    folder: Passing,
    image: str,
    label: Annotated[UploadFile, File()],
    params: str = Form("{}"),
    tag: str = DefaultLabelTag.FINAL.value,
    user: User = _ANNOTATOR,
) -> Any:
    """Keep a label of an image."""
    path = received(label, IMAGE_ENDINGS, folder)
    if tag == HEAT_MAP:
        raise SettingError(f"label tag {HEAT_MAP}: kept by the models themselves; give another one", code="label.tag")
    kept = the_app().datastore().save_label(image, str(path), tag or DefaultLabelTag.FINAL.value, told_info(params))
    return {"image": image, "label": kept}


@router.delete("/label")
def remove_label(id: str, tag: str, user: User = _ADMIN) -> Any:
    """Remove a label."""
    the_app().datastore().remove_label(id, tag)
    return {}


@router.head("/label")
@router.get("/label")
def label(label: str, tag: str, user: User = _USER) -> Any:
    """Return a label."""
    return _file(the_app().datastore().get_label_uri(label, tag), "label")


@router.get("/label/info")
def label_info(label: str, tag: str, user: User = _USER) -> Any:
    """Return what is kept about a label."""
    return the_app().datastore().get_label_info(label, tag)


@router.put("/label/info")
def update_label_info(label: str, tag: str, info: str = Form("{}"), user: User = _ANNOTATOR) -> Any:
    """Add to what is kept about a label."""
    return the_app().datastore().update_label_info(label, tag, told_info(info))


def _file(path: str, what: str) -> FileResponse:
    if not path or not Path(path).is_file():
        raise HTTPException(404, f"no such {what}; the list of images shows those known")
    return FileResponse(path, media_type=get_mime_type(path), filename=Path(path).name)
