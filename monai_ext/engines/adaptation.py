"""The two stages of AA-CLIP as one run: their networks, losses and rates, their order, and where they resume."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from monai_ext.base import SettingError, derive_seed, gather, is_number, rank, world
from monai_ext.engines.running import run_training
from monai_ext.handlers import resume_way
from monai_ext.losses import ImageStageLoss, TextStageLoss
from monai_ext.networks import AAClip, ClipModel, Stage1Output, Stage2Output, load_adapters, load_clip
from monai_ext.networks.clip_image_side import adapted_patches
from monai_ext.networks.replay import ReplayedTraining

Stage = Literal[1, 2]
Resume = bool | str


def build_clip(
    architecture: Any,
    weights: str | None = "openai",
    image_size: Sequence[int] | int | None = None,
    activation: Any = "weights",
    cache_dir: str | None = None,
    sha256: str | None = None,
    seed: int = 0,
) -> ClipModel:
    """Build a CLIP, see ``load_clip``; random weights depend on the seed alone, so that they come back as they were.

    Args:
        architecture: see ``load_clip``.
        weights: see ``load_clip``; ``None`` for random ones.
        image_size: pixels, or height and width.
        activation: see ``load_clip``.
        cache_dir: see ``load_clip``.
        sha256: see ``load_clip``.
        seed: of random weights.

    Raises:
        SettingError: an unknown architecture or activation.
        WeightsError: the weights cannot be fetched, read or do not fit.
    """
    size = image_size if image_size is None or isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "clip"))
        return load_clip(
            architecture, weights, image_size=size, activation=activation, cache_dir=cache_dir, sha256=sha256
        )


def with_adapters(model: AAClip, path: str | None, stages: Sequence[int] | int) -> AAClip:
    """Load adapters to begin from.

    Args:
        model: changed in place.
        path: a file that ``save_adapters`` wrote, or ``None`` to begin at random.
        stages: that will run; stage 2 alone needs the text adapter of a stage 1.

    Raises:
        SettingError: stage 2 alone without adapters.
        WeightsError: the file cannot be read, or belongs to another CLIP or settings.
    """
    if path is None and checked_stages(stages) == (2,):
        raise SettingError(
            "stages: stage 2 alone needs the text adapter of a stage 1; "
            "give its file, such as OUTPUT/stage_1/models/adapters.safetensors, as pretrained",
            code="setting.stages",
        )
    if path is not None:
        record = load_adapters(model, path)
        if rank() == 0:
            print(f"adapters {Path(path).name}: loaded, trained beside {record.clip}")
    return model


class AdaptedPatches(nn.Module):
    """The part of stage 2 that is all kernels: from pictures to patches.

    Args:
        model: whose image tower and adapter to use.

    Shape:
        ``(b, 3, h, w) -> (b, n, e)`` for each level, and ``(b, e)``
    """

    def __init__(self, model: AAClip) -> None:
        super().__init__()
        self.visual, self.adapter, self.levels = model.clip.visual, model.adapters.image_adapter, model.levels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        patches, detection = adapted_patches(self.visual, self.adapter, self.levels, images)
        return (*patches, detection)


class StageNetwork(nn.Module):
    """One stage of a model, as a trainer calls it.

    Args:
        model: shared by both stages; the other stage's adapters are frozen until `run_stages` comes to it.
        stage: 1 learns the text adapter, 2 the image adapter.
        replay: replay recorded passes of stage 2 on a CUDA device, see ``ReplayedTraining``.
        accumulate: batches per optimiser step.

    Raises:
        SettingError: replaying was asked for, and several ranks train or gradients are added up.

    Shape:
        ``{"image": (b, 3, h, w), "prompts": [ClassPrompts, ...]}`` -> the model's output of that stage
    """

    def __init__(self, model: AAClip, stage: Stage, replay: bool = False, accumulate: int = 1) -> None:
        super().__init__()
        if replay and (world() > 1 or accumulate > 1):
            # A replay writes gradients where the one before left its own.
            raise SettingError(
                f"replay: does not go with {world()} ranks and accumulate {accumulate}, only with 1 of both; set it to "
                "false",
                code="setting.replay",
            )
        self.model, self.stage = model, stage
        # A distributed wrapper takes the parameters that learn when it is made.
        model.set_stage(stage)
        self.replayed = ReplayedTraining(partial(AdaptedPatches, model)) if replay and stage == 2 else None

    def forward(self, batch: Mapping[str, Any]) -> Stage1Output | Stage2Output:
        if self.replayed is not None:
            with torch.no_grad():
                anchors = self.model.anchors(batch["prompts"])
            *patches, detection = self.replayed(batch["image"])
            return self.model.stage2(batch["image"], anchors, (patches, detection))
        output: Stage1Output | Stage2Output = self.model(batch["image"], batch["prompts"], self.stage)
        return output


class StageLoss:
    """The loss of one stage, from the output of `StageNetwork` and what `PromptedBatch` gives as label.

    Args:
        stage: 1 or 2.
        loss: of stage 1: ``"sum"`` of all levels, or ``"last"`` level alone as the published code trains.
        orthogonality: of stage 1: weight of the anchors' overlap.
        map_loss: of both: ``"published"``, or ``"balanced"`` for lesions that fill little of a picture.
    """

    def __init__(
        self,
        stage: Stage,
        loss: Literal["sum", "last"] = "sum",
        orthogonality: float = 0.1,
        map_loss: Literal["published", "balanced"] = "published",
    ) -> None:
        self.stage = stage
        self.text, self.image = TextStageLoss(loss, orthogonality, map_loss), ImageStageLoss(map_loss)

    def __call__(self, output: Any, label: Mapping[str, Any]) -> Tensor:
        """Return a scalar."""
        loss: Tensor
        if self.stage == 1:
            loss = self.text(output.maps, output.anchors, label["mask"])
        else:
            loss = self.image(output.maps, output.logits, label["mask"], label["label"])
        return loss


class MilestoneRate(MultiStepLR):
    """A rate that falls by a factor at some iterations; call ``step()`` after every one.

    Args:
        optimizer: its groups' ``lr`` are the rates at the beginning.
        milestones: iterations after which it falls; none for a constant rate.
        gamma: the factor.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, milestones: Sequence[int] = (), gamma: float = 0.5) -> None:
        whole = isinstance(milestones, list | tuple) and all(is_number(n, 1) and n == int(n) for n in milestones)
        if not whole or not is_number(gamma, 0, 1) or gamma == 0:
            raise SettingError(
                f"milestones {milestones!r} with gamma {gamma!r}: give whole iterations from 1 on, and a factor from "
                "above 0 to 1",
                code="setting.schedule",
            )
        super().__init__(optimizer, [int(number) for number in milestones], gamma)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped.

        Raises:
            SettingError: the checkpoint was written with other milestones or another factor.
        """
        ours = sorted(self.milestones.elements()), self.gamma
        theirs = sorted(state_dict["milestones"].elements()), state_dict["gamma"]
        if ours != theirs:
            raise SettingError(
                f"milestones: the checkpoint was trained with {theirs[0]} and factor {theirs[1]}, now it is {ours[0]} "
                f"and {ours[1]}; resume with the same, or start a new run in another output_dir",
                code="setting.schedule_changed",
            )
        super().load_state_dict(state_dict)


def plan_stages(
    stages: Sequence[int] | int, resume: Resume, folders: Mapping[Stage, str | os.PathLike[str]]
) -> dict[Stage, Resume]:
    """Decide which stages run, and how each begins: afresh, from its newest checkpoint, or from a file.

    A stage 2 that has begun holds the text adapter, so its resumption leaves stage 1 out.

    Args:
        stages: wanted: 1, 2 or both.
        resume: ``True``, ``False``, ``"auto"`` or the path of a checkpoint of either stage; on the command line also
            as text.
        folders: of each stage's checkpoints.

    Returns:
        What `RunCheckpoints` takes as ``resume``, for each stage that runs, in order.

    Raises:
        SettingError: no such stages.
    """
    wanted = checked_stages(stages)
    way = resume_way(resume)
    if way is False:
        return dict.fromkeys(wanted, False)
    if isinstance(way, str) and way != "auto":
        stage = _stage_of(Path(way)) if len(wanted) == 2 else wanted[0]
        return {one: way if one == stage else False for one in wanted if one >= stage}
    begun = [one for one in wanted if list(Path(folders[one]).glob("checkpoint_iteration=*.pt"))]
    # Where nothing has begun, the first stage's handler says so.
    latest = max(begun, default=wanted[0])
    return {one: way if one == latest else False for one in wanted if one >= latest}


def run_stages(plan: Mapping[Stage, Resume], model: AAClip, trainers: Mapping[Stage, Any], text_adapter: Path) -> None:
    """Run the planned stages one after the other.

    Args:
        plan: see `plan_stages`.
        model: that both train.
        trainers: of each stage.
        text_adapter: the file in which stage 1 leaves its choice; stage 2 begins from it.
    """
    for stage in plan:
        if stage == 2 and 1 in plan:
            gather(None)  # the first rank writes the file that all read
            load_adapters(model, text_adapter)
        model.set_stage(stage)
        run_training(trainers[stage])


def checked_stages(stages: Sequence[int] | int) -> tuple[Stage, ...]:
    """Return the stages in order.

    Raises:
        SettingError: anything but 1, 2 or both.
    """
    wanted = [stages] if isinstance(stages, int) else list(stages)
    known: tuple[Stage, ...] = (1, 2)
    if not wanted or any(one not in known for one in wanted):
        raise SettingError(f"stages: {stages!r}; give [1, 2], [1] or [2]", code="setting.stages")
    return tuple(one for one in known if one in wanted)


def _stage_of(checkpoint: Path) -> Stage:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whoever resumes from it says what is wrong
        return 1
    return 1 if isinstance(content, dict) and "text_optimizer" in content else 2
