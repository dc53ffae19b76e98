"""Three of the kills that the script is for, and that it would see a store that differs."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import kill_preparing


@pytest.mark.full
def test_killed_runs_are_completed(tmp_path: Path) -> None:
    seen = kill_preparing.measure(3, scans=4, seed=1, options=[], folder=tmp_path)
    assert seen["kills"] == 3
    assert seen["files"] == 12
    assert (seen["torn_volumes_offered"], seen["stores_that_differ"]) == (0, 0)


def test_store_that_differs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if preparing left what a killed run had half written."""
    monkeypatch.setattr(kill_preparing, "start", begin)
    monkeypatch.setattr(kill_preparing, "prepare", lambda *arguments, **options: SimpleNamespace(failed=[]))
    seen = kill_preparing.kill_once(tmp_path / "list.json", tmp_path / "store", {"a.b2nd": "0" * 64}, 0, [])
    assert seen == {"killed": 0, "kept": 0, "torn": 0, "differ": 1}


def begin(datalist: Path, store: Path) -> SimpleNamespace:
    store.mkdir()
    (store / "a.b2nd").write_bytes(b"half")
    return SimpleNamespace(poll=lambda: 0, wait=lambda: 0)
