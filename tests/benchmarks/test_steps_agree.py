"""The plain steps that ours are timed beside compute the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_ext.engines import ReconstructionLoss
from monai_ext.networks import HiEndMAE

sys.path.insert(0, str(Path(__file__).parent))

import aa_clip_step
import plain_pretraining

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def test_the_published_pretraining_step_has_our_loss_and_gradients() -> None:
    torch.manual_seed(1)
    network = HiEndMAE.tiny()
    image, shuffle = torch.rand(2, 1, 48, 48, 48), torch.rand(2, 216).argsort(dim=1)
    gradients = []
    for loss in (
        ReconstructionLoss()(network(image, shuffle)),
        plain_pretraining.plain_loss(network, image, shuffle),
    ):
        network.zero_grad()
        loss.backward()
        norms = [p.grad.norm() for p in network.parameters() if p.grad is not None]
        gradients.append(torch.stack([loss.detach(), *norms]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)  # sums in another order


def test_the_published_maps_are_ours() -> None:
    localizer = aa_clip_step.localizer_of(True, CPU)
    images = aa_clip_step.pictures(localizer, 2, CPU)
    plain, ours = (aa_clip_step.forward(localizer, arm, images) for arm in ("published", "fp32"))
    torch.testing.assert_close(plain, ours, rtol=0, atol=1e-4)  # a hundred times cosines


def test_the_published_second_stage_is_ours() -> None:
    losses = []
    for arm in ("published", "fp32"):
        localizer = aa_clip_step.localizer_of(True, CPU)
        step = aa_clip_step.training_step(localizer, arm, aa_clip_step.pictures(localizer, 1, CPU))
        step()
        losses.append([p.detach().clone() for p in localizer.model.adapters.image_adapter.parameters()])
    for plain, ours in zip(*losses, strict=True):
        # Adam's first step is the rate times a sign, that of rounding too.
        assert (plain - ours).abs().gt(1e-5).float().mean() < 0.01


@pytest.mark.full
@pytest.mark.parametrize(
    ("script", "arguments", "arms"),
    [
        ("pretraining_step.py", ["--models", "tiny", "--batches", "1", "--times", "1"], 3),
        ("aa_clip_step.py", ["--small", "--times", "1", "--arms", "published", "fp32"], 4),
    ],
)
def test_scripts_print_a_row_for_each_arm(script: str, arguments: list[str], arms: int) -> None:
    command = [sys.executable, str(HERE / script), "--device", "cpu", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=300)
    rows = [row for line in done.stdout.splitlines() if "arm" in (row := json.loads(line))]
    assert len(rows) == arms
    assert all(row["step_ms"] > 0 and row["peak_gb"] > 0 for row in rows)
    assert rows[0]["times_published"] == 1
