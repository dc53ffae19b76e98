"""Build AA-CLIP as a file's settings describe it, say what was built, and run both stages."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formats.clip_prompts import table_for
from formats.comparison import Comparison
from formats.golden import Golden
from monai_ext.losses import ClassMapLoss, ImageStageLoss, TextStageLoss, anchor_overlap, detection_loss
from monai_ext.networks import BLURS, AAClip, AnomalyMaps, ClassPrompts, ClipModel, load_clip, load_clip_weights

_ADAPTERS = ("text_adapt_until", "image_adapt_until", "text_adapt_weight", "image_adapt_weight", "relu")
_STATES = ("normal", "abnormal")

# The stage-1 losses that files hold, and what this package is told to compute them; the default is what is right.
AXES: Mapping[str, dict[str, Any]] = {"token": {}, "batch": {"vv_axis": "batch"}}
LOSSES: Mapping[str, dict[str, Any]] = {"sum": {}, "last": {"loss": "last"}}


def build_clip(config: Mapping[str, Any], weights: Mapping[str, Tensor], quick_gelu: bool = False) -> ClipModel:
    """Return the CLIP of a ``config`` with the fields of open_clip, filled."""
    architecture = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    clip = load_clip(architecture, None, activation="quick_gelu" if quick_gelu else "gelu")
    load_clip_weights(clip, weights)
    return clip


def build(clip: ClipModel, config: Mapping[str, Any], adapters: Mapping[str, Tensor], **settings: Any) -> AAClip:
    """Return the network of a ``config``, with its adapters."""
    told = {key: config[key] for key in (*_ADAPTERS, "levels", "vv_blocks") if key in config}
    model = AAClip(clip, **told, **settings)
    model.adapters.load_state_dict(dict(adapters))
    return model.eval()


def compare_config(prefix: str, config: Mapping[str, Any], model: AAClip, compare: Comparison) -> None:
    """Compare every setting of the network with what is read off the built one."""
    clip, built = model.clip, model.settings()
    visual, text = clip.visual, clip.model
    first = visual.transformer.resblocks[0].attn
    values = {
        **{key: built[key] for key in (*_ADAPTERS, "levels", "vv_blocks")},
        "embed_dim": clip.embed_dim,
        "surgery_until_layer": built["vv_blocks"] + 1,
        "quick_gelu": clip.activation == "quick_gelu",
        "vision_cfg.layers": clip.depth,
        "vision_cfg.width": clip.width,
        "vision_cfg.head_width": clip.width // first.num_heads,
        "vision_cfg.patch_size": _square(visual.patch_size),
        "vision_cfg.image_size": _square(clip.image_size),
        "text_cfg.context_length": text.context_length,
        "text_cfg.vocab_size": text.token_embedding.num_embeddings,
        "text_cfg.width": clip.text_width,
        "text_cfg.heads": text.transformer.resblocks[0].attn.num_heads,
        "text_cfg.layers": clip.text_depth,
    }
    for key, value in values.items():
        compare(f"{prefix}.{key}", value)


def _square(size: Sequence[int]) -> Any:
    return size[0] if len(set(size)) == 1 else list(size)


class Run:
    """One batch through both stages, every output by its documented name.

    Args:
        models: by axis of the value-value attention, on one CLIP and with the same adapters.
        images: ``(b, 3, h, w)``.
        mask: ``(b, 1, h, w)``.
        labels: ``(b,)``.
        prompts: of each image's class.
        test_prompts: of the class that test maps use.
        orthogonality: weight of that term.
    """

    def __init__(
        self,
        models: Mapping[str, AAClip],
        images: Tensor,
        mask: Tensor,
        labels: Tensor,
        prompts: Sequence[ClassPrompts],
        test_prompts: ClassPrompts,
        orthogonality: float,
    ) -> None:
        self.models, self.images, self.mask, self.labels = models, images, mask, labels
        self.prompts, self.test_prompts, self.orthogonality = list(prompts), test_prompts, orthogonality
        self.model = models["token"]
        self.levels = self.model.levels

    def loss(self, **told: Any) -> TextStageLoss:
        """Return the loss of stage 1."""
        return TextStageLoss(orthogonality=self.orthogonality, **told)

    @torch.no_grad()
    def unadapted(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what the CLIP alone says."""
        visual = self.model.clip.visual
        indices = [level - 1 for level in self.levels]
        with seen(visual.ln_post) as before_norm:
            visual.forward_intermediates(self.images, indices=indices, normalize_intermediates=True)
        for level, tokens in zip(self.levels, before_norm, strict=False):
            yield f"clip.tokens.{level}", tokens
        features = self.model.image_features(self.images)
        yield "clip.image_features", features
        yield "s1.cls_token", F.normalize(features, dim=-1)

    def stage1(self, axis: str, gradients: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield what stage 1 computes with value-value attention over an axis."""
        model = self.models[axis]
        model.set_stage(1)
        with seen(model.clip.visual.ln_post) as before_norm:
            output = model(self.images, self.prompts, stage=1)
        yield "s1.orth", anchor_overlap(output.anchors)
        # The first is the class token's own pass through the unadapted tower.
        for level, tokens in zip(self.levels, before_norm[1:], strict=True):
            yield f"s1.{axis}.tokens.{level}", tokens
        for level, patches in zip(self.levels, output.patches, strict=True):
            yield f"s1.{axis}.patch.{level}", patches
        yield from self._terms(f"s1.{axis}", output.maps, "seg")
        for name, told in LOSSES.items():
            model.zero_grad()
            loss = self.loss(**told)(output.maps, output.anchors, self.mask)
            yield f"s1.{axis}.{name}.loss", loss
            if gradients:
                loss.backward(retain_graph=True)
                yield from _gradients(f"s1.{axis}.{name}.grad", model)

    def stage2(self, gradients: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield what stage 2 computes, for training and for testing."""
        model = self.model
        model.set_stage(2)
        model.zero_grad()
        with seen(model.clip.visual.ln_post) as before_norm:
            output = model(self.images, self.prompts, stage=2)
        for level, tokens, patches in zip(self.levels, before_norm, output.patches, strict=True):
            yield f"s2.tokens.{level}", tokens[:, 1:]
            yield f"s2.seg.{level}", patches
        yield "s2.det", output.detection
        yield "s2.logits", output.logits
        yield "s2.ce", detection_loss(output.logits, self.labels)
        yield from self._terms("s2", output.maps, "segloss")
        loss = ImageStageLoss()(output.maps, output.logits, self.mask, self.labels)
        yield "s2.loss", loss
        if gradients:
            loss.backward()
            yield from _gradients("s2.grad", model)
        anchors = model.anchors([self.test_prompts])[0]
        for domain in BLURS:
            found = model.localize(self.images, anchors, AnomalyMaps(domain))
            yield f"s2.anomaly_map.{domain}", found.anomaly[:, 0]
            yield f"s2.map_max.{domain}", found.anomaly.amax(dim=(1, 2, 3))
            for level, level_map in zip(self.levels, found.levels, strict=True):
                yield f"s2.map_test.{domain}.{level}", level_map
            yield "s2.det_score", found.score

    def _terms(self, stage: str, maps: Sequence[Tensor], total: str) -> Iterator[tuple[str, Tensor]]:
        for level, level_map in zip(self.levels, maps, strict=True):
            yield f"{stage}.map_train.{level}", level_map
            terms = ClassMapLoss().terms(level_map, self.mask)
            for name, term in terms._asdict().items():
                yield f"{stage}.{name}.{level}", term
            yield f"{stage}.{total}.{level}", ClassMapLoss()(level_map, self.mask)


@contextmanager
def seen(part: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what goes into a part of the network."""
    inputs: list[Tensor] = []
    handle = part.register_forward_pre_hook(lambda _part, arguments: inputs.append(arguments[0].detach()))
    try:
        yield inputs
    finally:
        handle.remove()


def _gradients(prefix: str, model: AAClip) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.adapters.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            yield f"{prefix}.{name}", torch.zeros_like(parameter) if gradient is None else gradient.clone()


def text_outputs(model: AAClip, prompts: Mapping[str, ClassPrompts]) -> Iterator[tuple[str, Tensor]]:
    """Yield the text features and anchors of classes, of the adapted tower and of CLIP's own."""
    with torch.no_grad():
        for name, entry in prompts.items():
            for kind, adapted, anchor in (("adapted", True, "anchor"), ("clip", False, "anchor_clip")):
                for state in _STATES:
                    yield f"text.{name}.{kind}.{state}", model.text.features(getattr(entry, state), adapted)
                yield f"text.{name}.{anchor}", model.anchors([entry], adapted)[0]


def prompts_of(golden: Golden, dataset: str, names: Sequence[str]) -> dict[str, ClassPrompts]:
    """Return the sentences of classes, by the table beside the file or else the published one."""
    table = table_for(golden, dataset)
    return {name: table.of_class(name, dataset) for name in dict.fromkeys(names)}
