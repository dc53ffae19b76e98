"""What a process knows of the others that ``torchrun`` started with it."""

import json
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monai_ext.base import SettingError, bare, gather, join_ranks, lost_a_rank, rank, tell_torchrun, world


def test_a_process_alone_is_the_first_and_only_one() -> None:
    assert (rank(), world(), gather("mine")) == (0, 1, ["mine"])


def test_joining_without_torchrun_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SettingError, match=r"no RANK; start it with 'torchrun --standalone --nproc_per_node N"):
        join_ranks("gloo", SimpleNamespace(type="cpu"))  # type: ignore[arg-type]


def join_late(number: int, port: int, attempt: int, delay_s: float, joined: Any) -> None:
    import torch

    # As torchrun sets them on one machine.
    told = {"RANK": number, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_WORLD_SIZE": 1}
    told |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": attempt}
    os.environ.update({name: str(value) for name, value in told.items()})
    time.sleep(delay_s)
    join_ranks("gloo", torch.device("cpu"), 0.5)
    joined.put((attempt, gather(number)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_rank_that_is_started_anew_waits_for_those_that_come_later() -> None:
    """They meet in a store that outlives them, and that holds the addresses of before."""
    from torch.distributed import TCPStore

    store, fork = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), get_context("fork")
    joined, results = fork.Queue(), []
    for attempt, late_s in ((0, 0.0), (1, 2.0)):
        ranks = [
            fork.Process(target=join_late, args=(number, store.port, attempt, late_s * (number == 0), joined))
            for number in (0, 1)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(60)
        assert [process.exitcode for process in ranks] == [0, 0]
        results += [joined.get(timeout=5) for _ in ranks]
    assert results == [(0, [0, 1])] * 2 + [(1, [0, 1])] * 2


def test_the_reason_of_a_failure_is_left_where_torchrun_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    tell_torchrun("ct_007: is torn; copy it again")
    failure = ProcessFailure(local_rank=1, pid=7, exitcode=2, error_file=str(file))
    assert failure.message["message"] == "ct_007: is torn; copy it again"  # type: ignore[index]
    assert json.loads(file.read_text())["message"]["extraInfo"]["timestamp"] == str(failure.timestamp)


def test_without_torchrun_no_reason_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    tell_torchrun("nobody reads this")


class BrokenError(RuntimeError):
    """Stands for torch's error of a broken NCCL group."""


def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    group: Any = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, DistBackendError=BrokenError)
    monkeypatch.setitem(sys.modules, "torch.distributed", group)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:56477"), True),
        (RuntimeError("Read error: Connection reset by peer"), True),
        (BrokenError("NCCL communicator was aborted"), True),
        (FloatingPointError("iteration 3: the loss is nan"), False),
    ],
)
def test_an_error_that_another_ranks_end_caused_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: Exception, lost: bool
) -> None:
    wrapped = RuntimeError("Failed to evaluate ConfigExpression")
    wrapped.__cause__ = error
    assert not lost_a_rank(wrapped)  # alone, nobody can be lost
    joined(monkeypatch)
    assert lost_a_rank(wrapped) == lost


def test_what_no_wrapper_holds_stays_as_it_is() -> None:
    torch = pytest.importorskip("torch")
    network = torch.nn.Linear(2, 3)
    assert bare(network) is network
    assert bare("a plan") == "a plan"
