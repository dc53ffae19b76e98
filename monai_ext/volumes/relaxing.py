"""The rules of reading that may be relaxed, each by its name: those of which a right reading exists all the same."""

from collections.abc import Collection

from monai_ext.base import SettingError

RELAXABLE = {
    "scan.no_orientation": "of a NIfTI file without qform and sform, voxel axes run to the right, to the front and up",
    "scan.spacing_contradiction": "of a NIfTI file whose pixdim contradicts its sform, the sform counts",
    "scan.anatomical_orientation": (
        "of a MetaImage whose AnatomicalOrientation contradicts its TransformMatrix, the matrix counts"
    ),
}


def check_relax(relax: str | Collection[str]) -> tuple[str, ...]:
    """Return the rules to relax, sorted.

    Args:
        relax: names of `RELAXABLE`, as a list or with commas between.

    Raises:
        SettingError: naming one that is none.
    """
    names = relax.split(",") if isinstance(relax, str) else relax
    rules = sorted({str(name).strip() for name in names} - {""})
    for rule in rules:
        if rule not in RELAXABLE:
            raise SettingError(
                f"relax: {rule[:60]!r} is no rule that may be relaxed; give some of {', '.join(RELAXABLE)}",
                code="setting.relax",
            )
    return tuple(rules)


class Rules:
    """The rules for one scan, and those of the relaxed ones that it breaks.

    Args:
        relax: see `check_relax`.

    Attributes:
        used: rules that had to be relaxed.
    """

    def __init__(self, relax: str | Collection[str] = ()) -> None:
        self._relax = check_relax(relax)
        self.used: tuple[str, ...] = ()

    def relaxed(self, rule: str) -> bool:
        """Return whether a rule that the scan breaks is relaxed."""
        if rule in self._relax and rule not in self.used:
            self.used += (rule,)
        return rule in self._relax
