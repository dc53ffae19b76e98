"""Lists of what to localize in, without what a run could only refuse after it has looked at it."""

from typing import Any

from monai_ext.base import plain_name
from monai_ext.metrics import Calibration
from monai_ext.volumes import FoundInput, find_inputs


def localization_items(
    source: str, avoid: str | None = None, calibration: Calibration | None = None
) -> list[dict[str, Any]]:
    """List pictures, scans and stored volumes as ``[{"image", "case", "kind"}, ...]``, see ``find_inputs``.

    Args:
        source: a picture, scan, DICOM series folder, store, datalist, or a folder of pictures and scans.
        avoid: a folder to pass over: that of the results.
        calibration: that will be applied; what is of the other kind gets a ``problem`` and need not be read.

    Raises:
        ScanError: nothing there, or nothing readable among it.
    """
    items: list[dict[str, Any]] = []
    for one in find_inputs(source, avoid):
        problem = one.problem or (_other_kind(one, calibration) if calibration is not None else None)
        item = {"image": str(one.image), "case": plain_name(one.case), "kind": one.kind}
        items.append({**item, "problem": problem} if problem else item)
    return items


def _other_kind(found: FoundInput, calibration: Calibration) -> str | None:
    kind = "picture" if found.kind == "picture" else "volume"
    if kind == calibration.kind:
        return None
    return (
        f"{found.case}: this is a {kind}, but the calibration was made on {calibration.kind}s; make one on normal "
        f"{kind}s, or leave it out"
    )
