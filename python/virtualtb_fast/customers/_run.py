"""The life of a training run: steps, the history of losses, progress, checkpoints, divergence.

A run continues from a state to the same bits, whenever that was taken, and stops at the first value
that is not finite, with the last good state kept.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast._training import require_keeper
from virtualtb_fast.customers import _tables as tables
from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError
from virtualtb_fast.schema import Field

__all__ = ["Checkpoint", "Memory", "Progress", "Run", "State"]

State = dict[str, Any]
"""What a run needs to continue: nested dictionaries and lists of arrays, tensors and numbers."""
Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (what is fitted, steps done, steps in all, latest losses) every 20 steps."""

_EVERY = 20
"""Steps between two calls of progress, two entries of the history and two chances to save."""
_KEEP = 500
"""Steps between two states that are kept in memory in case that the training diverges."""


class Checkpoint(Protocol):
    """Where states go, and where the last one comes from when a fit begins."""

    def load(self) -> State | None:
        """The last state, or None to begin anew."""

    def save(self, state: State, /) -> None:
        """Keeps a state in the place of the last one."""

    def due(self) -> bool:
        """Whether a state is wanted now; when that is does not change what is fitted."""
        ...


class Memory:
    """A checkpoint that lives in memory: every state, and the last one to begin from."""

    def __init__(self, state: State | None = None) -> None:
        self.states: list[State] = [] if state is None else [state]

    def load(self) -> State | None:
        """The last state."""
        return self.states[-1] if self.states else None

    def save(self, state: State, /) -> None:
        """Keeps it beside the others."""
        self.states.append(state)

    def due(self) -> bool:
        """Always: every 20 steps."""
        return True


class Run:
    """One training run, from step ``first`` to ``steps``."""

    def __init__(
        self,
        what: str,
        steps: int,
        *,
        identity: Mapping[str, Any],
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Starts anew, or after the steps of the checkpoint's state.

        Raises:
            InvalidArgumentError: that state is of other data, settings or another function.
        """
        self.what, self.steps, self.first = arguments.text("what", what), steps, 0
        self.history: dict[str, list[float]] = {"step": []}
        self._identity = json.dumps({"fitted_by": what, **identity}, sort_keys=True)
        self._progress = arguments.function("progress", progress)
        self._checkpoint = None if checkpoint is None else require_keeper(checkpoint)
        self._good: State | None = None
        self._cpu, self._spent = time.process_time(), 0.0
        state = None if checkpoint is None else checkpoint.load()
        self.resumed = None if state is None else self._continue(state)

    def _continue(self, state: State) -> State:
        try:
            found = str(state["identity"])
            self.first, self._spent = int(state["step"]), float(state["cpu_seconds"])
            history = {
                name: [float(value) for value in values]
                for name, values in state["history"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"expected a state of {self.what}, got {error!r}"
            raise InvalidArgumentError(f"checkpoint: {message}") from error
        if found != self._identity:
            expected = f"a state of {self._identity}"
            raise InvalidArgumentError(f"checkpoint: expected {expected}, got one of {found}")
        self.history, self._good = history, state
        return state

    def done(
        self,
        step: int,
        losses: Mapping[str, float],
        state: Callable[[], State],
        *,
        final: bool = False,
    ) -> None:
        """To be called when a step (from 0) was made; ``final`` if no other one comes.

        Raises:
            TrainingDivergedError: a loss, or an array of the state, is not finite.
        """
        for quantity, value in losses.items():
            if not math.isfinite(value):
                self._diverged(quantity, step, str(value))
        last = final or step + 1 == self.steps
        often = (step + 1) % _EVERY == 0 or last
        if step == 0 or often:
            self.history["step"].append(float(step))
            for quantity, value in losses.items():
                self.history.setdefault(quantity, []).append(float(value))
        wanted = often and self._checkpoint is not None and self._checkpoint.due()
        if wanted or last or (step + 1) % _KEEP == 0:
            new = state()
            self._check(new, step)
            self._good = {
                **new,
                "identity": self._identity,
                "step": step + 1,
                "history": {name: np.array(values) for name, values in self.history.items()},
                "cpu_seconds": self.cpu_seconds,
            }
            if self._checkpoint is not None and (wanted or last):
                self._checkpoint.save(self._good)
        if often and self._progress is not None:
            self._progress(self.what, step + 1, self.steps, dict(losses))

    def _check(self, value: Any, step: int, name: str = "state") -> None:
        if isinstance(value, Mapping):
            for key, one in value.items():
                self._check(one, step, str(key) if name == "state" else f"{name}.{key}")
        elif hasattr(value, "isfinite"):
            if not bool(value.isfinite().all()):
                self._diverged(name, step, "values that are not")
        elif isinstance(value, np.ndarray) and not np.isfinite(value).all():
            self._diverged(name, step, "values that are not")

    @property
    def cpu_seconds(self) -> float:
        """Processor time of this process since the run began, all its parts together."""
        return self._spent + time.process_time() - self._cpu

    def report(self, **more: Any) -> dict[str, Any]:
        """What goes into the sampler's ``report``."""
        return {
            **json.loads(self._identity),
            "steps": self.steps,
            "cpu_seconds": round(self.cpu_seconds, 3),
            "history": self.history,
            **more,
        }

    def _diverged(self, quantity: str, step: int, value: str) -> None:
        kept = "none was kept"
        if self._good is not None:
            kept = f"that of step {self._good['step']} is in this error's `state`"
        message = f"expected a finite {quantity}, got {value} at step {step}"
        raise TrainingDivergedError(
            f"{self.what}: {message}; of the last good states, {kept}",
            quantity=quantity,
            step=step,
            state=self._good,
        )


def identity(
    codes: NDArray[np.uint8], fields: Sequence[Field], seed: int, config: Any
) -> dict[str, Any]:
    """What makes two runs the same: the data, the seed and the settings."""
    return {
        "rows": len(codes),
        "data": tables.digest(codes),
        "fields": [[field.name, field.size] for field in fields],
        "seed": arguments.seed(seed),
        "config": asdict(config),
    }
