"""A run whose machine is wanted saves at the end of its step, says so, and goes on later as if nothing had been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import monai_ext
from monai_ext.base import REQUEUE, stop_asked, stop_on_signals

PATIENCE_S = 1800  # of a busy computer, where a start alone takes minutes
Record = Callable[[str, Any], None]
NAMES = ["SIGTERM", "SIGUSR1"]


def raised(name: str) -> Callable[[Any], None]:
    return lambda _: os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize(
    ("name", "at", "saved"),
    [
        ("SIGTERM", 28, 29),  # amid a window of gradients, which ends with the next iteration
        ("SIGUSR1", 30, 30),  # the epoch's last: before its validation, which follows when the run goes on
        pytest.param("SIGTERM", 60, 60, marks=pytest.mark.full),
    ],
)
def test_a_signal_saves_after_the_step_and_ends_with_the_code_to_requeue(
    tiny: Any,
    expected: Any,
    tmp_path: Path,
    record_property: Record,
    capsys: pytest.CaptureFixture[str],
    name: str,
    at: int,
    saved: int,
) -> None:
    settings = {"accumulate": 3 if at == 28 else 1}
    whole, _ = expected(**settings)
    before = [signal.getsignal(getattr(signal, one)) for one in NAMES]
    with pytest.raises(SystemExit) as caught:
        tiny.Training(tmp_path, every=1000, **settings).run(at, raised(name))
    assert caught.value.code == REQUEUE == os.EX_TEMPFAIL
    assert [signal.getsignal(getattr(signal, one)) for one in NAMES] == before
    assert not stop_asked()
    assert f"stopped by {name} after iteration {saved}, whose checkpoint is written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("checkpoint_*.pt")] == [f"checkpoint_iteration={saved}.pt"]
    right = tiny.Training(tmp_path, every=1000, resume=True, **settings).run().result() == whole
    record_property("fault", ["stop signal", f"{name} at {at}", "passed" if right else "lost"])
    assert right


def test_a_signal_during_a_validation_waits_for_its_end(
    tiny: Any, expected: Any, tmp_path: Path, record_property: Record
) -> None:
    from ignite.engine import Events

    whole, _ = expected()
    training = tiny.Training(tmp_path, every=1000)
    training.evaluator.add_event_handler(Events.ITERATION_STARTED, raised("SIGTERM"))
    with pytest.raises(SystemExit):
        training.run()
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1
    right = tiny.Training(tmp_path, every=1000, resume=True).run().result() == whole
    record_property("fault", ["stop signal", "SIGTERM in validation", "passed" if right else "lost"])
    assert right


def test_signals_of_one_moment_are_one() -> None:
    with stop_on_signals():
        for name in ("SIGTERM", "SIGUSR1", "SIGTERM"):
            raised(name)(None)
        assert stop_asked() == "SIGTERM"
    assert not stop_asked()


@pytest.mark.full
def test_a_second_signal_ends_at_once(server: Any, tmp_path: Path, record_property: Record, send: Any) -> None:
    pid = server.start(folder=str(tmp_path), pace=30, patience_s=0.2)
    send(pid, "SIGTERM")
    time.sleep(0.5)
    began = time.monotonic()
    send(pid, "SIGTERM")
    code = server.wait()
    ended = time.monotonic() - began < 10
    record_property("fault", ["stop signal", "a second one", "passed" if ended and code == -15 else "hung"])
    assert ended
    assert code == -signal.SIGTERM


@pytest.mark.parametrize("times", [2, pytest.param(30, marks=pytest.mark.full)])
def test_signals_at_random_moments_lose_nothing(
    tiny: Any, server: Any, expected: Any, tmp_path: Path, record_property: Record, send: Any, times: int
) -> None:
    whole, _ = expected(accumulate=3)
    chance, stops, lives = random.Random(times), 0, 0
    while stops < times:
        folder = tmp_path / str(lives)
        folder.mkdir(exist_ok=True)
        workers = stops % 3  # whatever their number; they are sent the same signal
        settings = {"folder": str(folder), "accumulate": 3, "every": 1000, "keep": 2, "resume": "auto"}
        pid = server.start(**settings, pace=0.01, workers=workers)
        time.sleep(chance.uniform(0, 0.6))
        name = chance.choice(NAMES)
        for process in [*children(pid), pid]:
            send(process, name)
        code = server.wait()
        if code < 0 and (folder / f"checkpoint_iteration={tiny.STEPS}.pt").exists():
            # It came after the run's end and before that of its program, which dies of it as any does.
            server.start(**settings)
            code = server.wait()
        if code == 0:
            assert json.loads((folder / "result.json").read_text()) == whole
            lives += 1
            continue
        stops += 1
        record_property("fault", ["stop signal", f"random {stops}", "passed" if code == REQUEUE else "crashed"])
        assert code == REQUEUE
    server.start(**settings)
    assert server.wait() == 0
    assert json.loads((folder / "result.json").read_text()) == whole


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except FileNotFoundError:
        return []


PRETRAIN = {
    "network_def#encoder_width": 24,
    "network_def#encoder_depth": 3,
    "network_def#encoder_heads": 3,
    "network_def#decoder_width": 18,
    "network_def#decoder_heads": 3,
    "network_def#taps": [1, 2],
    "image_size": [24, 24, 16],
    "patch_size": [8, 8, 8],
    "num_workers": 1,
    "batch_size": 2,
    "held_out": 0.3,
    "epochs": 200,
    "crops_per_scan": 1,
    "val_interval": 1000,
    "ckpt_interval": 1000,
}


@pytest.mark.full
@pytest.mark.parametrize("started_by", ["python", "torchrun"])
def test_a_bundles_run_is_stopped_and_goes_on(
    tmp_path: Path, environment: dict[str, str], record_property: Record, started_by: str
) -> None:
    from monai_ext.volumes import prepare, write_phantoms

    write_phantoms(tmp_path / "p", {"training": 3}, seed=5, shape=(61, 43, 53), spacing_mm=(6.0, 6.0, 6.0))
    assert not prepare(
        tmp_path / "p" / "dataset.json", tmp_path / "store", spacing_mm=(6.0, 6.0, 6.0), workers=0
    ).exit_code
    settings = {**PRETRAIN, "dataset_dir": str(tmp_path / "store"), "output_dir": str(tmp_path / "run")}
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "resume": "auto"}))
    names = ["train", *(["multi_gpu_train"] if started_by == "torchrun" else [])]
    configs = [f"{monai_ext.bundle_path('hi_end_mae_ct_pretrain')}/configs/{name}.json" for name in names]
    run = ["-m", "monai.bundle", "run", "--config_file", str([*configs, str(tmp_path / "settings.json")])]
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2"]
    command = [*(torchrun if started_by == "torchrun" else [sys.executable]), *run]
    saved = []
    for _ in range(2):
        with open(tmp_path / "log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)
            wait_for(lambda: b"it/s" in (tmp_path / "log").read_bytes(), process)
            process.send_signal(signal.SIGTERM)
            code = process.wait(PATIENCE_S)
        text = (tmp_path / "log").read_text()
        right = code == (REQUEUE if started_by == "python" else 1) and "stopped by SIGTERM after iteration" in text
        record_property("fault", ["stop signal", f"bundle by {started_by}", "passed" if right else "crashed"])
        assert right, text
        saved += [max(int(p.stem.split("=")[1]) for p in (tmp_path / "run" / "models").glob("checkpoint_*.pt"))]
    assert 0 < saved[0] < saved[1]


def wait_for(done: Callable[[], bool], process: "subprocess.Popen[bytes]", seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
