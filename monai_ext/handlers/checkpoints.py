"""Saving a run so that it can go on as if never interrupted, and keeping its best model."""

import math
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from monai_ext.base import (
    REQUEUE,
    InputError,
    RunError,
    SettingError,
    WeightsError,
    bare,
    gather,
    hold_folder,
    is_parted,
    own_part_is_finite,
    parted,
    rank,
    remove_weights,
    replacing_weights,
    save_torch,
    stop_asked,
    whole,
)
from monai_ext.handlers.quarantine import Quarantine
from monai_ext.handlers.run_files import (
    Resume,
    checkpoint_path,
    find_checkpoint,
    resume_way,
    saved_checkpoints,
)
from monai_ext.handlers.run_record import DataRecord, compare_data, compare_settings, make_record


class BestModel:
    """Write ``model.pt`` whenever a validation beats all earlier ones; attach it to the evaluator.

    The best value is part of the run's checkpoints, so a resumed run does not replace a better model.

    Args:
        folder: where ``model.pt`` is written, as a plain ``state_dict``.
        network: the network trained.
        metric: name of a scalar in the evaluator's ``state.metrics``.
        smaller_is_better: ``True`` for losses.
    """

    def __init__(self, folder: str, network: nn.Module, metric: str, smaller_is_better: bool = False) -> None:
        self.path = Path(folder) / "model.pt"
        self.network, self.metric, self.smaller_is_better = network, metric, smaller_is_better
        self.best: float | None = None
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Compare after every validation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the metric with the best so far; NaN (nothing to measure) never wins."""
        value = float(engine.state.metrics[self.metric])
        better = self.best is None or (value < self.best if self.smaller_is_better else value > self.best)
        if math.isnan(value) or not better:
            return
        self.best, self.epoch = value, engine.state.epoch
        # Parted weights are put together by all ranks.
        if rank() == 0 or is_parted(bare(self.network)):
            self.write()

    def write(self) -> None:
        """Write the network as it is now; the first rank does."""
        weights = whole(bare(self.network).state_dict())
        if rank() == 0:
            with replacing_weights(self.path) as temporary:
                save_torch(weights, temporary)

    def bring(self, folder: Path) -> None:
        """Copy the best model from the folder of the checkpoint that a run goes on from, where this one has none."""
        source = folder / self.path.name
        if rank() == 0 and self.best is not None and source.exists() and not self.path.exists():
            with replacing_weights(self.path) as temporary:
                shutil.copyfile(source, temporary)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and its epoch."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the best value and its epoch."""
        self.best, self.epoch = state["best"], state["epoch"]


class RunCheckpoints:
    """Write everything a run needs to go on, every ``every`` iterations and at its end, and restore it.

    Random numbers are not saved: they derive from (seed, epoch, index) and (seed, iteration). On the
    CPU a resumed run ends with the same weights, bit for bit. Attach it after validation, so that an
    epoch's last checkpoint knows that validation's result. Gradients are not saved either: where they are added up
    over several batches, a checkpoint that falls due is written after the step of the optimiser.

    Within :func:`monai_ext.base.stop_on_signals` a signal to any rank has all of them save at the end of the step,
    and end with exit code 75. One that comes during a validation waits for its end.

    From the start on no other process can run into the folder, until :func:`monai_ext.base.leave_folders` (as at the
    end of ``run_training``) or the end of the first rank's process, however it ends.

    Args:
        folder: where ``checkpoint_iteration=N.pt`` files lie, each with its ``.sha256``.
        objects: what to save under which name; each has ``state_dict`` and ``load_state_dict``.
        every: iterations between checkpoints.
        keep: how many of the newest are kept.
        resume: ``True`` continues from the newest checkpoint in the folder, a path from that file, ``"auto"`` from
            the newest that is undamaged, or starts afresh where there is none; ``False`` starts afresh and refuses a
            folder that holds another run.
        settings: that must be the same when the run goes on, by name; the number of ranks always is among them.
        data: name and checksum of each training scan, see ``filed_data`` and ``stored_data``; must be the same too.

    Raises:
        RunError: when the run starts: another process runs into the folder.
        SettingError: when the run starts: nothing to resume, a run already there, another epoch length, other settings
            or other data.
        WeightsError: when the run starts: the checkpoint is damaged or fits another network.
    """

    def __init__(
        self,
        folder: str,
        objects: Mapping[str, Any],
        every: int,
        keep: int = 2,
        resume: Resume = False,
        settings: Mapping[str, Any] | None = None,
        data: DataRecord | None = None,
    ) -> None:
        if every < 1 or keep < 1:
            raise SettingError(
                f"checkpoints: every {every} iterations, keeping {keep}; both must be at least 1",
                code="setting.checkpoints",
            )
        self.folder, self.objects = Path(folder), dict(objects)
        self.every, self.keep, self.resume = every, keep, resume_way(resume)
        self.settings, self.data = dict(settings or {}), data
        self._due = False
        self._written: int | None = None

    def attach(self, engine: Engine) -> None:
        """Restore when the run starts; save while it runs and when it ends."""
        engine.add_event_handler(Events.STARTED, self._restore)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        engine.add_event_handler(Events.COMPLETED, self._after_run)

    def save(self, engine: Engine, epoch_done: bool = True) -> None:
        """Write one checkpoint (first rank only) and remove those beyond ``keep``.

        Args:
            engine: the trainer.
            epoch_done: ``False`` at the end of an epoch whose validation is still to come.

        Raises:
            RunError: the weights are not finite; the checkpoints written before stay.
        """
        self._refuse_bad_weights(engine.state.iteration)
        self._due = False
        # On every rank, for a state may be gathered from all of them.
        content = {name: whole(bare(item).state_dict()) for name, item in self.objects.items()}
        self._written = engine.state.iteration if epoch_done else None
        if rank():
            return
        content["progress"] = {
            "iteration": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "epoch_done": epoch_done,
            **make_record(self.settings, self.data),
        }
        with replacing_weights(checkpoint_path(self.folder, engine.state.iteration)) as temporary:
            save_torch(content, temporary)
        for _, path in saved_checkpoints(self.folder)[: -self.keep]:
            remove_weights(path)

    def _refuse_bad_weights(self, iteration: int) -> None:
        # A gradient that is not finite may come of a finite loss, and where none is clipped nobody else looks at it.
        networks = [item for item in self.objects.values() if isinstance(item, nn.Module)]
        # Of parted weights each rank sees its own; one that went on alone would wait for the others without end.
        if all(gather(all(map(own_part_is_finite, networks)))):
            return
        raise RunError(
            f"iteration {iteration}: the weights are not finite, so that no checkpoint of them is written; resume from "
            "the one before, set clip_norm, or start anew with a lower learning rate",
            code="run.weights",
        )

    def _after_iteration(self, engine: Engine) -> None:
        self._due |= engine.state.iteration % self.every == 0
        # Amid a window the sum of the gradients so far is in no checkpoint.
        if not all(getattr(item, "between_steps", True) for item in self.objects.values()):
            return
        stop = _anyone_asked()
        last = engine.state.iteration % engine.state.epoch_length == 0
        # The last iteration of an epoch is saved after validation, whose best value belongs into the file; a
        # stop does not wait for it, so that the run that goes on has it before it.
        if stop or (self._due and not last):
            self.save(engine, epoch_done=not last)
        if stop:
            self._leave(engine, stop)

    def _after_epoch(self, engine: Engine) -> None:
        stop = _anyone_asked()
        if stop or self._due:
            self.save(engine)
        if stop:
            self._leave(engine, stop)

    def _after_run(self, engine: Engine) -> None:
        if self._written != engine.state.iteration:
            self.save(engine)

    def _leave(self, engine: Engine, signal_name: str) -> None:
        gather(None)  # when one rank ends torchrun ends the others, of which the first is writing
        if rank() == 0:
            print(
                f"\nstopped by {signal_name} after iteration {engine.state.iteration}, whose checkpoint is written; "
                "go on with --resume true",
                file=sys.stderr,
            )
        raise SystemExit(REQUEUE)

    def _restore(self, engine: Engine) -> None:
        if self.resume is True and not self.folder.is_dir():
            find_checkpoint(self.folder, self.resume)  # refused before the lock makes the folder
        self._keep_others_out()
        found = find_checkpoint(self.folder, self.resume)
        if found is None:
            return
        path, content = found
        wanted = {*self.objects, "progress"}
        if set(content) != wanted:
            raise WeightsError(
                f"{path.name}: holds {', '.join(sorted(content))} and this run needs "
                f"{', '.join(sorted(wanted))}; resume with the configuration that wrote it",
                code="weights.run",
            )
        progress = content["progress"]
        record = make_record(self.settings, self.data)
        compare_settings(progress, record, path.name)
        if progress["epoch_length"] != engine.state.epoch_length:
            raise SettingError(
                f"{path.name}: was written with {progress['epoch_length']} iterations an epoch and this run "
                f"has {engine.state.epoch_length}; resume with the same data, batch size and number of ranks",
                code="setting.resume",
            )
        bad = self._bad_scans()
        self._load(content, path.name)
        compare_data(progress, record, bad | self._bad_scans(), path.name)
        for item in self.objects.values():
            if isinstance(item, BestModel):
                item.bring(path.parent)
        engine.state.iteration = progress["iteration"]
        engine.state.epoch = progress["iteration"] // progress["epoch_length"]
        if not progress.get("epoch_done", True):
            # What was left out of the epoch's end: validation, its line of history.
            self._due = True
            engine.fire_event(Events.EPOCH_COMPLETED)
        elif path.parent.absolute() == self.folder.absolute():
            self._written = engine.state.iteration  # a run that was done is not written again

    def _keep_others_out(self) -> None:
        refused: InputError | None = None
        if rank() == 0:
            try:
                hold_folder(self.folder)
            except InputError as error:
                refused = error
        refused = gather(refused)[0]  # on every rank, or those that are not the first would train on and wait
        if refused is not None:
            raise refused

    def _bad_scans(self) -> set[str]:
        # Those of the list's file, and once it is loaded those of the checkpoint.
        lists = [item for item in self.objects.values() if isinstance(item, Quarantine)]
        return {name for one in lists for name in one.bad_scans()}

    def _load(self, content: Mapping[str, Any], place: str) -> None:
        for name, item in self.objects.items():
            try:
                bare(item).load_state_dict(parted(content[name], bare(item)))
            except InputError as error:
                raise type(error)(f"{place}: {error}", code=error.code) from error
            except (RuntimeError, ValueError, KeyError) as error:
                raise WeightsError(
                    f"{place}: {name!r} fits another configuration "
                    f"({_first_reason(error)}); resume with the one that wrote it",
                    code="weights.run",
                ) from error


def _anyone_asked() -> str:
    """Return the signal that asks this rank or another one to stop, or nothing; every rank must call it."""
    return next(filter(None, gather(stop_asked())), "")


def _first_reason(error: Exception) -> str:
    # torch puts a headline before its list of misfits.
    headline, *reasons = str(error).strip().splitlines()
    return textwrap.shorten(reasons[0] if reasons and headline.endswith(":") else headline, 200).rstrip(".")
