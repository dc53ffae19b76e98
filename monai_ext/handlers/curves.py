"""The curves of a run for TensorBoard, in one file that is closed when the run ends."""

import logging
from typing import Any

_open: list["CurveFile"] = []


class CurveFile:
    """A ``SummaryWriter`` for MONAI's TensorBoard handlers: opened by the first curve, closed by the end of the run.

    A writer that MONAI's handlers make themselves keeps its file and its thread until the process ends, even of a run
    that was refused before its first step. Here trainer and evaluator share one file.

    Args:
        folder: of TensorBoard; made when absent.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._writer: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._opened(), name)

    def flush(self) -> None:
        """Bring what was added to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the file; more curves would open another one."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        _open.remove(self)
        try:
            writer.close()
        except OSError as error:  # the flush after a curve has raised already what was lost, and may end the run now
            logging.getLogger(__name__).warning(f"tensorboard: the curves could not be closed ({error.strerror})")

    def _opened(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to load: for runs that draw curves alone

            self._writer = SummaryWriter(log_dir=self.folder)
            _open.append(self)
        return self._writer


def close_curves() -> None:
    """Close the curve files that this process has open."""
    for file in list(_open):
        file.close()
