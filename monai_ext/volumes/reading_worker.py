"""The reading process: it parses what nobody has looked at yet, held to limits, and answers in JSON and raw bytes.

It imports neither torch nor MONAI, and nothing of it is trusted by the process that asks.
"""

import contextlib
import fcntl
import importlib
import json
import logging
import mmap
import os
import resource
import signal
import socket
import struct
import tempfile
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from monai_ext.base import InputError
from monai_ext.volumes.reading_limits import FILE_BYTES, VOXEL_BYTES, seconds_for, set_granter

LENGTH = struct.Struct("<Q")


class GivenArray(NamedTuple):
    """Voxels, and the type in which they are handed over."""

    voxels: np.ndarray
    dtype: str


# What a task returns: something that JSON can hold, and the voxels, if there are any.
Answer = tuple[Any, np.ndarray | GivenArray | None]
Task = Callable[..., Answer]


def serve(connection: int, life: int, modules: list[str]) -> None:
    """Answer requests until the process that asks them is gone.

    Args:
        connection: descriptor of a socket.
        life: descriptor of a pipe that ends with the asking process.
        modules: whose ``TASKS`` say what can be asked for.
    """
    # Ctrl-C and a scheduler's SIGTERM are for the process that asks: it may want to finish its batch.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _end_with(life)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where memory runs out all the same, this process is the one to end.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as handle:
        handle.write("1000")
    tasks: dict[str, Task] = {}
    for name in modules:
        tasks |= importlib.import_module(name).TASKS
    with socket.socket(fileno=connection) as line:
        send(line, {"ready": True})
        while (received := _received(line)) is not None:
            request, memory = received
            try:
                send(line, _answer(line, tasks, request, memory))
            finally:
                os.close(memory)


def send(line: socket.socket, message: Any) -> None:
    """Send a message: its length, then JSON."""
    content = json.dumps(message).encode("ascii")
    line.sendall(LENGTH.pack(len(content)) + content)


def _received(line: socket.socket) -> tuple[dict[str, Any], int] | None:
    start, descriptors, _, _ = socket.recv_fds(line, LENGTH.size, 1)
    if not start:
        return None
    start += _exactly(line, LENGTH.size - len(start))
    return json.loads(_exactly(line, LENGTH.unpack(start)[0])), descriptors[0]


def _exactly(line: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        piece = line.recv(size - len(content))
        if not piece:
            raise SystemExit
        content += piece
    return bytes(content)


def _end_with(life: int) -> None:
    """Have the kernel end this process with the asking one, whatever it is at then.

    ``PR_SET_PDEATHSIG`` would not do: it ends a child with the thread that started it.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)  # SIGIO ends it
    with contextlib.suppress(BlockingIOError):
        if os.read(life, 1) == b"":
            raise SystemExit


def _answer(line: socket.socket, tasks: dict[str, Task], request: dict[str, Any], memory: int) -> dict[str, Any]:
    notes = _Notes()
    logger = logging.getLogger("monai_ext")
    logger.addHandler(notes)
    logger.propagate = False  # nothing is printed from here
    tempfile.tempdir = request["temporary"]
    limits = _Limits(line, **request["limits"])
    try:
        values, voxels = tasks[request["task"]](**request["told"])
        given = None if voxels is None else _give(voxels, memory)
        return {"values": values, "voxels": given, "notes": notes.found}
    except InputError as error:
        if error.code == "scan.memory":
            return {"failed": "memory"}
        return {"refused": [type(error).__name__, error.code, error.case, str(error)], "notes": notes.found}
    except MemoryError:
        return {"failed": "memory"}
    except Exception as error:
        # Its message may show a path or a DICOM tag; its type does not.
        return {"failed": "unforeseen", "kind": type(error).__name__}
    finally:
        limits.lift()
        logger.removeHandler(notes)


def _give(given: np.ndarray | GivenArray, memory: int) -> dict[str, Any]:
    """Write voxels into the memory that both processes share, in the order in which they lie here."""
    voxels, dtype = given if isinstance(given, GivenArray) else (given, given.dtype.name)
    size = max(voxels.size * np.dtype(dtype).itemsize, 1)
    order: Literal["F", "C"] = "F" if abs(voxels.strides[0]) <= abs(voxels.strides[-1]) else "C"
    os.ftruncate(memory, size)
    with mmap.mmap(memory, size) as shared:
        place = np.ndarray(voxels.shape, dtype, shared, order=order)
        place[...] = voxels
        del place
    return {"shape": list(voxels.shape), "dtype": dtype, "order": order}


class _Limits:
    """The limits of one request, which grow with what its headers announce."""

    def __init__(self, line: socket.socket, seconds: float, most_bytes: int, base_bytes: int) -> None:
        self._line, self._seconds = line, seconds
        self._most, self._base, self._voxels = most_bytes, base_bytes, 0
        self._start = _address_space()
        self._before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)}
        set_granter(self._grant)
        self._set(base_bytes, FILE_BYTES)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process, even inside a library

    def _grant(self, voxels: int, files: int, size: int) -> None:
        more = seconds_for(voxels, files, size)
        left, _ = signal.getitimer(signal.ITIMER_PROF)
        signal.setitimer(signal.ITIMER_PROF, left + more)
        self._voxels += voxels
        asked = self._base + VOXEL_BYTES * self._voxels
        self._set(min(asked, self._most), FILE_BYTES + 8 * self._voxels)
        send(self._line, {"seconds": more})

    def _set(self, memory: int, files: int) -> None:
        for (kind, (soft, hard)), value in zip(self._before.items(), (self._start + memory, files), strict=True):
            # Those of the user stay, if they are narrower.
            resource.setrlimit(kind, (value if soft == resource.RLIM_INFINITY else min(value, soft), hard))

    def lift(self) -> None:
        """Take the limits back until the next request."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        for kind, before in self._before.items():
            resource.setrlimit(kind, before)


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as handle:
        return int(handle.read().split()[0]) * mmap.PAGESIZE


class _Notes(logging.Handler):
    """Keeps what the package's own logger was told."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append((record.levelno, record.getMessage()))
