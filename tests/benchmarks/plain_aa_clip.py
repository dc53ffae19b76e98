"""The published forward pass of AA-CLIP, written plainly: what `aa_clip_step.py` compares with.

It computes on the parameters of our model, so that both can be compared number by number: multi-head attention that
returns its weights, in float32; where it trains, the CLIP is not frozen and gets gradients that nobody uses.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_ext.losses import ImageStageLoss
from monai_ext.networks import AAClip
from monai_ext.networks.anomaly_maps import AnomalyMaps, detection_logits, locate, probability_map, similarities


def plain_patches(model: AAClip, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the adapted patches of each level, ``(b, n, e)``, and the mean patch of the detection, ``(b, e)``."""
    visual, adapter = model.clip.visual, model.adapters.image_adapter
    tokens = visual.conv1(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(len(images), 1, -1), tokens], dim=1)
    tokens = visual.ln_pre(tokens + visual.positional_embedding)
    residuals, levels = adapter.residuals(), []
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        normed = block.ln_1(tokens)
        tokens = tokens + block.attn(normed, normed, normed, need_weights=True)[0]
        tokens = tokens + block.mlp(block.ln_2(tokens))
        if number <= len(residuals):
            tokens = residuals[number - 1](tokens)
        if number in model.levels:
            levels.append(visual.ln_post(tokens)[:, 1:])
    patches = [F.normalize(project(level), dim=-1) for project, level in zip(adapter.seg_proj, levels, strict=True)]
    return patches, F.normalize(adapter.det_proj(levels[-1]), dim=-1).mean(dim=1)


@torch.no_grad()
def plain_maps(model: AAClip, images: Tensor, anchors: Tensor, maps: AnomalyMaps) -> Tensor:
    """Return maps of anomaly: ``(b, 3, h, w) -> (b, 1, h, w)``."""
    patches, detection = plain_patches(model, images)
    return locate(patches, detection, anchors, maps, model.clip.grid, images.shape[2:], model.temperature).anomaly


class PlainStage2:
    """The published step of stage 2.

    Args:
        model: whose image adapter learns; its image tower gets gradients too, as published.
        anchors: ``(b, e, 2)``.
    """

    def __init__(self, model: AAClip, anchors: Tensor) -> None:
        model.set_stage(2)
        model.clip.visual.requires_grad_(True)
        self.model, self.anchors, self.loss = model, anchors, ImageStageLoss()
        self.optimizer = torch.optim.Adam(model.adapters.image_adapter.parameters(), lr=5e-4, betas=(0.5, 0.999))

    def __call__(self, images: Tensor, mask: Tensor, labels: Tensor) -> float:
        """Take one step and return its loss."""
        patches, detection = plain_patches(self.model, images)
        maps = self._maps(patches, images.shape[2:])
        loss = self.loss(maps, detection_logits(detection, self.anchors), mask, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _maps(self, patches: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
        grid, temperature = self.model.clip.grid, self.model.temperature
        return [probability_map(similarities(level, self.anchors, grid, temperature), size) for level in patches]
