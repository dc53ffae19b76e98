"""What is particular to localizing: classes and their prompts, weights, and the step."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from monai_ext.base import SettingError, WeightsError, bare
from monai_ext.engines.inference import GuardedStep
from monai_ext.engines.precision import autocast, choose_precision
from monai_ext.engines.steps import plain_tensor
from monai_ext.inferers import Localized
from monai_ext.metrics import image_scores
from monai_ext.networks import (
    AnomalyLocalizer,
    ClassPrompts,
    ClipModel,
    PromptTable,
    adapted_clip,
    load_clip_weights,
    read_adapters,
)
from monai_ext.networks.clip_architectures import find_architecture
from monai_ext.networks.clip_weights import FOLDER, HUB


def prompt_table(prompts: str | None = None, adapters: str | None = None) -> PromptTable:
    """Return the sentences to use: those of a file, else those the adapters were trained with, else published ones.

    Args:
        prompts: a JSON file of prompts.
        adapters: a file of adapters; where it cannot be read, whoever loads it says so.

    Raises:
        SettingError: the file of prompts cannot be used.
    """
    if prompts is not None:
        return PromptTable.read(prompts)
    if adapters is not None and Path(adapters).is_file():
        try:
            record = read_adapters(adapters)[1]
        except WeightsError:
            return PromptTable.published()
        return record.prompts or PromptTable.published()
    return PromptTable.published()


def class_prompts(name: str, table: PromptTable, dataset: str | None = None, free_text: bool = False) -> ClassPrompts:
    """Return the sentences about a class.

    Args:
        name: of the class, in capitals or not; with ``free_text`` anything that a picture can show.
        table: of states, templates and classes.
        dataset: whose class it is, where several data sets share a name.
        free_text: put a name that no data set has into the sentences as it is.

    Raises:
        SettingError: an unknown class; the sentence lists those known.
    """
    known = known_classes(table, dataset)
    match = name if name in known else next((one for one in known if one.casefold() == str(name).casefold()), None)
    if match is not None:
        return table.of_class(match, dataset)
    if free_text:
        return table.of_name(str(name))
    raise SettingError(
        f"class {name!r}: unknown{f' in {dataset}' if dataset else ''}; choose one of {', '.join(known)}, or let the "
        "name itself stand in the sentences with free_text (--free-text)",
        code="setting.class",
    )


def known_classes(table: PromptTable, dataset: str | None = None) -> list[str]:
    """List the classes of one data set, or of all, and the special ones.

    Raises:
        SettingError: an unknown data set.
    """
    names = [dataset] if dataset is not None else list(table.datasets)
    return sorted({name for one in names for name in table.classes(one)} | set(table.special))


def domain_of(name: str, table: PromptTable, dataset: str | None = None) -> str:
    """Return the domain of a data set, or of those that have a class; ``"Medical"`` where that does not tell."""
    if dataset is not None:
        return table.domain(dataset)
    having = (names for names in table.datasets.values() if str(name).casefold() in map(str.casefold, names.real_names))
    domains = {names.domain for names in having}
    return domains.pop() if len(domains) == 1 else "Medical"


def offline_activation(architecture: Any, weights: str | None, activation: str) -> str:
    """Return the activation of a CLIP that is built before its weights are there.

    Args:
        architecture: see ``load_clip``.
        weights: that will be loaded.
        activation: see ``load_clip``; ``"weights"`` is looked up by the tag, without fetching anything.

    Raises:
        SettingError: a file of weights for an architecture that is trained with either, or no such weights.
    """
    if activation != "weights" or weights is None or not isinstance(architecture, str):
        return activation
    if architecture.endswith(".json") or architecture.startswith((HUB, FOLDER)):
        return activation
    tag = find_architecture(architecture).tag_of(weights)
    tags = [tag] if tag is not None else list_pretrained_tags_by_model(architecture)
    known = {bool(get_pretrained_cfg(architecture, tag).get("quick_gelu")) for tag in tags}
    if len(known) == 2:
        raise SettingError(
            f"{architecture}: a file does not say which activation its weights were trained with; give activation "
            "'quick_gelu' for OpenAI's weights and those derived from them, else 'gelu'",
            code="setting.activation",
        )
    return "quick_gelu" if known == {True} else "weights"


def open_localizer(
    localizer: AnomalyLocalizer,
    architecture: str | Mapping[str, Any],
    clip_weights: str | None,
    adapters: str | None,
    clip_sha256: str | None = None,
    cache_dir: str | None = None,
) -> AnomalyLocalizer:
    """Fill a localizer's CLIP with weights, and give it the adapters of a file, with their own settings.

    Args:
        localizer: built without weights; its CLIP is filled in place.
        architecture: of the CLIP, which a tag of open_clip belongs to.
        clip_weights: a tag such as ``"openai"``, or a file; ``None`` keeps the CLIP's random weights.
        adapters: a file that ``save_adapters`` wrote.
        clip_sha256: checksum of the file of weights, required for foreign TorchScript.
        cache_dir: where the weights of a tag are looked for and kept.

    Returns:
        A localizer for inference on the same CLIP.

    Raises:
        WeightsError: weights or adapters are missing or do not belong together.
        SettingError: no such weights, or a sentence with more tokens than the CLIP reads.
    """
    if adapters is None:
        raise WeightsError(
            "adapters: none given; train them with train.json, or give the file of somebody who did",
            code="weights.adapters",
        )
    clip = localizer.model.clip
    if clip_weights is not None:
        found = find_architecture(architecture)
        path = found.weights(clip_weights, cache_dir)[1]
        load_clip_weights(clip, path, sha256=clip_sha256, native_grid=found.native_grid)
    model, record = adapted_clip(clip, adapters)
    if record.stage == 1:
        raise WeightsError(
            f"{Path(adapters).name}: only stage 1 was trained, its image adapter does not fit these texts yet; give "
            "that of stage 2, such as OUTPUT/models/adapters.safetensors",
            code="weights.stage",
        )
    blur = (localizer.maps.kernel, localizer.maps.sigma)
    opened = AnomalyLocalizer(model, localizer.prompts, blur=blur, replay=localizer.replay)
    opened.eval().requires_grad_(False)
    check_prompts(clip, [localizer.prompts])
    return opened


def check_prompts(clip: ClipModel, prompts: Iterable[ClassPrompts]) -> None:
    """Refuse sentences that a CLIP cannot read whole, before a run meets them one by one.

    Raises:
        SettingError: a sentence has more tokens than the CLIP reads.
    """
    for one in prompts:
        if clip.tokenizer is not None:
            clip.tokenizer([*one.normal, *one.abnormal])


def case_score(largest: float, detection: float, domain: str) -> float:
    """Score a picture or volume from its largest log-odds and its detection, 0 to 1, by itself alone."""
    domain = "Medical" if np.isnan(detection) else domain
    # What image_scores takes is half the log-odds plus a half.
    maps = np.array([[[(largest + 1) / 2]]])
    return float(image_scores(maps, [detection], domain, 1)[0])


class LocalizationStep(GuardedStep):
    """A `GuardedStep` that localizes in one picture or volume a batch, with its class's prompts where it names one.

    The output holds ``image``, ``pred`` (log-odds, ``(1, 1, h, w)`` or ``(1, 1, x, y, z)`` with the image's place),
    ``score`` and ``detection`` (0 to 1; the latter NaN where the network gives none). A volume stays in the
    computer's memory; its slices travel to the device.

    Args:
        precision: see `choose_precision`.
        domain: chooses the score of a case, see ``monai_ext.metrics.image_scores``.
        prompts: of each class by name, for batches with a ``class_name``.
        before: called with the case and the fingerprint of its image; raises to refuse it before the network runs.
    """

    def __init__(
        self,
        precision: str = "auto",
        domain: str = "Medical",
        prompts: Mapping[str, ClassPrompts] | None = None,
        before: Callable[[str, str], Any] | None = None,
    ) -> None:
        super().__init__(precision)
        self.domain, self.prompts, self.before = domain, prompts, before

    def evaluate(self, engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Localize in one picture or volume that could be read."""
        image, volume = batch["image"], batch["kind"][0] != "picture"
        if self.before is not None:
            self.before(str(batch["case"][0]), str(image[0].meta["scan_sha256"]))
        found = self._localize(engine, image[0], {key: value[0] for key, value in batch.items() if key != "image"})
        pred = MetaTensor(found.anomaly[None, None])
        engine.state.output = {
            "image": image,
            "pred": pred.copy_meta_from(image) if volume else pred,
            "score": torch.tensor(
                [case_score(float(found.anomaly.max()), found.detection, self.domain)], dtype=torch.float64
            ),
            "detection": torch.tensor([found.detection], dtype=torch.float64),
            "skipped": torch.tensor([found.skipped]),
        }
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = engine.state.output
        return output

    def again(self, engine: Any, index: int) -> tuple[dict[str, Any], np.ndarray]:
        """Localize once more in one entry of the evaluator's data set.

        Returns:
            The entry as it was loaded, and its log-odds, ``(h, w)`` or ``(x, y, z)``.
        """
        item = engine.state.dataloader.dataset[index]
        return item, self._localize(engine, item["image"], item).anomaly.numpy()

    def _localize(self, engine: Any, image: torch.Tensor, entry: Mapping[str, Any]) -> Localized:
        network, device = bare(engine.network).eval(), engine.state.device
        if self.prompts is not None and "class_name" in entry:
            network.prompts = self.prompts[str(entry["class_name"])]
        spacing = [1.0] * 3 if entry["kind"] == "picture" else _spacing(image)
        with torch.no_grad(), autocast(choose_precision(self.precision, device), device):
            found: Localized = engine.inferer(
                plain_tensor(image), network, spacing, device=device, case=str(entry["case"])
            )
        return found


def _spacing(image: Any) -> list[float]:
    affine = np.asarray(image.affine, dtype=np.float64)
    return [float(edge) for edge in np.linalg.norm(affine.reshape(4, 4)[:3, :3], axis=0)]
