"""What came of the sessions that a contender played, and what it is refused for.

Before it is timed, a contender plays whole sessions under the zero action. One that claims the same
sessions as our rollouts (the same streams) must bring the same digest: how long sessions were, and
the clicks page by page. One with random numbers of its own must bring the click-through rate and
the length of sessions of the reference, within `SIGMAS` standard errors of the difference, where
whole sessions are the unit. So nobody gains by skipping pages, customers or draws.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import StateError
from virtualtb_fast.rollout import Summary, rollout
from virtualtb_fast.simulator import Simulator

__all__ = ["LONG", "SIGMAS", "Outcome", "Plan", "Reference", "Steps", "play"]

SIGMAS: Final = 5.0
"""An honest contender is refused once in a million runs or so."""
LONG: Final = 20_000
"""Sessions of one stream that rollouts play again: several blocks, so that threads share them."""
_NORMAL_95: Final = 1.959963984540054
_STREAMS, _REFERENCE = 6, 7
"""Purposes of base seeds: the streams of the check, and that of the reference."""


@dataclass(frozen=True)
class Outcome:
    """Counts over whole sessions; they add up."""

    sessions_by_length: NDArray[np.int64]
    """(longest + 1,): entry n counts sessions of n pages."""
    clicks_by_page: NDArray[np.int64]
    """(longest,): clicks on page n of a session, counted from 0."""
    clicks_squared: int
    """Sum over sessions of (clicks of the session) squared."""
    clicks_times_pages: int
    """Sum over sessions of clicks times pages."""

    @classmethod
    def of_summary(cls, summary: Summary) -> Outcome:
        """What a rollout counted."""
        return cls(
            summary.sessions_by_length,
            summary.clicks_by_page,
            summary.clicks_squared,
            summary.clicks_times_pages,
        )

    @classmethod
    def of_pages(cls, page: NDArray[Any], clicks: NDArray[Any]) -> Outcome:
        """What a log says: page within its session and clicks (n,), session after session."""
        first = np.flatnonzero(page == 0)
        lengths = np.diff(np.append(first, len(page)))
        totals = np.add.reduceat(clicks.astype(np.int64), first)
        by_page = np.bincount(page, weights=clicks).astype(np.int64)
        return cls.of_sessions(lengths, totals, by_page)

    @classmethod
    def of_sessions(
        cls, lengths: NDArray[np.int64], totals: NDArray[np.int64], by_page: NDArray[np.int64]
    ) -> Outcome:
        """From pages and clicks of each session (n,), and clicks by page."""
        squared, product = int((totals**2).sum()), int((totals * lengths).sum())
        return cls(np.bincount(lengths), by_page, squared, product)

    @property
    def sessions(self) -> int:
        """How many."""
        return int(self.sessions_by_length.sum())

    @property
    def pages(self) -> int:
        """Pages of all sessions."""
        return int((self.sessions_by_length * np.arange(len(self.sessions_by_length))).sum())

    @property
    def clicks(self) -> int:
        """Clicks on all pages."""
        return int(self.clicks_by_page.sum())

    @property
    def length(self) -> float:
        """Mean pages a session."""
        return self.pages / self.sessions

    def digest(self) -> str:
        """The first 12 hexadecimal digits of a SHA-256 over all counts."""
        counts = [
            np.trim_zeros(self.sessions_by_length, "b").tolist(),
            np.trim_zeros(self.clicks_by_page, "b").tolist(),
            self.clicks_squared,
            self.clicks_times_pages,
        ]
        return hashlib.sha256(json.dumps(counts).encode()).hexdigest()[:12]

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            _added(self.sessions_by_length, other.sessions_by_length),
            _added(self.clicks_by_page, other.clicks_by_page),
            self.clicks_squared + other.clicks_squared,
            self.clicks_times_pages + other.clicks_times_pages,
        )


def _added(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.zeros(max(len(one), len(other)), np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total


class Steps(Protocol):
    """What is stepped: ``batch`` customers a step; finished sessions start again in the same."""

    batch: int

    def step(self) -> tuple[Any, Any, Any]:
        """Clicks, terminated, truncated: arrays (batch,), or numbers where ``batch`` is 1."""
        ...


def play(steps: Steps, lanes: int, sessions: int, longest: int) -> Outcome:
    """Plays on until the first ``lanes`` customers' places have each seen so many whole sessions.

    Only these sessions count, so that none is cut short and long ones count like short ones.

    Raises:
        StateError: after ``longest`` pages a session, the most there can be, some were not over.
    """
    left = np.zeros(steps.batch, np.int64)
    left[:lanes] = sessions
    page, run = np.zeros_like(left), np.zeros_like(left)
    by_page = np.zeros(longest, np.int64)
    lengths, totals = [], []
    for _ in range(sessions * longest):
        clicks, terminated, truncated = (np.atleast_1d(value) for value in steps.step())
        over = (terminated | truncated).astype(np.bool_)
        live = left > 0
        by_page += np.bincount(page[live], clicks[live], longest).astype(np.int64)[:longest]
        page += 1
        run += clicks.astype(np.int64)
        ended = live & over
        lengths.append(page[ended])
        totals.append(run[ended])
        left -= ended
        page[over], run[over] = 0, 0
        if not left.any():
            return Outcome.of_sessions(np.concatenate(lengths), np.concatenate(totals), by_page)
        if page[left > 0].max() >= longest:
            break
    raise StateError(f"expected sessions of at most {longest} pages, got longer ones")


@dataclass(frozen=True)
class Plan:
    """The sessions of the check: the first ``sessions`` of each stream."""

    streams: tuple[int, ...]
    sessions: int
    longest: int
    """The most pages that a session can have."""

    @classmethod
    def of(cls, simulator: Simulator, seed: int, streams: int = 256, sessions: int = 4) -> Plan:
        """So many streams, far from one another."""
        seeds = tuple(_base(seed + number, _STREAMS) for number in range(streams))
        # A limit of 0 pages plays one as well.
        return cls(seeds, sessions, max(1, simulator.config.leave.longest))

    @property
    def total(self) -> int:
        """Sessions in all."""
        return len(self.streams) * self.sessions


def _base(run: int, purpose: int) -> int:
    """Base seeds of runs must not be neighbours: environment i of a vector plays seed + i."""
    return ((run << 32) | (purpose << 24)) % 2**64


class Reference:
    """What contenders are compared with: one of our rollouts, and the digest of the plan's."""

    def __init__(self, simulator: Simulator, plan: Plan, seed: int, sessions: int) -> None:
        """Plays both, on one thread; and a log to compare with whoever plays it `again`."""
        self.seed = _base(seed, _REFERENCE)
        self.summary = rollout(
            simulator, "zero", sessions=sessions, seed=self.seed, num_threads=1, keep=False
        ).summary
        long = rollout(simulator, "zero", sessions=LONG, seed=self.seed, num_threads=1)
        self.long_digest = Outcome.of_pages(long["page"], long["clicks"]).digest()
        parts = [
            rollout(simulator, "zero", sessions=plan.sessions, seed=stream, num_threads=1)
            for stream in plan.streams
        ]
        outcomes = [Outcome.of_pages(part["page"], part["clicks"]) for part in parts]
        self.digest = sum(outcomes[1:], outcomes[0]).digest()

    def ctr(self, clicks: int, pages: int) -> float:
        """Clicks / (items on a page x pages)."""
        return clicks / (self.summary.page_items * pages)

    def ctr_band(self, sessions: float) -> float:
        """By how much the click-through rate of so many other sessions may differ."""
        low, high = self.summary.ctr_interval
        return self._band(low, high, sessions)

    def length_band(self, sessions: float) -> float:
        """By how much the mean length of so many other sessions may differ."""
        low, high = self.summary.mean_session_length_interval
        return self._band(low, high, sessions)

    def _band(self, low: float, high: float, sessions: float) -> float:
        error = (high - low) / 2 / _NORMAL_95
        return SIGMAS * error * math.sqrt(1 + self.summary.sessions / sessions)

    def refuse_others(self, name: str, outcome: Outcome) -> None:
        """Refuses sessions that are not those of the reference's kind.

        Raises:
            StateError: click-through rate or length of sessions are outside of the band.
        """
        self.refuse_rate(name, outcome.clicks, outcome.pages, outcome.sessions)
        band, want = self.length_band(outcome.sessions), self.summary.mean_session_length
        if abs(outcome.length - want) > band:
            expected = f"{want:.3f} +- {band:.3f} pages a session"
            raise StateError(f"{name}: expected {expected}, got {outcome.length:.3f}")

    def refuse_rate(self, name: str, clicks: int, pages: int, sessions: float) -> None:
        """The same of the click-through rate alone."""
        band, got = self.ctr_band(sessions), self.ctr(clicks, pages)
        if abs(got - self.summary.ctr) > band:
            expected = f"a CTR of {self.summary.ctr:.4f} +- {band:.4f}"
            raise StateError(f"{name}: expected {expected}, got {got:.4f}")

    @staticmethod
    def refuse_digest(name: str, got: str, want: str) -> None:
        """Refuses other sessions than ours.

        Raises:
            StateError: the digests differ.
        """
        if got != want:
            raise StateError(f"{name}: expected the sessions of digest {want}, got {got}")
