"""One training step: accumulation, clipping, precision and seeds, against plain PyTorch."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from monai_ext.base import SettingError
from monai_ext.engines import EvaluationStep, TrainingStep, choose_precision

CPU = torch.device("cpu")


class Engine(SimpleNamespace):
    def fire_event(self, event: Any) -> None:
        self.events.append(event)


def engine(network: nn.Module, length: int = 5, lr: float = 0.1) -> Engine:
    return Engine(
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        inferer=lambda image, net: net(image),
        loss_function=nn.functional.mse_loss,
        prepare_batch=lambda batch, device, non_blocking: (batch["image"], batch["label"]),
        non_blocking=False,
        events=[],
        state=SimpleNamespace(iteration=0, epoch_length=length, device=CPU, output=None),
    )


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        {"image": torch.randn(3, 2, generator=generator), "label": torch.randn(3, 5, generator=generator)}
        for _ in range(count)
    ]


def run(step: TrainingStep, network: nn.Module, count: int, length: int = 5) -> list[torch.Tensor]:
    job = engine(network, length)
    for number, batch in enumerate(batches(count), start=1):
        job.state.iteration = number
        step(job, batch)
    return [p.detach().clone() for p in network.parameters()]


def linear() -> nn.Module:
    torch.manual_seed(2)
    return nn.Linear(2, 5)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_accumulated_steps_are_steps_on_the_mean_of_their_batches(accumulate: int) -> None:
    ours = run(TrainingStep(precision="fp32", accumulate=accumulate), linear(), 5)
    network = linear()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    data = batches(5)
    for start in range(0, 5, accumulate):  # the last window of the epoch is shorter and still a mean
        window = data[start : start + accumulate]
        optimiser.zero_grad()
        losses = [nn.functional.mse_loss(network(b["image"]), b["label"]) for b in window]
        torch.stack(losses).mean().backward()
        optimiser.step()
    for one, two in zip(ours, network.parameters(), strict=True):
        torch.testing.assert_close(one, two.detach(), rtol=0, atol=1e-6)  # sums in another order


def test_clipping_bounds_the_step() -> None:
    before = [p.detach().clone() for p in linear().parameters()]
    after = run(TrainingStep(precision="fp32", clip_norm=0.01), linear(), 1)
    moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).norm()
    assert moved == pytest.approx(0.1 * 0.01, rel=1e-4)  # rate times norm; clipping divides by norm + 1e-6


def test_global_randomness_is_that_of_the_iteration() -> None:
    network = nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.5))
    job = engine(network, lr=1e-12)
    step, batch = TrainingStep(seed=1), batches(1)[0]
    seen = []
    for iteration in (1, 2, 1):
        torch.manual_seed(iteration * 99)
        job.state.iteration = iteration
        seen.append(step(job, batch)[0]["loss"])
    torch.testing.assert_close(seen[0], seen[2], rtol=0, atol=1e-6)  # the rate moves weights by 1e-12
    assert seen[0] != seen[1]


def test_evaluation_leaves_global_randomness_and_weights_alone() -> None:
    network = nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.5))
    job = engine(network)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    output = EvaluationStep(loss=nn.functional.mse_loss)(job, batches(1)[0])
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert not network.training
    assert output["val_loss"].ndim == 0


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    seen = []
    network = linear()
    network.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    weights = run(TrainingStep(precision="bf16"), network, 1)
    assert seen == [torch.bfloat16]
    assert weights[0].dtype == torch.float32


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    job = engine(linear())
    job.state.iteration = 3
    with pytest.raises(FloatingPointError, match="iteration 3: the loss is nan"):
        TrainingStep()(job, {"image": torch.full((3, 2), float("nan")), "label": torch.zeros(3, 5)})


def test_precision_is_float32_on_a_cpu_unless_asked_for() -> None:
    assert choose_precision("auto", CPU) == torch.float32
    assert choose_precision("bf16", CPU) == torch.bfloat16
    with pytest.raises(SettingError, match="fp16 needs a CUDA card"):
        choose_precision("fp16", CPU)
    with pytest.raises(SettingError, match="'half' is unknown; choose one of auto"):
        choose_precision("half", CPU)


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"clip_norm": 0.0}])
def test_impossible_steps_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="must be positive"):
        TrainingStep(**wrong)
