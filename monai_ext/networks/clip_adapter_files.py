"""Files of adapters alone: safetensors that say which CLIP they belong to."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from monai_ext._version import __version__
from monai_ext.base import InputError, WeightsError, replacing_weights, save_tensors, verify_digest
from monai_ext.networks.aa_clip import AAClip
from monai_ext.networks.checkpoint_content import check_file
from monai_ext.networks.clip_adapter_import import check_adapters
from monai_ext.networks.clip_fingerprint import clip_fingerprint, tensors_sha256
from monai_ext.networks.clip_models import ClipModel
from monai_ext.networks.clip_prompts import PromptTable

_FORMAT = "monai_ext.aa_clip_adapters.1"
_TEXTS = ("format", "package_version", "clip", "clip_sha256", "activation", "settings", "prompts", "sha256")
_TRAINING_ONLY = ("vv_blocks", "vv_axis")  # say how stage 1 was run, and change nothing afterwards


@dataclass(frozen=True)
class AdapterRecord:
    """What a file of adapters says of itself.

    Attributes:
        clip: tag of the CLIP they were trained beside.
        clip_sha256: see :func:`clip_fingerprint`.
        activation: of that CLIP.
        settings: arguments of :class:`AAClip`.
        prompts: the sentences of the training; ``None`` if they were not given.
        package_version: of this package when the file was written.
        sha256: of the adapters' names, shapes and values.
        stage: that was trained last: after 1 the image adapter does not fit yet; ``None`` where the file does not say.
    """

    clip: str
    clip_sha256: str
    activation: str
    settings: Mapping[str, Any]
    prompts: PromptTable | None
    package_version: str
    sha256: str
    stage: int | None = None


def save_adapters(
    model: AAClip, path: str | os.PathLike[str], prompts: PromptTable | None = None, stage: int | None = None
) -> AdapterRecord:
    """Write the adapters of both stages and the file's checksum, and read them back.

    Args:
        model: whose adapters to write.
        path: a safetensors file.
        prompts: the sentences that the text adapter was trained with.
        stage: that was trained last, 1 or 2, if known.

    Raises:
        WriteError: the file could not be written.
    """
    # Own memory for each: safetensors refuses views.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.adapters.state_dict().items()}
    record = AdapterRecord(
        model.clip.tag,
        clip_fingerprint(model.clip.model),
        model.clip.activation,
        model.settings(),
        prompts,
        __version__,
        tensors_sha256(tensors),
        stage,
    )
    texts = {
        "format": _FORMAT,
        "package_version": record.package_version,
        "clip": record.clip,
        "clip_sha256": record.clip_sha256,
        "activation": record.activation,
        "settings": json.dumps(record.settings),
        "prompts": json.dumps(None if prompts is None else prompts.to_dict()),
        "sha256": record.sha256,
    }
    if stage is not None:
        texts["stage"] = str(stage)
    with replacing_weights(path, lambda written: _verify(_read(written)[1], record)) as temporary:
        save_tensors(tensors, temporary, texts)
    return record


def read_adapters(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], AdapterRecord]:
    """Read a file that :func:`save_adapters` wrote.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    check_file(path)
    verify_digest(path)
    return _read(path)


def _read(path: Path) -> tuple[dict[str, Tensor], AdapterRecord]:
    try:
        with safe_open(path, "pt") as stored:
            texts = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        if texts.get("format") != _FORMAT or not set(_TEXTS) <= texts.keys():
            raise ValueError("another kind of file")
        prompts = json.loads(texts["prompts"])
        record = AdapterRecord(
            texts["clip"],
            texts["clip_sha256"],
            texts["activation"],
            json.loads(texts["settings"]),
            None if prompts is None else PromptTable.from_dict(prompts),
            texts["package_version"],
            texts["sha256"],
            int(texts["stage"]) if "stage" in texts else None,
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path.name}: no file of AA-CLIP adapters, or a damaged one; give one that save_adapters wrote "
            "(import_adapters reads the authors' .pth files)",
            code="weights.adapters",
        ) from error
    if tensors_sha256(tensors) != record.sha256:
        raise WeightsError(
            f"{path.name}: the adapters do not have the sha256 that the file gives; copy or download it again",
            code="weights.sha256",
        )
    return tensors, record


def load_adapters(model: AAClip, path: str | os.PathLike[str]) -> AdapterRecord:
    """Load both adapters into a model with the CLIP and the settings they were trained with.

    Args:
        model: changed in place, but only if everything fits.
        path: a file that :func:`save_adapters` wrote.

    Raises:
        WeightsError: the file cannot be read, or belongs to another CLIP, activation or settings.
    """
    tensors, record = read_adapters(path)
    name = Path(path).name
    _check_clip(model.clip, record, name)
    own = model.settings()
    for setting in own:
        if setting not in _TRAINING_ONLY and own[setting] != record.settings.get(setting):
            raise WeightsError(
                f"{name}: trained with {setting} {record.settings.get(setting)}, the model has {own[setting]}; "
                "build it with adapted_clip, which takes the settings of the file",
                code="weights.settings",
            )
    check_adapters(model.adapters.state_dict(), tensors, name)
    model.adapters.load_state_dict(tensors)
    return record


def adapted_clip(clip: ClipModel, path: str | os.PathLike[str]) -> tuple[AAClip, AdapterRecord]:
    """Build a model with the settings of a file of adapters, and load them.

    Args:
        clip: the CLIP they were trained beside.
        path: a file that :func:`save_adapters` wrote.

    Raises:
        WeightsError: the file cannot be read, or belongs to another CLIP.
    """
    _, record = read_adapters(path)
    _check_clip(clip, record, Path(path).name)
    try:
        model = AAClip(clip, **record.settings)
    except (TypeError, InputError) as error:
        raise WeightsError(
            f"{Path(path).name}: its settings do not fit this version ({error}); train again, or use version "
            f"{record.package_version}",
            code="weights.settings",
        ) from error
    return model, load_adapters(model, path)


def _verify(written: AdapterRecord, record: AdapterRecord) -> None:
    if written != record:
        raise WeightsError(
            "adapters: what was written does not read back; check the disk and write again", code="weights.verify"
        )


def _check_clip(clip: ClipModel, record: AdapterRecord, source: str) -> None:
    if clip.activation != record.activation:
        raise WeightsError(
            f"{source}: trained with {record.activation}, the CLIP runs {clip.activation}; "
            f"load the CLIP with activation={record.activation!r}",
            code="weights.activation",
        )
    if clip_fingerprint(clip.model) != record.clip_sha256:
        raise WeightsError(
            f"{source}: trained beside the CLIP {record.clip}, this one is {clip.tag} with other weights; "
            "load the CLIP of the adapters, or train adapters for this one",
            code="weights.clip",
        )
