"""Run one reader at a time in a forked child, with limits on time and memory; started by the fixture ``limited``.

Requests and answers are pickles on standard input and output. This process loads a reader's module once; each
call then costs a fork and not a start of Python. What the child prints, and what C++ prints for it, comes back too.
"""

import importlib
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import time
from typing import Any, BinaryIO

import SimpleITK  # noqa: F401  # before the limits count, and once for all forks: loading it takes longer than a read

MEMORY_BYTES = 3 << 29  # beyond what the loaded libraries take
WAIT_FACTOR = 6  # of the time that is waited to the time that is computed: the machine may have other work


def main() -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            function, seconds, args, options = pickle.load(requests)
        except EOFError:
            return
        module, name = function.rsplit(".", 1)
        pickle.dump(_limited(getattr(importlib.import_module(module), name), seconds, args, options), answers)
        answers.flush()


def _limited(function: Any, seconds: float, args: tuple, options: dict) -> dict[str, Any]:
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as printed:
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
            _in_child(function, args, options, writing, printed)
        os.close(writing)
        found = _read_all(reading, child, WAIT_FACTOR * seconds)
        _, status = os.waitpid(child, 0)
        answer: dict[str, Any] = {"kind": "killed", "signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {}
        if found is None or answer.get("signal") == signal.SIGXCPU:
            answer = {"kind": "hung"}
        elif not answer:
            answer = pickle.loads(found)
        printed.seek(0)
        return answer | {"printed": printed.read().decode("utf-8", "replace"), "seconds": time.monotonic() - started}


def _read_all(reading: int, child: int, seconds: float) -> bytes | None:
    """Return what the child sends, ``None`` when the time to wait is up."""
    pieces, end = [], time.monotonic() + seconds
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                os.kill(child, signal.SIGKILL)
                return None
            if not (piece := pipe.read(1 << 20)):
                return b"".join(pieces)
            pieces.append(piece)


def _in_child(function: Any, args: tuple, options: dict, writing: int, printed: BinaryIO) -> None:
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    with open("/proc/self/statm", encoding="ascii") as pages:
        taken = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = called(function, args, options)
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(answer, pipe)
    os._exit(0)


def called(function: Any, args: tuple, options: dict) -> dict[str, Any]:
    """Return what a reader returns or raises."""
    try:
        answer = {"kind": "value", "value": _plain(function(*args, **options))}
    except BaseException as error:
        from monai_ext.base import InputError

        refused = isinstance(error, InputError)
        answer = {"kind": "refused" if refused else "raised", "type": type(error).__name__, "message": str(error)}
        answer |= {"code": error.code, "case": error.case} if refused else {}
    return answer


def _plain(value: Any) -> Any:
    """Return what a reader found as arrays and numbers."""
    if hasattr(value, "voxels"):
        return value.voxels, value.affine
    if hasattr(value, "tensors"):
        return {name: tensor.float().numpy() for name, tensor in value.tensors.items()}
    if hasattr(value, "entries"):
        return [(entry.split, entry.id, entry.image, entry.label) for entry in value.entries]
    if hasattr(value, "affine"):
        return value.shape, value.affine
    return value


if __name__ == "__main__":
    main()
