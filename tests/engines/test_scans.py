"""Bad scans on their way into a run: all told at once before training, passed by in inference."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.transforms import Compose, Lambda

from monai_ext.base import InputError, ManifestError, ScanError
from monai_ext.engines import GuardedScans, GuardedStep, LoadedScans
from monai_ext.handlers import Quarantine


def read(item: Mapping[str, Any]) -> dict[str, Any]:
    if "torn" in item["image"]:
        raise ScanError(f"{item['case']}: torn; copy it again", code="scan.damaged", case=item["case"])
    return dict(item)


READ = Compose([Lambda(read)])  # MONAI wraps errors of transforms


def items(*names: str) -> list[dict[str, Any]]:
    return [
        {"case": name, **({"problem": f"{name}: outside; move it"} if "outside" in name else {"image": name})}
        for name in names
    ]


def test_good_scans_are_loaded() -> None:
    assert [item["image"] for item in LoadedScans(items("a", "b", "c"), READ, num_workers=2)] == ["a", "b", "c"]


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_an_entry_with_a_problem_ends_training(cache_rate: float) -> None:
    with pytest.raises(ManifestError, match=r"^outside: outside; move it$"):
        LoadedScans(items("a", "outside", "c"), READ, cache_rate=cache_rate)


def test_one_bad_scan_keeps_its_own_error() -> None:
    with pytest.raises(ScanError, match=r"^torn: torn; copy it again$") as caught:
        LoadedScans(items("a", "torn", "c"), READ)
    assert (caught.value.code, caught.value.case) == ("scan.damaged", "torn")


def test_all_bad_scans_are_told_at_once_in_the_order_of_the_list() -> None:
    sentence = r"^3 of 4 scans cannot be used: torn 1: torn; copy it again; outside: .*; torn 2: torn; copy it again$"
    with pytest.raises(InputError, match=sentence):
        LoadedScans(items("torn 1", "a", "outside", "torn 2"), READ, num_workers=3)


def test_what_is_not_kept_is_refused_when_it_is_used() -> None:
    scans = LoadedScans(items("a", "torn"), READ, cache_rate=0.5)
    with pytest.raises(ScanError, match=r"^torn: torn"):
        scans[1]


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_as_many_bad_scans_as_a_quarantine_allows_are_refused_when_they_are_drawn(
    cache_rate: float, tmp_path: Path
) -> None:
    data = items("a", "torn", "outside", "b")
    scans = LoadedScans(data, READ, cache_rate=cache_rate, quarantine=Quarantine(str(tmp_path), max_skipped=2))
    assert [scans[place]["image"] for place in (0, 3)] == ["a", "b"]
    for place, code in ((1, "scan.damaged"), (2, "manifest.entry")):
        for _ in range(2):
            with pytest.raises(ScanError) as caught:
                scans[place]
            assert (caught.value.code, caught.value.case) == (code, data[place]["case"])
    for budget in (0, 1, 0.25):
        with pytest.raises(InputError, match="outside: outside"):
            LoadedScans(data, READ, quarantine=Quarantine(str(tmp_path), max_skipped=budget))


def test_inference_passes_bad_scans_by_and_tells_each(caplog: pytest.LogCaptureFixture) -> None:
    step = GuardedStep()
    step.evaluate = lambda engine, batch: {}  # type: ignore[method-assign]
    names = ["good", "outside", *(f"torn {n}" for n in range(12))]
    with caplog.at_level(logging.ERROR, "monai_ext"):
        for item in GuardedScans(items(*names), READ):
            step(SimpleNamespace(), {key: [value] for key, value in item.items()})
    assert step.done == ["good"]
    assert len(caplog.messages) == 13
    with pytest.raises(InputError, match=r"^13 of 14 scans failed: outside: .*; torn 8: .*; and 3 more$"):
        step.finish()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9e12 bytes."),
    ],
)
def test_a_scan_too_large_for_the_memory_costs_that_scan_alone(error: Exception) -> None:
    def grow(*_: Any) -> Any:
        raise error

    (item,) = GuardedScans(items("huge"), Compose([Lambda(grow)]))
    sentence = "huge: too large for the memory; crop it, or resample it to larger voxels"
    assert item == {"case": "huge", "failure": sentence}
    step = GuardedStep()
    step.evaluate = grow  # type: ignore[method-assign]
    assert step(SimpleNamespace(), {"case": ["huge"]}) == {}
    assert step.failures == {"huge": sentence}


def test_mistakes_of_the_program_are_not_called_a_bad_scan() -> None:
    with pytest.raises(RuntimeError, match="applying transform"):
        GuardedScans(items("a"), Compose([Lambda(lambda item: item["none"])]))[0]
