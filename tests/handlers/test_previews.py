"""When pictures of reconstructions are due."""

from typing import Any

import pytest

from monai_ext.base import SettingError
from monai_ext.handlers import ReconstructionPreviews


@pytest.mark.parametrize("every", [0, -1, "two", 1.5])
def test_an_interval_that_is_no_number_of_epochs_is_refused(every: Any) -> None:
    with pytest.raises(SettingError, match=r"^preview_interval: .*; give a whole number of epochs, at least 1"):
        ReconstructionPreviews("previews", None, every=every)  # type: ignore[arg-type]
