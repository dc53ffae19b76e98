"""Readers that crash, hang, eat memory or lie, put into the reading process by tests alone, never by a file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

READERS = '''
import ctypes, mmap, os, pickle, re, sys, time
import numpy as np
from monai_ext.volumes.reading_tasks import TASKS as GOOD

KEPT = []
CT = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def line():
    """The socket of this process."""
    return sys._getframe(2).f_locals["line"]


def memory():
    return sys._getframe(2).f_locals["memory"]


def crash(**told):
    print("SENTINEL", file=sys.stderr, flush=True)
    ctypes.string_at(0)


def abort(**told):
    os.abort()


def leave(**told):
    os._exit(0)


def spin(**told):
    re.match("(a+)+$", "a" * 60 + "b")  # in C, and without letting other threads run


def sleep(**told):
    time.sleep(1000)


def slow(**told):
    time.sleep(1.5)
    return None, CT


def eat(**told):
    while True:
        KEPT.append(bytearray(2**26))


def odd_error(**told):
    raise KeyError("SENTINEL")


def write_much(**told):
    with open("/proc/self/fd/%d" % memory(), "wb") as handle:
        handle.truncate(2**40)


def raw(content):
    def task(**told):
        line().sendall(content)
        time.sleep(1000)
    return task


def sized(content):
    return raw(len(content).to_bytes(8, "little") + content)


def short(**told):
    given = {"shape": [2, 3, 4], "dtype": "float32", "order": "C"}
    os.ftruncate(memory(), 95)
    from monai_ext.volumes.reading_worker import send
    send(line(), {"values": None, "voxels": given, "notes": []})
    time.sleep(1000)


def still_writable(**told):
    given = {"shape": [2, 3, 4], "dtype": "float32", "order": "C"}
    os.ftruncate(memory(), 96)
    KEPT.append(mmap.mmap(memory(), 96))
    from monai_ext.volumes.reading_worker import send
    send(line(), {"values": None, "voxels": given, "notes": []})
    time.sleep(1000)


def pickled(**told):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (told["folder"],)
    sent = pickle.dumps(Bad())
    line().sendall(len(sent).to_bytes(8, "little") + sent)
    time.sleep(1000)


def by_name(**told):
    """Read as usual, but for scans that are called after what shall become of them."""
    for name in ("crash", "spin", "eat"):
        if name in told["path"].rsplit("/", 1)[1]:
            globals()[name]()
    return GOOD["read_scan"](**told)


TASKS = {
    "good": lambda **told: ({"pid": os.getpid()}, CT),
    "objects": lambda **told: (None, CT.astype("M8[s]")),
    **{task.__name__: task for task in (crash, abort, leave, spin, sleep, slow, eat, odd_error)},
    **{task.__name__: task for task in (write_much, short, pickled)},
    "still_writable": still_writable,
    "text": raw(b"SENTINEL" * 5),
    "huge": raw((2**62).to_bytes(8, "little")),
    "no_json": sized(b"SENTINEL"),
    "deep": sized(b"[" * 100000),
    "list": sized(b"[1]"),
    "odd_class": sized(b'{"refused": ["SystemExit", "a.b", null, "SENTINEL"]}'),
    "odd_shape": sized(b'{"voxels": {"shape": [1, -2, 3], "dtype": "float32", "order": "C"}}'),
    "odd_time": sized(b'{"seconds": 1e300}'),
    "read_scan": by_name,
}
'''


@pytest.fixture(scope="session")
def bad_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of the module that holds them; reading processes that are started now can import it."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "monai_ext_bad_readers.py").write_text(READERS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "monai_ext_bad_readers"


@pytest.fixture
def write_ct() -> Callable[[Path], Path]:
    """Write a small scan that looks like CT, other voxels for every name."""

    def write(path: Path) -> Path:
        rng = np.random.default_rng(sum(path.name.encode()))
        hu = rng.integers(-1010, -990, (19, 23, 29)).astype(np.int16)
        hu[4:15, 5:19, 3:26] = rng.integers(-100, 80, (11, 14, 23))
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(hu, np.diag([1.5, 1.5, 1.5, 1.0])), path)
        return path

    return write
