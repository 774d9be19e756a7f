"""What the single and the vector environments share: a native batch, its seeds and snapshots."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast.errors import (
    FileFormatError,
    InvalidActionError,
    InvalidArgumentError,
    StateError,
)
from virtualtb_fast.schema import V0_PUBLISHED_HIGH
from virtualtb_fast.simulator import Simulator

RewardName: TypeAlias = Literal["clicks", "deals", "buy", "expected"]
AutoresetName: TypeAlias = Literal["NextStep", "SameStep", "Disabled"]

RENDER_MODES = ("ansi", "human")
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments from which a batch can be made again, in another process as well."""

    num_envs: int
    num_threads: int | None
    quirks: bool
    clip: bool
    autoreset: AutoresetName
    reward: RewardName
    anc: tuple[float, float] | None
    published_spaces: bool = False

    def batch(self, simulator: Simulator) -> _core.SessionBatch:
        """A new batch, not yet reset; raises `InvalidArgumentError` for what makes no sense."""
        return _core.SessionBatch(
            simulator._native,
            _arguments.integer("num_envs", self.num_envs, 1),
            num_threads=_arguments.threads(self.num_threads),
            quirks=self.quirks,
            clip=self.clip,
            autoreset=self.autoreset,
            reward=_arguments.text("reward", self.reward),
            anc=None if self.anc is None else pair(self.anc),
        )


class Closed:
    """Stands in for the batch of an environment that was closed, so that no step has to ask."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise StateError("expected an open environment, got one that was closed")


class NativeEnv:
    """Seeds, snapshots and pickling on top of a native batch.

    Subclasses add Gymnasium's ``Env`` or ``VectorEnv``, whose random generator only says which
    seed was given: all draws come from the native streams.
    """

    _np_random: np.random.Generator | None
    _np_random_seed: int | None
    render_mode: str | None

    _rules: Any
    """The arguments from which a batch can be made again: `Rules`, or a store's."""
    _batch: Any
    """The native batch, or `Closed`."""
    _seeded: NDArray[np.bool_]
    """Which environments have a stream of their own."""

    def _source(self) -> Any:
        """What the batch plays in: a simulator or a store."""
        raise NotImplementedError

    def _make(self, rules: Any, render_mode: str | None) -> None:
        """Makes the batch, not yet reset."""
        known = isinstance(render_mode, str) and render_mode in RENDER_MODES
        if render_mode is not None and not known:
            expected = f"None, {' or '.join(RENDER_MODES)}"
            raise InvalidArgumentError(f"render_mode: expected {expected}, got {render_mode!r}")
        self.render_mode = render_mode
        self._rules = rules
        self._batch = rules.batch(self._source())
        self._seeded = np.zeros(rules.num_envs, np.bool_)

    def _reset(
        self, seeds: Sequence[int | None] | int | None, mask: NDArray[np.bool_] | None
    ) -> NDArray[Any]:
        """Resets the masked environments (at least one); returns all observations, (N, D)."""
        batch, count = self._batch, self._rules.num_envs
        if not self._is_open():
            raise StateError("reset: expected an open environment, got one that was closed")
        batch.check_here("reset")
        if seeds is None and mask is None and self._seeded.all():
            return self._dress(batch.reset(None, None))
        chosen = np.ones(count, np.bool_) if mask is None else mask
        values, given = self._given(seeds)
        unknown = chosen & ~given & ~self._seeded
        if unknown.any():
            values = np.where(given, values, _streams(self._fresh_seed(), count))
            given = given | unknown
        fresh, going = chosen & given, chosen & ~given
        observations = None
        if fresh.any():
            observations = batch.reset(values, fresh)
            self._seeded |= fresh
        if observations is None or going.any():
            observations = batch.reset(None, going)
        return self._dress(observations)

    def _is_open(self) -> bool:
        return not isinstance(self._batch, Closed)

    def _given(
        self, seeds: Sequence[int | None] | int | None
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """The seed of each environment, and whether it was given one."""
        count = self._rules.num_envs
        if seeds is None:
            return np.zeros(count, np.uint64), np.zeros(count, np.bool_)
        scalar = isinstance(seeds, bytes | bytearray | memoryview) or getattr(seeds, "ndim", 1) == 0
        if scalar or not isinstance(seeds, Sequence | np.ndarray):
            seed = _arguments.seed(seeds)
            self._note_seed(seed)
            return _streams(seed, count), np.ones(count, np.bool_)
        listed = [None if seed is None else _arguments.seed(seed) for seed in seeds]
        if len(listed) != count:
            message = f"expected {count}, one an environment, got {len(listed)}"
            raise InvalidArgumentError(f"seed: {message}")
        first = next((seed for seed in listed if seed is not None), None)
        if first is not None:
            self._note_seed(first)
        given = np.array([seed is not None for seed in listed], np.bool_)
        return np.array([seed or 0 for seed in listed], np.uint64), given

    def _note_seed(self, seed: int) -> None:
        self._np_random, self._np_random_seed = seeding.np_random(seed)

    def _fresh_seed(self) -> int:
        """A seed nobody gave: `np_random_seed` tells it, so that the session can be replayed.

        A generator that the user has set, or that was seeded before, decides it instead.
        """
        if self._np_random is None:
            seed = secrets.randbits(63)
            self._note_seed(seed)
            return seed
        return int(self._np_random.integers(1 << 63))

    def _dress(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        """Observations as this environment shows them."""
        return observations

    def _forget_page(self) -> None:
        """The page shown last is not that of the sessions any more: nothing of it is rendered."""

    def get_state(self) -> bytes:
        """A snapshot of every session, for `set_state`, also in another process.

        Restoring it shows the same customers again: the same actions then give the same answers,
        other actions what these customers would have done instead. It is bound to the simulator
        or store, and to the number of environments.
        """
        state: bytes = self._batch.get_state()
        return state + np.packbits(self._seeded).tobytes()

    def set_state(self, state: bytes) -> None:
        """Puts a snapshot back.

        Raises:
            FileFormatError: bytes that `get_state` did not make, or made with another simulator,
                store or number of environments. The environments are then as they were.
        """
        state = _bytes(state)
        count = self._rules.num_envs
        at = len(state) - (count + 7) // 8
        self._batch.set_state(state[: max(at, 0)])
        self._forget_page()
        bits = np.frombuffer(state[at:], np.uint8)
        self._seeded = np.unpackbits(bits, count=count).astype(np.bool_)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles carry the sessions' state; the batch itself is made again.
        state = self.__dict__.copy()
        state["_batch"] = self._batch.get_state() if self._is_open() else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if state["_batch"] is None:
            self._batch = Closed()
        else:
            self._batch = self._rules.batch(self._source())
            self._batch.set_state(state["_batch"])


class SimulatorEnv(NativeEnv):
    """What the environments that play in a simulator share: its spaces, its first page."""

    simulator: Simulator
    page_base: int

    def _source(self) -> Simulator:
        return self.simulator

    def _open(
        self, simulator: Simulator, page_base: Any, render_mode: str | None, rules: Rules
    ) -> tuple[spaces.Space[NDArray[Any]], spaces.Space[NDArray[np.float32]]]:
        """Makes the batch; returns the observation and action space of one environment."""
        self.simulator = simulator.with_page_base(page_base)
        self.page_base = page_base
        self._make(rules, render_mode)
        schema = self.simulator.schema
        high = self.simulator.config.observation_high(schema)
        high[schema.page_column] += page_base
        dtype: type[np.int32 | np.float32] = np.float32
        if rules.published_spaces:
            dtype = np.int32
            high[schema.clicks_column : schema.page_column] = V0_PUBLISHED_HIGH
        low, top = schema.action_range
        observation: Any = spaces.Box(np.zeros_like(high, dtype), high.astype(dtype), dtype=dtype)
        action: Any = spaces.Box(low, top, (schema.action,), np.float32)
        return observation, action

    def _dress(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        """Observations as this environment shows them: with its first page and its dtype."""
        if self.page_base:
            observations[..., -1] += self.page_base
        if self._rules.published_spaces:
            return observations.astype(np.float64)
        return observations


def _bytes(state: object) -> bytes:
    if not isinstance(state, bytes):
        message = f"expected the bytes of get_state, got {type(state).__name__}"
        raise FileFormatError(f"state: {message}")
    return state


def pair(anc: Any) -> tuple[float, float]:
    try:
        rho, mu = anc
        return float(rho), float(mu)
    except (TypeError, ValueError) as error:
        message = f"anc: expected None or numbers (rho, mu), got {anc!r}"
        raise InvalidArgumentError(message) from error


def as_float32(action: Any) -> NDArray[np.float32]:
    """Any array-like of numbers as the native module takes it (VirtualTB-v0's quirk 8)."""
    # There is one object for this dtype; to compare contents would take longer.
    if type(action) is np.ndarray and action.dtype is _FLOAT32 and action.flags.c_contiguous:
        return action
    try:
        array = np.asarray(action)
    except (TypeError, ValueError) as error:
        message = f"expected numbers, got {type(action).__name__}: {error}"
        raise InvalidActionError(f"action: {message}") from error
    if array.dtype.kind not in "biuf":
        raise InvalidActionError(f"action: expected real numbers, got {array.dtype}")
    # A number too large for float32 becomes infinite, which the native module refuses by name.
    with np.errstate(over="ignore"):
        return array.astype(np.float32, order="C")


def _streams(seed: int, count: int) -> NDArray[np.uint64]:
    """Environment i plays stream seed + i; beyond 2^64 it goes on at 0."""
    return np.uint64(seed) + np.arange(count, dtype=np.uint64)
