"""Goldens of the pretraining network, read once per session, and small random networks."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from monai_ext.networks import AAClip, ClassPrompts, ClipModel, HiEndMAE, convert, load_clip


class PretrainingGolden(NamedTuple):
    """One recorded model: settings, tensors and the network built from both."""

    config: dict[str, object]
    tensors: dict[str, Tensor]
    grad_norms: dict[str, float]

    @property
    def state(self) -> dict[str, Tensor]:
        """The authors' state dict."""
        return {
            name.removeprefix("state."): value.float()
            for name, value in self.tensors.items()
            if name.startswith("state.")
        }

    def network(self, **overrides: object) -> HiEndMAE:
        """Return our network with the authors' weights."""
        config = self.config
        network = HiEndMAE(
            config["img_size"],
            config["patch_size"],
            **{
                "in_channels": config["in_chans"],
                "encoder_width": config["embed_dim"],
                "encoder_depth": config["depth"],
                "encoder_heads": config["num_heads"],
                "decoder_width": config["decoder_embed_dim"],
                "decoder_self_depth": config["self_depth"],
                "decoder_heads": config["decoder_num_heads"],
                "mask_ratio": config["mask_ratio"],
                **overrides,
            },
        )
        network.load_state_dict(convert(self.state).tensors)
        return network


def read_golden(path: Path) -> PretrainingGolden:
    """Read a ``mae_*.safetensors`` file."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return PretrainingGolden(json.loads(metadata["config"]), tensors, json.loads(metadata["grad_norms"]))


@pytest.fixture(scope="session", params=["mae_p8_m60", "mae_p12_m75", "mae_aniso_c2_m50"])
def golden(request: pytest.FixtureRequest, shared_goldens: Path) -> PretrainingGolden:
    """Each recorded pretraining model in turn."""
    return read_golden(shared_goldens / "hi_end_mae" / f"{request.param}.safetensors")


@pytest.fixture(scope="session")
def aniso_golden(shared_goldens: Path) -> PretrainingGolden:
    """The recorded model whose axes and channels are all different."""
    return read_golden(shared_goldens / "hi_end_mae" / "mae_aniso_c2_m50.safetensors")


@pytest.fixture
def random_mae() -> HiEndMAE:
    """A small network with unequal sizes everywhere and no tensor at a special value."""
    torch.manual_seed(5)
    network = HiEndMAE(
        (12, 10, 21),
        (4, 5, 3),
        in_channels=2,
        encoder_width=24,
        encoder_depth=5,
        encoder_heads=3,
        decoder_width=18,
        decoder_self_depth=1,
        decoder_heads=2,
        taps=(1, 2, 4),
        mask_ratio=0.6,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="session")
def clip_config() -> dict[str, Any]:
    """An open_clip configuration with unequal sizes everywhere: pictures of 35 x 25 pixels, 7 x 5 patches."""
    return {
        "embed_dim": 14,
        "vision_cfg": {"layers": 6, "width": 24, "head_width": 8, "patch_size": 5, "image_size": [35, 25]},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 20, "heads": 2, "layers": 4},
    }


@pytest.fixture
def random_clip(clip_config: dict[str, Any]) -> ClipModel:
    """A small CLIP with no weight at a special value."""
    torch.manual_seed(11)
    clip = load_clip(clip_config, None)
    with torch.no_grad():
        for parameter in clip.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return clip


@pytest.fixture
def random_aa_clip(random_clip: ClipModel) -> AAClip:
    """A small AA-CLIP: levels 2 and 5 of 6, adapters after 3 image and 2 text blocks."""
    torch.manual_seed(12)
    return AAClip(
        random_clip,
        levels=(2, 5),
        image_adapt_until=3,
        image_adapt_weight=0.3,
        text_adapt_until=2,
        text_adapt_weight=0.2,
        vv_blocks=4,
    )


@pytest.fixture(scope="session")
def two_classes() -> list[ClassPrompts]:
    """Prompts of two classes, different numbers of each state."""
    return [
        ClassPrompts(("a liver.", "the liver."), ("a damaged liver.", "a liver with flaw.", "a broken liver.")),
        ClassPrompts(("a photo of a grey carpet.",), ("a torn carpet.", "a carpet with a hole in it.")),
    ]
