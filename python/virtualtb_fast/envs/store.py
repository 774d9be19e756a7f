"""The environments ``GroundTruthStore-v0``, single and vector; their docstrings specify them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast.envs._native import AutoresetName, NativeEnv, pair
from virtualtb_fast.envs._single import SingleEnv
from virtualtb_fast.envs._vector import Step, VectorBase, as_mode
from virtualtb_fast.envs.render import store_frame
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.store import Counters, GroundTruthStore

__all__ = ["GroundTruthStoreEnv", "GroundTruthStoreVector"]

StoreReward: TypeAlias = Literal["buy", "value"]


@dataclass(frozen=True, slots=True)
class StoreRules:
    """The arguments from which a batch can be made again, in another process as well."""

    num_envs: int
    num_threads: int | None
    autoreset: AutoresetName
    reward: StoreReward
    anc: tuple[float, float] | None

    def batch(self, store: GroundTruthStore) -> _core.StoreBatch:
        """A new batch, not yet reset; raises `InvalidArgumentError` for what makes no sense."""
        return _core.StoreBatch(
            store._native,
            _arguments.integer("num_envs", self.num_envs, 1),
            num_threads=_arguments.threads(self.num_threads),
            autoreset=self.autoreset,
            reward=_arguments.text("reward", self.reward),
            anc=None if self.anc is None else pair(self.anc),
        )


class StoreEnv(NativeEnv):
    """What the environments of a store share: its spaces, and what it reveals."""

    store: GroundTruthStore

    def _source(self) -> GroundTruthStore:
        return self.store

    def _open(
        self, store: Any, render_mode: str | None, rules: StoreRules
    ) -> tuple[spaces.Space[NDArray[Any]], spaces.Space[NDArray[np.float32]]]:
        """Makes the batch; returns the observation and action space of one environment."""
        if store is not None and not isinstance(store, GroundTruthStore):
            expected = "a GroundTruthStore, or None for that of seed 0"
            raise InvalidArgumentError(f"store: expected {expected}, got {store!r}")
        self.store = GroundTruthStore() if store is None else store
        self._make(rules, render_mode)
        schema = self.store.schema
        action_low, action_high = schema.action_range
        low = np.zeros(self.store.observation_width, np.float32)
        high = np.ones_like(low)
        low[schema.observation_width :], high[schema.observation_width :] = schema.action_range
        high[schema.page_column] = self.store.max_index + 1
        observation: Any = spaces.Box(low, high, dtype=np.float32)
        action: Any = spaces.Box(action_low, action_high, (schema.action,), np.float32)
        return observation, action

    def counters(self) -> Counters:
        """Exact counts of all pages shown since the environment was made, copied or unpickled.

        R2P, TV, TT and CTR follow from them; snapshots leave them as they are.
        """
        counts = self._batch.counters()
        outcomes, lengths = counts.pop("outcomes"), counts.pop("sessions_by_length")
        return Counters(**counts, outcomes=tuple(outcomes), sessions_by_length=tuple(lengths))

    def reveal_archetypes(self) -> NDArray[np.int64]:
        """The hidden archetype of each environment's customer, (N,): for oracles, not learners."""
        archetypes: NDArray[np.int64] = self._batch.reveal()
        return archetypes


class GroundTruthStoreEnv(StoreEnv, SingleEnv):
    """A customer with a query browses the pages of a store; the agent ranks the items of each page.

    ## Description
    One episode is one session of one customer of a `GroundTruthStore`, whose true behaviour is
    known. The query selects candidates; for each page the agent chooses an offset ``a`` of the
    production weights, and the ten candidates of the highest ``(w_base + a) x`` are shown, ties to
    the lower row. The customer buys one of them, turns the page, or leaves.

    ## Observation
    ``Box(low, high, (91,), float32)``

    | columns | what | high |
    |---|---|---|
    | 0 to 87 | customer: one-hot fields of 8, 8, 11, 11, 11, 11, 2, 2, 3, 18, 3 categories; field \
9 is the query | 1 |
    | 88 | units bought on the last page; 0 before the customer's first | 1 |
    | 89 | whether the last page was turned; 0 before the customer's first | 1 |
    | 90 | pages shown so far to this customer | ``max_index + 1`` |

    With ``memory`` m above 1, 27 columns in [-1, 1] follow for each of the m - 1 actions before,
    newest first, zeros before the customer's first page. A store with ``observe_page=False`` or
    ``observe_feedback=False`` shows zeros in the columns concerned.

    ## Action
    ``Box(-1, 1, (27,), float32)``: what is added to ``store.production``, raw. Logged actions have
    a median norm of .030, so most of the box is far out. It must be a C-contiguous float32 array
    of just this shape; values outside of the box (up to 1e6) are clipped into it, and
    ``info["clipped"]`` says so. Anything else is an `InvalidActionError`, and nothing moves.

    ## Reward
    | ``reward`` | per page |
    |---|---|
    | ``"buy"`` (default) | 1 if the customer buys, else 0 |
    | ``"value"`` | the price of what is bought, else 0 |

    With ``anc=(rho, mu)`` the reward is divided by ``1 + rho * max(|a| - mu, 0)``, the action norm
    constraint of Virtual-Taobao, with the Euclidean norm of the executed (clipped) action; its
    dimensionless form is ``(1 / mu, mu)`` with ``mu`` = ``store.LOGGED_MU``. ``info["raw_reward"]``
    is the reward without it; evaluate on that one.

    ## Starting state
    A new customer, page 0, no feedback. ``reset(seed=s)`` starts session 0 of stream s, each
    further ``reset()`` the next session of the stream, so a seed and the actions decide every
    byte. The stream's seed and the store's have nothing to do with one another.

    ## End of the episode
    Terminated when the customer buys or leaves. Truncated when the customer turns the last page:
    number ``max_index``, or, in a store with ``repeat=False``, one after which fewer than 10
    candidates are left. A store with ``leave="respawn"`` goes on with another customer when one
    leaves, one with ``continuing=True`` goes on for ever. A step after the end, before the first
    reset, or after ``close`` is a `StateError`.

    ## Info of a step
    | key | what |
    |---|---|
    | ``items`` | int64 (10,): rows of the items shown, best first |
    | ``slot`` | int: which of the ten was bought, 0-based; -1 if none |
    | ``outcome`` | int: 0 turn, 1 buy, 2 leave, 3 max_pages (``_core.OUTCOMES``) |
    | ``units`` | int: units bought on this page |
    | ``value`` | float: their price |
    | ``R2P`` | float: purchases of the session so far / pages so far |
    | ``page`` | int: pages shown so far in this session |
    | ``raw_reward`` | float: reward before the action norm constraint |
    | ``clipped`` | bool: whether the action was clipped |

    ``reset`` returns an empty info and takes no options.

    ## Arguments
    | argument | what |
    |---|---|
    | ``store`` | a `GroundTruthStore`; None makes the one of seed 0 |
    | ``render_mode`` | ``None``, ``"ansi"`` (``render`` returns text) or ``"human"`` (printed) |
    | ``reward`` | see above |
    | ``anc`` | ``None`` or ``(rho, mu)``, see above |

    ## Snapshots
    ``get_state()`` gives bytes from which ``set_state`` restores the session: the same customer
    can be shown two different pages. Pickles and deep copies carry the state too.

    ## Version history
    * v0: first version.
    """

    _title = "GroundTruthStore-v0"

    def __init__(
        self,
        store: GroundTruthStore | None = None,
        *,
        render_mode: str | None = None,
        reward: StoreReward = "buy",
        anc: tuple[float, float] | None = None,
    ) -> None:
        rules = StoreRules(1, 1, "Disabled", reward, anc)
        self.observation_space, self.action_space = self._open(store, render_mode, rules)

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Shows the customer one page.

        Args:
            action: float32, C-contiguous, shape (27,).

        Returns:
            Observation (D,), reward, terminated, truncated, info; see the class.

        Raises:
            InvalidActionError: an action of another shape or dtype, or not finite.
            CustomerModelError: customers of one's own gave no answer.
            StateError: no session is in play, or the environment was closed.
        """
        observation, reward, terminated, truncated, info = self._batch.step_one(action)
        if self.render_mode is not None:
            over = terminated or truncated
            self._page = {**info, "action": action.copy(), "over": over}
        if self.render_mode == "human":
            self.render()
        return observation, reward, terminated, truncated, info

    def _frame(self, title: str, session: dict[str, Any]) -> str:
        return store_frame(title, self.store, self._batch.observe()[0], session, self._page)


class GroundTruthStoreVector(StoreEnv, VectorBase):
    """``num_envs`` environments of `GroundTruthStoreEnv`, stepped natively and together.

    Observation, action, reward and end are `GroundTruthStoreEnv`'s, with a leading axis of length
    ``num_envs``. Environment i of a vector environment seeded s plays, bit for bit, what the single
    environment seeded s + i plays under the same actions, whatever the number of environments or
    threads. Actions must be a C-contiguous float32 array of shape (N, 27); one that is not finite
    is an `InvalidActionError` that names the environment, and none moves. Autoreset modes, seeds,
    masks, ``send`` and ``recv`` are those of `VirtualTBV1Vector`; ``infos["items"]`` is (N, 10).

    ## Arguments
    Those of `GroundTruthStoreEnv`, and ``num_envs`` (1 or more), ``num_threads`` (None for all
    cores) and ``autoreset_mode`` (an `AutoresetMode` or its name).

    ## Version history
    See `GroundTruthStoreEnv`.
    """

    _title = "GroundTruthStore-v0"

    def __init__(
        self,
        num_envs: int = 1,
        store: GroundTruthStore | None = None,
        *,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        reward: StoreReward = "buy",
        anc: tuple[float, float] | None = None,
    ) -> None:
        mode = as_mode(autoreset_mode)
        rules = StoreRules(num_envs, num_threads, mode.value, reward, anc)
        self._shape(mode, *self._open(store, render_mode, rules))

    def step(self, actions: NDArray[np.float32]) -> Step:
        """Shows every customer one page.

        Args:
            actions: float32, C-contiguous, shape (N, 27).

        Returns:
            Observations (N, D), rewards float64 (N,), terminated and truncated bool (N,), infos;
            all of them fresh.

        Raises:
            InvalidActionError: actions of another shape or dtype, or not finite.
            CustomerModelError: customers of one's own gave no answer; all need a reset with seeds.
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
        return store_frame(label, self.store, observation, session, page)
