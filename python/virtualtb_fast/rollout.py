"""Whole sessions under a policy, without Python in the loop.

``rollout(simulator, sessions=N, seed=s)`` plays sessions 0 to N - 1 of the stream of seed ``s``:
the same customers, draw for draw, that an environment seeded ``s`` shows one after the other. In
place of the simulator it takes a `GroundTruthStore`.
Neither threads nor ``batch_size`` nor the kind of CPU change a single byte of the result; nor does
it matter whether a rollout to a file was stopped and resumed.

While a rollout writes ``FILE``, ``FILE.partial`` holds the pages so far, and ``FILE.journal`` what
was asked and which blocks of 8,192 sessions are whole, with checksums. The name ``FILE`` appears
when all is there; the other two are gone then. Whatever stops it before (Ctrl-C, a full disk, a
kill, a power cut), both stay, and the same call with ``resume=True`` plays only what is missing, to
the same bytes, on another machine too. After a power cut some seconds of work may be missing.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast._summary import Summary
from virtualtb_fast.errors import InvalidArgumentError, PolicyError, StateError
from virtualtb_fast.logs import SessionLog, read_log
from virtualtb_fast.policies import Policy
from virtualtb_fast.simulator import Simulator, load_simulator
from virtualtb_fast.store import GroundTruthStore

__all__ = ["PolicyFunction", "Rollout", "Summary", "rollout"]

PolicyFunction = Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], Any]
"""A policy in Python: (observation (n, D), session (n,), page (n,)) to actions (n, A)."""


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
    resume: bool = False,
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
            depend on ``batch_size``, and that can be resumed, it must be pure. Its ``action_logp``
            is recorded as 0.
        sessions: How many sessions to play.
        pages: Instead of ``sessions``: play the fewest sessions, from 0 on, that have at least
            this many pages.
        seed: Stream of random numbers, 0 to 2**64 - 1.
        num_threads: Threads; one a core unless given. A Python function runs on one.
        out: Write the log to this Parquet file instead of memory. It appears under this name only
            when it is complete. Ctrl-C or an error leaves ``out`` + ``.partial``, which `read_log`
            reads, and ``out`` + ``.journal``; a killed process leaves the same, but a ``.partial``
            that only a resumed rollout can use.
        overwrite: Whether ``out`` may be replaced, and, unless that is resumed, the ``.partial`` of
            an earlier rollout. Until the new ``out`` is complete the old one stays.
        resume: Go on with what an earlier run left beside ``out``, if there is anything, and
            otherwise start: the same call can be made again and again until it succeeds. If ``out``
            is complete and what is asked, it is read and counted, and nothing is played. The
            arguments must be those of the earlier run, but for ``num_threads``, ``batch_size``,
            ``overwrite`` and ``progress``; all that decides the bytes is compared, simulator and
            policy by their digests. Of a function only the name is known: it must be pure, that is,
            give the same actions for the same observation, session and page, or the log is no
            rollout of anything.
        keep: With False and without ``out`` there is only the summary: as many sessions as one
            likes, in no memory.
        batch_size: Sessions side by side, at most 8,192; no effect but on speed and memory. Unless
            given, some hundreds for a native policy and 8,192 for a function.
        progress: Called about 40 times a second with (pages, sessions) played so far.

    Returns:
        A `Rollout`.

    Raises:
        InvalidArgumentError: an argument out of its range, a policy for another schema; another
            rollout than the one to be resumed (the message says in what they differ).
        PolicyError: the function failed or returned something that is no action.
        OutputError: ``out`` exists, another process is writing it, or the system refused to write
            it (what was played so far stays and can be resumed).
        FileFormatError: what is to be resumed is damaged, or not a rollout's.
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
    path = None if out is None else _arguments.as_path(out)
    keep, overwrite, resume = (
        _arguments.flag(what, value)
        for what, value in (("keep", keep), ("overwrite", overwrite), ("resume", resume))
    )
    if resume and path is None:
        raise InvalidArgumentError("resume: expected out=FILE with it, got a rollout to memory")
    started = time.perf_counter()
    log, counts, resumed = _core.rollout(
        place._native,
        native,
        name=name,
        seed=_arguments.seed(seed),
        sessions=None if sessions is None else _arguments.integer("sessions", sessions, 1, 2**40),
        pages=None if pages is None else _arguments.integer("pages", pages, 1, 2**40),
        num_threads=_arguments.threads(num_threads),
        batch_size=None
        if batch_size is None
        else _arguments.integer("batch_size", batch_size, 1, 2**40),
        keep=keep,
        out=path,
        overwrite=overwrite,
        resume=resume,
        progress=_arguments.function("progress", progress),
    )
    seconds = time.perf_counter() - started
    summary = Summary(
        **counts,
        page_items=place.page_items,
        sells=isinstance(place, GroundTruthStore) or place.config.response.heads == "outcome",
        priced=isinstance(place, GroundTruthStore),
        seconds=seconds,
        resumed=resumed,
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
