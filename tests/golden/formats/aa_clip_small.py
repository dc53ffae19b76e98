"""A small AA-CLIP: weights, images and prompts in; every feature, map, loss, gradient and short training out."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR

from formats.aa_clip import AXES, LOSSES, Run, build, build_clip, compare_config, prompts_of, seen, text_outputs
from formats.clip_prompts import table_for
from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from monai_ext.losses import ImageStageLoss
from monai_ext.networks import AAClip
from monai_ext.transforms import ClipMask

TOLERANCES = (
    ("out.s1.*.map_train.*", Tolerance(2e-4)),
    ("out.s2.map_*", Tolerance(2e-4)),
    ("out.s2.anomaly_map.*", Tolerance(2e-4)),
    ("out.*traj_losses", Tolerance(1e-4)),  # relative, see below
    ("out.*", Tolerance(1e-4, of_largest=True, at_least=1.0)),
)

_CLIP, _EMBEDDING = "state.clipmodel.", "token_embedding.weight"
_ROUNDING = 1e-5  # of a gradient, as a share of the largest; float32 and float64 differ by 1e-6 of it
_TRAININGS = (("batch", "last"), ("token", "last"), ("token", "sum"))  # of stage 1


def recognises(golden: Golden) -> bool:
    """Tell by the settings: the towers of a CLIP, and its weights."""
    config = golden.content.get("config")
    return (
        isinstance(config, dict)
        and {"vision_cfg", "text_cfg", "levels"} <= config.keys()
        and any(name.startswith(_CLIP) for name in golden.tensors)
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Run both stages in the published and in the default settings, and both activations."""
    config, tensors = golden.content["config"], golden.tensors
    models = build_models(golden)
    model = models["token"]
    check_settings("config", golden, model, compare)
    _check_weights(tensors, model, compare)
    _expect_all(config, model, compare)

    run = batch(golden, models)
    _check_inputs(golden, run, compare)
    prompts = prompts_of(golden, config["dataset"], _classes(config))
    for name, value in text_outputs(model, prompts):
        compare(f"out.{name}", value)
    for name, value in run.unadapted():
        compare(f"out.{name}", value)
    for axis in AXES:
        for name, value in run.stage1(axis, gradients=True):
            compare(f"out.{name}", value)
    for name, value in run.stage2(gradients=True):
        compare(f"out.{name}", value)
    _check_quick_gelu(golden, compare)
    for axis, loss in _TRAININGS:
        _train_text(golden, axis, loss, compare)
    _train_image(golden, compare)


def build_models(golden: Golden, quick_gelu: bool = False) -> dict[str, AAClip]:
    """Return the network of a file for each axis of the value-value attention, on one CLIP."""
    config, tensors = golden.content["config"], golden.tensors
    weights = {name.removeprefix(_CLIP): value.float() for name, value in tensors.items() if name.startswith(_CLIP)}
    embedding = torch.zeros(config["text_cfg"]["vocab_size"], config["text_cfg"]["width"])
    embedding[tensors["token_embedding.row_ids"]] = tensors["token_embedding.rows"].float()
    clip = build_clip(config, {**weights, _EMBEDDING: embedding}, quick_gelu)
    adapters = {
        name.removeprefix("state."): value.float()
        for name, value in tensors.items()
        if name.startswith(("state.text_adapter.", "state.image_adapter."))
    }
    return {axis: build(clip, config, adapters, **told) for axis, told in AXES.items()}


def batch(golden: Golden, models: dict[str, AAClip]) -> Run:
    """Return the file's batch, ready to run."""
    config, tensors = golden.content["config"], golden.tensors
    prompts = prompts_of(golden, config["dataset"], _classes(config))
    return Run(
        models,
        tensors["in.image"].float(),
        tensors["in.mask"],
        tensors["in.label"],
        [prompts[name] for name in config["batch_classes"]],
        prompts[config["test_class"]],
        config["text_norm_weight"],
    )


def check_settings(prefix: str, golden: Golden, model: AAClip, compare: Comparison) -> None:
    """Compare the settings with what was built of them.

    Args:
        prefix: of the names in the file that is compared.
        golden: the file of tensors that has these settings.
        model: built from it.
        compare: of the file that is compared.
    """
    config = golden.content["config"]
    table = table_for(golden, config["dataset"])
    tokens = {name.split(".")[2] for name in golden.tensors if name.startswith("in.tokens.")}
    text, image = (_optimizer(config, model, stage)[0].param_groups[0]["lr"] for stage in (1, 2))
    schedule = _optimizer(config, model, 2)[1]
    compare.words(f"{prefix}.seed")  # of the weights, which the file holds
    compare_config(prefix, config, model, compare)
    compare(f"{prefix}.dataset", next((name for name in table.datasets if name == config["dataset"]), None))
    compare(f"{prefix}.batch_classes", [name for name in config["batch_classes"] if name in tokens])
    compare(f"{prefix}.batch_labels", golden.tensors["in.label"].tolist())
    compare(f"{prefix}.test_class", next((name for name in tokens if name == config["test_class"]), None))
    compare(f"{prefix}.object_prompts", bool(tokens & table.special.keys()))
    compare(f"{prefix}.text_norm_weight", batch(golden, {"token": model}).loss().orthogonality)
    compare(f"{prefix}.traj_text_lr", text)
    compare(f"{prefix}.traj_image_lr", image)
    compare(f"{prefix}.traj_milestones", sorted(schedule.milestones))
    steps = golden.tensors.get("out.s2.traj_losses")
    compare(f"{prefix}.traj_steps", None if steps is None else len(steps))


def _classes(config: dict[str, Any]) -> list[str]:
    return [*config["batch_classes"], config["test_class"], *(["object"] if config.get("object_prompts") else [])]


def _check_weights(tensors: dict[str, Tensor], model: AAClip, compare: Comparison) -> None:
    clip = model.clip.model.state_dict()
    for name, value in clip.items():
        compare(_CLIP + name, value)
    compare.expect(*(_CLIP + name for name in clip if name != _EMBEDDING), "token_embedding.row_ids")
    used = clip[_EMBEDDING].any(dim=1).nonzero().squeeze(1)
    compare("token_embedding.row_ids", used)
    compare("token_embedding.rows", clip[_EMBEDDING][used])
    for name, value in model.adapters.state_dict().items():
        compare.expect(f"state.{name}")
        compare(f"state.{name}", value)


def _check_inputs(golden: Golden, run: Run, compare: Comparison) -> None:
    config, size = golden.content["config"], run.model.clip.image_size
    with torch.no_grad(), seen(run.model.clip.visual.conv1) as pictures:
        run.model.image_features(run.images)
    compare("in.image", pictures[0])
    compare("in.mask", torch.stack([ClipMask(size)(mask[0].numpy()) for mask in run.mask]))
    compare("in.label", torch.tensor(config["batch_labels"]))
    for name, prompts in prompts_of(golden, config["dataset"], _classes(config)).items():
        for state in ("normal", "abnormal"):
            compare.expect(f"in.tokens.{name}.{state}")
            compare(f"in.tokens.{name}.{state}", run.model.clip.tokenizer(getattr(prompts, state)))


def _expect_all(config: dict[str, Any], model: AAClip, compare: Comparison) -> None:
    levels = config["levels"]
    ends = levels[0], levels[-1]
    adapters = list(model.adapters.state_dict())
    text, image = ([name for name in adapters if name.startswith(kind)] for kind in ("text", "image"))
    terms = ("focal", "dice_normal", "dice_abnormal")
    for name in dict.fromkeys(_classes(config)):
        compare.expect(f"out.text.{name}.anchor", f"out.text.{name}.anchor_clip")
        compare.expect(*(f"out.text.{name}.{kind}.{s}" for kind in ("adapted", "clip") for s in ("normal", "abnormal")))
    compare.expect("out.clip.image_features", *(f"out.clip.tokens.{level}" for level in ends))
    compare.expect("out.s1.cls_token", "out.s1.orth")
    for axis in AXES:
        kinds = ("tokens", "patch", *terms, "seg")
        compare.expect(*(f"out.s1.{axis}.{kind}.{level}" for kind in kinds for level in levels))
        compare.expect(f"out.s1.{axis}.map_train.{levels[-1]}")
        for loss in LOSSES:
            compare.expect(f"out.s1.{axis}.{loss}.loss", *(f"out.s1.{axis}.{loss}.grad.{name}" for name in text))
    compare.expect(*(f"out.s2.{kind}.{level}" for kind in ("tokens", "seg", *terms, "segloss") for level in levels))
    compare.expect(*(f"out.s2.{name}" for name in ("det", "logits", "ce", "loss", "det_score")))
    compare.expect(*(f"out.s2.map_train.{level}" for level in ends))
    compare.expect(*(f"out.s2.grad.{name}" for name in image), *(f"out.s2.traj_final.{name}" for name in image))
    compare.expect(*(f"out.s2.{kind}.{domain}" for kind in ("anomaly_map", "map_max") for domain in _DOMAINS))
    compare.expect("out.s2.map_test.*", "out.s2.traj_losses", "out.qg.s2.det", "out.qg.clip.image_features")
    compare.expect(*(f"out.qg.s2.seg.{level}" for level in levels), f"out.qg.text.{config['test_class']}.anchor")
    for axis, loss in _TRAININGS:
        run = f"out.s1.{axis}.{loss}"
        compare.expect(f"{run}.traj_losses")
        compare.expect(*(f"{run}.traj_final.{name}" for name in text))


_DOMAINS = ("Industrial", "Medical")


def _check_quick_gelu(golden: Golden, compare: Comparison) -> None:
    config = golden.content["config"]
    models = build_models(golden, quick_gelu=True)
    run = batch(golden, models)
    for name, value in text_outputs(run.model, prompts_of(golden, config["dataset"], _classes(config))):
        compare(f"out.qg.{name}", value)
    for name, value in run.unadapted():
        compare(f"out.qg.{name}", value)
    for name, value in run.stage2(gradients=False):
        compare(f"out.qg.{name}", value)


def _optimizer(config: dict[str, Any], model: AAClip, stage: int) -> tuple[Adam, MultiStepLR]:
    model.set_stage(1 if stage == 1 else 2)
    trained = [parameter for parameter in model.adapters.parameters() if parameter.requires_grad]
    rate = config["traj_text_lr" if stage == 1 else "traj_image_lr"]
    optimizer = Adam(trained, rate, betas=(0.5, 0.999), eps=1e-8)
    return optimizer, MultiStepLR(optimizer, config["traj_milestones"] if stage == 2 else [], gamma=0.5)


def _train_text(golden: Golden, axis: str, loss: str, compare: Comparison) -> None:
    model = build_models(golden)[axis]
    run = batch(golden, {"token": model})
    measure = run.loss(**LOSSES[loss])

    def step() -> Tensor:
        output = model(run.images, run.prompts, stage=1)
        return measure(output.maps, output.anchors, run.mask)

    _train(golden, model, 1, step, f"out.s1.{axis}.{loss}", compare)


def _train_image(golden: Golden, compare: Comparison) -> None:
    model = build_models(golden)["token"]
    run = batch(golden, {"token": model})
    measure = ImageStageLoss()

    def step() -> Tensor:
        output = model(run.images, run.prompts, stage=2)
        return measure(output.maps, output.logits, run.mask, run.labels)

    _train(golden, model, 2, step, "out.s2", compare)


def _train(golden: Golden, model: AAClip, stage: int, step: Any, name: str, compare: Comparison) -> None:
    config = golden.content["config"]
    optimizer, schedule = _optimizer(config, model, stage)
    rate = optimizer.param_groups[0]["lr"]
    losses = []
    for _ in range(config["traj_steps"]):
        optimizer.zero_grad()
        loss = step()
        loss.backward()
        if not losses:
            _settle_signs(golden, model, name)
        losses.append(float(loss.detach()))
        optimizer.step()
        schedule.step()
    stored = golden.tensors.get(f"{name}.traj_losses")
    if stored is not None:  # relative to each loss, so never more than to the smallest
        compare(f"{name}.traj_losses", torch.tensor(losses, dtype=torch.float64), scale=float(stored.abs().min()))
    for key, value in model.adapters.state_dict().items():
        compare.trained(f"{name}.traj_final.{key}", value, furthest=2 * rate * config["traj_steps"])


def _settle_signs(golden: Golden, model: AAClip, name: str) -> None:
    """Take the stored first gradient where it is smaller than rounding, and its sign is chance.

    Adam's first step goes as far for a gradient of 1e-8 as for one of 1, and an entry that goes the other way
    takes its whole row along. The gradients themselves are compared in their own lines.
    """
    for key, parameter in model.adapters.named_parameters():
        stored = golden.tensors.get(f"{name}.grad.{key}")
        if stored is not None and parameter.grad is not None and stored.shape == parameter.shape:
            chance = stored.abs() <= _ROUNDING * stored.abs().max()
            parameter.grad[chance] = stored[chance]
