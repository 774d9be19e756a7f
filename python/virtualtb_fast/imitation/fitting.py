"""One loop for everything that is fitted by maximum likelihood.

Adam on minibatches of rows, an exponential average of the weights, and a look at held-out rows now
and then: the averaged weights that did best there are the result, and the loop stops when they
have not improved for a while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._arguments import function, instance, integer, number, settle
from virtualtb_fast._arguments import seed as a_seed
from virtualtb_fast._batches import SessionRows
from virtualtb_fast._torch import Tensor, nn, torch
from virtualtb_fast._training import (
    Keeper,
    Progress,
    State,
    load_adam,
    pack,
    pack_adam,
    require_finite,
    require_keeper,
    torch_threads,
    unpack,
)
from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.networks import stream

__all__ = [
    "MOST_HELD",
    "FitConfig",
    "FitReport",
    "Keeper",
    "Part",
    "Progress",
    "State",
    "check_arguments",
    "fit",
    "mean_loss",
]

Loss = Callable[[NDArray[np.int64]], Tensor]
"""The mean loss of these rows."""


class Part:
    """A keeper within a keeper: one stage of several that share a file."""

    def __init__(self, keeper: Keeper, name: str) -> None:
        self._keeper, self._name = keeper, name

    def load(self) -> Mapping[str, Any] | None:
        """This stage's state."""
        found: Mapping[str, Any] | None = (self._keeper.load() or {}).get(self._name)
        return found

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces this stage's state and leaves the others'."""
        self._keeper.save({**(self._keeper.load() or {}), self._name: state})

    def due(self) -> bool:
        """Whether it is time to."""
        return self._keeper.due()


_BETWEEN = 50
"""Steps between two chances to save, where looks are further apart."""
_EVALUATED = 16_384
"""Held-out rows looked at a time."""
MOST_HELD = 200_000
"""About the most held-out rows looked at."""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Settings of a fit by maximum likelihood."""

    batch: int = 1024
    """Rows a step."""
    rate: float = 1e-3
    """Adam's rate; it falls as a cosine to 0 over the epochs."""
    epochs: int = 8
    """Most passes over the rows."""
    checks: int = 2
    """Looks at the held-out rows a pass."""
    patience: int = 4
    """Looks without improvement before it stops."""
    average: float = 0.995
    """Decay of the weights' average."""
    weight_decay: float = 0.0
    """Of Adam, decoupled."""
    held_out: float = 0.1
    """Share of sessions held out."""

    def __post_init__(self) -> None:
        settle(self, integer, "batch", "epochs", "checks", "patience", low=1, high=2**31)
        settle(self, number, "rate", low=0, above=True)
        settle(self, number, "average", low=0, high=1)
        settle(self, number, "weight_decay", low=0)
        settle(self, number, "held_out", low=0, high=1, above=True)
        for name in ("average", "held_out"):
            if getattr(self, name) == 1:
                raise InvalidArgumentError(f"{name}: expected a share below 1, got 1.0")


@dataclass(frozen=True, slots=True)
class FitReport:
    """How a fit went."""

    held_out: float
    """Best mean loss on the held-out rows."""
    start: float
    """Mean loss on the held-out rows before the first step."""
    steps: int
    """Steps taken."""
    stopped_early: bool
    """Whether patience ran out before the epochs did."""


def check_arguments(
    pages: object, seed: object, config: object, kind: type, progress: Any, checkpoint: object
) -> None:
    """What every fit to pages looks at first; ``kind`` is that of its settings.

    Raises:
        InvalidArgumentError: an argument of another kind.
    """
    instance("pages", pages, Pages)
    a_seed(seed)
    instance("config", config, kind)
    function("progress", progress)
    if checkpoint is not None:
        require_keeper(checkpoint)


@torch_threads(1)
def fit(
    module: nn.Module,
    loss: Loss,
    train: SessionRows,
    held: SessionRows,
    config: FitConfig,
    *,
    seed: int,
    name: str,
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> FitReport:
    """Fits the module in place.

    Args:
        module: Its parameters are trained.
        loss: Of rows, given their numbers.
        train: Rows to train with; memory does not grow with them.
        held: Rows to look at, of which about 200,000 are.
        config: Settings.
        seed: Of the order of rows.
        name: What is fitted, for messages; also tells its random numbers from others'.
        progress: Called at every look with (name, steps done, steps, figures).
        checkpoint: Keeps the state now and then, and at the end; a fit that finds one there goes
            on from it, to the same bits.

    Raises:
        TrainingDivergedError: the loss is not finite; its ``state`` is the last good one.
        InvalidArgumentError: a checkpoint that keeps nothing.
    """
    resume = None if checkpoint is None else require_keeper(checkpoint).load()
    optimizer = torch.optim.AdamW(
        module.parameters(), config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    batch = min(config.batch, len(train))
    per_epoch = len(train) // batch
    steps, every = config.epochs * per_epoch, max(1, per_epoch // config.checks)
    judged = held.ordered(MOST_HELD)
    if resume is None:
        average, best = _copy(module.state_dict()), _copy(module.state_dict())
        start = lowest = mean_loss(loss, judged)
        step = idle = 0
    else:
        module.load_state_dict(unpack(resume, "now."))
        average, best = unpack(resume, "average."), unpack(resume, "best.")
        load_adam(optimizer, resume, "adam.")
        step, idle = int(resume["step"]), int(resume["idle"])
        start, lowest = float(resume["start"]), float(resume["lowest"])
    require_finite(name, step, loss=start)

    def state() -> State:
        return {
            **pack(module.state_dict(), "now."),
            **pack(average, "average."),
            **pack(best, "best."),
            **pack_adam(optimizer, "adam."),
            "step": np.array(step),
            "idle": np.array(idle),
            "start": np.array(start),
            "lowest": np.array(lowest),
        }

    last: State | None = None if resume is None else {**resume}
    epoch_of_order, order = -1, iter([judged])
    while step < steps and idle < config.patience:
        epoch, position = divmod(step, per_epoch)
        if epoch != epoch_of_order:
            # The order is a function of the epoch, so a fit that goes on repeats it.
            rng = np.random.default_rng(stream(seed, name, epoch).initial_seed())
            epoch_of_order, order = epoch, train.batches(batch, rng, skip=position)
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * config.rate * (1.0 + math.cos(math.pi * step / steps))
        value = loss(next(order))
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        step += 1
        # The average starts short, so that it never remembers the start.
        decay = min(config.average, step / (step + 10))
        with torch.no_grad():
            for key, now in module.state_dict().items():
                average[key].lerp_(now, 1.0 - decay)
        if step % every and step < steps:
            if checkpoint is not None and step % _BETWEEN == 0 and checkpoint.due():
                between = state()
                # What diverges is told of at the next look; the last good state stays.
                if math.isfinite(float(value.detach())) and _finite(between):
                    checkpoint.save(between)
            continue
        here = _copy(module.state_dict())
        module.load_state_dict(average)
        seen = mean_loss(loss, judged)
        module.load_state_dict(here)
        try:
            require_finite(name, step, loss=float(value.detach()), held_out_loss=seen)
        except TrainingDivergedError as error:
            module.load_state_dict(best)
            error.state = last
            raise
        idle += 1
        if seen < lowest:
            lowest, idle, best = seen, 0, _copy(average)
        last = state()
        done = step == steps or idle == config.patience
        if checkpoint is not None and (done or checkpoint.due()):
            checkpoint.save(last)
        if progress is not None:
            progress(name, step, steps, {"loss": float(value.detach()), "held_out_loss": seen})
    module.load_state_dict(best)
    return FitReport(lowest, start, step, step < steps)


def mean_loss(loss: Loss, rows: NDArray[np.int64]) -> float:
    """The mean loss of many rows."""
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(rows), _EVALUATED):
            some = rows[first : first + _EVALUATED]
            total += float(loss(some)) * len(some)
    return total / len(rows)


def _finite(state: State) -> bool:
    return all(bool(np.isfinite(one).all()) for one in state.values())


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in tensors.items()}
