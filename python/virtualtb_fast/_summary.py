"""What a rollout counts, and the metrics that follow from the counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import InvalidArgumentError

__all__ = ["Summary"]

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
    sells: bool
    """Whether a click is a purchase: in a store, and where a simulator draws outcomes."""
    priced: bool
    """Whether there are prices: in a store."""
    seconds: float = field(compare=False)
    """How long it took; of a sum, all workers' time together."""
    resumed: int = field(default=0, compare=False, repr=False)
    """Pages that an earlier run had played, if this one resumed it: they took none of `seconds`."""

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
        """The rate, writing included, of the pages that were not `resumed`."""
        return (self.pages - self.resumed) / self.seconds if self.seconds > 0 else math.inf

    def __add__(self, other: Summary) -> Summary:
        if not isinstance(other, Summary):
            return NotImplemented
        for name in ("page_items", "sells", "priced"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                expected = f"summaries of the same kind ({name} = {mine})"
                raise InvalidArgumentError(f"+: expected {expected}, got {theirs}")
        names = {one.name for one in fields(self)} - {"page_items", "sells", "priced"}
        counts = {name: _sum(getattr(self, name), getattr(other, name)) for name in names}
        return replace(self, **counts)

    def __radd__(self, other: object) -> Summary:
        # What `sum` starts with.
        return self if other == 0 else NotImplemented

    def __str__(self) -> str:
        what = "purchases" if self.sells else "clicks"
        lines = [
            f"pages           {self.pages:,}",
            f"sessions        {self.sessions:,}, {self.mean_session_length:.2f} pages each",
            f"CTR             {self.ctr:.5f}{_between(self.ctr_interval)}, "
            f"{what} / ({self.page_items} x pages)",
        ]
        if self.sells:
            lines.append(
                f"R2P             {self.r2p:.5f}{_between(self.r2p_interval)}, pages that sold"
            )
        if self.priced:
            lines.append(f"TT, TV          {self.tt:,.2f} of money, {self.tv:,} units")
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
            "resumed": self.resumed,
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
