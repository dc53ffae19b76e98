"""Saving a run so that it can go on as if never interrupted, and keeping its best model."""

import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_ext.base import InputError, SettingError, WeightsError, bare, rank, replacing, save_torch

_NAME = re.compile(r"checkpoint_iteration=(\d+)\.pt")


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
        if rank() == 0:
            self.write()

    def write(self) -> None:
        """Write the network as it is now."""
        with replacing(self.path) as temporary:
            save_torch(bare(self.network).state_dict(), temporary)

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
    epoch's last checkpoint knows that validation's result.

    Args:
        folder: where ``checkpoint_iteration=N.pt`` files lie.
        objects: what to save under which name; each has ``state_dict`` and ``load_state_dict``.
        every: iterations between checkpoints.
        keep: how many of the newest are kept.
        resume: ``True`` continues from the newest checkpoint in the folder, a path from that file,
            ``False`` starts afresh and refuses a folder that holds another run.

    Raises:
        SettingError: when the run starts: nothing to resume, a run already there, or another epoch length.
        WeightsError: when the run starts: the checkpoint cannot be read or fits another network.
    """

    def __init__(
        self, folder: str, objects: Mapping[str, Any], every: int, keep: int = 2, resume: bool | str = False
    ) -> None:
        if every < 1 or keep < 1:
            raise SettingError(
                f"checkpoints: every {every} iterations, keeping {keep}; both must be at least 1",
                code="setting.checkpoints",
            )
        self.folder, self.objects = Path(folder), dict(objects)
        self.every, self.keep = every, keep
        # On the command line of MONAI's bundles true and false arrive as text.
        self.resume = {"true": True, "false": False}.get(str(resume).lower(), resume)
        self._due = False

    def attach(self, engine: Engine) -> None:
        """Restore when the run starts; save while it runs and when it ends."""
        engine.add_event_handler(Events.STARTED, self._restore)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self._mark)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_if_due)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write one checkpoint (first rank only) and remove those beyond ``keep``."""
        self._due = False
        # On every rank, for a state may be gathered from all of them.
        content = {name: bare(item).state_dict() for name, item in self.objects.items()}
        if rank():
            return
        content["progress"] = {"iteration": engine.state.iteration, "epoch_length": engine.state.epoch_length}
        with replacing(self.folder / f"checkpoint_iteration={engine.state.iteration}.pt") as temporary:
            save_torch(content, temporary)
        for _, path in _saved(self.folder)[: -self.keep]:
            path.unlink(missing_ok=True)

    def _mark(self, engine: Engine) -> None:
        # The last iteration of an epoch is saved after validation, whose best value belongs into the file.
        self._due = engine.state.iteration % engine.state.epoch_length == 0
        if not self._due:
            self.save(engine)

    def _save_if_due(self, engine: Engine) -> None:
        if self._due:
            self.save(engine)

    def _restore(self, engine: Engine) -> None:
        path = self._source()
        if path is None:
            return
        content = _read(path)
        wanted = {*self.objects, "progress"}
        if set(content) != wanted:
            raise WeightsError(
                f"{path.name}: holds {', '.join(sorted(content))} and this run needs "
                f"{', '.join(sorted(wanted))}; resume with the configuration that wrote it",
                code="weights.run",
            )
        progress = content["progress"]
        if progress["epoch_length"] != engine.state.epoch_length:
            raise SettingError(
                f"{path.name}: was written with {progress['epoch_length']} iterations an epoch and this run "
                f"has {engine.state.epoch_length}; resume with the same data, batch size and number of ranks",
                code="setting.resume",
            )
        for name, item in self.objects.items():
            try:
                bare(item).load_state_dict(content[name])
            except InputError as error:
                raise type(error)(f"{path.name}: {error}", code=error.code) from error
            except (RuntimeError, ValueError, KeyError) as error:
                raise WeightsError(
                    f"{path.name}: {name!r} fits another configuration "
                    f"({_first_reason(error)}); resume with the one that wrote it",
                    code="weights.run",
                ) from error
        engine.state.iteration = progress["iteration"]
        engine.state.epoch = progress["iteration"] // progress["epoch_length"]

    def _source(self) -> Path | None:
        saved = _saved(self.folder)
        if isinstance(self.resume, str):
            return Path(self.resume)
        if self.resume and not saved:
            raise SettingError(
                f"resume: {self.folder.name!r} holds no checkpoint_iteration=N.pt; "
                "start without resume, or name the checkpoint's path",
                code="setting.resume",
            )
        if not self.resume and saved:
            raise SettingError(
                f"resume: {self.folder.name!r} already holds a run at iteration {saved[-1][0]}; "
                "pass --resume true to go on with it, or choose another output_dir",
                code="setting.resume",
            )
        return saved[-1][1] if saved else None


def _saved(folder: Path) -> list[tuple[int, Path]]:
    """Return checkpoints by iteration, oldest first; file times play no part."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("checkpoint_iteration=*.pt"))
    return sorted((int(match.group(1)), path) for match, path in found if match)


def _first_reason(error: Exception) -> str:
    # torch puts a headline before its list of misfits.
    headline, *reasons = str(error).strip().splitlines()
    return textwrap.shorten(reasons[0] if reasons and headline.endswith(":") else headline, 200).rstrip(".")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path.name}: no such checkpoint; check the path given as resume", code="weights.missing"
        ) from error
    except Exception as error:  # torch raises many types for a torn or foreign file
        raise WeightsError(
            f"{path.name}: cannot be read as a checkpoint; resume from an earlier one",
            code="weights.unreadable",
        ) from error
    if not isinstance(content, dict) or "progress" not in content:  # weights alone have no progress
        raise WeightsError(
            f"{path.name}: is not a run's checkpoint; choose a checkpoint_iteration=N.pt file", code="weights.run"
        )
    return content
