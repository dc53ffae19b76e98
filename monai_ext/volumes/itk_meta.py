"""MetaImage headers, read strictly (https://itk.org/Wiki/ITK/MetaIO/Documentation)."""

from pathlib import Path

import numpy as np

from monai_ext.volumes.checks import check_affine, check_spacing
from monai_ext.volumes.itk_headers import (
    ZLIB,
    ItkHeader,
    affine_of,
    check_data,
    fields,
    lines,
    numbers_of,
    refuse_not_scalar,
    refuse_without,
    shape_of,
)
from monai_ext.volumes.refusals import refuse, refuse_damaged, refuse_geometry
from monai_ext.volumes.relaxing import RELAXABLE, Rules

# MET_LONG is missing: it has 4 or 8 bytes, depending on the machine that wrote it.
_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
_ALIASES = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
}


_UNIT = 1e-3  # directions are decimal strings
_MODALITIES = ("MET_MOD_CT", "MET_MOD_OTHER", "MET_MOD_UNKNOWN")
# ITK names an axis by where it comes from: one that runs to the left, +x of LPS+, is "R".
_FROM = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "I": (0, 0, 1), "S": (0, 0, -1)}
_OPPOSITE = str.maketrans("RLAPIS", "LRPASI")
_MOSTLY = 0.85  # above the root of 2/3 an axis has but one name, whatever the other two are


def check_meta(path: Path, case: str, rules: Rules, *, any_modality: bool) -> ItkHeader:
    """Check header and data length of a MetaImage, ``.mha`` or ``.mhd`` with its one data file beside it.

    Args:
        path: the file.
        case: the id for messages.
        rules: those of the scan.
        any_modality: take other modalities than CT, as of labels.

    Raises:
        ScanError: damaged, truncated, of another modality, or of an encoding or type that is not read.
        GeometryError: not 3D, or spacing, orientation or origin are absent, unusable or contradictory.
    """
    with path.open("rb") as stream:
        header = [line for line in lines(stream, case) if line]
        if not header:
            refuse_damaged(case, "it is empty")
        found = fields(header, "=", _ALIASES, case)
        if found.get("ObjectType") != "Image" or "ElementDataFile" not in found:
            refuse_damaged(case, "its header is not that of a MetaImage")
        shape = shape_of(found.get("DimSize", ""), found.get("NDims", ""), case)
        channels = found.get("ElementNumberOfChannels", "1")
        if channels != "1":
            refuse_not_scalar(case, f"{channels} channels")
        modality = found.get("Modality", "MET_MOD_UNKNOWN")
        if not any_modality and modality not in _MODALITIES:
            what = f"its Modality is {modality[:40]!r}, not CT"
            refuse(case, what, "give CT, or pass --assume-hu (assume_hu=True) if it is in HU", "scan.modality")
        affine = _affine(found, case, rules)
        if not _true(found, "BinaryData", case) or found.get("HeaderSize", "0") != "0":
            refuse_damaged(case, "data as text or behind another header are not read here")
        kind = found.get("ElementType", "")
        if kind not in _BYTES:
            refuse_damaged(case, f"voxel type {kind[:40]!r} is not read here")
        if _BYTES[kind] > 1 and "ElementByteOrderMSB" not in found:
            refuse_damaged(case, "its byte order is not given")
        _check_unscaled(found, case)
        packing = ZLIB if _true(found, "CompressedData", case) else None
        data_file = None if found["ElementDataFile"] == "LOCAL" else found["ElementDataFile"]
        if packing and "CompressedDataSize" not in found:  # SimpleITK then returns memory that it never filled
            refuse_damaged(case, "its header does not say how long its compressed data are")
        packed_size = found["CompressedDataSize"] if packing else ""
        check_data(path, stream, data_file, int(np.prod(shape)) * _BYTES[kind], packing, case, packed_size)
    return ItkHeader(shape, affine)


def _affine(found: dict[str, str], case: str, rules: Rules) -> np.ndarray:
    for key in ("ElementSpacing", "TransformMatrix", "Offset"):
        if key not in found:
            refuse_without(case, key)
    if (unit := found.get("DistanceUnits", "mm")) not in ("mm", "?"):
        refuse_without(case, f"millimetres (it has {unit[:40]!r})")
    spacing_mm = numbers_of(found["ElementSpacing"], "ElementSpacing", case)
    check_spacing(spacing_mm, case)
    # The direction of one axis after the other, in LPS+.
    axes = numbers_of(found["TransformMatrix"], "TransformMatrix", case, count=9).reshape(3, 3)
    affine = affine_of(axes.T * spacing_mm, numbers_of(found["Offset"], "Offset", case), (-1.0, -1.0, 1.0))
    check_affine(affine, case)
    lengths = np.linalg.norm(axes, axis=1)
    if np.abs(lengths - 1).max() > _UNIT:
        what = (
            f"rows of its TransformMatrix have the lengths {' x '.join(f'{length:.6g}' for length in lengths)}, not 1"
        )
        way_out = "write directions of length 1 there, and the voxel size as ElementSpacing"
        refuse_geometry(case, what, way_out, "scan.directions")
    _check_names(found.get("AnatomicalOrientation", ""), axes, case, rules)
    return affine


def _check_names(names: str, axes: np.ndarray, case: str, rules: Rules) -> None:
    """Refuse names of the axes that contradict their directions ``(3, 3)``, one axis a row, in LPS+.

    Oblique axes may have one of several names, and some programs name where an axis leads to: neither contradicts.
    """
    if len(names) != 3 or not set(names) <= set(_FROM):
        return  # "???", or another word that names no axes
    clear = np.abs(axes).max(axis=1) > _MOSTLY
    for told in (names, names.translate(_OPPOSITE)):
        along = np.sum(axes * [_FROM[name] for name in told], axis=1)
        if (along[clear] > _MOSTLY).all():
            return
    code = "scan.anatomical_orientation"
    if not rules.relaxed(code):
        what = f"its AnatomicalOrientation {names} contradicts its TransformMatrix"
        refuse_geometry(case, what, f"set the header right; or, if {RELAXABLE[code]}, relax {code}", code)


def _check_unscaled(found: dict[str, str], case: str) -> None:
    """Refuse values that mean something else than themselves: SimpleITK does not scale them, others do."""
    for key, plain in (("ElementToIntensityFunctionSlope", 1), ("ElementToIntensityFunctionOffset", 0)):
        try:
            scaled = float(found.get(key, plain)) != plain
        except ValueError:
            scaled = True
        if scaled:
            what = f"its {key} is {found[key][:40]!r}, which only some readers heed"
            refuse(case, what, f"store the scaled values, with {plain}", "scan.slope")


def _true(found: dict[str, str], key: str, case: str) -> bool:
    value = found.get(key, "True" if key == "BinaryData" else "False").lower()
    if value not in ("true", "false"):
        refuse_damaged(case, f"its {key} is neither True nor False")
    return value == "true"
