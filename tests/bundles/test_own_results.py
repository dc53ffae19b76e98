"""Results written into the folder of the scans are not taken for scans by the next run."""

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

import monai_ext


@pytest.mark.parametrize("bundle", ["hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"])
def test_inference_passes_its_output_folder_over(bundle: str, tmp_path: Path) -> None:
    for name in ("scan.nii.gz", "out/scan/scan_reconstruction.nii.gz", "out/scan/other.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    parser = ConfigParser()
    parser.read_config(Path(monai_ext.bundle_path(bundle)) / "configs" / "inference.json")
    parser.update({"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")})
    assert [item["case"] for item in parser.get_parsed_content("dataset").data] == ["scan"]
