"""The single environments ``VirtualTB-v1`` and ``VirtualTB-v0``; their docstrings specify them."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments
from virtualtb_fast.envs._native import RewardName, Rules, SimulatorEnv, as_float32
from virtualtb_fast.envs._single import SingleEnv
from virtualtb_fast.envs.render import frame
from virtualtb_fast.simulator import DEFAULT, Simulator, load_simulator

__all__ = ["VirtualTBV0", "VirtualTBV1"]


class VirtualTBV1(SimulatorEnv, SingleEnv):
    """A customer of an online shop browses result pages; the agent ranks the items of each page.

    ## Description
    One episode is one session of one customer (Shi et al., "Virtual-Taobao", AAAI 2019). For each
    page the agent chooses the weights by which the shop ranks its items. The customer clicks on
    some of the items of the page, then turns the page or leaves. The numbers below are those of
    VirtualTB-v0's networks; other simulators have their own (``env.simulator.schema``), and some
    have rules of their own, see "Learned simulators".

    ## Observation
    ``Box(0, high, (91,), float32)``

    | columns | what | high |
    |---|---|---|
    | 0 to 87 | customer: one-hot fields of 8, 8, 11, 11, 11, 11, 2, 2, 3, 18, 3 categories | 1 |
    | 88 | clicks on the last page; 0 before the first | 10 |
    | 89 | second head on the last page (probably purchases); 0 before the first | 9 |
    | 90 | pages shown so far in this session | 100 |

    The customer's columns stay the same within a session. What the fields mean was not published.

    ## Action
    ``Box(-1, 1, (27,), float32)``: the weights of the items' attributes. It must be a C-contiguous
    float32 array of just this shape; values outside of the box (up to 1e6) are clipped into it, and
    ``info["clipped"]`` says so. Anything else is an `InvalidActionError`, and nothing moves.

    ## Reward
    | ``reward`` | per page |
    |---|---|
    | ``"clicks"`` (default) | clicks, 0 to 10 |
    | ``"deals"`` | second head, 0 to 9 |
    | ``"buy"`` | 1 if the second head is positive, else 0 |
    | ``"expected"`` | the expected clicks, given customer, page and action: no luck in it |

    With ``anc=(rho, mu)`` the reward is divided by ``1 + rho * max(|a| - mu, 0)``, the action norm
    constraint of Virtual-Taobao, with the Euclidean norm of the executed (clipped) action.
    ``info["raw_reward"]`` is the reward without it; evaluate on that one.

    ## Starting state
    A new customer, page 0, no feedback. ``reset(seed=s)`` starts session 0 of stream s, each
    further ``reset()`` the next session of the stream, so a seed and the actions decide every
    byte. Without any seed a fresh stream is drawn, and ``np_random_seed`` tells which.

    ## End of the episode
    Terminated when as many pages were shown as the customer had patience for, a number drawn at
    the start from the customer alone, at most 100. Not truncated. The last observation is that
    of the finished session. A step after the end, before the first reset, or after ``close`` is a
    `StateError`.

    ## Info of a step
    | key | what |
    |---|---|
    | ``clicks`` | int: clicks on this page |
    | ``deals`` | int: second head on this page, probable purchases |
    | ``CTR`` | float: clicks of the session so far / (10 x pages so far) |
    | ``page`` | int: pages shown so far in this session |
    | ``raw_reward`` | float: reward before the action norm constraint |
    | ``clipped`` | bool: whether the action was clipped |

    ``reset`` returns an empty info and takes no options.

    ## Learned simulators
    With ``simulator.config.leave.kind == "hazard"`` whether the customer leaves is drawn on every
    page. The episode is then terminated when the customer leaves, and truncated after
    ``config.leave.longest`` pages. The info has ``outcome`` as well: 0 turn, 1 buy, 2 leave, 3
    max_pages (``logs.OUTCOMES``).

    With ``config.response.heads == "outcome"`` the customer buys, turns the page or leaves, as in
    a `GroundTruthStore`: a purchase too ends the episode. Observation columns 88 and 89 are then
    the units bought on the last page and whether it was turned, each 0 or 1. ``clicks`` and
    ``deals`` of rewards and infos both are the units bought on the page, ``"expected"`` is the
    probability of a purchase, and the info has ``R2P``: purchases of the session so far / pages so
    far.

    ## Arguments
    | argument | what |
    |---|---|
    | ``simulator`` | a `Simulator`, an embedded one's name (``virtualtb-v0-refit``), or a file |
    | ``render_mode`` | ``None``, ``"ansi"`` (``render`` returns text) or ``"human"`` (printed) |
    | ``reward`` | see above |
    | ``anc`` | ``None`` or ``(rho, mu)``, see above |
    | ``page_base`` | number of the first page, as observed and as the customer sees it: 0 (as \
published) or 1 (as in the published data set) |

    ## Snapshots
    ``get_state()`` gives bytes from which ``set_state`` restores the session: the same customer
    can be shown two different pages. Pickles and deep copies carry the state too.

    ## Version history
    * v1: clean semantics (above).
    * v0: as published, quirk for quirk; see `VirtualTBV0`.
    """

    _title = "VirtualTB-v1"
    _quirks = False

    def __init__(
        self,
        simulator: Simulator | str | os.PathLike[str] = DEFAULT,
        *,
        render_mode: str | None = None,
        reward: RewardName = "clicks",
        anc: tuple[float, float] | None = None,
        page_base: Literal[0, 1] = 0,
    ) -> None:
        self._start(simulator, render_mode, reward, anc, page_base, published_spaces=False)

    def _start(
        self,
        simulator: Simulator | str | os.PathLike[str],
        render_mode: str | None,
        reward: RewardName,
        anc: tuple[float, float] | None,
        page_base: int,
        *,
        published_spaces: bool,
    ) -> None:
        rules = Rules(
            num_envs=1,
            num_threads=1,
            quirks=self._quirks,
            clip=not self._quirks,
            autoreset="Disabled",
            reward=reward,
            anc=anc,
            published_spaces=published_spaces,
        )
        spaces = self._open(load_simulator(simulator), page_base, render_mode, rules)
        self.observation_space, self.action_space = spaces
        self._plain = page_base == 0 and not published_spaces and render_mode is None

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Shows the customer one page.

        Args:
            action: float32, C-contiguous, shape (A,).

        Returns:
            Observation (D,), reward, terminated, truncated, info; see the class.

        Raises:
            InvalidActionError: an action of another shape or dtype, or not finite.
            StateError: no session is in play, or the environment was closed.
        """
        observation, reward, terminated, truncated, info = self._batch.step_one(action)
        info["page"] = int(observation[-1])
        if self._plain:
            return observation, reward, terminated, truncated, info
        if self.render_mode is not None:
            self._page = {**info, "action": action.copy(), "over": terminated or truncated}
            self._page["replaced"] = self._quirks
        shown = self._dress(observation)
        if self.render_mode == "human":
            self.render()
        return shown, reward, terminated, truncated, info

    def _frame(self, title: str, session: dict[str, Any]) -> str:
        return frame(title, self.simulator, self._batch.observe()[0], session, self._page)


class VirtualTBV0(VirtualTBV1):
    """VirtualTB-v0 as published (version 0.0.5), quirk for quirk, in Gymnasium's 5-tuple API.

    Spaces, reward, info and arguments are those of `VirtualTBV1`, with these differences:

    | # | what | here | in v1 |
    |---|---|---|---|
    | 1 | observation at the end of a session | the NEXT customer's columns, feedback 0, but the \
finished session's page count; ``reset`` then draws yet another customer | the finished session's |
    | 2 | step after the end without a reset | goes on with that next customer, a new page limit \
and the old page count: it ends almost at once, and CTR adds up | `StateError` |
    | 3 | page limit | drawn at the start of a session from the customer alone; a limit of 0 also \
plays one page | the same |
    | 4 | spaces | float32 and the true bounds; with ``published_spaces=True`` the int32 Box with \
29 as bound of clicks, around float64 observations, as declared | float32 |
    | 5 | page count | starts at 0, as the networks get it; ``page_base=1`` starts at 1, as the \
published data set does | the same |
    | 6 | random numbers | streams of the environment's own, so parity is in distribution: the \
original draws from torch's global generator, which all its environments share | the same |
    | 7 | order of draws | noise, fields, limit; clicks, then second head | the same |
    | 8 | action | any 27 numbers within +-1e6, not clipped, ``info["clipped"]`` always False; \
lists and arrays of other dtypes are converted to float32 | exact float32, clipped |

    Two things cannot be reproduced: the global generator (6), and NaN or infinite actions, which
    are an `InvalidActionError` here while the original crashes or answers nonsense. The info has
    ``CTR`` as published, and v1's other keys.

    Observations leave the observation space only after stepping past the end (2), when the page
    count can pass its bound, and with ``published_spaces=True`` by their dtype.

    ## Arguments
    Those of `VirtualTBV1`, and ``published_spaces`` (4). The simulator must end its sessions as
    published, by a page limit drawn once.

    ## Version history
    * v0: first version.
    """

    _title = "VirtualTB-v0"
    _quirks = True

    def __init__(
        self,
        simulator: Simulator | str | os.PathLike[str] = DEFAULT,
        *,
        render_mode: str | None = None,
        reward: RewardName = "clicks",
        anc: tuple[float, float] | None = None,
        page_base: Literal[0, 1] = 0,
        published_spaces: bool = False,
    ) -> None:
        spaces = _arguments.flag("published_spaces", published_spaces)
        self._start(simulator, render_mode, reward, anc, page_base, published_spaces=spaces)

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Shows the customer one page; see `VirtualTBV1.step`.

        Args:
            action: Any array-like of A finite numbers.
        """
        return super().step(as_float32(action))
