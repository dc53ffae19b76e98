"""The two stages: order, resumption, rates, losses and which adapters learn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_ext.base import SettingError, WeightsError
from monai_ext.engines import MilestoneRate, StageLoss, StageNetwork, build_clip, plan_stages, run_stages, with_adapters
from monai_ext.losses import ImageStageLoss, TextStageLoss
from monai_ext.networks import AAClip, PromptTable, save_adapters

TINY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 20, "layers": 4, "width": 16, "head_width": 8, "patch_size": 5},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}
PROMPTS = PromptTable.published().of_name("candle")


def model(seed: int = 0) -> AAClip:
    torch.manual_seed(seed)
    return AAClip(build_clip(TINY, None), text_adapt_until=2)


def folders(root: Path, *begun: int) -> dict[Any, str]:
    for stage in begun:
        (root / str(stage)).mkdir()
        (root / str(stage) / "checkpoint_iteration=3.pt").write_bytes(b"")
    return {1: str(root / "1"), 2: str(root / "2")}


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = build_clip(TINY, None)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)  # the global random numbers were left alone
    two, other = build_clip(TINY, None, image_size=[20, 20]), build_clip(TINY, None, seed=1)
    weights = [clip.model.state_dict()["visual.proj"] for clip in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("stages", "begun", "plan"),
    [
        ([1, 2], (), {1: True, 2: False}),  # stage 1's handler will say that there is nothing
        ([1, 2], (1,), {1: True, 2: False}),
        ([2, 1], (1, 2), {2: True}),
        ([1], (1, 2), {1: True}),
        ([2], (1,), {2: True}),
        (2, (2,), {2: True}),
    ],
)
@pytest.mark.parametrize("resume", [True, "true", "True"])
def test_a_run_goes_on_in_the_latest_stage_begun(
    tmp_path: Path, stages: Any, begun: tuple[int, ...], plan: Any, resume: Any
) -> None:
    assert plan_stages(stages, resume, folders(tmp_path, *begun)) == plan


@pytest.mark.parametrize(
    ("begun", "plan"), [((), {1: "auto", 2: False}), ((1,), {1: "auto", 2: False}), ((1, 2), {2: "auto"})]
)
def test_auto_goes_on_or_begins(tmp_path: Path, begun: tuple[int, ...], plan: Any) -> None:
    assert plan_stages([1, 2], "auto", folders(tmp_path, *begun)) == plan


def test_without_resumption_all_stages_begin_afresh(tmp_path: Path) -> None:
    for resume in (False, "false"):
        assert plan_stages([1, 2], resume, folders(tmp_path)) == {1: False, 2: False}


def test_a_named_checkpoint_tells_its_stage(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{name}.pt") for name in ("text", "image", "torn")]
    torch.save({"text_optimizer": {}}, paths[0])
    torch.save({"optimizer": {}}, paths[1])
    Path(paths[2]).write_bytes(b"torn")
    assert plan_stages([1, 2], paths[0], folders(tmp_path)) == {1: paths[0], 2: False}
    assert plan_stages([1, 2], paths[1], {1: "a", 2: "b"}) == {2: paths[1]}
    assert plan_stages([1, 2], paths[2], {1: "a", 2: "b"}) == {1: paths[2], 2: False}
    assert plan_stages([2], paths[0], {1: "a", 2: "b"}) == {2: paths[0]}


@pytest.mark.parametrize("stages", [[], [3], [1, 3], 0, "2"])
def test_other_stages_are_refused(stages: Any) -> None:
    with pytest.raises(SettingError, match=r"stages: .*; give \[1, 2\], \[1\] or \[2\]"):
        plan_stages(stages, False, {1: "a", 2: "b"})


def test_only_the_adapters_of_a_stage_learn() -> None:
    network = model()
    images = torch.randn(2, 3, 20, 20)
    batch = {"image": images, "prompts": [PROMPTS] * 2}
    label = {"mask": torch.zeros(2, 1, 20, 20), "label": torch.tensor([0, 0])}
    for stage, part in ((1, "text_adapter"), (2, "image_adapter")):
        network.zero_grad()
        stage_network = StageNetwork(network, stage)  # type: ignore[arg-type]
        StageLoss(stage)(stage_network(batch), label).backward()  # type: ignore[arg-type]
        moved = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        assert moved == {f"adapters.{part}.{name}" for name, _ in getattr(network.adapters, part).named_parameters()}


def test_losses_are_those_of_the_stages() -> None:
    network = model()
    batch = {"image": torch.randn(3, 3, 20, 20), "prompts": [PROMPTS] * 3}
    label = {"mask": (torch.rand(3, 1, 20, 20) > 0.7).float(), "label": torch.tensor([1, 1, 0])}
    text, image = (StageNetwork(network, stage)(batch) for stage in (1, 2))  # type: ignore[arg-type]
    for loss, weight in (("sum", 0.1), ("last", 0.3)):
        expected = TextStageLoss(loss, weight)(text.maps, text.anchors, label["mask"])  # type: ignore[arg-type]
        assert torch.equal(StageLoss(1, loss, weight)(text, label), expected)  # type: ignore[arg-type]
    expected = ImageStageLoss()(image.maps, image.logits, label["mask"], label["label"])  # type: ignore[union-attr]
    assert torch.equal(StageLoss(2)(image, label), expected)


def test_the_rate_halves_after_each_milestone_and_resumes() -> None:
    def made(milestones: list[int], gamma: float = 0.5) -> tuple[torch.optim.Optimizer, MilestoneRate]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
        return optimizer, MilestoneRate(optimizer, milestones, gamma)

    optimizer, rate = made([2, 5])
    seen = []
    for _ in range(7):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rate.step()
    assert seen == [8, 8, 4, 4, 4, 2, 2]
    optimizer, again = made([2, 5])
    again.load_state_dict(rate.state_dict())
    assert again.last_epoch == 7
    with pytest.raises(SettingError, match=r"trained with \[2, 5\] and factor 0.5, now it is \[3\] and 0.5; resume"):
        made([3])[1].load_state_dict(rate.state_dict())
    for wrong in ([0], [1.5], [-3]):
        with pytest.raises(SettingError, match="milestones"):
            made(wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="gamma"):
        made([1], 0.0)


def test_stage_2_alone_needs_a_text_adapter(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="stage 2 alone needs the text adapter of a stage 1; give its file"):
        with_adapters(model(), None, [2])
    trained, fresh = model(seed=1), model(seed=2)
    save_adapters(trained, tmp_path / "a.safetensors")
    with_adapters(fresh, str(tmp_path / "a.safetensors"), 2)
    assert all(
        torch.equal(a, b) for a, b in zip(trained.adapters.parameters(), fresh.adapters.parameters(), strict=True)
    )
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        with_adapters(fresh, str(tmp_path / "none.safetensors"), [1, 2])


def test_stage_2_begins_from_what_stage_1_chose(tmp_path: Path) -> None:
    chosen, network = model(seed=1), model(seed=2)
    text_adapter = tmp_path / "adapters.safetensors"
    seen: list[Any] = []

    class Trainer:
        def __init__(self, stage: int) -> None:
            self.stage = stage

        def run(self) -> None:
            learning = {name.split(".")[0] for name, p in network.adapters.named_parameters() if p.requires_grad}
            seen.append((self.stage, learning, torch.equal(network.adapters.text_adapter[0].fc[0].weight, wanted)))
            if self.stage == 1:
                save_adapters(chosen, text_adapter)

    wanted = chosen.adapters.text_adapter[0].fc[0].weight
    run_stages({1: False, 2: False}, network, {1: Trainer(1), 2: Trainer(2)}, text_adapter)
    assert seen == [(1, {"text_adapter"}, False), (2, {"image_adapter"}, True)]
