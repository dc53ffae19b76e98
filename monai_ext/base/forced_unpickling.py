"""The variable of the environment by which torch runs code from files of weights."""

import os

from monai_ext.base.errors import WeightsError

_FORCED = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def refuse_forced_unpickling() -> None:
    """Refuse to load weights while the environment tells torch to run what a pickle says.

    torch obeys an explicit ``weights_only=True``, as all loading here has it, before the variable; other libraries in
    this process may not ask.

    Raises:
        WeightsError: the variable is set.
    """
    if os.environ.get(_FORCED, "").lower() in ("1", "y", "yes", "true"):
        raise WeightsError(
            f"{_FORCED} is set, by which libraries run code from files of weights; unset it, then run again",
            code="weights.forced",
        )
