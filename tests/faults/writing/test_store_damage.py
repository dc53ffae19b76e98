"""A store whose files were damaged: noticed where they are read, and by ``store verify``."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_ext.base import StoreError
from monai_ext.volumes import VolumeStore, verify_store


@pytest.fixture
def folder(tmp_path: Path, add_volume: Callable[..., None]) -> Path:
    label = np.random.default_rng(3).integers(0, 300, (37, 41, 29)).astype(np.uint16)
    for seed, name in enumerate(("a", "b"), 1):
        add_volume(tmp_path / "store", name, seed, label=label)
    return tmp_path / "store"


def noticed_by_reading(folder: Path, kind: str = "image") -> bool:
    try:
        VolumeStore(folder).volume("a", kind)  # type: ignore[arg-type]
    except StoreError as error:
        return error.code == "store.altered"
    return False


def noticed_by_verify(folder: Path) -> bool:
    return [damage.id for damage in verify_store(folder, workers=1).damages] == ["a"]


@pytest.mark.parametrize("flips", [20, pytest.param(200, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", ["image", "label"])
def test_bit_flips(folder: Path, kind: str, flips: int, record: Callable[..., None]) -> None:
    path = folder / {"image": "a.b2nd", "label": "a.label.b2nd"}[kind]
    whole, dice = path.read_bytes(), random.Random(flips)
    data = VolumeStore(folder).record("a").image if kind == "image" else VolumeStore(folder).record("a").label
    assert data is not None
    for number in range(flips):
        place, bit = dice.randrange(data.start, int(data.ends[-1])), dice.randrange(8)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        both = noticed_by_reading(folder, kind), noticed_by_verify(folder)
        record("bit flips in chunks of a store", f"{kind} {number}", "caught" if all(both) else "silent", both)
    for number in range(flips // 10):  # outside the chunks no voxel is concerned: reading need not notice
        place = dice.choice([*range(data.start), *range(int(data.ends[-1]), len(whole))])
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        outcome = "caught" if noticed_by_verify(folder) else "silent"
        record("bit flips outside the chunks", f"{kind} {number}", outcome)
    assert not record.bad
    path.write_bytes(whole)
    assert not verify_store(folder, workers=1).damages


def test_missing_chunks_and_files(folder: Path, record: Callable[..., None]) -> None:
    path = folder / "a.b2nd"
    whole, data = path.read_bytes(), VolumeStore(folder).record("a").image
    ends = data.ends.tolist()
    damages = {
        f"chunk {n} zeroed": bytes(whole[: ends[n]]) + bytes(ends[n + 1] - ends[n]) + whole[ends[n + 1] :]
        for n in (0, 3)
    }
    damages |= {f"chunk {n} cut out": whole[: ends[n]] + whole[ends[n + 1] :] for n in (0, 2)}
    damages |= {f"cut to {size} bytes": whole[:size] for size in (0, 1, len(whole) // 2, len(whole) - 1)}
    damages |= {"the other volume's": (folder / "b.b2nd").read_bytes(), "longer": whole + b"\0"}
    two = whole[: ends[1]] + whole[ends[2] : ends[3]] + whole[ends[1] : ends[2]] + whole[ends[3] :]
    damages |= {"two chunks swapped": two}
    for name, damaged in damages.items():
        path.write_bytes(damaged)
        both = noticed_by_reading(folder), noticed_by_verify(folder)
        record("missing chunks, torn and swapped files", name, "caught" if all(both) else "silent", both)
    path.unlink()
    both = noticed_by_reading(folder), noticed_by_verify(folder)
    record("missing chunks, torn and swapped files", "no file", "caught" if all(both) else "silent", both)
    assert not record.bad


def test_two_volumes_swapped_whole(folder: Path, record: Callable[..., None]) -> None:
    """Data and labels of two volumes change places, sidecars stay."""
    for ending in (".b2nd", ".label.b2nd"):
        (folder / f"a{ending}").rename(folder / "kept")
        (folder / f"b{ending}").rename(folder / f"a{ending}")
        (folder / "kept").rename(folder / f"b{ending}")
    both = noticed_by_reading(folder), len(verify_store(folder, workers=1).damages) == 2
    record("missing chunks, torn and swapped files", "volumes swapped", "caught" if all(both) else "silent", both)
    assert not record.bad


def test_a_sidecar_under_another_name(folder: Path, record: Callable[..., None]) -> None:
    """All three files of a volume take another's names: each fits the others, and the id does not."""
    for ending in (".b2nd", ".label.b2nd", ".json"):
        (folder / f"a{ending}").write_bytes((folder / f"b{ending}").read_bytes())
    found = [damage.id for damage in verify_store(folder, workers=1).damages]
    try:
        VolumeStore(folder).volume("a")
        outcome = "silent"
    except StoreError:
        outcome = "caught" if found == ["a"] else "silent"
    record("missing chunks, torn and swapped files", "all files of another volume", outcome, found)
    assert not record.bad
