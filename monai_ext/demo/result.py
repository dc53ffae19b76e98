"""What a demonstration has done so far, and how long its stages took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console


@dataclass
class DemoResult:
    """What the report tells.

    Attributes:
        folder: the demonstration's folder.
        minutes: asked for.
        seconds: spent, by stage.
        scans: segmented, by case: phantom or the user's.
        notes: what the user should know, such as a scan left out.
    """

    folder: Path
    minutes: float
    seconds: dict[str, float] = field(default_factory=dict)
    scans: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Say that a stage begins, and take its time."""
        Console(stderr=True).rule(title, align="left")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)
