"""The vector environments ``VirtualTB-v1`` and ``VirtualTB-v0``: one native batch of sessions."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from virtualtb_fast import _arguments
from virtualtb_fast.envs._native import RewardName, Rules, SimulatorEnv, as_float32
from virtualtb_fast.envs._vector import Step, VectorBase, as_mode
from virtualtb_fast.envs.render import frame
from virtualtb_fast.simulator import DEFAULT, Simulator, load_simulator

__all__ = ["VirtualTBV0Vector", "VirtualTBV1Vector"]


class VirtualTBV1Vector(SimulatorEnv, VectorBase):
    """``num_envs`` environments of `VirtualTBV1`, stepped natively and together.

    Observation, action, reward and end are `VirtualTBV1`'s, with a leading axis of length
    ``num_envs``. Environment i of a vector environment seeded s plays, bit for bit, what the single
    environment seeded s + i plays under the same actions, whatever the number of environments or
    threads. Actions must be a C-contiguous float32 array of shape (N, 27); one that is not finite
    is an `InvalidActionError` that names the environment, and none moves.

    ## Autoreset
    | ``autoreset_mode`` | after a session has ended |
    |---|---|
    | ``NextStep`` (default) | the next step starts the next session, whatever its action, and its \
reward is 0 |
    | ``SameStep`` | the next session starts within the same step; the last observation is in \
``infos["final_obs"]``, the last info in ``infos["final_info"]`` |
    | ``Disabled`` | a step is a `StateError` until ``reset(options={"reset_mask": mask})`` |

    In all modes environment i plays the same sessions.

    ## Seeds
    ``reset(seed=s)`` seeds environment i with s + i (mod 2^64); a list gives each its own, where
    None stands for the next session of the environment's stream. ``options={"reset_mask": mask}``
    with a boolean array (N,) resets the environments where it is True and leaves the others.

    ## Infos
    As Gymnasium's own vector environments give them: an array (N,) for each key of
    `VirtualTBV1`, and a mask ``_key`` which is False, with value 0, where an environment has just
    been reset. In ``SameStep``, when any session ended, ``final_obs`` is an object array (N,) of
    observations (D,) or None, ``final_info`` a dictionary of arrays and masks, and ``_final_obs``
    and ``_final_info`` are their masks.

    ## Asynchronous steps
    ``send(actions)`` starts a step natively in the background, and ``recv()`` returns what ``step``
    would have, so that a policy can act for one half of the customers while the other is simulated.

    ## Arguments
    Those of `VirtualTBV1`, and ``num_envs`` (1 or more), ``num_threads`` (None for all cores) and
    ``autoreset_mode`` (an `AutoresetMode` or its name). Render mode ``ansi`` returns one text an
    environment, ``human`` prints the first four.

    ## Version history
    See `VirtualTBV1`.
    """

    _title: ClassVar[str] = "VirtualTB-v1"
    _quirks: ClassVar[bool] = False

    def __init__(
        self,
        num_envs: int = 1,
        simulator: Simulator | str | os.PathLike[str] = DEFAULT,
        *,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        reward: RewardName = "clicks",
        anc: tuple[float, float] | None = None,
        page_base: Literal[0, 1] = 0,
    ) -> None:
        self._start(
            simulator, render_mode, page_base, autoreset_mode,
            num_envs=num_envs, num_threads=num_threads, reward=reward, anc=anc,
        )  # fmt: skip

    def _start(
        self,
        simulator: Simulator | str | os.PathLike[str],
        render_mode: str | None,
        page_base: int,
        autoreset_mode: AutoresetMode | str,
        **rules: Any,
    ) -> None:
        mode = as_mode(autoreset_mode)
        single_spaces = self._open(
            load_simulator(simulator),
            page_base,
            render_mode,
            Rules(quirks=self._quirks, clip=not self._quirks, autoreset=mode.value, **rules),
        )
        self._shape(mode, *single_spaces)

    def step(self, actions: NDArray[np.float32]) -> Step:
        """Shows every customer one page.

        Args:
            actions: float32, C-contiguous, shape (N, A).

        Returns:
            Observations (N, D), rewards float64 (N,), terminated and truncated bool (N,), infos;
            all of them fresh.

        Raises:
            InvalidActionError: actions of another shape or dtype, or not finite.
            StateError: an environment has no session in play, or it was closed, or a step was
                sent and not received.
        """
        return self._told(actions, self._batch.step(actions))

    def _frame(
        self,
        label: str,
        observation: NDArray[Any],
        session: dict[str, Any],
        page: dict[str, Any] | None,
    ) -> str:
        if page is not None:
            page["replaced"] = self._quirks
        return frame(label, self.simulator, observation, session, page)


class VirtualTBV0Vector(VirtualTBV1Vector):
    """``num_envs`` environments of `VirtualTBV0`, stepped natively and together.

    Quirks and arguments are `VirtualTBV0`'s, batches, seeds, autoreset and infos those of
    `VirtualTBV1Vector`. In ``Disabled`` mode steps past the end go on (quirk 2); in ``SameStep``
    mode ``final_obs`` is the next customer's with the old page count (quirk 1), and the
    observation is that of the session that has started after it.
    """

    _title = "VirtualTB-v0"
    _quirks = True

    def __init__(
        self,
        num_envs: int = 1,
        simulator: Simulator | str | os.PathLike[str] = DEFAULT,
        *,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        reward: RewardName = "clicks",
        anc: tuple[float, float] | None = None,
        page_base: Literal[0, 1] = 0,
        published_spaces: bool = False,
    ) -> None:
        self._start(
            simulator, render_mode, page_base, autoreset_mode,
            num_envs=num_envs, num_threads=num_threads, reward=reward, anc=anc,
            published_spaces=_arguments.flag("published_spaces", published_spaces),
        )  # fmt: skip

    def step(self, actions: Any) -> Step:
        """Shows every customer one page; see `VirtualTBV1Vector.step`.

        Args:
            actions: Any array-like of (N, A) finite numbers.
        """
        return super().step(self._checked(actions))

    def _checked(self, actions: Any) -> NDArray[np.float32]:
        return as_float32(actions)
