"""How contenders play: environments that are stepped, and rollouts.

All get the zero action. Environments are used bare, without the wrappers of `gymnasium.make`, and
show a page to every customer in every step (autoreset in the same step).
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from virtualtb_fast.envs.vector import VirtualTBV1Vector
from virtualtb_fast.envs.virtualtb import VirtualTBV1
from virtualtb_fast.evaluation.speed.outcomes import Outcome, Plan, play
from virtualtb_fast.rollout import Rollout, rollout
from virtualtb_fast.simulator import Simulator

__all__ = ["Own", "Player", "Rollouts", "Single", "Stepped", "Vector", "async_envs", "sync_envs"]

_OTHERS = 8 << 24
"""Purpose of the streams of the environments that the check does not count."""


class Player(ABC):
    """One way to play sessions: what is checked, and what is timed."""

    def prepare(self) -> None:  # noqa: B027
        """Called before each turn; sets what contenders share, such as a library's threads."""

    @abstractmethod
    def check(self, plan: Plan) -> Outcome:
        """Plays whole sessions: the plan's, or as many of its own."""

    def again(self, seed: int, sessions: int) -> Outcome | None:
        """The first sessions of one stream, in as many threads as are timed; None if not stated."""
        return None

    @abstractmethod
    def work(self, pages: int) -> tuple[int, int]:
        """What is timed: plays about so many pages; returns pages and clicks."""

    def close(self) -> None:  # noqa: B027
        """Lets everything go."""


class Stepped(Player):
    """Plays by steps."""

    batch: int

    @abstractmethod
    def start(self, streams: Sequence[int]) -> None:
        """Starts session 0 of each of the streams (batch,)."""

    @abstractmethod
    def step(self) -> tuple[Any, Any, Any]:
        """See `outcomes.Steps`."""

    def check(self, plan: Plan) -> Outcome:
        """The plan's sessions, as many streams at once as there are places."""
        total: Outcome | None = None
        for first in range(0, len(plan.streams), self.batch):
            streams = plan.streams[first : first + self.batch]
            others = [_OTHERS + (number << 32) for number in range(self.batch - len(streams))]
            self.start([*streams, *others])
            outcome = play(self, len(streams), plan.sessions, plan.longest)
            total = outcome if total is None else total + outcome
        assert total is not None
        return total

    def work(self, pages: int) -> tuple[int, int]:
        """Steps on from where it was."""
        steps = -(-pages // self.batch)
        clicks: Any = 0
        for _ in range(steps):
            clicks = clicks + self.step()[0]
        return steps * self.batch, int(np.sum(clicks))


class Own(Stepped):
    """Plays by steps, with random numbers of its own: whole sessions, but not the plan's."""

    def start(self, streams: Sequence[int]) -> None:
        """It has no streams."""

    def check(self, plan: Plan) -> Outcome:
        """Twice as many sessions as the plan has; half as many one at a time, which is slow."""
        total = 2 * plan.total if self.batch > 1 else plan.total // 2
        each = max(1, math.ceil(total / self.batch))
        return play(self, self.batch, each, plan.longest)


class Single(Stepped):
    """One environment, step by step."""

    def __init__(self, simulator: Simulator) -> None:
        """Makes it."""
        self.batch = 1
        self.env = VirtualTBV1(simulator)
        self.action = np.zeros(simulator.schema.action, np.float32)

    def start(self, streams: Sequence[int]) -> None:
        """Seeds it."""
        self.env.reset(seed=streams[0])

    def step(self) -> tuple[Any, Any, Any]:
        """A page; the next session starts at once."""
        _, reward, terminated, truncated, _ = self.env.step(self.action)
        if terminated or truncated:
            self.env.reset()
        return reward, terminated, truncated

    def close(self) -> None:
        """Closes it."""
        self.env.close()


class Vector(Stepped):
    """A vector environment, ours or one of Gymnasium's over single ones."""

    def __init__(self, envs: Any) -> None:
        """Takes and closes ``envs``."""
        self.envs = envs
        self.batch = envs.num_envs
        self.actions = np.zeros(envs.action_space.shape, np.float32)

    @classmethod
    def ours(cls, simulator: Simulator, batch: int, threads: int) -> Vector:
        """The native batch, stepped from Python."""
        envs = VirtualTBV1Vector(
            batch, simulator, num_threads=threads, autoreset_mode=AutoresetMode.SAME_STEP
        )
        return cls(envs)

    def start(self, streams: Sequence[int]) -> None:
        """Seeds each environment."""
        self.envs.reset(seed=list(streams))

    def step(self) -> tuple[Any, Any, Any]:
        """A page for every customer."""
        _, rewards, terminated, truncated, _ = self.envs.step(self.actions)
        return rewards, terminated, truncated

    def close(self) -> None:
        """Ends its processes, if it has any."""
        if isinstance(self.envs, AsyncVectorEnv):
            self.envs.close(terminate=True)
        else:
            self.envs.close()


def sync_envs(simulator: Simulator, batch: int) -> Vector:
    """Gymnasium's ``SyncVectorEnv`` over our single environment."""
    make = functools.partial(VirtualTBV1, simulator)
    return Vector(SyncVectorEnv([make] * batch, autoreset_mode=AutoresetMode.SAME_STEP))


def async_envs(simulator: Simulator, batch: int) -> Vector:
    """Gymnasium's ``AsyncVectorEnv`` over our single environment: a process a customer."""
    make = functools.partial(VirtualTBV1, simulator)
    # By then this process has threads, so it is not itself forked.
    context = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = "forkserver"
        multiprocessing.set_forkserver_preload(["virtualtb_fast.envs.virtualtb"])
    envs = AsyncVectorEnv([make] * batch, context=context, autoreset_mode=AutoresetMode.SAME_STEP)
    return Vector(envs)


class Rollouts(Player):
    """Whole sessions without Python in the loop."""

    def __init__(
        self,
        simulator: Simulator,
        threads: int = 1,
        batch_size: int | None = None,
        *,
        file: bool = False,
        keep: bool = True,
    ) -> None:
        """``keep``: with a log in memory, or with ``file`` in a Parquet file; else only counts."""
        self.simulator, self.file, self.keep = simulator, file, keep
        self.options: dict[str, Any] = {"num_threads": threads, "batch_size": batch_size}
        self.turns, self.length = 0, 1.0

    def _roll(self, seed: int, sessions: int, folder: str) -> Rollout:
        return rollout(
            self.simulator,
            "zero",
            sessions=sessions,
            seed=seed,
            out=Path(folder) / "logs.parquet" if self.file else None,
            overwrite=True,
            keep=self.keep,
            **self.options,
        )

    def _outcome(self, seed: int, sessions: int, folder: str) -> Outcome:
        """From the log where there is one: it is what people read."""
        out = self._roll(seed, sessions, folder)
        if not self.keep:
            return Outcome.of_summary(out.summary)
        return Outcome.of_pages(out["page"], out["clicks"])

    def check(self, plan: Plan) -> Outcome:
        """The plan's sessions, a stream a rollout."""
        with tempfile.TemporaryDirectory() as folder:
            parts = [self._outcome(seed, plan.sessions, folder) for seed in plan.streams]
        total = sum(parts[1:], parts[0])
        self.length = total.length
        return total

    def again(self, seed: int, sessions: int) -> Outcome:
        """One rollout of all of them."""
        with tempfile.TemporaryDirectory() as folder:
            return self._outcome(seed, sessions, folder)

    def work(self, pages: int) -> tuple[int, int]:
        """One rollout of another stream each time; about so many pages."""
        self.turns += 1
        # Not by pages: whole blocks of sessions would be played to find out how many it takes.
        sessions = max(1, round(pages / self.length))
        with tempfile.TemporaryDirectory() as folder:
            summary = self._roll(self.turns << 32 | 9 << 24, sessions, folder).summary
        return summary.pages, summary.clicks
