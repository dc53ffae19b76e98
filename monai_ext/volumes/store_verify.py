"""Comparing a whole store with its checksums, and naming the scans that must be prepared again."""

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from monai_ext.base import SettingError, StoreError, sha256_of
from monai_ext.volumes.store import check_folder
from monai_ext.volumes.store_index import list_sidecars
from monai_ext.volumes.store_record import ChunkedData
from monai_ext.volumes.store_sidecar import data_path, read_record, sidecar_path

_NOT_OURS = ("store.foreign", "store.version")  # nobody else's file is touched


@dataclass(frozen=True)
class Damage:
    """What is wrong with one volume.

    Attributes:
        id: the volume.
        code: ``"missing"``, ``"torn"`` or ``"altered"`` data, ``"no_sidecar"``, or the code of the sidecar's error.
        reason: a sentence.
    """

    id: str
    code: str
    reason: str


@dataclass(frozen=True)
class StoreVerification:
    """What the comparison found.

    Attributes:
        store: the store's base name.
        volumes: how many were compared.
        data_bytes: bytes of their data.
        damages: one for each damaged volume, sorted by id.
    """

    store: str
    volumes: int
    data_bytes: int
    damages: list[Damage]

    @property
    def exit_code(self) -> int:
        """1 if a volume is damaged, else 0."""
        return 1 if self.damages else 0

    def table(self) -> Table:
        """Return the summary for a terminal."""
        good = self.volumes - len(self.damages)
        table = Table("outcome", "volumes", Column("what", overflow="fold"))
        table.add_row("whole", str(good), f"{self.data_bytes / 1e9:.2f} GB read and compared")
        table.add_row("damaged", str(len(self.damages)), "")
        for damage in self.damages:
            table.add_row("", "", escape(damage.reason), style="red")
        return table

    def way_out(self) -> str:
        """Return what to do about the damages, and nothing when there are none."""
        foreign = sum(damage.code in _NOT_OURS for damage in self.damages)
        redone = len(self.damages) - foreign
        lines = []
        if foreign:
            lines.append(
                f"Sidecars that this version cannot read are left alone by prepare: move {foreign} of them away."
            )
        if redone:
            lines.append(
                f"To redo {redone} scan(s), give the command again that prepared them; whole ones are skipped:\n"
                f"  python -m monai_ext prepare SOURCE {self.store}"
            )
        return "\n".join(lines)


def verify_store(
    folder: str | os.PathLike[str], workers: int | None = None, progress: bool = False
) -> StoreVerification:
    """Read every byte of a store and compare it with the checksums in the sidecars.

    Args:
        folder: the store.
        workers: files read at a time; as many as cores by default.
        progress: show a progress bar on stderr.

    Raises:
        StoreError: the folder is missing or cannot be listed.
        SettingError: no worker.
    """
    if workers is not None and workers < 1:
        raise SettingError(f"workers: {workers} is no worker; give 1 or more", code="setting.workers")
    place = check_folder(folder)
    ids = sorted(list_sidecars(place).keys() | _data_alone(place))
    damages, size = [], 0
    bar = Progress(
        TextColumn("comparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[damaged]} damaged"),
        console=Console(stderr=True),
        disable=not progress,
    )
    # Threads: reading and hashing leave Python's lock alone.
    with bar, ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        task = bar.add_task("", total=len(ids), damaged=0)
        for damage, read in pool.map(lambda name: _compare(place, name), ids):
            size += read
            if damage:
                damages.append(damage)
            bar.update(task, advance=1, damaged=len(damages))
    return StoreVerification(place.name, len(ids), size, damages)


def _data_alone(folder: Path) -> set[str]:
    """Return the ids of data files, which the sidecar may have left."""
    names = (path.name for path in folder.glob("[!.]*.b2nd"))
    return {name.removesuffix(".b2nd").removesuffix(".label") for name in names}


def _compare(folder: Path, volume_id: str) -> tuple[Damage | None, int]:
    if not os.path.lexists(sidecar_path(folder, volume_id)):
        return Damage(volume_id, "no_sidecar", f"{volume_id}: its data are there and its sidecar is not"), 0
    try:
        record = read_record(sidecar_path(folder, volume_id))
    except StoreError as error:
        return Damage(volume_id, error.code, str(error)), 0
    problems = list(_problems(data_path(folder, volume_id, "image"), record.image))
    size = record.image.size
    if record.label is not None:
        problems += _problems(data_path(folder, volume_id, "label"), record.label)
        size += record.label.size
    if not problems:
        return None, size
    return Damage(volume_id, problems[0][0], f"{volume_id}: {' and '.join(what for _, what in problems)}"), size


def _problems(path: Path, data: ChunkedData) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a data file: a word and the part of a sentence."""
    try:
        size = path.stat().st_size
        if size != data.size:
            yield "torn", f"{path.name} is torn, {size:,} of {data.size:,} bytes"
        elif sha256_of(path) != data.sha256:
            wrong = _wrong_chunks(path, data)
            where = f"in {wrong} of its {len(data.sums)} chunks" if wrong else "outside its chunks"
            yield "altered", f"{path.name} was altered {where}"
    except FileNotFoundError:
        yield "missing", f"{path.name} is missing"
    except OSError as error:
        yield "unreadable", f"{path.name} cannot be read ({error.strerror})"


def _wrong_chunks(path: Path, data: ChunkedData) -> int:
    content = memoryview(path.read_bytes())
    ends = data.ends.tolist()
    sums = [zlib.crc32(content[first:after]) for first, after in pairwise(ends)]
    return int(np.count_nonzero(np.array(sums, np.uint32) != data.sums))
