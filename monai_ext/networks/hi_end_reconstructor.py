"""Hi-End-MAE as an image-to-image network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monai_ext.networks.hi_end_mae import HiEndMAE
from monai_ext.networks.patch_norm import denormalise_patches
from monai_ext.networks.tokens import TokensToVolume, draw_shuffle


class HiEndReconstructor(HiEndMAE):
    """Hide a fixed set of patches and return the image with those reconstructed, the others as given.

    The weights are those of :class:`HiEndMAE`. The hidden patches depend on ``mask_seed`` alone, so the same
    image always gives the same picture; each reconstructed patch gets its true mean and spread back, because
    only normalised voxels are learned.

    Args:
        image_size: voxels along x, y, z.
        patch_size: voxels per patch along x, y, z.
        mask_seed: chooses the hidden patches.
        published: count visible patches and undo the normalisation as the published code does,
            see :func:`denormalise_patches`.
        **settings: the other arguments of :class:`HiEndMAE`.

    Shape:
        ``(b, c, x, y, z) -> (b, c, x, y, z)``, at least float32
    """

    shuffle: Tensor

    def __init__(
        self,
        image_size: int | Sequence[int],
        patch_size: int | Sequence[int],
        *,
        mask_seed: int = 0,
        published: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(image_size, patch_size, published=published, **settings)
        self.unfold = TokensToVolume(self.patch_size, self.grid)
        shuffle = draw_shuffle(1, self.tokens, torch.Generator("cpu").manual_seed(mask_seed))
        self.register_buffer("shuffle", shuffle, persistent=False)

    # One tensor in, one tensor out is the point: bundles, TorchScript and inferers want that.
    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        patches = self.patches(image)
        shuffle = self.shuffle.expand(patches.shape[0], -1)
        restored = denormalise_patches(self.predict(patches, shuffle), patches, self.published)
        visible = torch.zeros_like(shuffle, dtype=torch.bool)
        visible = visible.scatter(1, shuffle[:, : self.visible], True).unsqueeze(-1)
        return self.unfold(torch.where(visible, patches.to(restored.dtype), restored))
