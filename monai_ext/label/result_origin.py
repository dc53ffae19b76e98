"""Where a result of the app came from: what a bundle's own inference writes into its provenance file."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_ext import bundle_path
from monai_ext.outputs.provenance import input_sha256, origin, weights_sha256, without_folders


def result_origin(parser: ConfigParser, bundle: str, configs: Sequence[str], image: Path) -> dict[str, Any]:
    """Return the entries of ``monai_ext.provenance.1`` for a result that begins now; ``seconds`` are still to come.

    Args:
        parser: the configuration with the settings of the request.
        bundle: its name.
        configs: names of its configurations, merged in this order.
        image: the file or series folder that the model is run on.
    """
    about = _described(bundle, configs[0])
    settings = {name: without_folders(parser.get_parsed_content(name)) for name in about["settings"]}
    weights = {name: parser.get_parsed_content(place[1:]) for name, place in about["weights"].items()}
    found = origin(
        bundle,
        "+".join(configs),
        settings,
        weights_sha256={name: _kept_sha256(path) for name, path in weights.items()},
        device=str(parser.get_parsed_content("device")),
        precision=parser.get_parsed_content("precision"),
    )
    ended = {"state": "completed", "cases_done": 1, "cases_failed": {}}
    return found | ended | {"inputs": {"image_sha256": input_sha256(image)}}


def _described(bundle: str, config: str) -> Mapping[str, Any]:
    """Return what the bundle's inference tells of itself: the handler of its configuration, as it stands there."""
    path = Path(bundle_path(bundle)) / "configs" / f"{config}.json"
    handlers = json.loads(path.read_text(encoding="utf-8"))["handlers"]
    found: Mapping[str, Any] = next(one for one in handlers if one["_target_"].endswith(".RunProvenance"))
    return found


def _kept_sha256(path: str | None) -> str | None:
    file = Path(path) if path is not None else None
    if file is None or not file.is_file():
        return None
    at = file.stat()
    return _sha256_at(str(file), at.st_mtime_ns, at.st_size)


@lru_cache(maxsize=16)  # a gigabyte of weights would be read anew for each request
def _sha256_at(path: str, mtime_ns: int, size: int) -> str | None:
    return weights_sha256(path)
