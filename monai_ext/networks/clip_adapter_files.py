"""Files of adapters alone: safetensors that say which CLIP they belong to, and the authors' own."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from monai_ext._version import __version__
from monai_ext.base import InputError, WeightsError, replacing
from monai_ext.networks.aa_clip import AAClip
from monai_ext.networks.checkpoint_content import check_file, read_content
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
    """

    clip: str
    clip_sha256: str
    activation: str
    settings: Mapping[str, Any]
    prompts: PromptTable | None
    package_version: str
    sha256: str


def save_adapters(model: AAClip, path: str | os.PathLike[str], prompts: PromptTable | None = None) -> AdapterRecord:
    """Write the adapters of both stages, and read them back.

    Args:
        model: whose adapters to write.
        path: a safetensors file.
        prompts: the sentences that the text adapter was trained with.

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
    with replacing(path, lambda written: _verify(read_adapters(written)[1], record)) as temporary:
        safetensors.torch.save_file(tensors, temporary, texts)
    return record


def read_adapters(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], AdapterRecord]:
    """Read a file that :func:`save_adapters` wrote.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    check_file(path)
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
    _fill(model.adapters, tensors, name)
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


def import_adapters(
    model: AAClip,
    text: str | os.PathLike[str] | None = None,
    image: str | os.PathLike[str] | None = None,
) -> None:
    """Load the authors' adapter files, ``text_adapter.pth`` and ``image_adapter_*.pth``.

    They do not say which CLIP and settings they belong to: the published ones are those of ViT-L-14-336 with
    OpenAI's weights, ``activation="gelu"`` and the defaults of :class:`AAClip`.

    Args:
        model: changed in place, but only if everything fits.
        text: the file of stage 1.
        image: the file of stage 2.

    Raises:
        WeightsError: a file cannot be read, or a tensor is missing, unknown or of another shape.
    """
    tensors: dict[str, Tensor] = {}
    for part, path in (("text_adapter", text), ("image_adapter", image)):
        if path is not None:
            content = read_content(path)
            if isinstance(content, Mapping) and isinstance(content.get(part), Mapping):
                content = content[part]
            found = {f"{part}.{name}": tensor for name, tensor in _named_tensors(content, Path(path).name).items()}
            own = {name: value for name, value in model.adapters.state_dict().items() if name.startswith(f"{part}.")}
            _check_fit(own, found, Path(path).name)
            tensors |= found
    model.adapters.load_state_dict(tensors, strict=False)


def clip_fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 that tells CLIPs apart: all names and shapes, all vectors, the first row of every matrix.

    Hashing every value would take seconds for a large model. Positions are known by the class row alone, so
    that a CLIP keeps its fingerprint when it is loaded for images of another size.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        resized = name == "visual.positional_embedding"
        digest.update(f"{name} {list(tensor.shape[1:] if resized else tensor.shape)} ".encode())
        row = tensor if tensor.ndim < 2 else tensor[0]
        digest.update(row.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and values in float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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


def _named_tensors(content: Any, source: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{source}: holds no adapter of AA-CLIP; give text_adapter.pth as text, image_adapter_*.pth as image",
            code="weights.adapters",
        )
    return {str(name): tensor for name, tensor in content.items()}


def _fill(adapters: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    _check_fit(adapters.state_dict(), tensors, source)
    adapters.load_state_dict(dict(tensors))


def _check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    for kind, names in (("missing", own.keys() - tensors.keys()), ("unknown to it", tensors.keys() - own.keys())):
        if names:
            raise WeightsError(
                f"{source}: {min(names)} is {kind}; build AAClip with the text_adapt_until, image_adapt_until, levels "
                "and relu of the training",
                code="weights.names",
            )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}: {name} has shape {list(tensor.shape)}, the model needs {list(own[name].shape)}; "
                "give the CLIP that the adapters were trained beside",
                code="weights.shape",
            )
        if not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{source}: {name} holds NaN or infinite numbers; use an earlier file", code="weights.nonfinite"
            )
