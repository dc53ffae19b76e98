"""Which name each id of a submitted label has: by id or by name, never by its place among those present."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.base import LabelError
from monai_ext.volumes import read_labels


def names_of_label(told: Any, known: Mapping[int, str], label: str | Path, case: str) -> dict[int, str]:
    """Return the name of every id that a label may hold.

    Clients tell names in a list whose entries may have an ``idx``. Where they have none, the names must be those of
    the models, whose ids they then keep; a list that is shorter than that of the labels says nothing of ids.

    Args:
        told: ``label_info`` of a client, ``[{"name": ..., "idx": ...}, ...]`` or nothing.
        known: names of the models by id.
        label: a label volume.
        case: the id for messages.

    Raises:
        LabelError: an id in the label has no name, or the list contradicts the models.
    """
    present = [int(value) for value in np.unique(read_labels(label, case=case).voxels) if value]
    names = dict(known)
    if isinstance(told, list):
        by_name = {name.casefold(): number for number, name in known.items()}
        for row in told:
            if not isinstance(row, Mapping) or not isinstance(row.get("name"), str):
                continue
            name, number = row["name"].strip(), row.get("idx")
            own = by_name.get(name.casefold())
            if isinstance(number, int) and not isinstance(number, bool) and number > 0:
                if own is not None and own != number:
                    raise LabelError(
                        f"{case}: {known[own]} is told as id {number}, but is {own} here; number it so",
                        code="label.names",
                        case=case,
                    )
                if number in known and known[number].casefold() != name.casefold():
                    raise LabelError(
                        f"{case}: id {number} is told as another label than {known[number]}; number it otherwise",
                        code="label.names",
                        case=case,
                    )
                names.setdefault(number, name)
    nameless = [number for number in present if number not in names]
    if nameless:
        raise LabelError(
            f"{case}: ids {', '.join(map(str, nameless[:10]))} have no name; those with one are "
            f"{', '.join(f'{number} {name}' for number, name in sorted(names.items()))}",
            code="label.names",
            case=case,
        )
    return names
