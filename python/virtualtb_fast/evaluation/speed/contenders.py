"""Who takes part: a line a contender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from virtualtb_fast.errors import InvalidArgumentError, MissingExtraError
from virtualtb_fast.evaluation.speed.players import (
    Player,
    Rollouts,
    Single,
    Vector,
    async_envs,
    sync_envs,
)
from virtualtb_fast.simulator import Simulator

__all__ = ["BATCHES", "Contender", "Key", "contenders"]

BATCHES: Final = (1, 16, 256, 4096)
"""Customers a step, unless told otherwise."""
_SYNC, _ASYNC = 256, 16
"""More than so many single environments are left out: slow, and a process each."""
_ROLLED = 256
"""Rollouts of larger batches are not in their stride before a turn is over."""
_THREADED = 256
"""Smaller batches gain nothing from threads."""

Key = tuple[str, int | None, int]
"""What it is, customers a step (None: as many as it likes), threads."""


@dataclass(frozen=True)
class Contender:
    """One way to play sessions, not yet made."""

    what: str
    batch: int | None
    threads: int
    make: Callable[[], Player]
    ours: bool = True
    same_sessions: bool = True
    """Whether it plays our streams, and so must bring our digest."""

    @property
    def key(self) -> Key:
        """Tells it from all others."""
        return self.what, self.batch, self.threads

    @property
    def name(self) -> str:
        """The key in words."""
        batch = "" if self.batch is None else f", {self.batch:,}"
        return f"{self.what}{batch}" + (f", {self.threads} threads" if self.threads > 1 else "")


def contenders(
    simulator: Simulator, threads: int, batches: Sequence[int] = BATCHES
) -> tuple[list[Contender], list[str]]:
    """All that can take part here, in the order of the table; and who cannot, and why."""
    batches = sorted(set(batches))
    most = batches[-1]
    more = [threads] if threads > 1 else []
    counts = "rollout, counts only"

    asynchronous = sorted({n for n in batches if 1 < n <= _ASYNC} | {min(n, 32) for n in more})
    synchronous = [n for n in batches if 1 < n <= _SYNC]
    small = [n for n in batches if n <= _ROLLED]
    threaded = [n for n in batches if n >= _THREADED or n == most]

    field, absent = _torch(simulator, batches, more)
    for n in asynchronous:
        field += [Contender("AsyncVectorEnv", n, 1, partial(async_envs, simulator, n), ours=False)]
    for n in synchronous:
        field += [Contender("SyncVectorEnv", n, 1, partial(sync_envs, simulator, n), ours=False)]
    field += [Contender("env.step", 1, 1, partial(Single, simulator))]
    for t in (1, *more):
        for n in batches if t == 1 else threaded:
            field += [Contender("vector env", n, t, partial(Vector.ours, simulator, n, t))]
    rolled = partial(Rollouts, simulator)
    for t in (1, *more):
        for n in small if t == 1 else small[-1:]:
            field += [Contender(counts, n, t, partial(rolled, t, n, keep=False))]
    for t in (1, *more):
        field += [
            Contender(counts, None, t, partial(rolled, t, keep=False)),
            Contender("rollout in memory", None, t, partial(rolled, t)),
            Contender("rollout to Parquet", None, t, partial(rolled, t, file=True)),
        ]
    reduced, missing = _reduced(simulator, most)
    return field + reduced, absent + missing


def _reduced(simulator: Simulator, most: int) -> tuple[list[Contender], list[str]]:
    """The reduced form, whose answers are its own."""
    try:
        fast = simulator.reduced()
    except InvalidArgumentError as error:
        return [], [f"reduced precision: {error}"]
    counts = partial(Rollouts, fast, 1, keep=False)
    return [
        Contender(
            "vector env, reduced",
            most,
            1,
            partial(Vector.ours, fast, most, 1),
            same_sessions=False,
        ),
        Contender("rollout, counts only, reduced", None, 1, counts, same_sessions=False),
    ], []


def _torch(
    simulator: Simulator, batches: Sequence[int], more: Sequence[int]
) -> tuple[list[Contender], list[str]]:
    """PyTorch's versions, if it is installed and knows how to play the simulator."""
    try:
        from virtualtb_fast.evaluation.speed import torch_rival as rival
    except MissingExtraError:
        return [], ["PyTorch: not installed (pip install 'virtualtb-fast[train]')"]
    if not rival.playable(simulator):
        return [], [f"PyTorch: its version plays the published kinds alone, not {simulator.name}"]
    field = []
    for what, draw in (("PyTorch", rival.multinomial), ("PyTorch, tuned draws", rival.inverse_cdf)):
        for t in (1, *more):
            for n in batches if t == 1 else (n for n in batches[-1:] if n >= _THREADED):
                make = partial(rival.BatchedTorch, simulator, n, draw, t)
                field += [Contender(what, n, t, make, ours=False, same_sessions=False)]
    return field, []
