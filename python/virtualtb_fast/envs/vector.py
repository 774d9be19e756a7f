"""The vector environments ``VirtualTB-v1`` and ``VirtualTB-v0``: one native batch of sessions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from virtualtb_fast.envs._native import (
    RENDER_MODES,
    Closed,
    NativeEnv,
    RewardName,
    Rules,
    as_float32,
)
from virtualtb_fast.envs.render import frame
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.simulator import DEFAULT, Simulator, load_simulator

__all__ = ["VirtualTBV0Vector", "VirtualTBV1Vector"]

_PRINTED = 4
"""Render mode ``human`` prints so many environments, and the number of the others."""


class VirtualTBV1Vector(NativeEnv, VectorEnv[NDArray[Any], NDArray[np.float32], NDArray[Any]]):
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

    ## Arguments
    Those of `VirtualTBV1`, and ``num_envs`` (1 or more), ``num_threads`` (None for all cores) and
    ``autoreset_mode`` (an `AutoresetMode` or its name). Render mode ``ansi`` returns one text an
    environment, ``human`` prints the first four.

    ## Version history
    See `VirtualTBV1`.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # noqa: RUF012

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
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            expected = ", ".join(mode.value for mode in AutoresetMode)
            message = f"autoreset_mode: expected {expected}, got {autoreset_mode!r}"
            raise InvalidArgumentError(message) from error
        single_spaces = self._open(
            load_simulator(simulator),
            page_base,
            render_mode,
            Rules(quirks=self._quirks, clip=not self._quirks, autoreset=mode.value, **rules),
        )
        self.num_envs = self._rules.num_envs
        self.single_observation_space, self.single_action_space = single_spaces
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        # Some libraries read the attribute, others the metadata.
        self.autoreset_mode = mode
        self.metadata = {**type(self).metadata, "autoreset_mode": mode}
        self._pages: dict[str, NDArray[Any]] | None = None

    def _forget_page(self) -> None:
        self._pages = None

    @property
    def num_threads(self) -> int:
        """Threads that a step uses."""
        return self._batch.num_threads

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts new sessions.

        Args:
            seed: An integer s from 0 to 2**64 - 1 (environment i gets s + i), a sequence of one
                integer or None an environment, or None: the next sessions of the streams.
            options: ``{"reset_mask": mask}`` with a boolean array (N,) resets only where it is
                True. Other options are not used.

        Returns:
            The observations (N, D) of all environments, and an empty dictionary.

        Raises:
            InvalidArgumentError: a seed or a mask that is none.
            StateError: the environment was closed.
        """
        mask = None if options is None else options.get("reset_mask")
        if mask is not None:
            self._check_mask(mask)
        observations = self._reset(seed, mask)
        if self.render_mode == "human":
            self.render()
        return observations, {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[
        NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Shows every customer one page.

        Args:
            actions: float32, C-contiguous, shape (N, A).

        Returns:
            Observations (N, D), rewards float64 (N,), terminated and truncated bool (N,), infos;
            all of them fresh.

        Raises:
            InvalidActionError: actions of another shape or dtype, or not finite.
            StateError: an environment has no session in play, or it was closed.
        """
        step = self._batch.step(actions)
        observations, rewards, terminated, truncated, page_infos, finished, finals = step
        infos: dict[str, Any] = page_infos
        infos["page"] = observations[:, -1].astype(np.int64)
        # A page was shown wherever one is counted, but for sessions that have just started.
        shown = infos["page"] != 0
        if self.render_mode is not None:
            self._pages = {key: column.copy() for key, column in infos.items()}
            self._pages |= {"action": actions.copy(), "over": terminated.copy()}
        masks = {f"_{key}": shown.copy() for key in infos}
        if finished.size:
            infos["page"][finished] = finals[:, -1]
            final_obs = np.empty(self.num_envs, object)
            final_obs[finished] = np.fromiter(self._dress(finals), object, len(finals))
            final_info: dict[str, NDArray[Any]] = {}
            ended = terminated.copy()
            for key, column in infos.items():
                # Zero where the mask is False, in both: as Gymnasium's own vector environments.
                final_info[key] = column * ended
                final_info[f"_{key}"] = ended
                column[finished] = 0
            infos["final_obs"], infos["_final_obs"] = final_obs, ended
            infos["final_info"], infos["_final_info"] = final_info, ended
        infos |= masks
        if self.page_base or self._rules.published_spaces:
            observations = self._dress(observations)
        if self.render_mode == "human":
            self.render()
        return observations, rewards, terminated, truncated, infos

    def observe(self) -> NDArray[Any]:
        """The current observations (N, D), fresh; nothing moves."""
        return self._dress(self._batch.observe())

    def render(self) -> tuple[str, ...] | None:
        """The sessions as texts: returned with render mode ``ansi``, printed with ``human``."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() was called without a render mode; pass render_mode='ansi' or 'human'."
            )
            return None
        if self.render_mode == "ansi":
            return tuple(self._frames(self.num_envs))
        frames = self._frames(min(self.num_envs, _PRINTED))
        if self.num_envs > _PRINTED:
            frames.append(f"and {self.num_envs - _PRINTED} environments more")
        print("\n\n".join(frames), end="\n\n", flush=True)
        return None

    def _frames(self, count: int) -> list[str]:
        observations, sessions = self._batch.observe(), self._batch.sessions()
        title = self.spec.id if self.spec is not None else self._title
        frames = []
        for env in range(count):
            session = {key: column[env] for key, column in sessions.items()}
            page = None
            if self._pages is not None:
                page = {key: column[env] for key, column in self._pages.items()}
                page["replaced"] = self._quirks
            label = f"{title} [{env}]"
            frames.append(frame(label, self.simulator, observations[env], session, page))
        return frames

    def _check_mask(self, mask: object) -> None:
        expected = f"a boolean array of shape ({self.num_envs},) with at least one True"
        if not isinstance(mask, np.ndarray):
            got = type(mask).__name__
        elif mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            got = f"{mask.dtype} of shape {mask.shape}"
        elif not mask.any():
            got = "all False"
        else:
            return
        raise InvalidArgumentError(f"options['reset_mask']: expected {expected}, got {got}")

    def close_extras(self, **kwargs: Any) -> None:
        """Lets the sessions go; further calls but ``close`` are a `StateError`."""
        self._batch = Closed()  # type: ignore[assignment]


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
            published_spaces=bool(published_spaces),
        )  # fmt: skip

    def step(
        self, actions: Any
    ) -> tuple[
        NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Shows every customer one page; see `VirtualTBV1Vector.step`.

        Args:
            actions: Any array-like of (N, A) finite numbers.
        """
        return super().step(as_float32(actions))
