"""Pictures of what pretraining reconstructs, while it runs."""

from pathlib import Path

import torch
from ignite.engine import Engine, Events

from monai_ext.base import SettingError, derive_seed, rank
from monai_ext.networks import HiEndMAE, TokensToVolume, denormalise_patches, draw_shuffle
from monai_ext.outputs.reconstruction_picture import reconstruction_picture


class ReconstructionPreviews:
    """After a validation, write ``epoch_NNNN.png``: original, visible and reconstructed side by side.

    The same patches of the same held-out crop are hidden each time, so that the pictures compare.

    Args:
        folder: where the pictures are written.
        network: the bare network, not its distributed wrapper.
        every: epochs between pictures.
        seed: chooses the hidden patches.

    Raises:
        SettingError: ``every`` is no whole number above 0.
    """

    def __init__(self, folder: str, network: HiEndMAE, every: int = 1, seed: int = 0) -> None:
        if not isinstance(every, int) or every < 1:
            raise SettingError(
                f"preview_interval: {every!r}; give a whole number of epochs, at least 1", code="setting.count"
            )
        self.folder, self.network, self.every, self.seed = Path(folder), network, every, seed

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator: draw from the first batch of each validation."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw when this is the first batch of a validation that is due."""
        if engine.state.iteration != 1 or engine.state.epoch % self.every or rank():
            return
        image = engine.state.output["image"][:1]
        # One picture's size: not worth compiling for.
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            patches = self.network.patches(image)
            generator = torch.Generator("cpu").manual_seed(derive_seed(self.seed, "preview"))
            shuffle = draw_shuffle(1, self.network.tokens, generator).to(patches.device)
            restored = denormalise_patches(self.network.predict(patches, shuffle), patches)
            seen = torch.zeros_like(patches)
            seen[0, shuffle[0, : self.network.visible]] = 1
            unfold = TokensToVolume(self.network.patch_size, self.network.grid)
            volumes = [image, unfold(seen), unfold(torch.where(seen > 0, patches, restored))]
        original, visible, reconstructed = (v[0, 0].float().cpu().numpy() for v in volumes)
        reconstruction_picture(
            self.folder / f"epoch_{engine.state.epoch:04d}.png",
            original,
            visible > 0,
            reconstructed,
            f"epoch {engine.state.epoch}, a held-out crop",
        )
