"""Which name each id of a submitted label has: by id or by name, never by its place among those present."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from monai_ext.base import LabelError
from monai_ext.volumes import read_labels


def names_of_label(told: Any, known: Mapping[int, str], label: str | Path, case: str) -> dict[int, str]:
    """Return the name of every id that a label may hold: those of the models, and what the client adds.

    Clients tell names in a list whose entries may have an ``idx``. Where one has none, its name must be one of the
    models, whose id it then has. Where names are told, the label may hold no id beside theirs.

    Args:
        told: ``label_info`` of a client, ``[{"name": ..., "idx": ...}, ...]`` or nothing.
        known: names of the models by id.
        label: a label volume.
        case: the id for messages.

    Raises:
        LabelError: an id in the label has no name, or the list contradicts the models.
    """
    present = [int(value) for value in np.unique(read_labels(label, case=case).voxels) if value]
    rows = [row for row in told if isinstance(row, Mapping)] if isinstance(told, list) else []
    listed = dict(_listed(row["name"].strip(), row.get("idx"), known, case) for row in rows if _has_name(row))
    allowed = listed or known
    nameless = [number for number in present if number not in allowed]
    if nameless:
        those = ", ".join(f"{number} {name}" for number, name in sorted(allowed.items()))
        _refuse(case, f"ids {', '.join(map(str, nameless[:10]))} have no name; those with one are {those}")
    return listed | dict(known)


def _listed(name: str, number: Any, known: Mapping[int, str], case: str) -> tuple[int, str]:
    """Return id and name of one entry."""
    own = next((one for one, other in known.items() if other.casefold() == name.casefold()), None)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        if own is None:
            _refuse(case, f"{name} is none of the models' labels; tell its id beside its name (idx)")
        return own, known[own]
    if own not in (None, number):
        _refuse(case, f"{name} is told as id {number}, but is {own} here; number it so")
    if own is None and number in known:
        _refuse(case, f"id {number} is told as another label than {known[number]}; number it otherwise")
    return number, known.get(number, name)


def _has_name(row: Mapping[str, Any]) -> bool:
    name = row.get("name")
    return isinstance(name, str) and 0 < len(name.strip()) <= 64 and name.isprintable()


def _refuse(case: str, sentence: str) -> NoReturn:
    raise LabelError(f"{case}: {sentence}", code="label.names", case=case)
