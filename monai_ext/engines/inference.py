"""Inference over a batch of scans of which some may be unusable."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch
from torch import nn

from monai_ext.base import InputError
from monai_ext.engines.scans import plain_errors, some
from monai_ext.engines.steps import EvaluationStep
from monai_ext.inferers import segment


class GuardedStep(EvaluationStep):
    """An `EvaluationStep` that notes a scan's failure and goes on with the next scan.

    Use it with `GuardedScans`, one scan a batch; postprocessing and writing are guarded too. Call
    `finish` at the end of the run, or failures stay unseen by whoever started it.

    Args:
        precision: see `choose_precision`.
    """

    def __init__(self, precision: str = "auto") -> None:
        super().__init__(precision)
        self.failures: dict[str, str] = {}
        self.done: list[str] = []

    def __call__(self, engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Run one scan through the inferer and the evaluator's postprocessing."""
        case = str(batch["case"][0])
        if "failure" in batch:
            self._note(case, str(batch["failure"][0]))
            return {}
        try:
            with plain_errors(case):
                output = self.evaluate(engine, batch)
        except InputError as error:
            self._note(case, str(error))
            return {}
        self.done.append(case)
        return output

    def evaluate(self, engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate one scan that could be read; an `InputError` becomes its failure."""
        return super().__call__(engine, batch)

    def finish(self) -> list[str]:
        """Return the cases done.

        Raises:
            InputError: some failed; each is named with its reason, of a great many the first (all are logged).
        """
        if self.failures:
            total = len(self.failures) + len(self.done)
            raise InputError(
                f"{len(self.failures)} of {total} scans failed: {some(list(self.failures.values()))}",
                code="inference.failed",
            )
        return self.done

    def _note(self, case: str, sentence: str) -> None:
        self.failures[case] = sentence
        logging.getLogger("monai_ext").error(sentence)


class GuardedSegmentation(GuardedStep):
    """A `GuardedStep` that gives ``(1, x, y, z)`` labels on the scan's own grid instead of logits on the network's.

    The evaluator's inferer must be a ``monai_ext.inferers.BrickInferer``: logits are taken to the scan's grid, compared
    and forgotten brick by brick, see ``monai_ext.inferers.segment``. Labels are of the image's scan as it was read, so
    that nothing is left to be inverted.

    Args:
        precision: see `choose_precision`.
        entropy: also give ``entropy``, how uncertain the network is, in nats a voxel.
    """

    def __init__(self, precision: str = "auto", entropy: bool = False) -> None:
        super().__init__(precision)
        self.entropy = entropy
        self._found: float | None = None

    def predict(self, image: torch.Tensor, network: nn.Module, inferer: Any) -> MetaTensor:
        """Return the labels of the one scan of a batch."""
        found = segment(decollate_batch(image)[0], network, inferer, entropy=self.entropy)
        self._found = found.entropy
        labels = MetaTensor(torch.from_numpy(found.labels)[None, None]).copy_meta_from(image)
        labels.affine = torch.from_numpy(found.affine)[None]
        return labels

    def told(self) -> dict[str, Any]:
        """Return the entropy, when asked for."""
        return {"entropy": torch.tensor([self._found])} if self.entropy else {}
