"""The reading process as the process that asks sees it: started, asked, watched, and ended.

Nothing that it answers is trusted: JSON of limited length, errors of known classes, voxels in memory whose size and
seals are checked before they are looked at. Pickle, which can run code, is not used.
"""

import contextlib
import fcntl
import json
import logging
import math
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import monai_ext
from monai_ext.base import GeometryError, InputError, LabelError, ScanError
from monai_ext.volumes.reading_limits import READ_GIB, READ_SECONDS, WALL_FACTOR, ReadLimits
from monai_ext.volumes.reading_worker import LENGTH
from monai_ext.volumes.refusals import refuse

TASKS = "monai_ext.volumes.reading_tasks"

_START = """
import json, sys, types
told = json.loads(sys.argv[1])
sys.path[:] = told.pop("path")
# The room without its __init__, which loads the store and the phantoms too: they double the time to start.
sys.modules["monai_ext.volumes"] = room = types.ModuleType("monai_ext.volumes")
room.__path__ = [told.pop("room")]
from monai_ext.volumes.reading_worker import serve
serve(**told)
"""
_START_S = 120.0  # imports on a loaded machine with a cold disk
_STEP_S = 1.0
_MOST_ANSWER = 2**26  # the names and places of a hundred thousand files
_MOST_SECONDS = 1e5
_ERRORS: dict[str, type[InputError]] = {kind.__name__: kind for kind in (ScanError, GeometryError, LabelError)}
_DTYPES = ("float32", "int32", "int16", "uint8")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE if sys.platform == "linux" else 0


class ReadingProcess:
    """One process that reads scans, for one request at a time.

    Args:
        modules: whose ``TASKS`` it answers.

    Raises:
        ScanError: it does not start.
    """

    def __init__(self, modules: Sequence[str] = (TASKS,)) -> None:
        # The package's own folder, for this process may have found it by its working directory.
        path = [part for part in sys.path if part] + [str(Path(monai_ext.__file__).parents[1])]
        self._line, theirs = socket.socketpair()
        life, self._life = os.pipe()
        told = {"path": path, "connection": theirs.fileno(), "life": life}
        told |= {"modules": list(modules), "room": str(Path(__file__).parent)}
        # A thread more costs address space, and cores are for reading several scans.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries print paths and DICOM tags
                pass_fds=(theirs.fileno(), life),
                process_group=0,
                env={**os.environ, **single},
            )
        except BaseException:
            self._line.close()
            os.close(self._life)
            raise
        finally:
            theirs.close()
            os.close(life)
        try:
            ready = self._message(_Patience(_START_S))
        except (_Hung, _Broken):
            ready = None
        except BaseException:
            self.end()
            raise
        if ready != {"ready": True}:
            self.end()
            raise ScanError(
                "the process that reads scans does not start; see what `python -c 'import monai_ext.volumes'` says",
                code="scan.no_reader",
            )

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def lives(self) -> bool:
        """Return whether it can be asked."""
        return self._process.poll() is None

    def ask(
        self, task: str, case: str, told: Mapping[str, Any], limits: ReadLimits, temporary: str | None = None
    ) -> tuple[Any, np.ndarray | None]:
        """Have a task done; afterwards `lives` says whether the process may be asked again.

        Args:
            task: its name.
            case: the id for messages.
            told: what it is to be called with; JSON can hold it.
            limits: what it may cost.
            temporary: a folder for temporary files, if the task needs one; it is the caller's to remove.

        Returns:
            What the task answers, unchecked, and the voxels, if there are any.

        Raises:
            ScanError: it crashed, hangs, or needs more memory than its limit.
            InputError: the task refuses the scan.
        """
        request = {"task": task, "told": dict(told), "limits": vars(limits), "temporary": temporary}
        memory = os.memfd_create("monai_ext", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            answer = self._answer(request, memory, limits)
            for level, note in _notes(answer):
                logging.getLogger("monai_ext").log(level, note)
            if "refused" in answer:
                _raise(answer["refused"])
            if answer.get("failed") == "memory":
                self.end()  # what is left of its memory is in pieces
                _refuse_memory(case, limits)
            if answer.get("failed") == "unforeseen":
                kind = str(answer.get("kind"))
                name = kind if kind.isidentifier() else "an error"
                refuse(case, f"{name[:40]} while reading it", "leave it out and please report this", "scan.unforeseen")
            return answer.get("values"), _voxels(answer.get("voxels"), memory)
        except (_Hung, _Broken) as ended:
            self._refuse_ended(case, limits, hung=isinstance(ended, _Hung))
        except InputError:
            raise
        except BaseException:  # such as Ctrl-C: its answer would be taken for that to the next question
            self.end()
            raise
        finally:
            os.close(memory)

    def _answer(self, request: dict[str, Any], memory: int, limits: ReadLimits) -> dict[str, Any]:
        content = json.dumps(request).encode("ascii")
        start = LENGTH.pack(len(content))
        patience = _Patience(WALL_FACTOR * limits.seconds)
        try:
            sent = socket.send_fds(self._line, [start], [memory])
            self._line.sendall(start[sent:] + content)
        except OSError:
            raise _Broken from None
        while "seconds" in (answer := self._message(patience)):
            more = answer["seconds"]
            if not isinstance(more, int | float) or not 0 <= more < _MOST_SECONDS:
                raise _Broken
            patience.seconds += WALL_FACTOR * more
        return answer

    def _message(self, patience: "_Patience") -> dict[str, Any]:
        (size,) = LENGTH.unpack(self._exactly(LENGTH.size, patience))
        if size > _MOST_ANSWER:
            raise _Broken
        content = self._exactly(size, patience)
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            raise _Broken from None
        if not isinstance(message, dict):
            raise _Broken
        return message

    def _exactly(self, size: int, patience: "_Patience") -> bytes:
        content = bytearray()
        watch = select.poll()
        watch.register(self._line, select.POLLIN)
        while len(content) < size:
            patience.wait(watch)
            try:
                piece = self._line.recv(size - len(content))
            except OSError:
                piece = b""
            if not piece:
                raise _Broken
            content += piece
        return bytes(content)

    def _refuse_ended(self, case: str, limits: ReadLimits, *, hung: bool) -> NoReturn:
        status = 0
        if not hung:
            # Its end of the socket closes a moment before it is gone; one that lives on has answered nonsense.
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(2)
        self.end()
        if hung or status == -signal.SIGPROF:
            what = f"reading it takes more than {limits.seconds:g} s beyond what its size takes"
            way_out = f"export it again, or set {READ_SECONDS} if the machine is that slow"
            refuse(case, what, way_out, "scan.hung")
        number = f"by signal {-status}" if status < 0 else "without a sound answer"
        lack = ", most likely for lack of memory" if status == -signal.SIGKILL else ""
        what = f"the process that read it ended {number}{lack}"
        refuse(case, what, "leave the scan out, or copy or export it again", "scan.crashed")

    def end(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close what leads to the process, and nothing else: in a copy made by a fork it is not a child."""
        self._process.returncode = self._process.returncode or 0
        self._line.close()
        life, self._life = self._life, -1
        if life >= 0:
            os.close(life)


class _Patience:
    """Seconds to wait that go on while this process runs: the time in which it, or its machine, stood still is not any.

    Attributes:
        seconds: that are left.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def wait(self, watch: select.poll) -> None:
        """Wait until there is something to read.

        Raises:
            _Hung: no seconds are left.
        """
        while True:
            step, started = min(max(self.seconds, 0.0), _STEP_S), time.monotonic()
            found = watch.poll(math.ceil(1000 * step))
            self.seconds -= min(time.monotonic() - started, _STEP_S)
            if found:
                return
            if self.seconds <= 0:
                raise _Hung


class _Hung(Exception):  # noqa: N818
    """The time is up."""


class _Broken(Exception):  # noqa: N818
    """The process is gone, or what it sends is not what it should send."""


def _refuse_memory(case: str, limits: ReadLimits) -> NoReturn:
    what = f"reading it needs more memory than such a scan takes, or than {limits.most_bytes / 2**30:.3g} GiB"
    refuse(case, what, f"export it again, or set {READ_GIB} to more", "scan.memory")


def _raise(told: Any) -> NoReturn:
    match told:
        case [str(kind), str(code), (None | str()) as case, str(sentence)] if kind in _ERRORS:
            raise _ERRORS[kind](sentence, code=code, case=case)
    raise _Broken


def _notes(answer: dict[str, Any]) -> list[tuple[int, str]]:
    found = []
    for note in answer.get("notes", []):
        match note:
            case [int(level), str(text)]:
                found.append((level, text))
            case _:
                raise _Broken
    return found


def _voxels(told: Any, memory: int) -> np.ndarray | None:
    """Return the voxels that lie in the shared memory, as a private copy of which only what is written costs."""
    match told:
        case None:
            return None
        case {"shape": [*shape], "dtype": str(name), "order": ("C" | "F") as order} if (
            name in _DTYPES and 1 <= len(shape) <= 3 and all(isinstance(size, int) and size > 0 for size in shape)
        ):
            size = math.prod(shape) * np.dtype(name).itemsize
        case _:
            raise _Broken
    try:
        # From now on nobody can change or shorten it, which would end this process too.
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        raise _Broken from None
    if os.fstat(memory).st_size != size:
        raise _Broken
    content = mmap.mmap(memory, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    with contextlib.suppress(OSError):
        content.madvise(mmap.MADV_WILLNEED)
    return np.frombuffer(content, name).reshape(shape, order=order)
