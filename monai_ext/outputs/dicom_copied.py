"""What results repeat of their source's headers, as far as it can be parsed: scanners and archives write anything.

A value that breaks the standard may hold a name, and pydicom's errors quote it: what cannot be parsed is left out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from monai_ext.base import InputError, WriteError
from monai_ext.volumes import quiet_pydicom


@contextmanager
def writing_dicom(case: str) -> Iterator[None]:
    """Keep pydicom and highdicom silent, and turn whatever they refuse into one sentence without its value.

    Raises:
        WriteError: instead of any error that has no sentence of ours; those of the system and of memory pass.
    """
    try:
        with quiet_pydicom():
            yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        raise WriteError(
            f"{case}: a header of the series holds what no DICOM result can be made with ({type(error).__name__}); "
            "export the series again, or do without DICOM output",
            code="dicom.header",
            case=case,
        ) from None


def parsed(source: Dataset, keyword: str) -> Any:
    """Return a value as it can be written, ``None`` where it is absent or cannot be parsed."""
    kind = dictionary_VR(keyword)
    try:
        value = source.get(keyword)
        if value is None:
            return None
        if kind == "DS":
            return _decimals(value, dictionary_VM(keyword) == "1")
        # Decoded; else it would keep the bytes of the source's character set.
        return str(value) if kind == "PN" else value
    except Exception:
        return None  # pydicom raises whatever the bytes provoke


def set_parsed(target: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute, empty if pydicom does not take the value."""
    if keyword in target:
        del target[keyword]
    try:
        target.add_new(keyword, dictionary_VR(keyword), value)
    except Exception:
        target.add_new(keyword, dictionary_VR(keyword), None)


def decimal(value: float) -> DSfloat:
    """Return a number that fits the 16 letters of a decimal string (PS3.5 6.2)."""
    return DSfloat(float(value), auto_format=True)


def thickness_mm(header: Dataset, otherwise: float) -> DSfloat:
    """Return the thickness of a slice in mm, or another one where the header has none that can be."""
    value = parsed(header, "SliceThickness")
    return decimal(value if value is not None and value > 0 else otherwise)


def _decimals(value: Any, single: bool) -> Any:
    numbers = [decimal(number) for number in np.atleast_1d(value)]
    if not numbers or not np.isfinite(numbers).all() or (single and len(numbers) > 1):
        return None
    return numbers[0] if len(numbers) == 1 else numbers
