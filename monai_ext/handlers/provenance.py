"""Telling beside each result, and of each run, where it came from."""

import json
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_ext.base import InputError, input_error_in, rank, world
from monai_ext.outputs.provenance import (
    data_sha256,
    input_sha256,
    origin,
    settings_sha256,
    weights_sha256,
    without_folders,
    write_provenance,
)


class RunProvenance:
    """Write ``provenance.json`` of a run when it starts and when it ends, and ``CASE_provenance.json`` beside results.

    A run that is killed leaves the state ``running``; one resumed with nothing left to do leaves the file of the run
    that completed as it is. The files hold base names, ids of cases and checksums, no
    other part of a path, no DICOM tag and no text of a warning. The first rank writes.

    Args:
        output_dir: the run's folder.
        bundle: name of the shipped bundle.
        config: name of its configuration, with which ``settings`` are compared; of several that are laid over one
            another ``"FIRST+SECOND"``.
        settings: what shapes the result, by the names of the configuration.
        device: of the run.
        precision: as the configuration has it.
        seed: of a training.
        weights: files of weights by what they are; ``None`` for one that is not given.
        inputs: the data set of an inference, whose ``data`` names each case's image; or the paths of a training's
            data, a list or a volume store, by name.
        step: the guarded step of an inference, which knows the cases that failed.
        raises: whether to hand on what the run failed of; ``False`` where a handler behind this one does.
        file: the run's file; a name of its own where another run's may lie in the folder.
        beside_results: ``False`` for a run that sums up its cases; its own file then holds one checksum over their
            files.
    """

    def __init__(
        self,
        output_dir: str,
        bundle: str,
        config: str,
        settings: Mapping[str, Any],
        device: Any,
        precision: str,
        seed: int | None = None,
        weights: Mapping[str, str | None] | None = None,
        inputs: Any = None,
        step: Any = None,
        raises: bool = True,
        file: str = "provenance.json",
        beside_results: bool = True,
    ) -> None:
        self.folder, self.raises = Path(output_dir), raises
        self.settings = {name: without_folders(value) for name, value in settings.items()}
        self.bundle, self.config, self.device = bundle, config, torch.device(device)
        self.precision, self.seed, self.weights = precision, seed, dict(weights or {})
        self.inputs, self.step = inputs, step
        self.file, self.beside_results = file, beside_results
        self._read: dict[str, str] = {}
        self.content: dict[str, Any] = {}
        self._warnings: Counter[str] = Counter()
        self._show: Any = None
        self._began = self._case_began = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer or evaluator, behind what resumes and before what prints last words."""
        engine.add_event_handler(Events.STARTED, self._start)
        if self.step is not None:
            engine.add_event_handler(Events.ITERATION_STARTED, self._begin_case)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_case)
        engine.add_event_handler(Events.COMPLETED, self._complete)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        self._began = time.monotonic()
        self._warnings.clear()
        self._read.clear()
        self.content = {}  # without it nothing is written at the end
        if rank() or self._is_done(engine):
            return
        self._show, warnings.showwarning = warnings.showwarning, self._count
        given = self.inputs if isinstance(self.inputs, Mapping) else None
        inputs = None if given is None else {f"{name}_sha256": data_sha256(path) for name, path in given.items()}
        self.content = origin(
            self.bundle,
            self.config,
            self.settings,
            weights_sha256={name: weights_sha256(path) for name, path in self.weights.items()},
            device=self._device(),
            precision=self.precision,
            ranks=world(),
            seed=self.seed,
        ) | {"inputs": inputs}
        write_provenance(self.folder / self.file, self.content)

    def _is_done(self, engine: Engine) -> bool:
        """Tell whether the run completed before, so that its file is not to tell of one that did nothing."""
        state = engine.state
        if not state.iteration or state.max_epochs is None or state.epoch < state.max_epochs:
            return False
        try:
            told = json.loads((self.folder / self.file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(told, dict) and told.get("state") == "completed"

    def _device(self) -> str:
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else "cpu"

    def _count(self, message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        self._warnings[category.__name__] += 1
        self._show(message, category, *place, **more)

    def _begin_case(self) -> None:
        self._case_began = time.monotonic()

    def _end_case(self, engine: Engine) -> None:
        if rank() or not self.step.done:
            return
        case = str(
            engine.state.batch[0]["case"] if isinstance(engine.state.batch, list) else engine.state.batch["case"][0]
        )
        folder = self.folder / case
        if self.step.done[-1] != case or (self.beside_results and not folder.is_dir()):
            return  # it failed, and left nothing
        item: Mapping[str, Any] = next((one for one in self.inputs.data if one["case"] == case), {})
        if not self.beside_results:
            files = (item[key] for key in ("image", "label", "mask") if item.get(key))
            self._read[case] = "".join(f"{input_sha256(file)}" for file in files)
            return
        about = {
            "state": "completed",
            "case": case,
            "seconds": round(time.monotonic() - self._case_began, 3),
            "inputs": {"image_sha256": input_sha256(item["image"]) if "image" in item else None},
            "warnings": dict(self._warnings),
        }
        write_provenance(folder / f"{case}_provenance.json", self.content | about)

    def _complete(self) -> None:
        self._end("completed", None)

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._end("failed", error)
        if self.raises:
            raise error

    def _end(self, state: str, error: BaseException | None) -> None:
        if rank() or not self.content:
            return
        warnings.showwarning = self._show
        ours: InputError | None = input_error_in(error)
        self.content |= {
            "state": state,
            "seconds": round(time.monotonic() - self._began, 3),
            "warnings": dict(self._warnings),
            # The text of a foreign error may hold a path.
            "error": None if error is None else ours.code if ours else type(error).__name__,
        }
        if self.step is not None:
            self.content |= {"cases_done": len(self.step.done), "cases_failed": dict(self.step.failures)}
        if not self.beside_results:
            self.content["inputs"] = {"cases_sha256": settings_sha256(self._read)}
        write_provenance(self.folder / self.file, self.content)
