"""AA-CLIP at full size: weights from a recipe, settings and statistics in one file, slices of outputs in another."""

import functools
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formats.aa_clip import AXES, Run, build, compare_config, prompts_of, text_outputs
from formats.comparison import Comparison, Tolerance
from formats.golden import Golden
from monai_ext.networks import AAClip, load_clip, load_clip_weights

TOLERANCES = (
    ("recipe_checks.*.first4", Tolerance(0.0)),
    ("recipe_checks.*", Tolerance(1e-9, of_largest=True, at_least=1.0)),  # sums in float64, in another order
    ("stats.*.shape", Tolerance(0.0)),
    ("stats.*.l2", Tolerance(1e-4, of_largest=True, at_least=1.0)),
    ("*.s2.anomaly_map.*", Tolerance(2e-4)),
    ("*.s2.map_max.*", Tolerance(2e-4)),
    ("*", Tolerance(1e-4, of_largest=True, at_least=1.0)),
)

_WORDS = ("config.run_fields",)  # explains the fields to a reader
_EVERY = {"tokens": 4, "patch": 2, "seg": 1}  # channels that are kept
_CORNER = 8  # rows and columns of a gradient
_ROWS = 8  # of the positions: rows 0, n/8, 2n/8, ...
_NORMS = ("ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight", "ln_final.weight")


def recognises(golden: Golden) -> bool:
    """Tell by the content: settings with a salt and runs, or tensors of stages under the size of their run."""
    if golden.tensors:
        return not golden.content and any(re.match(r"\d+\.s[12]\.", name) for name in golden.tensors)
    config = golden.content.get("config")
    return isinstance(config, dict) and {"salt", "runs"} <= config.keys() and "stats" in golden.content


def check(golden: Golden, compare: Comparison) -> None:
    """Run each batch, and compare slices or whole-tensor statistics."""
    settings = golden if not golden.tensors else _settings_beside(golden)
    computed = _computed(json.dumps(settings.content["config"]), tuple(settings.content["levels"]), _Files(settings))
    if golden.tensors:
        compare.expect(*settings.content["stats"])
        for name, stored in golden.tensors.items():
            if name in computed.outputs:
                compare(name, _slice(name, computed.outputs[name], stored, settings.content["config"]))
        return
    compare.words(*_WORDS)
    _compare_settings(golden, computed.model, compare)
    for name in golden.content["recipe_checks"]:
        value = computed.recipe[name]
        for key, number in (
            ("shape", list(value.shape)),
            ("first4", value.flatten()[:4].tolist()),
            ("sum_f64", float(value.double().sum())),
            ("l2_f64", float(value.double().norm())),
        ):
            compare.expect(f"recipe_checks.{name}.{key}")
            compare(f"recipe_checks.{name}.{key}", number)
    compare.expect(*(f"stats.{name.replace('.grad.', '.grad_corner.')}.l2" for name in _wanted(computed)))
    for name in golden.content["stats"]:
        if name in computed.outputs:
            for key, number in _statistics(computed.outputs[name]).items():
                compare.expect(f"stats.{name}.{key}")
                compare(f"stats.{name}.{key}", number)


class _Files:
    """Lets the cache below ignore where a file lies: prompts may lie beside it."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Files) and self.golden.path.parent == other.golden.path.parent

    def __hash__(self) -> int:
        return hash(self.golden.path.parent)


class _Computed:
    """Everything that one file's settings lead to.

    Attributes:
        model: of the last run, for what it was built with.
        recipe: weights by their state-dict keys, positions as made.
        outputs: whole tensors by the names of the slices.
    """

    def __init__(self, model: AAClip, recipe: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
        self.model, self.recipe, self.outputs = model, recipe, outputs


@functools.lru_cache(maxsize=1)  # statistics and slices are two files of one computation
def _computed(config_text: str, levels: tuple[int, ...], files: _Files) -> _Computed:
    config = json.loads(config_text)
    recipe: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    model = None
    for size, settings in config["runs"].items():
        model = None  # one model at a time
        models = _models(config, levels, settings["S"], recipe)
        model = models["token"]
        outputs |= _run(size, settings, config, models, files.golden)
    if model is None:
        raise ValueError("its settings hold no run")
    return _Computed(model, recipe, outputs)


def _models(
    config: Mapping[str, Any], levels: tuple[int, ...], size: int, recipe: dict[str, Tensor]
) -> dict[str, AAClip]:
    activation = "gelu" if "exact GELU" in config["model"] else "quick_gelu"
    clip = load_clip(config["model"].split()[0], None, image_size=size, activation=activation)
    native = load_clip(config["model"].split()[0], None) if not recipe else None
    adapted = AAClip(clip, levels=levels, vv_blocks=config["vv_blocks"], **config["adapters"])
    own = {**clip.model.state_dict(), **adapted.adapters.state_dict()}
    if native is not None:
        shapes = {name: tensor.shape for name, tensor in native.model.state_dict().items()}
        for name in own:
            recipe[name] = _weight(config["salt"], name, tuple(shapes.get(name, own[name].shape)))
    load_clip_weights(clip, {name: recipe[name] for name in clip.model.state_dict()})
    adapters = {name: recipe[name] for name in adapted.adapters.state_dict()}
    settings = {**config["adapters"], "levels": levels, "vv_blocks": config["vv_blocks"]}
    return {axis: build(clip, settings, adapters, **told) for axis, told in AXES.items()}


def _weight(salt: str, name: str, shape: tuple[int, ...]) -> Tensor:
    if name == "logit_scale":
        return torch.tensor(np.log(1 / 0.07), dtype=torch.float32)
    seed = zlib.crc32((salt + name).encode())
    value = 0.02 * np.random.RandomState(seed).standard_normal(shape)
    return torch.from_numpy((value + 1 if name.endswith(_NORMS) else value).astype(np.float32))


def _run(
    size: str, settings: Mapping[str, Any], config: Mapping[str, Any], models: dict[str, AAClip], golden: Golden
) -> dict[str, Tensor]:
    batch, side = settings["B"], settings["S"]
    images = np.random.RandomState(settings["seed"]).standard_normal((batch, 3, side, side)).astype(np.float32)
    mask = torch.zeros(batch, 1, side, side, dtype=torch.uint8)
    for image, top, bottom, left, right in settings["mask"]:
        mask[image, :, top:bottom, left:right] = 1
    prompts = prompts_of(golden, config["dataset"], settings["classes"])
    run = Run(
        models,
        torch.from_numpy(images),
        mask,
        torch.tensor(settings["labels"]),
        [prompts[name] for name in settings["classes"]],
        prompts[settings["classes"][0]],
        config["text_norm_weight"],
    )
    outputs = {name: value.detach() for name, value in text_outputs(run.model, prompts)}
    for name, value in _stages(run, settings["grads"]):
        outputs[f"{size}.{name.replace('.grad.', '.grad_corner.')}"] = value.detach()
    outputs[f"{size}.pos_embed_rows"] = run.model.clip.visual.positional_embedding.detach().clone()
    return outputs


def _stages(run: Run, gradients: bool) -> Iterator[tuple[str, Tensor]]:
    with torch.set_grad_enabled(gradients):
        yield from run.unadapted()
        for axis in AXES:
            yield from run.stage1(axis, gradients)
        yield from run.stage2(gradients)


def _wanted(computed: _Computed) -> Iterator[str]:
    """Yield the outputs that the format has, of all that a run computes."""
    left_out = r"\.(focal|dice_\w+|map_train|map_test)\.|s1\.cls_token$|^text\..*\.(adapted|clip)\."
    # The published code ran the batch axis; where both gave a loss, the sum too.
    return (name for name in computed.outputs if not re.search(left_out, name))


def _slice(name: str, whole: Tensor, stored: Tensor, config: Mapping[str, Any]) -> Tensor:
    size, _, rest = name.partition(".")
    kind = rest.split(".")[-2] if rest.rpartition(".")[2].isdigit() else ""
    if kind in _EVERY and whole.ndim == 3:
        patches = whole[:, 1:] if kind == "tokens" and not rest.startswith("s2.") else whole
        return patches[:, :: config["runs"][size]["tok"], :: _EVERY[kind]]
    if ".grad_corner." in rest:
        return whole[:_CORNER, :_CORNER]
    if rest == "pos_embed_rows":
        return whole[:: len(whole) // _ROWS]
    if ".anomaly_map." in rest and stored.ndim == 3:
        step = -(-whole.shape[1] // max(1, stored.shape[1]))
        return whole[:, ::step, ::step]
    return whole


def _statistics(value: Tensor) -> dict[str, Any]:
    exact = value.double()
    return {
        "shape": list(value.shape),
        "mean": float(exact.mean()),
        "std": float(exact.std()) if exact.numel() > 1 else 0.0,
        "absmax": float(exact.abs().max()),
        "l2": float(exact.norm()),
    }


def _compare_settings(golden: Golden, model: AAClip, compare: Comparison) -> None:
    config = golden.content["config"]
    name = model.clip.tag.partition("/")[0]
    activation = {"gelu": "exact GELU (quick_gelu false)", "quick_gelu": "QuickGELU (quick_gelu true)"}
    compare("config.model", f"{name} (open_clip built-in config), activation = {activation[model.clip.activation]}")
    compare_config("config", config, model, compare)
    compare_config("config.adapters", config["adapters"], model, compare)
    compare("levels", list(model.levels))
    # These make weights, pictures and masks: other values would make other outputs.
    for key in ("salt", "dataset", "text_norm_weight"):
        compare(f"config.{key}", config[key])
    for size, run in config["runs"].items():
        for key in ("seed", "tok", "classes", "labels", "mask", "grads"):
            for leaf, value in _leaves(run[key], f"config.runs.{size}.{key}"):
                compare(leaf, value)
        compare(f"config.runs.{size}.S", int(size))
        shape = next(entry["shape"] for stat, entry in golden.content["stats"].items() if stat == f"{size}.s2.det")
        compare(f"config.runs.{size}.B", shape[0])


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    from formats.golden import leaves

    return leaves(value, name)


def _settings_beside(golden: Golden) -> Golden:
    for sibling in golden.siblings():
        if recognises(sibling) and not sibling.tensors and sibling.content["stats"].keys() == golden.tensors.keys():
            return sibling
    raise ValueError("the file with its settings is not beside it")
