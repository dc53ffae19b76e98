"""AA-CLIP for inference: one kind of object, one tensor in, one tensor out, and its exported form."""

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from monai_ext.base import replacing_weights
from monai_ext.networks.aa_clip import AAClip
from monai_ext.networks.anomaly_maps import AnomalyMaps, Localization, locate
from monai_ext.networks.clip_image_side import adapted_patches
from monai_ext.networks.clip_prompts import ClassPrompts
from monai_ext.networks.replay import Replayed


class AnomalyLocalizer(nn.Module):
    """Maps of anomaly for one class.

    Anchors follow the adapters: they are made anew when those have changed.

    Args:
        model: with adapters, loaded now or later.
        prompts: of the class.
        domain: ``"Medical"`` or ``"Industrial"``, which chooses the published blur.
        blur: kernel side and sigma in patches instead.
        replay: on a CUDA device replay recorded passes, see :class:`Replayed`: the same numbers, several times as fast
            for one picture at a time.

    Shape:
        normalised pictures of the CLIP's size ``(b, 3, h, w) -> (b, 1, h, w)``
    """

    def __init__(
        self,
        model: AAClip,
        prompts: ClassPrompts,
        domain: str = "Medical",
        blur: tuple[int, float] | None = None,
        replay: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.prompts, self.maps = model, prompts, AnomalyMaps(domain, blur)
        self.replay = replay
        self._replayed: Replayed | None = None

    def forward(self, images: Tensor) -> Tensor:
        return self.localize(images).anomaly

    def localize(self, images: Tensor) -> Localization:
        """Return the maps of anomaly with the score of each image and the maps of each level."""
        with torch.no_grad():
            if not (self.replay and images.is_cuda):
                return self.model.localize(images, self.anchors(), self.maps)
            if self._replayed is None:
                # Not before it is needed: it refers back to this network, which then waits for the collector of cycles
                # to give back what a CLIP takes.
                self._replayed = Replayed(self._parts, self._weights)
            anomaly, score, *levels = self._replayed(images, self.anchors())
            return Localization(anomaly, score, levels)

    def anchors(self) -> Tensor:
        """Return the normal and the abnormal text feature of the class, ``(e, 2)``."""
        with torch.no_grad():
            return self.model.anchors([self.prompts])[0]

    def _parts(self, images: Tensor, anchors: Tensor) -> list[Tensor]:
        found = self.model.localize(images, anchors, self.maps)
        return [found.anomaly, found.score, *found.levels]

    def _weights(self) -> Iterator[Tensor]:
        yield from self.model.clip.visual.parameters()
        yield from self.model.adapters.image_adapter.parameters()


class ImageSide(nn.Module):
    """A localizer without its text tower: the anchors are fixed, and part of the weights.

    Args:
        localizer: whose anchors, image tower and adapters to use; nothing is copied but the anchors.

    Shape:
        ``(b, 3, h, w) -> (b, 1, h, w)`` maps of anomaly and ``(b,)`` scores
    """

    anchors: Tensor

    def __init__(self, localizer: AnomalyLocalizer) -> None:
        super().__init__()
        model = localizer.model
        self.visual, self.image_adapter = model.clip.visual, model.adapters.image_adapter
        self.maps, self.levels = localizer.maps, model.levels
        self.grid, self.temperature = model.clip.grid, model.temperature
        self.register_buffer("anchors", localizer.anchors().clone())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        patches, detection = adapted_patches(self.visual, self.image_adapter, self.levels, images)
        found = locate(patches, detection, self.anchors, self.maps, self.grid, images.shape[2:], self.temperature)
        return found.anomaly, found.score


def export_localizer(localizer: AnomalyLocalizer, path: str | os.PathLike[str] | None = None) -> ExportedProgram:
    """Export the image side with ``torch.export``: towers with hooks neither script nor trace.

    Args:
        localizer: with the adapters and the class to export.
        path: a ``.pt2`` file to write, if any; ``torch.export.load(path).module()`` runs it, for any batch size.

    Returns:
        A program that maps pictures to what :class:`ImageSide` does.

    Raises:
        WriteError: the file could not be written.
    """
    image_side = ImageSide(localizer).eval()
    # Two pictures, because torch.export takes a batch of one for a constant.
    pictures = torch.zeros(2, 3, *localizer.model.clip.image_size, device=image_side.anchors.device)
    with torch.no_grad():
        program = torch.export.export(image_side, (pictures,), dynamic_shapes=({0: Dim("batch")},))
    if path is not None:
        with replacing_weights(path) as temporary:
            torch.export.save(program, temporary)
    return program
