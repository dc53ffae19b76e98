"""Running a trainer such that its machine can be taken away."""

from typing import Any

from monai_ext.base import leave_folders, stop_on_signals
from monai_ext.handlers import close_curves


def run_training(trainer: Any, patience_s: float = 5.0) -> None:
    """Run a trainer; on SIGTERM or SIGUSR1 its `RunCheckpoints` saves at the end of the step and ends with code 75.

    However the run ends, its curves are then closed and its folder is free for another one.

    Args:
        trainer: anything with ``run()``.
        patience_s: see :func:`monai_ext.base.stop_on_signals`.
    """
    try:
        with stop_on_signals(patience_s):
            trainer.run()
    finally:
        close_curves()
        leave_folders()
