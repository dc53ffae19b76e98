"""A compiled training step against the same step as it is written: weights, names in files, and what it compiles."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed import GradBucket

from monai_ext.base import SettingError
from monai_ext.engines import EvaluationStep, ReconstructionLoss, TrainingStep, compiled, prepare_volumes
from monai_ext.networks import HiEndMAE

CPU = torch.device("cpu")
# A tracer without code generation: compiling for a CPU takes a compiler and minutes.
BACKEND = "aot_eager"

# The tracer asks inner tensors whether they have a gradient, and only hides the warning where it would be printed.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> None:
    torch._dynamo.reset()


def small(recompute: bool = False) -> HiEndMAE:
    torch.manual_seed(3)
    return HiEndMAE(
        (24, 16, 24), 8, encoder_width=24, encoder_depth=3, encoder_heads=3, decoder_width=18, decoder_heads=3,
        taps=[1, 2], recompute=recompute,
    )  # fmt: skip


def engine(network: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(
        network=network,
        # Not AdamW: its first steps take the sign of a gradient, that of rounding too.
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        inferer=lambda image, net: net(image),
        loss_function=ReconstructionLoss(),
        prepare_batch=prepare_volumes,
        non_blocking=True,
        fire_event=lambda event: None,
        state=SimpleNamespace(iteration=0, epoch_length=3, device=CPU, output=None),
    )


def batch(number: int, size: int = 2) -> dict[str, Tensor]:
    return {"image": torch.rand(size, 1, 24, 16, 24, generator=torch.Generator().manual_seed(number))}


def trained(network: HiEndMAE, step: TrainingStep, steps: int = 3) -> tuple[list[float], dict[str, Tensor]]:
    job, losses = engine(network), []
    for number in range(1, steps + 1):
        job.state.iteration = number
        losses.append(float(step(job, batch(number))[0]["loss"]))
    return losses, {name: value.clone() for name, value in network.state_dict().items()}


def assert_alike(
    losses: list[float], ours: dict[str, Tensor], expected: list[float], weights: dict[str, Tensor], tolerance: float
) -> None:
    assert losses == pytest.approx(expected, rel=tolerance)
    assert ours.keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=tolerance)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Let steps compile with the tracer, and count its graphs."""
    counter = CompileCounterWithBackend(BACKEND)
    monkeypatch.setattr(
        "monai_ext.engines.steps.compiled", lambda network, wish: compiled(network, wish, backend=counter)
    )
    return counter


def test_compiled_blocks_train_as_written_ones(backend: CompileCounterWithBackend) -> None:
    network = small()
    expected, weights = trained(small(), TrainingStep())
    losses, ours = trained(network, TrainingStep(compile="blocks"))
    assert_alike(losses, ours, expected, weights, 1e-6)
    assert backend.frame_count == 3  # the encoder's, the decoder's with self-attention, and those with both
    job = engine(network)
    job.state.iteration = 1
    for size in (1, 2, 3):
        EvaluationStep(loss=ReconstructionLoss())(job, batch(1, size))
    assert backend.frame_count == 3  # validation compiles nothing
    assert copy.deepcopy(network).state_dict().keys() == weights.keys()


# A rounding of each format.
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-6), pytest.param("bf16", 4e-3, marks=pytest.mark.full)]
)
def test_a_compiled_network_trains_as_a_written_one(
    backend: CompileCounterWithBackend, precision: str, tolerance: float
) -> None:
    expected, weights = trained(small(), TrainingStep(precision=precision))
    losses, ours = trained(small(), TrainingStep(precision=precision, compile="network"))
    assert backend.frame_count > 0
    assert_alike(losses, ours, expected, weights, tolerance)


@pytest.mark.parametrize("wish", ["off", "blocks"])
def test_recomputed_blocks_give_the_same_weights(backend: CompileCounterWithBackend, wish: str) -> None:
    expected, weights = trained(small(), TrainingStep())
    losses, ours = trained(small(recompute=True), TrainingStep(compile=wish))
    assert_alike(losses, ours, expected, weights, 0 if wish == "off" else 1e-6)


def test_recomputing_keeps_fewer_numbers() -> None:
    kept = []
    for network in (small(), small(recompute=True)):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):  # noqa: B023
            network(batch(1)["image"])
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_unknown_and_impossible_ways_are_refused() -> None:
    with pytest.raises(SettingError, match="compile: 'fast' is unknown; choose one of off, blocks, network"):
        TrainingStep(compile="fast")
    with pytest.raises(SettingError, match="Linear has no transformer blocks"):
        compiled(nn.Linear(2, 3), "blocks")


# As in `join_ranks`: odd strides along axes of length 1 change no number.
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
def test_ranks_exchange_gradients_once_a_window(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = nn.parallel.DistributedDataParallel(small())
        reduced = []

        def count(_: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
            reduced.append(bucket.index())
            done: torch.futures.Future[Tensor] = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        network.register_comm_hook(None, count)
        job, step = engine(network), TrainingStep(accumulate=3)
        job.state.epoch_length = 6
        for number in range(1, 7):
            job.state.iteration = number
            step(job, batch(number))
    finally:
        torch.distributed.destroy_process_group()
    assert reduced.count(0) == 2  # six batches, two optimiser steps


def test_graphs_refuse_what_would_overwrite_gradients_or_ranks() -> None:
    with pytest.raises(SettingError, match="graphs cannot add up gradients over 2 batches"):
        TrainingStep(accumulate=2, compile="graphs")

    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self.module = module

    with pytest.raises(SettingError, match="graphs does not go with several ranks"):
        compiled(Wrapped(small()), "graphs")


def test_graphs_refuse_a_network_that_is_on_no_card() -> None:
    with pytest.raises(SettingError, match=r"^compile: graphs are recorded by a CUDA card and the network is on cpu; "):
        compiled(small(), "graphs")
