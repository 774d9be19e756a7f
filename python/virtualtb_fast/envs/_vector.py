"""What the vector environments share: spaces, resets, infos, rendering of a native batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from virtualtb_fast import _arguments
from virtualtb_fast.envs._native import RENDER_MODES, Closed, NativeEnv
from virtualtb_fast.errors import InvalidArgumentError, VirtualTBError

Step: TypeAlias = tuple[
    NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]
"""Observations (N, D), rewards (N,), terminated (N,), truncated (N,), infos; all of them fresh."""

_PRINTED = 4
"""Render mode ``human`` prints so many environments, and the number of the others."""


def as_mode(autoreset_mode: AutoresetMode | str) -> AutoresetMode:
    """The mode of a name; raises `InvalidArgumentError` for anything else."""
    try:
        return AutoresetMode(autoreset_mode)
    except ValueError as error:
        expected = ", ".join(mode.value for mode in AutoresetMode)
        message = f"autoreset_mode: expected {expected}, got {autoreset_mode!r}"
        raise InvalidArgumentError(message) from error


class VectorBase(NativeEnv, VectorEnv[NDArray[Any], NDArray[np.float32], NDArray[Any]]):
    """Reset, infos, render and close; subclasses specify the environments and their step."""

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # noqa: RUF012

    _title: ClassVar[str]
    _pages: dict[str, NDArray[Any]] | None = None
    """The pages shown last, for rendering."""
    _sent: NDArray[np.float32] | None = None
    """The actions of the step that is under way, for rendering."""

    def _shape(
        self,
        mode: AutoresetMode,
        observation: spaces.Space[NDArray[Any]],
        action: spaces.Space[NDArray[np.float32]],
    ) -> None:
        """Sets what Gymnasium asks of a vector environment, from one environment's spaces."""
        self.num_envs = self._rules.num_envs
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space = batch_space(observation, self.num_envs)
        self.action_space = batch_space(action, self.num_envs)
        # Some libraries read the attribute, others the metadata.
        self.autoreset_mode = mode
        self.metadata = {**type(self).metadata, "autoreset_mode": mode}

    def _forget_page(self) -> None:
        self._pages = None

    @property
    def num_threads(self) -> int:
        """Threads that a step uses."""
        threads: int = self._batch.num_threads
        return threads

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
        mask = None
        if options is not None:
            mask = _arguments.instance("options", options, dict).get("reset_mask")
        if mask is not None:
            self._check_mask(mask)
        observations = self._reset(seed, mask)
        if self.render_mode == "human":
            self.render()
        return observations, {}

    def send(self, actions: NDArray[np.float32]) -> None:
        """Starts a step in the background, and returns at once; `recv` returns what it brings.

        Meanwhile a policy can act for other environments: two vector environments of N / 2, the
        second seeded s + N / 2, play what one of N seeded s plays, each half simulated while the
        policy acts for the other::

            one.send(policy(one.reset(seed=s)[0]))
            observations, _ = two.reset(seed=s + one.num_envs)
            while True:
                two.send(policy(observations))
                observations, rewards, terminated, truncated, infos = one.recv()
                one.send(policy(observations))
                observations, rewards, terminated, truncated, infos = two.recv()

        While a step is under way, all but `recv`, `close` and ``num_threads`` is a `StateError`,
        pickling and copying too. ``close`` drops the step. A process forked meanwhile has to make
        its environments anew.

        Args:
            actions: As `step` takes them; they are copied.

        Raises:
            InvalidActionError: actions of another shape or dtype. Nothing is under way then.
            StateError: a step is under way already, or the environment was closed.
        """
        actions = self._checked(actions)
        self._batch.send(actions)
        self._sent = actions.copy() if self.render_mode is not None else None

    def recv(self) -> Step:
        """Waits for the step that was sent, and returns what `step` would have, to the last bit.

        Ctrl-C ends the waiting, not the step: `recv` can be called again.

        Raises:
            StateError: none was sent, or the environment was closed.
            VirtualTBError: whatever else `step` raises for these actions; no step is under way
                then, and the environments are as `step` leaves them.
        """
        actions = self._sent
        try:
            step = self._batch.recv()
        except VirtualTBError:
            self._sent = None
            raise
        self._sent = None
        return self._told(actions, step)

    def _checked(self, actions: Any) -> NDArray[np.float32]:
        """Actions as the native batch takes them; it refuses others."""
        checked: NDArray[np.float32] = actions
        return checked

    def _told(self, actions: NDArray[np.float32] | None, step: tuple[Any, ...]) -> Step:
        """What Gymnasium is told of a step of the native batch; ``actions`` are for rendering."""
        observations, rewards, terminated, truncated, infos, finished, finals = step
        if self.render_mode is not None and actions is not None:
            columns = {key for key in infos if not key.startswith("_")} - {"final_info"}
            self._pages = {key: infos[key].copy() for key in columns}
            self._pages |= {"action": actions.copy(), "over": terminated | truncated}
        if finished.size:
            final_obs = np.empty(self.num_envs, object)
            final_obs[finished] = np.fromiter(self._dress(finals), object, len(finals))
            infos["final_obs"], infos["_final_obs"] = final_obs, infos["_final_info"]
        if self.render_mode == "human":
            self.render()
        return self._dress(observations), rewards, terminated, truncated, infos

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
            frames.append(self._frame(f"{title} [{env}]", observations[env], session, page))
        return frames

    def _frame(
        self,
        label: str,
        observation: NDArray[Any],
        session: dict[str, Any],
        page: dict[str, Any] | None,
    ) -> str:
        """One session as text."""
        raise NotImplementedError

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
        self._batch = Closed()
