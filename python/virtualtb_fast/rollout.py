"""Whole sessions under a policy, without Python in the loop.

``rollout(simulator, sessions=N, seed=s)`` plays sessions 0 to N - 1 of the stream of seed ``s``:
the same customers, draw for draw, that an environment seeded ``s`` shows one after the other. In
place of the simulator it takes a `GroundTruthStore`.
Neither threads nor ``batch_size`` nor the kind of CPU change a single byte of the result.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _core
from virtualtb_fast.errors import InvalidArgumentError, PolicyError, StateError
from virtualtb_fast.logs import SessionLog, read_log
from virtualtb_fast.policies import Policy
from virtualtb_fast.simulator import Simulator, as_path, load_simulator
from virtualtb_fast.store import GroundTruthStore

__all__ = ["PolicyFunction", "Rollout", "Summary", "rollout"]

PolicyFunction = Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], Any]
"""A policy in Python: (observation (n, D), session (n,), page (n,)) to actions (n, A)."""

_NORMAL_95 = 1.959963984540054
"""The standard normal quantile of 0.975."""


@dataclass(frozen=True)
class Summary:
    """What a rollout counted. The counts are exact; intervals are of 95 %, by sessions.

    What `virtualtb_fast.store.Counters` counts too goes by the same names there.

    Summaries of several workers, each with sessions of its own (other seeds), add up with ``+`` or
    ``sum``.

    Pages of one session are not independent, so the intervals of CTR and R2P take whole sessions as
    the unit (the delta method for the ratio of two sums).

    TT, TV and R2P are the metrics of the Virtual-Taobao paper (section "Evaluation"). A simulator
    has no prices, and what it counts as purchases is its second head. In a store a purchase is a
    click: its CTR is purchases / (10 x pages).
    """

    pages: int
    """Pages shown."""
    sessions: int
    """Sessions played, each to its end."""
    clicks: int
    """Clicks on all pages."""
    second: int
    """Sum of the second head (in VirtualTB-v0 probably purchases)."""
    click_pages: int
    """Pages with at least one click."""
    clicks_squared: int = field(repr=False)
    """Sum over sessions of (clicks of the session) squared."""
    pages_squared: int = field(repr=False)
    """Sum over sessions of (pages of the session) squared."""
    clicks_times_pages: int = field(repr=False)
    """Sum over sessions of clicks times pages."""
    buy_pages: int
    """Pages on which something was bought."""
    buys_squared: int = field(repr=False)
    """Sum over sessions of (pages with a purchase) squared."""
    buys_times_pages: int = field(repr=False)
    """Sum over sessions of pages with a purchase times pages."""
    units: int
    """Units bought."""
    cents: int
    """Price of all that was bought, in cents; 0 without prices."""
    sessions_by_length: NDArray[np.int64] = field(repr=False, compare=False)
    """(longest + 1,): entry ``n`` counts sessions of ``n`` pages."""
    clicks_by_page: NDArray[np.int64] = field(repr=False, compare=False)
    """(longest,): clicks on page number ``n`` of a session, counted from 0."""
    pages_by_page: NDArray[np.int64] = field(repr=False, compare=False)
    """(longest,): sessions that got as far as page number ``n``."""
    page_items: int
    """Items on a page."""
    priced: bool
    """Whether there are prices: in a store."""
    seconds: float = field(compare=False)
    """How long it took; of a sum, all workers' time together."""

    @property
    def ctr(self) -> float:
        """Clicks / (items on a page x pages)."""
        return self.clicks / (self.page_items * self.pages)

    @property
    def ctr_interval(self) -> tuple[float, float]:
        """95 % interval of `ctr`; (nan, nan) for a single session."""
        margin = self._margin(self.clicks, self.clicks_squared, self.clicks_times_pages)
        margin /= self.page_items
        return self.ctr - margin, self.ctr + margin

    @property
    def r2p(self) -> float:
        """R2P: pages with a purchase / pages."""
        return self.buy_pages / self.pages

    @property
    def r2p_interval(self) -> tuple[float, float]:
        """95 % interval of `r2p`; (nan, nan) for a single session."""
        purchases = self.buy_pages
        margin = self._margin(purchases, self.buys_squared, self.buys_times_pages)
        return self.r2p - margin, self.r2p + margin

    def _margin(self, count: int, squared: int, times_pages: int) -> float:
        """Half the 95 % interval of count / pages, from sums over sessions."""
        if self.sessions < 2:
            return math.nan
        ratio = count / self.pages
        squares = squared - 2 * ratio * times_pages + ratio * ratio * self.pages_squared
        variance = max(squares, 0.0) * self.sessions / (self.sessions - 1) / self.pages**2
        return _NORMAL_95 * math.sqrt(variance)

    @property
    def tv(self) -> int:
        """TV: units sold."""
        return self.units

    @property
    def tt(self) -> float:
        """TT: money taken; not a number without prices."""
        return self.cents / 100 if self.priced else math.nan

    @property
    def mean_session_length(self) -> float:
        """Pages a session."""
        return self.pages / self.sessions

    @property
    def mean_session_length_interval(self) -> tuple[float, float]:
        """95 % interval of `mean_session_length`; (nan, nan) for a single session."""
        if self.sessions < 2:
            return math.nan, math.nan
        mean = self.mean_session_length
        spread = max(self.pages_squared - self.pages * mean, 0.0) / (self.sessions - 1)
        margin = _NORMAL_95 * math.sqrt(spread / self.sessions)
        return mean - margin, mean + margin

    @property
    def click_rate(self) -> float:
        """The share of pages with at least one click."""
        return self.click_pages / self.pages

    @property
    def pages_per_second(self) -> float:
        """The rate, writing included."""
        return self.pages / self.seconds if self.seconds > 0 else math.inf

    def __add__(self, other: Summary) -> Summary:
        if not isinstance(other, Summary):
            return NotImplemented
        for name in ("page_items", "priced"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                expected = f"summaries of the same kind ({name} = {mine})"
                raise InvalidArgumentError(f"+: expected {expected}, got {theirs}")
        names = {one.name for one in fields(self)} - {"page_items", "priced"}
        counts = {name: _sum(getattr(self, name), getattr(other, name)) for name in names}
        return replace(self, **counts)

    def __radd__(self, other: object) -> Summary:
        # What `sum` starts with.
        return self if other == 0 else NotImplemented

    def __str__(self) -> str:
        what = "purchases" if self.priced else "clicks"
        lines = [
            f"pages           {self.pages:,}",
            f"sessions        {self.sessions:,}, {self.mean_session_length:.2f} pages each",
            f"CTR             {self.ctr:.5f}{_between(self.ctr_interval)}, "
            f"{what} / ({self.page_items} x pages)",
        ]
        if self.priced:
            lines += [
                f"R2P             {self.r2p:.5f}{_between(self.r2p_interval)}, pages that sold",
                f"TT, TV          {self.tt:,.2f} of money, {self.tv:,} units",
            ]
        return "\n".join([*lines, f"pages a second  {self.pages_per_second:,.0f}"])

    def to_dict(self) -> dict[str, Any]:
        """Counts and what follows from them, as JSON can hold them."""
        names = (
            *("pages", "sessions", "clicks", "second", "click_pages", "page_items"),
            *("buy_pages", "units"),
        )
        return {
            **{name: getattr(self, name) for name in names},
            "ctr": self.ctr,
            "ctr_interval": _listed(self.ctr_interval),
            "r2p": self.r2p,
            "r2p_interval": _listed(self.r2p_interval),
            "tv": self.tv,
            "tt": self.tt if self.priced else None,
            "mean_session_length": self.mean_session_length,
            "click_rate": self.click_rate,
            "seconds": self.seconds,
            "pages_per_second": self.pages_per_second,
            "sessions_by_length": self.sessions_by_length.tolist(),
            "clicks_by_page": self.clicks_by_page.tolist(),
            "pages_by_page": self.pages_by_page.tolist(),
        }


def _sum(one: Any, other: Any) -> Any:
    """The sum of two numbers, or of arrays of counts, the shorter of which goes on with zeros."""
    if not isinstance(one, np.ndarray):
        return one + other
    longest = max(len(one), len(other))
    return np.pad(one, (0, longest - len(one))) + np.pad(other, (0, longest - len(other)))


def _between(interval: tuple[float, float]) -> str:
    low, high = interval
    return "" if math.isnan(low) else f"  (95 %: {low:.5f} to {high:.5f})"


def _listed(interval: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(interval[0]) else list(interval)


class Rollout:
    """What `rollout` gives: a `Summary`, and the log in memory or in a file.

    ``out["clicks"]`` is a column as a read-only NumPy array (`virtualtb_fast.logs` lists them). A
    log that went to a file is read when a column is first asked for. The summary's figures are
    attributes too: ``out.ctr``, ``out.pages``, ``out.pages_per_second``.
    """

    def __init__(
        self,
        summary: Summary,
        log: SessionLog | None,
        path: str | None,
        description: str,
    ) -> None:
        """Made by `rollout`."""
        self.summary = summary
        """Exact counts and what follows from them."""
        self.path = path
        """The Parquet file, if the log went to one."""
        self._log = log
        self._description = description

    @property
    def log(self) -> SessionLog:
        """The log; read from its file when first asked for."""
        if self._log is None:
            if self.path is None:
                message = "the log: expected a rollout that kept it, got one with keep=False"
                raise StateError(message)
            self._log = read_log(self.path)
        return self._log

    def __getattr__(self, name: str) -> Any:
        # Only names that are not found otherwise come here.
        if not name.startswith("_") and hasattr(Summary, name):
            return getattr(self.summary, name)
        if name in Summary.__dataclass_fields__:
            return getattr(self.summary, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __len__(self) -> int:
        """Rows: pages."""
        return self.summary.pages

    def __getitem__(self, column: str) -> NDArray[Any]:
        """A column as a read-only array."""
        return self.log[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.log)

    def keys(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.log.keys()

    @property
    def metadata(self) -> dict[str, str]:
        """See `SessionLog.metadata`."""
        return self.log.metadata

    def digest(self) -> str:
        """SHA-256 of the log's schema and columns; a file is read once, piece by piece."""
        if self._log is None and self.path is not None:
            return _core.Log.digest_file(self.path)
        return self.log.digest()

    def to_arrow(self) -> Any:
        """The log as a `pyarrow.Table`; see `SessionLog.to_arrow`."""
        return self.log.to_arrow()

    def __arrow_c_schema__(self) -> object:
        return self.log.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.log.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        lines = [f"Rollout of {self._description}", *str(self.summary).splitlines()]
        if self.path is not None:
            lines.append(f"file            {self.path}")
        return "\n  ".join(lines)


def rollout(
    simulator: Simulator | GroundTruthStore | str | os.PathLike[str],
    policy: Policy | str | PolicyFunction = "random",
    *,
    sessions: int | None = None,
    pages: int | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    keep: bool = True,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rollout:
    """Plays sessions 0, 1, 2, ... of stream ``seed`` to their ends.

    Args:
        simulator: A simulator, its name, or its file; or a store whose sessions end.
        policy: ``"random"`` (uniform on the action box), ``"zero"``, ``"gaussian:SIGMA"``,
            ``"constant:FILE"``, in a store ``"logger"`` and ``"logger:query"``, the path of a
            policy's ``.safetensors``, a `Policy`, or a function of (observation float32 (n, D),
            session int64 (n,), page int64 (n,)) that returns (n, A) numbers for these n sessions.
            A function is called on this thread, with fresh arrays; for a result that does not
            depend on ``batch_size`` it must be pure. Its ``action_logp`` is recorded as 0.
        sessions: How many sessions to play.
        pages: Instead of ``sessions``: play the fewest sessions, from 0 on, that have at least
            this many pages.
        seed: Stream of random numbers, 0 to 2**64 - 1.
        num_threads: Threads; one a core unless given. A Python function runs on one.
        out: Write the log to this Parquet file instead of memory. It appears under this name only
            when it is complete. Ctrl-C or an error leaves ``out`` + ``.partial``, which `read_log`
            reads; a killed process leaves one that nothing reads. A rollout is not resumed.
        overwrite: Whether ``out``, or the ``.partial`` of an earlier rollout, may be replaced.
        keep: With False and without ``out`` there is only the summary: as many sessions as one
            likes, in no memory.
        batch_size: Sessions side by side, at most 8,192; no effect but on speed and memory. Unless
            given, some hundreds for a native policy and 8,192 for a function.
        progress: Called about 40 times a second with (pages, sessions) played so far.

    Returns:
        A `Rollout`.

    Raises:
        InvalidArgumentError: an argument out of its range, a policy for another schema.
        PolicyError: the function failed or returned something that is no action.
        OutputError: ``out`` exists, or the system refused to write it.
        KeyboardInterrupt: Ctrl-C, answered within a fraction of a second.

    Example:
        >>> import virtualtb_fast as vtb
        >>> played = vtb.rollout("virtualtb-v0-refit", "gaussian:0.1", sessions=1000)
        >>> played["clicks"].mean()  # doctest: +SKIP
    """
    place = simulator if isinstance(simulator, GroundTruthStore) else load_simulator(simulator)
    if (sessions is None) == (pages is None):
        got = "neither" if sessions is None else "both"
        raise InvalidArgumentError(f"sessions, pages: expected one of the two, got {got}")
    native, name = _native_policy(policy, place.schema.action)
    path = None if out is None else as_path(out)
    if progress is not None and not callable(progress):
        raise InvalidArgumentError(f"progress: expected a function or None, got {progress!r}")
    started = time.perf_counter()
    log, counts = _core.rollout(
        place._native,
        native,
        name=name,
        seed=_integer("seed", seed, 0, 2**64 - 1),
        sessions=None if sessions is None else _integer("sessions", sessions, 1, 2**40),
        pages=None if pages is None else _integer("pages", pages, 1, 2**40),
        num_threads=None if num_threads is None else _integer("num_threads", num_threads, 1, 1024),
        batch_size=None if batch_size is None else _integer("batch_size", batch_size, 1, 2**40),
        keep=bool(keep),
        out=path,
        overwrite=bool(overwrite),
        progress=progress,
    )
    seconds = time.perf_counter() - started
    summary = Summary(
        **counts,
        page_items=place.page_items,
        priced=isinstance(place, GroundTruthStore),
        seconds=seconds,
    )
    about = f"{place.name!r} under policy {name[:40]}, seed {int(seed)}"
    return Rollout(summary, None if log is None else SessionLog(log), path, about)


def _native_policy(policy: Policy | str | PolicyFunction, size: int) -> tuple[Any, str]:
    """What the native rollout takes, and what logs call it."""
    if isinstance(policy, str):
        policy = Policy.parse(policy)
    if isinstance(policy, Policy):
        return policy._native, policy.name
    if not callable(cast(object, policy)):
        expected = "a Policy, its name or file, or a function"
        raise InvalidArgumentError(f"policy: expected {expected}, got {type(policy).__name__}")
    name = getattr(policy, "__qualname__", type(policy).__qualname__)
    return functools.partial(_called, policy, size), f"python:{name}"


def _called(
    policy: PolicyFunction,
    size: int,
    observation: NDArray[np.float32],
    session: NDArray[np.int64],
    page: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Calls a policy and gives its answer the exact form that the native side takes."""
    rows = len(session)
    try:
        actions = np.asarray(policy(observation, session, page))
    except Exception as error:
        message = f"the policy failed: {type(error).__name__}: {error}"
        raise PolicyError(message) from error
    if actions.shape != (rows, size) or actions.dtype.kind not in "fiu":
        expected = f"numbers of shape ({rows}, {size})"
        got = f"{actions.dtype} of shape {actions.shape}"
        raise PolicyError(f"the policy's actions: expected {expected}, got {got}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(actions, np.float32)


def _integer(what: str, value: SupportsIndex, low: int, high: int) -> int:
    """The value as an int within bounds: floats and booleans are refused."""
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool | np.bool_) or not low <= number <= high:
        raise InvalidArgumentError(f"{what}: expected an integer, {low} to {high}, got {value!r}")
    return number
