"""A training of a second with every part that a bundle's has, and two programs around it.

``serve`` forks a training for each line of JSON that it reads, which spares each the loading of torch; it answers with
the process's id, and after another line with its exit status. ``ranks`` is one rank that ``torchrun`` starts.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.inferers import SimpleInferer
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from monai_ext.base import join_ranks, rank
from monai_ext.engines import (
    DrawDataset,
    DrawPlan,
    EvaluationStep,
    SupervisedLoader,
    TrainingStep,
    WarmupCosine,
    prepare_pairs,
    run_training,
)
from monai_ext.handlers import BestModel, FollowPlan, HistoryLines, Quarantine, RunCheckpoints

SCANS, BATCH, LENGTH, EPOCHS = 13, 2, 10, 6
STEPS = LENGTH * EPOCHS
CPU = torch.device("cpu")
Handler = Callable[[Any], None]


class Training:
    """The parts of one run, which are new for each."""

    def __init__(
        self, folder: Path, accumulate: int = 1, workers: int = 0, joined: bool = False, ranks: int = 1, **more: Any
    ) -> None:
        torch.manual_seed(3)
        self.folder = folder
        self.bare = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 1))
        self.network: nn.Module = nn.parallel.DistributedDataParallel(self.bare) if joined else self.bare
        self.optimizer = torch.optim.AdamW(self.bare.parameters(), lr=0.02)
        schedule = WarmupCosine(self.optimizer, 1, EPOCHS, LENGTH)
        values = torch.randn(SCANS, 8, generator=torch.Generator().manual_seed(5))
        self.items = [{"case": f"ct_{n}", "image": row[:7], "label": row[7:]} for n, row in enumerate(values)]
        self.plan = DrawPlan(SCANS, BATCH * LENGTH * ranks, seed=11)
        quarantine = Quarantine(str(folder))
        noise = Compose([RandGaussianNoised("image", prob=1.0, std=0.3)])
        loader = SupervisedLoader(DrawDataset(self.items, noise, 11), self.plan, quarantine, BATCH, workers)
        step = TrainingStep(11, "fp32", accumulate, clip_norm=0.7, schedule=schedule)
        self.best = BestModel(str(folder), self.network, "val_loss", smaller_is_better=True)
        self.evaluator = self._evaluator()
        self.history = HistoryLines(str(folder / "history.jsonl"), self.optimizer, self.evaluator)
        objects = {"model": self.network, "optimizer": self.optimizer, "lr_scheduler": schedule, "step": step}
        objects |= {"best": self.best, "history": self.history, "quarantine": quarantine}
        self.checkpoints = RunCheckpoints(str(folder), objects, **{"every": 1, "keep": 999, **more})
        handlers = [FollowPlan(self.plan, BATCH), ValidationHandler(1, self.evaluator), self.history]
        self.trainer = SupervisedTrainer(
            device=CPU,
            max_epochs=EPOCHS,
            train_data_loader=loader,
            network=self.network,
            optimizer=self.optimizer,
            loss_function=nn.MSELoss(),
            inferer=SimpleInferer(),
            prepare_batch=prepare_pairs,
            iteration_update=step,
            train_handlers=[*handlers, self.checkpoints, quarantine],
            decollate=False,
        )

    def _evaluator(self) -> SupervisedEvaluator:
        metric = Average(output_transform=lambda output: output["val_loss"])
        return SupervisedEvaluator(
            device=CPU,
            val_data_loader=DataLoader(self.items[:4], batch_size=2),
            network=self.network,
            inferer=SimpleInferer(),
            prepare_batch=prepare_pairs,
            iteration_update=EvaluationStep("fp32", loss=nn.MSELoss()),
            key_val_metric={"val_loss": metric},
            val_handlers=[self.best],
            decollate=False,
        )

    def run(self, at: int = 0, what: Handler | None = None, patience_s: float = 5) -> "Training":
        """Run to the end, and do something when an iteration begins."""
        if what is not None:
            self.trainer.add_event_handler(Events.ITERATION_STARTED(once=at), what)
        run_training(self.trainer, patience_s)
        return self

    def result(self) -> dict[str, Any]:
        """Return what must be equal, bit for bit: weights, the optimiser's state, best value and curve."""
        parts = [*self.bare.state_dict().values()]
        parts += [v for state in self.optimizer.state_dict()["state"].values() for v in state.values()]
        path = self.folder / "history.jsonl"  # absent where nothing was left to do
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        return {
            "numbers": torch.cat([torch.as_tensor(v).double().flatten() for v in parts]).tolist(),
            "best": [self.best.best, self.best.epoch],
            "history": [[row["epoch"], row["val_loss"], round(row["train_loss"], 6)] for row in rows],
        }


def pace(seconds: float) -> Handler:
    return lambda _: time.sleep(seconds)


def one_run(order: dict[str, Any]) -> None:
    """Train as ordered, slowed down so that a signal finds it at work, and leave the result."""
    folder = Path(order.pop("folder"))
    seconds, patience_s = order.pop("pace", 0.0), order.pop("patience_s", 5)
    training = Training(folder, **order)
    if seconds:
        training.trainer.add_event_handler(Events.GET_BATCH_STARTED, pace(seconds))
    training.trainer.add_event_handler(Events.STARTED, lambda: (folder / "started").touch())
    training.run(patience_s=patience_s)
    if rank() == 0:
        (folder / "result.json").write_text(json.dumps(training.result()), encoding="utf-8")


def serve() -> None:
    torch.set_num_threads(1)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)  # the answers go to the first alone
            code = 1
            try:
                one_run(json.loads(line))
                code = 0
            except SystemExit as end:
                code = end.code
            finally:
                os._exit(code)  # tidying up what the server loaded would take longer than the training
        print(child, flush=True)
        sys.stdin.readline()  # until it is asked for, the process keeps its id, which a signal is sent to
        print(os.waitpid(child, 0)[1], flush=True)


def join_and_run() -> None:
    torch.set_num_threads(1)
    order = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    join_ranks("gloo", CPU, order.pop("timeout_minutes", 5))
    order |= {"joined": True, "ranks": 2}
    folder = Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"pid_{rank()}_{os.environ['TORCHELASTIC_RESTART_COUNT']}").write_text(str(os.getpid()), encoding="utf-8")
    for stop in order.pop("stops", [None]):  # one start of torchrun tries them all
        again = {} if stop is None else {"folder": str(folder / f"from_{stop}"), "every": STEPS}
        if stop is not None:
            Path(again["folder"]).mkdir(exist_ok=True)
            again["resume"] = str(folder / f"checkpoint_iteration={stop}.pt")
        one_run({**order, **again})
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    {"serve": serve, "ranks": join_and_run}[sys.argv[1]]()
