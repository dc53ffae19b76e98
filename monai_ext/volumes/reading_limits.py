"""How much reading a scan may cost, and whether a process of its own does it.

A prepared or damaged file makes parsers take gigabytes, run for ever or crash. So files are read in another process,
which is held to what their headers say they need: time of the processor, time on the clock, and memory.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from monai_ext.base import SettingError

READ_INSIDE = "MONAI_EXT_READ_INSIDE"
READ_SECONDS = "MONAI_EXT_READ_SECONDS"
READ_GIB = "MONAI_EXT_READ_GIB"

BASE_BYTES = 2**30  # headers, the libraries' buffers, and one compressed slice
# float64 in the file, unpacked, scaled, as float32, as it is handed over, and what comparing it takes
VOXEL_BYTES = 40
# A tenth of what the slowest decoder here, JPEG 2000, does on a slow core.
VOXELS_A_SECOND, FILES_A_SECOND, BYTES_A_SECOND = 1e6, 50.0, 2e7
WALL_FACTOR = 6  # clock to processor: a loaded machine or a slow disk is no hang
FILE_BYTES = 2**30  # the largest single file that reading may write; slices out of a zip are the only large ones


@dataclass(frozen=True)
class ReadLimits:
    """What reading one scan may cost.

    Attributes:
        seconds: of the processor, beside what voxels, files and bytes take; six times that on the clock.
        most_bytes: of memory, whatever the header says.
        base_bytes: of memory, beside what the voxels take.
    """

    seconds: float = 8.0
    most_bytes: int = 2**34
    base_bytes: int = BASE_BYTES

    @classmethod
    def of_environment(cls) -> "ReadLimits":
        """Return the limits that ``MONAI_EXT_READ_SECONDS`` and ``MONAI_EXT_READ_GIB`` set, else 8 s and all memory.

        Raises:
            SettingError: a variable is no positive number.
        """
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        most = int(2**30 * _number(READ_GIB, memory / 2**30))
        return cls(_number(READ_SECONDS, cls.seconds), most, min(cls.base_bytes, most))


def _number(name: str, default: float) -> float:
    word = os.environ.get(name, "")
    try:
        value = float(word) if word else default
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise SettingError(
            f"{name}: {word!r} is not a number above 0; set it to one, or leave it unset", code="setting.number"
        )
    return value


_inside: ContextVar[bool] = ContextVar("reads_inside", default=False)
_Granter = Callable[[int, int, int], None]
_grant: _Granter | None = None


def reads_inside() -> bool:
    """Return whether scans are read in this very process: because it was asked for, or because it is the reading one.

    Raises:
        SettingError: ``MONAI_EXT_READ_INSIDE`` is neither 0 nor 1, or this system cannot limit a process.
    """
    if _grant is not None or _inside.get():
        return True
    word = os.environ.get(READ_INSIDE, "0") or "0"
    if word not in ("0", "1"):
        raise SettingError(f"{READ_INSIDE}: {word!r} is neither 0 nor 1; set it to one of them", code="setting.switch")
    if word == "0" and not sys.platform.startswith("linux"):
        raise SettingError(
            f"{sys.platform}: scans are read in a process of limited memory, which only Linux offers; set "
            f"{READ_INSIDE}=1 to read scans that you trust without limits",
            code="setting.platform",
        )
    return word == "1"


@contextmanager
def reading_inside() -> Iterator[None]:
    """Read scans in this process meanwhile, without limits: for files that are known to be sound."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def allow(*, voxels: int = 0, files: int = 0, size: int = 0) -> None:
    """Say what is about to be read, so that the reading process gets the memory and the time for it.

    Args:
        voxels: of the volume whose header was found sound.
        files: whose headers will be parsed.
        size: bytes to be unpacked to disk.
    """
    if _grant is not None:
        _grant(voxels, files, size)


def seconds_for(voxels: int, files: int, size: int) -> float:
    """Return the processor time that such work may take, beside the base."""
    return voxels / VOXELS_A_SECOND + files / FILES_A_SECOND + size / BYTES_A_SECOND


def set_granter(grant: _Granter) -> None:
    """Make this the reading process: ``allow`` calls ``grant`` from now on."""
    global _grant
    _grant = grant
