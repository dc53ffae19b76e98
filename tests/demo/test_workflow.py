"""A bundle that refuses something ends in the sentence, not in MONAI's wrapping of it."""

from pathlib import Path

import pytest

from monai_ext.base import SettingError
from monai_ext.demo.workflow import run_bundle


def test_what_a_bundle_refuses_is_its_own_sentence(tmp_path: Path) -> None:
    settings = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "batch_size": 0}
    with pytest.raises(SettingError, match=r"^batch_size: 0"):
        run_bundle("aa_clip_lesion_localization", ["train"], settings, True)
