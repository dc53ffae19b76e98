"""AA-CLIP: anomaly-aware CLIP, two stages of small adapters beside a frozen open_clip ViT."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ext.base import SettingError
from monai_ext.networks.anomaly_maps import (
    TEMPERATURE,
    AnomalyMaps,
    Localization,
    detection_logits,
    locate,
    probability_map,
    similarities,
)
from monai_ext.networks.clip_adapters import AAClipAdapters, ImageAdapter, TextAdapter
from monai_ext.networks.clip_anchors import AnchorMaker
from monai_ext.networks.clip_attention import token_attention
from monai_ext.networks.clip_image_side import adapted_patches, level_tokens
from monai_ext.networks.clip_models import ClipModel
from monai_ext.networks.clip_prompts import ClassPrompts
from monai_ext.networks.clip_towers import plain_blocks, scoped_parts
from monai_ext.networks.clip_value_attention import ValueAttention, VVAxis


class Stage1Output(NamedTuple):
    """What stage 1 sees: frozen patches against anchors that learn.

    Attributes:
        maps: probabilities of each level, ``(b, 2, h, w)``, normal first.
        anchors: of each image's class, ``(b, e, 2)``.
        patches: features of each level, ``(b, n, e)``: normalised, plus the image's class token.
    """

    maps: list[Tensor]
    anchors: Tensor
    patches: list[Tensor]


class Stage2Output(NamedTuple):
    """What stage 2 sees: adapted patches against anchors that are fixed.

    Attributes:
        maps: probabilities of each level, ``(b, 2, h, w)``, normal first.
        logits: of each image, ``(b, 2)``, normal first, without temperature.
        anchors: of each image's class, ``(b, e, 2)``.
        patches: features of each level, ``(b, n, e)``, normalised.
        detection: mean patch of each image, ``(b, e)``.
    """

    maps: list[Tensor]
    logits: Tensor
    anchors: Tensor
    patches: list[Tensor]
    detection: Tensor


class AAClip(nn.Module):
    """A frozen CLIP with text and image adapters (Ma et al. 2025, arXiv:2503.06661).

    The CLIP is borrowed: hooks and swapped parts last for one call, and :meth:`release` gives it back as it
    was. Two threads must not call models on the same CLIP at once.

    Args:
        clip: from :func:`load_clip`, or an open_clip model.
        levels: blocks of the image tower, counted from 1, whose tokens make maps; quarters of the depth if omitted.
        image_adapt_until: image blocks with an adapter; a quarter of the depth if omitted, 6 of 24 as published.
        image_adapt_weight: share of an image adapter's answer.
        text_adapt_until: text blocks with an adapter.
        text_adapt_weight: share of a text adapter's answer.
        relu: whether the image projections end in LeakyReLU.
        vv_blocks: last image blocks with value-value attention in stage 1; 19 of 24 as published if omitted.
        vv_axis: see :class:`ValueAttention`; ``"batch"`` is what the published code does.
        temperature: factor of the similarities.

    Raises:
        SettingError: no open_clip ViT, or numbers that do not fit its depth.
    """

    def __init__(
        self,
        clip: ClipModel | nn.Module,
        *,
        levels: Sequence[int] | None = None,
        image_adapt_until: int | None = None,
        image_adapt_weight: float = 0.1,
        text_adapt_until: int = 3,
        text_adapt_weight: float = 0.1,
        relu: bool = False,
        vv_blocks: int | None = None,
        vv_axis: VVAxis = "token",
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__()
        self.clip = clip if isinstance(clip, ClipModel) else ClipModel(clip)
        depth = self.clip.depth
        self.levels = _checked_levels([depth * k // 4 for k in (1, 2, 3, 4)] if levels is None else levels, depth)
        self.vv_blocks = _checked_count("vv_blocks", depth * 19 // 24 if vv_blocks is None else vv_blocks, depth)
        until = _checked_count(
            "image_adapt_until", depth // 4 if image_adapt_until is None else image_adapt_until, depth
        )
        text_until = _checked_count("text_adapt_until", text_adapt_until, self.clip.text_depth)
        for name, share in (("image_adapt_weight", image_adapt_weight), ("text_adapt_weight", text_adapt_weight)):
            if not 0 <= share <= 1:
                raise SettingError(f"{name}: {share} is no share; give 0 to 1", code="setting.share")
        if vv_axis not in ("token", "batch"):
            raise SettingError(f"vv_axis: {vv_axis!r} is no axis; give 'token' or 'batch'", code="setting.axis")
        self.vv_axis: VVAxis = vv_axis
        self.relu, self.temperature = relu, temperature
        width, embed = self.clip.width, self.clip.embed_dim
        self.adapters = AAClipAdapters(
            TextAdapter(self.clip.text_width, embed, text_until, text_adapt_weight),
            ImageAdapter(width, embed, until, image_adapt_weight, len(self.levels), relu),
        ).to(next(self.clip.model.parameters()).device)
        self.text = AnchorMaker(self.clip, self.adapters.text_adapter)
        self._lent = _Condition(self.clip.model)
        self.open_clip = self.clip.model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "AAClip":
        """Set the adapters to training; the CLIP never is, or it would drop patches."""
        super().train(mode)
        self.open_clip.eval()
        return self

    def set_stage(self, stage: Literal[1, 2]) -> None:
        """Let the adapters of one stage learn, and no others: text in stage 1, image in stage 2."""
        _check_stage(stage)
        self.adapters.text_adapter.requires_grad_(stage == 1)
        self.adapters.image_adapter.requires_grad_(stage == 2)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that this model was built with, all but the CLIP."""
        text, image = self.adapters.text_adapter, self.adapters.image_adapter
        return {
            "levels": list(self.levels),
            "image_adapt_until": len(image.layer_adapters),
            "image_adapt_weight": image.weight,
            "text_adapt_until": len(text) - 1,
            "text_adapt_weight": text.weight,
            "relu": self.relu,
            "vv_blocks": self.vv_blocks,
            "vv_axis": self.vv_axis,
            "temperature": self.temperature,
        }

    def release(self) -> nn.Module:
        """Give the open_clip model back as it was lent: which of its weights learn, and its mode."""
        self._lent.restore()
        return self.clip.model

    def forward(
        self, images: Tensor, prompts: Sequence[ClassPrompts], stage: Literal[1, 2] = 2
    ) -> Stage1Output | Stage2Output:
        """Run one stage, for training.

        Args:
            images: normalised pictures of the CLIP's size, ``(b, 3, h, w)``.
            prompts: of each image's class.
            stage: 1 learns the text adapter, 2 the image adapter.
        """
        _check_stage(stage)
        if len(prompts) != len(images):
            raise SettingError(
                f"prompts: {len(prompts)} for {len(images)} images; give one ClassPrompts per image",
                code="setting.prompt",
            )
        if stage == 1:
            return self.stage1(images, self.anchors(prompts))
        with torch.no_grad():
            anchors = self.anchors(prompts)
        return self.stage2(images, anchors)

    def anchors(self, prompts: Sequence[ClassPrompts], adapted: bool = True) -> Tensor:
        """Return the anchors of each entry, ``(len(prompts), e, 2)``; see :class:`AnchorMaker`."""
        return self.text.anchors(prompts, adapted)

    def stage1(self, images: Tensor, anchors: Tensor) -> Stage1Output:
        """Compare value-value patches of the frozen tower with anchors.

        Shape:
            images ``(b, 3, h, w)``, anchors ``(b, e, 2)``
        """
        patches = self.value_patches(images)
        return Stage1Output(self._maps(patches, anchors, images), anchors, patches)

    def stage2(
        self, images: Tensor, anchors: Tensor, adapted: tuple[Sequence[Tensor], Tensor] | None = None
    ) -> Stage2Output:
        """Compare adapted patches with anchors.

        Args:
            images: normalised pictures of the CLIP's size.
            anchors: of each image's class.
            adapted: what :meth:`adapted_patches` gives of the images, where that is known.

        Shape:
            images ``(b, 3, h, w)``, anchors ``(b, e, 2)``
        """
        patches, detection = self.adapted_patches(images) if adapted is None else adapted
        maps = self._maps(patches, anchors, images)
        return Stage2Output(maps, detection_logits(detection, anchors), anchors, list(patches), detection)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Return what the unadapted CLIP says of each image, not normalised: ``(b, e)``."""
        self._check(images)
        with plain_blocks(self.clip.visual.transformer), token_attention(self.clip.visual.transformer):
            return self.clip.visual.forward_intermediates(images, indices=[0])["image_features"]

    @torch.no_grad()
    def value_patches(self, images: Tensor) -> list[Tensor]:
        """Return stage 1's patches of each level: value-value attention, projected, normalised, plus class token.

        Shape:
            ``(b, 3, h, w) -> (b, n, e)`` for each level
        """
        cls_token = F.normalize(self.image_features(images), dim=-1).unsqueeze(1)
        blocks = list(self.clip.visual.transformer.resblocks)
        replaced = blocks[len(blocks) - self.vv_blocks :]
        views: list[nn.Module] = [ValueAttention(block.attn, self.vv_axis) for block in replaced]
        with scoped_parts(replaced, "attn", views):
            levels = level_tokens(self.clip.visual, self.levels, images)
        return [F.normalize(tokens @ self.clip.visual.proj, dim=-1) + cls_token for tokens in levels]

    def adapted_patches(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return stage 2's patches of each level, and the mean patch of the detection.

        Shape:
            ``(b, 3, h, w) -> (b, n, e)`` for each level, and ``(b, e)``
        """
        self._check(images)
        return adapted_patches(self.clip.visual, self.adapters.image_adapter, self.levels, images)

    def localize(self, images: Tensor, anchors: Tensor, maps: AnomalyMaps) -> Localization:
        """Return maps of anomaly and scores of images, without gradients.

        Args:
            images: normalised pictures of the CLIP's size, ``(b, 3, h, w)``.
            anchors: of each image ``(b, e, 2)``, or of all ``(e, 2)``.
            maps: with the blur of the domain.
        """
        with torch.no_grad():
            patches, detection = self.adapted_patches(images)
            return locate(patches, detection, anchors, maps, self.clip.grid, images.shape[2:], self.temperature)

    def _maps(self, patches: Sequence[Tensor], anchors: Tensor, images: Tensor) -> list[Tensor]:
        alike = [similarities(level, anchors, self.clip.grid, self.temperature) for level in patches]
        return [probability_map(level, images.shape[2:]) for level in alike]

    def _check(self, images: Tensor) -> None:
        expected = (3, *self.clip.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise SettingError(
                f"images: shape {tuple(images.shape)} is not (batch, {', '.join(map(str, expected))}); "
                "resize them, or load the CLIP with another image_size",
                code="setting.image_size",
            )


class _Condition:
    """How a model was lent: its mode and which of its weights learn."""

    def __init__(self, model: nn.Module) -> None:
        self.modes = [(part, part.training) for part in model.modules()]
        self.learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def restore(self) -> None:
        for part, mode in self.modes:
            part.training = mode
        for parameter, learns in self.learning:
            parameter.requires_grad_(learns)


def _checked_levels(levels: Sequence[int], depth: int) -> tuple[int, ...]:
    if not levels or list(levels) != sorted(set(levels)) or levels[0] < 1 or levels[-1] > depth:
        raise SettingError(
            f"levels: {list(levels)} are not rising numbers of the {depth} image blocks; count from 1",
            code="setting.levels",
        )
    return tuple(levels)


def _checked_count(name: str, count: int, depth: int) -> int:
    if not 0 <= count <= depth:
        raise SettingError(f"{name}: {count} of {depth} blocks; give 0 to {depth}", code="setting.count")
    return count


def _check_stage(stage: int) -> None:
    if stage not in (1, 2):
        raise SettingError(f"stage: {stage!r} is none; give 1 or 2", code="setting.stage")
