"""What was found in a bundle: each thing it would use, whether that is allowed, and if not, why."""

from collections.abc import Iterable
from dataclasses import dataclass

from monai_ext.base import printable


@dataclass(frozen=True)
class BundleFinding:
    """One thing that a bundle uses or would use.

    Attributes:
        file: path inside the bundle.
        place: id in a configuration, section of a ``logging.conf``, or ``""`` for the whole file.
        kind: ``target``, ``expression``, ``import``, ``reference``, ``argument``, ``read``, ``write``, ``network``,
            ``code``, ``checksum``, ``link`` or ``form``.
        what: the name, path or text itself; what ``--allow`` takes.
        why: why it is refused; ``""`` where it is allowed.
    """

    file: str
    place: str
    kind: str
    what: str
    why: str = ""

    @property
    def refused(self) -> bool:
        """Whether this alone makes the bundle one not to run."""
        return bool(self.why)


class Findings:
    """A growing list of findings, and what the user allows beyond the list.

    Args:
        allowed: names (with all below them), paths or checksums that are not refused.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self.allowed = tuple(allowed)
        self._found: dict[BundleFinding, None] = {}

    @property
    def list(self) -> list[BundleFinding]:
        """All of them, in the order in which they were found."""
        return [*self._found]

    def allows(self, what: str) -> bool:
        """Whether the user allows this, or a name above it."""
        return any(what == one or what.startswith((f"{one}.", f"{one}/")) for one in self.allowed)

    def add(self, file: str, place: str, kind: str, what: str, why: str | None = None) -> None:
        """Note one thing; the same thing of the same place once."""
        what = shown(what)
        found = BundleFinding(file, shown(place), kind, what, "" if not why or self.allows(what) else why)
        self._found[found] = None


def shown(text: str, most: int = 200) -> str:
    r"""Return text as one printable line: a bundle chooses its names, and a terminal obeys control characters.

    >>> shown("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    plain = printable(text)
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."
