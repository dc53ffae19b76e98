"""The small CLIP that ships with the package: trained on phantoms alone, for the demonstration and for tests."""

from pathlib import Path

from monai_ext.networks import ClipModel, load_clip

CONFIG = Path(__file__).with_name("small_clip.json")
WEIGHTS = Path(__file__).with_name("small_clip.safetensors")
PROMPTS = Path(__file__).with_name("small_clip_prompts.json")
SHA256 = "97928526f267eddd06302c0aacc3e11d57c68075e1a0eb0cacfe1004d20b7608"


def load_small_clip(image_size: int | tuple[int, int] | None = None) -> ClipModel:
    """Return the small CLIP, frozen.

    ``python -m monai_ext.demo.small_clip_training OUT`` made it: see there for the recipe. It knows phantoms and
    nothing else.

    Args:
        image_size: pixels, or (height, width), at 2 mm a pixel; 32 as it was trained if omitted.
    """
    return load_clip(CONFIG, WEIGHTS, image_size=image_size, activation="gelu", sha256=SHA256)
