"""Keeping the plan of samples in step with the trainer."""

from typing import Protocol

from ignite.engine import Engine, Events


class Plan(Protocol):
    """What a plan of samples offers: the epoch it plans and the samples of it to leave out."""

    epoch: int
    start: int


class FollowPlan:
    """Tell the plan which epoch begins and, after a resume, how many of its samples are done.

    Args:
        plan: the loader's sampler.
        batch_size: samples per iteration of one rank.
    """

    def __init__(self, plan: Plan, batch_size: int) -> None:
        self.plan, self.batch_size = plan, batch_size

    def attach(self, engine: Engine) -> None:
        """Act before each epoch's first batch is asked for."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the plan's epoch (counted from 0) and start."""
        epoch = engine.state.epoch - 1
        self.plan.epoch = epoch
        self.plan.start = (engine.state.iteration - epoch * engine.state.epoch_length) * self.batch_size
