"""How the small CLIP was made: contrastive training on phantom crops and captions.

    python -m monai_ext.demo.small_clip_training OUT [--patients 90] [--steps 2500]

Writes ``OUT/small_clip.safetensors`` (float16, with the recipe and its figures as metadata) and prints its SHA-256.
No patient has a lesion in an organ that is held out, and no caption speaks of one. Half an hour on two CPU cores.
"""

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from monai_ext.base import derive_seed, replacing, save_tensors
from monai_ext.demo.lesion_captions import caption_of, organ_name
from monai_ext.demo.lesion_crops import SEEN, UNSEEN, LesionCrop, cut_crops, lesion_phantom, part_of
from monai_ext.demo.parallel import in_order
from monai_ext.demo.small_clip import CONFIG
from monai_ext.metrics import auroc
from monai_ext.networks import ClipModel, load_clip
from monai_ext.networks.clip_towers import text_features

# Those without lesions need fewer crops to be told apart.
SEEN_CROPS, UNSEEN_CROPS, HELD_OUT_PATIENTS = 28, 14, 5
WIDE_PX = 56  # of what smaller crops are cut from at every step
BATCH, RATE, WARMUP, DECAY = 64, 1e-3, 100, 0.1
LARGEST_SCALE = 100.0  # of the similarities, as in CLIP


def crops_of(job: tuple[int, int]) -> list[LesionCrop]:
    """Return crops of one patient, by seed and number; only seen organs have lesions."""
    seed, number = job
    phantom = lesion_phantom(derive_seed(seed, "clip", number), SEEN)
    return [
        crop
        for organ in (*SEEN, *UNSEEN)
        for crop in cut_crops(phantom, organ, SEEN_CROPS if organ in SEEN else UNSEEN_CROPS, number, size_px=WIDE_PX)
    ]


class CaptionTraining:
    """Train an image and a text tower to agree on which caption belongs to which crop.

    Args:
        clip: to train.
        crops: of training patients.
        seed: of batches, words and brightness.
    """

    def __init__(self, clip: ClipModel, crops: Sequence[LesionCrop], seed: int) -> None:
        self.clip, self.crops = clip, crops
        self.rng = np.random.default_rng(derive_seed(seed, "captions"))
        self.mean, self.std = (torch.tensor(colour).view(1, 3, 1, 1) for colour in (clip.mean, clip.std))

    def pictures(self, crops: Sequence[LesionCrop], jitter: float = 0.0) -> Tensor:
        """Return normalised pictures, ``(b, 3, h, w)``, with contrast and brightness changed at random."""
        grey = torch.from_numpy(np.stack([crop.picture() for crop in crops])).float() / 255
        if jitter:
            contrast, shift = (torch.from_numpy(self.rng.uniform(-1, 1, (len(crops), 1, 1))).float() for _ in range(2))
            grey = (grey * (1 + jitter * contrast) + jitter / 2 * shift).clamp(0, 1)
        return (grey[:, None].expand(-1, 3, -1, -1) - self.mean) / self.std

    def loss(self) -> Tensor:
        """Return the symmetric cross-entropy of one batch; crops with the same caption share their target."""
        wide = [self.crops[int(n)] for n in self.rng.choice(len(self.crops), BATCH, replace=False)]
        chosen = [part for crop in wide if (part := part_of(crop, self.rng)) is not None]
        captions = [caption_of(crop, self.rng) for crop in chosen]
        assert self.clip.tokenizer is not None  # filled in when the CLIP was built
        images = F.normalize(self.clip.visual(self.pictures(chosen, 0.1)), dim=-1)
        texts = F.normalize(text_features(self.clip.model, self.clip.tokenizer(captions)), dim=-1)
        numbers = torch.from_numpy(np.unique(captions, return_inverse=True)[1])
        same = (numbers[:, None] == numbers[None]).float()
        target = same / same.sum(1, keepdim=True)
        scale = torch.as_tensor(self.clip.model.logit_scale).exp().clamp(max=LARGEST_SCALE)
        alike = scale * images @ texts.T
        return (F.cross_entropy(alike, target) + F.cross_entropy(alike.T, target)) / 2

    @torch.no_grad()
    def figures(self, crops: Sequence[LesionCrop]) -> dict[str, float]:
        """Return how well crops of other patients are recognised: organs, and crops with a lesion, by their words."""
        rng = np.random.default_rng(0)
        crops = [part for crop in crops if (part := part_of(crop, rng)) is not None]
        images = F.normalize(self.clip.visual(self.pictures(crops)), dim=-1)
        organs = (*SEEN, *UNSEEN)
        named = images @ self._words([f"the {organ_name(organ)}." for organ in organs]).T
        right = [organs[int(best)] == crop.organ for best, crop in zip(named.argmax(1), crops, strict=True)]
        found = {"organs_right": float(np.mean(right))}
        for organ in SEEN:
            words = self._words([f"the healthy {organ_name(organ)}.", f"the {organ_name(organ)} with a lesion."])
            own = [n for n, crop in enumerate(crops) if crop.organ == organ]
            ill = [int(crops[n].contrast_hu != 0) for n in own]
            found[f"lesion_auroc_{organ}"] = auroc(ill, (images[own] @ (words[1] - words[0])).numpy())
        return {name: round(value, 3) for name, value in found.items()}

    def _words(self, sentences: list[str]) -> Tensor:
        assert self.clip.tokenizer is not None
        return F.normalize(text_features(self.clip.model, self.clip.tokenizer(sentences)), dim=-1)


def train_small_clip(
    crops: Sequence[LesionCrop], held_out: Sequence[LesionCrop], steps: int, seed: int
) -> tuple[ClipModel, str]:
    """Train the small CLIP, and return it with its recipe and figures as JSON."""
    torch.manual_seed(derive_seed(seed, "clip weights"))
    clip = load_clip(CONFIG, None, activation="gelu")
    parameters = list(clip.model.requires_grad_(True).train().parameters())
    training = CaptionTraining(clip, crops, seed)
    matrices, vectors = ([p for p in parameters if (p.ndim > 1) is wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}], RATE, (0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    losses = []
    for step in track(range(steps), "Training"):
        loss = training.loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {np.mean(losses[-100:]):.3f}", flush=True)
    clip.model.eval().requires_grad_(False)
    recipe = {
        "seed": seed,
        "steps": steps,
        "batch": BATCH,
        "crops": len(crops),
        "loss": round(np.mean(losses[-100:]), 3),
    }
    return clip, json.dumps(recipe | training.figures(held_out))


def main() -> None:
    """Make patients, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=90)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that make patients, and threads that train")
    args = parser.parse_args()
    jobs = [(args.seed, number) for number in range(args.patients + HELD_OUT_PATIENTS)]
    made = in_order(crops_of, jobs, "Making patients", args.workers)
    training, held_out = (
        list(chain.from_iterable(part)) for part in (made[:-HELD_OUT_PATIENTS], made[-HELD_OUT_PATIENTS:])
    )
    torch.set_num_threads(args.workers)
    clip, recipe = train_small_clip(training, held_out, args.steps, args.seed)
    tensors = {name: tensor.half().contiguous() for name, tensor in clip.model.state_dict().items()}
    path = args.out / "small_clip.safetensors"
    with replacing(path) as temporary:
        save_tensors(tensors, temporary, {"recipe": recipe})
    print(recipe)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
