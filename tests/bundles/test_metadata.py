"""Every bundle satisfies the schema, names its parts by dotted paths, and holds no Python."""

import json
from pathlib import Path

import pytest
import torch
from jsonschema import validate
from monai.bundle import ConfigParser

import monai_ext

VOLUME_BUNDLES = ["hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"]
BUNDLES = [*VOLUME_BUNDLES, "aa_clip_lesion_localization"]


@pytest.mark.parametrize("name", BUNDLES)
def test_metadata_fits_the_published_schema(name: str, shared_facts: Path) -> None:
    schema = json.loads((shared_facts / "monai_meta_schema_20240725.json").read_text())
    validate(json.loads((Path(monai_ext.bundle_path(name)) / "configs" / "metadata.json").read_text()), schema)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_is_numbers_not_behaviour(name: str) -> None:
    root = Path(monai_ext.bundle_path(name))
    assert not list(root.rglob("*.py"))
    for part in ("LICENSE", "large_files.yml", "docs/README.md", "configs/logging.conf", "configs/metadata.json"):
        assert (root / part).is_file(), part
    for path in (root / "configs").glob("*.json"):
        for target in _targets(json.loads(path.read_text())):
            assert "." in target, f"{path.name}: {target} is no dotted path"


def _targets(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [t for value in node.values() for t in _targets(value)]
    if isinstance(node, list):
        return [t for value in node for t in _targets(value)]
    return []


@pytest.mark.parametrize("name", VOLUME_BUNDLES)
def test_inference_network_keeps_the_promise_of_the_metadata(name: str) -> None:
    root = Path(monai_ext.bundle_path(name)) / "configs"
    parser = ConfigParser()
    parser.read_config([str(root / "inference.json"), str(root / "tiny.json")])
    parser["labels"] = {str(n): str(n) for n in range(14)}
    network = parser.get_parsed_content("network_def").eval()
    promise = json.loads((root / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    with torch.inference_mode():
        output = network(torch.rand(2, 1, 48, 48, 48))
    assert output.shape == (2, promise["num_channels"], 48, 48, 48)
    assert str(output.dtype) == f"torch.{promise['dtype']}"
