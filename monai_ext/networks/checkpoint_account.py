"""The account of a checkpoint: what became of every tensor."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Account:
    """What became of every tensor when weights were loaded or converted.

    Attributes:
        source: base name of the file, or what the tensors came from.
        loaded: names in the network or file that received their values.
        dropped: names in the source that were left out on purpose, each with its reason.
        initialised: names in the network that keep their random start, each with its reason.
    """

    source: str
    loaded: tuple[str, ...]
    dropped: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    initialised: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield ``(what happened, tensor, reason)`` for every tensor."""
        yield from (("loaded", name, "") for name in self.loaded)
        yield from (("dropped", name, reason) for name, reason in self.dropped.items())
        yield from (("initialised", name, reason) for name, reason in self.initialised.items())

    def __str__(self) -> str:
        counts = f"{len(self.loaded)} loaded, {len(self.dropped)} dropped, {len(self.initialised)} initialised"
        lines = [f"{self.source}: {counts}"]
        for what, names in (("dropped", self.dropped), ("initialised", self.initialised)):
            lines += [f"  {what} {name}: {reason}" for name, reason in names.items()]
        return "\n".join(lines)
