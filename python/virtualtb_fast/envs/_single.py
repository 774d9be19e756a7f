"""What the single environments share: episodes of a native batch of one."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments
from virtualtb_fast.envs._native import RENDER_MODES, Closed, NativeEnv


class SingleEnv(NativeEnv, gymnasium.Env[NDArray[Any], NDArray[np.float32]]):
    """Reset, render and close; subclasses specify the environment and its step."""

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # noqa: RUF012

    _title: ClassVar[str]
    _page: dict[str, Any] | None = None
    """The page shown last, for rendering."""

    def _frame(self, title: str, session: dict[str, Any]) -> str:
        """The session as text."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts a session: session 0 of stream ``seed``, or the next one of the current stream.

        Args:
            seed: 0 to 2**64 - 1.
            options: Not used.

        Returns:
            The observation (D,), and an empty dictionary.

        Raises:
            InvalidArgumentError: a seed that is none.
            StateError: the environment was closed.
        """
        given = None if seed is None else _arguments.seed(seed)
        observation: NDArray[Any] = self._reset(given, None)[0]
        self._page = None
        if self.render_mode == "human":
            self.render()
        return observation, {}

    def _forget_page(self) -> None:
        self._page = None

    def observe(self) -> NDArray[Any]:
        """The current observation (D,), fresh; nothing moves."""
        observation: NDArray[Any] = self._dress(self._batch.observe())[0]
        return observation

    def render(self) -> str | None:
        """The session as text: returned with render mode ``ansi``, printed with ``human``."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() was called without a render mode; pass render_mode='ansi' or 'human'."
            )
            return None
        session = {key: column[0] for key, column in self._batch.sessions().items()}
        title = self.spec.id if self.spec is not None else self._title
        text = self._frame(title, session)
        if self.render_mode == "ansi":
            return text
        print(text, end="\n\n", flush=True)
        return None

    def close(self) -> None:
        """Lets the sessions go; further calls but this one are a `StateError`."""
        self._batch = Closed()
