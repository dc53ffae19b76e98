"""Inference over a batch of scans of which some may be unusable."""

import logging
from collections.abc import Mapping
from typing import Any

from monai_ext.base import InputError
from monai_ext.engines.scans import plain_errors, some
from monai_ext.engines.steps import EvaluationStep


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
