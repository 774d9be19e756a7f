"""What a fidelity report keeps of a log's sessions, or of simulated ones: counts and a sample.

Sessions come in blocks and are counted as they come, so memory does not grow with them. Joint
structure and classifiers need whole customers: of these a `Side` keeps a sample, the sessions with
the smallest of keys that are drawn as sessions come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.logs import OUTCOMES, SessionLog
from virtualtb_fast.records import Prepared
from virtualtb_fast.schema import Schema

__all__ = ["PARTS", "SLICES", "STORY", "Side", "blocks_of", "halves"]

SLICES: Final = 12
"""Parts of a day of equal length."""
STORY: Final = ("pages", "answers", "second", "end")
"""How a session went, after its customer's codes: pages, clicks or purchases, second head, end."""
PARTS: Final = ("customer", "action", "page", "clicks", "second", "outcome", "hour")
"""Columns of a block."""

_LONGEST: Final = 512
"""Longer sessions, and later pages, count as the last one."""
_CEILING: Final = 250
"""What a session's story counts at most."""
_BLOCK: Final = 1 << 14
"""Sessions of a block."""

Block = Mapping[str, NDArray[Any]]
"""Columns of whole sessions, and ``offsets`` (sessions + 1,)."""


@dataclass(frozen=True, slots=True)
class Story:
    """A sample of sessions: who came, and how it went."""

    customers: NDArray[np.uint8]
    """(n, F)."""
    course: NDArray[np.uint8]
    """(n, 4): `STORY`."""

    def __len__(self) -> int:
        return len(self.customers)

    @property
    def whole(self) -> NDArray[np.uint8]:
        """(n, F + 4): customers and how it went."""
        return np.hstack((self.customers, self.course))

    def first(self, count: int) -> Story:
        """The first so many of them."""
        return Story(self.customers[:count], self.course[:count])


class Side:
    """Counts and a sample of sessions of one origin."""

    def __init__(self, schema: Schema, sample: int, seed: tuple[int, ...]) -> None:
        """Empty.

        Args:
            schema: What customers and actions look like.
            sample: Sessions that are kept.
            seed: Of which ones.
        """
        self._schema, self._most = schema, sample
        self._random = np.random.default_rng(seed)
        self.sessions = 0
        self.pages = 0
        self.customers = [np.zeros(one.size, np.int64) for one in schema.customer]
        """Sessions by category, one array a field."""
        self.cells = [np.zeros((2, one.size), np.int64) for one in schema.customer]
        """Pages and answers (clicks, or purchases) by category, one array a field."""
        self.lengths = np.zeros(_LONGEST + 1, np.int64)
        """Sessions by number of pages."""
        self.by_page = np.zeros((5, _LONGEST), np.int64)
        """Pages, answers, squared answers, second head, and pages that ended it, by number."""
        self.by_slice = np.zeros((2, SLICES), np.int64)
        """Pages and answers by part of the day."""
        self.ends = np.zeros(len(OUTCOMES), np.int64)
        """Sessions by how they ended."""
        self._actions = np.zeros((2, schema.action))
        self._norms = 0.0
        self._keys = np.empty(0)
        self._kept = Story(
            np.empty((0, len(schema.customer)), np.uint8), np.empty((0, len(STORY)), np.uint8)
        )

    def add(self, block: Block, chosen: NDArray[np.bool_] | None = None) -> None:
        """Counts a block's sessions, or the chosen ones (sessions,) of them."""
        offsets = np.asarray(block["offsets"])
        lengths = np.diff(offsets)
        if chosen is None:
            chosen = np.ones(len(lengths), bool)
        rows = np.repeat(chosen, lengths)
        part = {name: np.asarray(block[name])[rows] for name in PARTS if name in block}
        lengths = lengths[chosen]
        if not len(lengths):
            return
        self.sessions += len(lengths)
        self.pages += len(part["page"])
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        ends = starts + lengths - 1
        answers, second = part["clicks"].astype(np.int64), part["second"].astype(np.int64)
        first = part["customer"][starts]
        for number, (counts, cells) in enumerate(zip(self.customers, self.cells, strict=True)):
            codes = part["customer"][:, number]
            counts += np.bincount(first[:, number], minlength=len(counts))
            cells[0] += np.bincount(codes, minlength=cells.shape[1])
            cells[1] += np.bincount(codes, answers, cells.shape[1]).astype(np.int64)
        self.lengths += np.bincount(np.minimum(lengths, _LONGEST), minlength=_LONGEST + 1)
        page = np.minimum(part["page"], _LONGEST - 1)
        last = np.zeros(len(page), np.int64)
        last[ends] = 1
        sums = (None, answers, answers * answers, second, last)
        for place, weights in enumerate(sums):
            self.by_page[place] += np.bincount(page, weights, _LONGEST).astype(np.int64)
        if "hour" in part:
            self._add_hours(part["hour"], answers)
        self.ends += np.bincount(part["outcome"][ends], minlength=len(OUTCOMES))
        actions = part["action"].astype(np.float64)
        self._actions += np.stack((actions.sum(0), (actions * actions).sum(0)))
        self._norms += float(np.sqrt((actions * actions).sum(1)).sum())
        totals = [np.add.reduceat(values, starts) for values in (answers, second)]
        course = np.column_stack((lengths, *totals, part["outcome"][ends]))
        self._keep(first, np.minimum(course, _CEILING).astype(np.uint8))

    def _add_hours(self, hours: NDArray[Any], answers: NDArray[np.int64]) -> None:
        known = np.isfinite(hours)
        slices = (hours[known] * (SLICES / 24)).astype(np.int64)
        self.by_slice[0] += np.bincount(slices, minlength=SLICES)
        self.by_slice[1] += np.bincount(slices, answers[known], SLICES).astype(np.int64)

    def _keep(self, customers: NDArray[Any], course: NDArray[np.uint8]) -> None:
        keys = np.concatenate((self._keys, self._random.random(len(customers))))
        order = np.argsort(keys, kind="stable")[: self._most]
        self._keys = keys[order]
        self._kept = Story(
            np.concatenate((self._kept.customers, customers.astype(np.uint8)))[order],
            np.concatenate((self._kept.course, course))[order],
        )

    @property
    def sample(self) -> Story:
        """Some of its sessions, in an order of chance."""
        return self._kept

    @property
    def answers(self) -> int:
        """Clicks, or purchases."""
        return int(self.by_page[1].sum())

    @property
    def actions(self) -> dict[str, Any]:
        """Mean and standard deviation of every dimension of the actions, and their mean norm."""
        mean, square = self._actions / max(1, self.pages)
        sd = np.sqrt(np.maximum(square - mean * mean, 0.0))
        return {
            "mean": mean.tolist(),
            "sd": sd.tolist(),
            "norm": self._norms / max(1, self.pages),
        }


def blocks_of(log: SessionLog | Prepared) -> Iterator[Block]:
    """A log in blocks of whole sessions."""
    names = [name for name in PARTS if name != "hour" or _has_hours(log)]
    offsets = log.session_offsets() if isinstance(log, SessionLog) else log["offsets"]
    columns = {name: log[name] for name in names}
    for first in range(0, len(offsets) - 1, _BLOCK):
        bounds = np.asarray(offsets[first : first + _BLOCK + 1])
        rows = slice(int(bounds[0]), int(bounds[-1]))
        part = {name: column[rows] for name, column in columns.items()}
        yield {**part, "offsets": bounds - bounds[0]}


def _has_hours(log: SessionLog | Prepared) -> bool:
    if isinstance(log, SessionLog):
        return "hour" in log.keys()  # noqa: SIM118 (a log is indexed by column alone)
    return "hour" in log.meta["columns"]


def halves(
    log: Prepared, sample: int, seed: int, progress: Any = None, most: int | None = None
) -> tuple[Side, Side]:
    """A log's sessions, split by chance in two: one to compare with, one that stands in for it.

    The second is thinned, by chance again, to about ``most`` sessions: luck is that of as many.
    """
    share = 1.0 if most is None else min(1.0, 2.0 * most / log.sessions)
    sides = tuple(Side(log.schema, sample, (seed, 1 + number)) for number in range(2))
    random = np.random.default_rng((seed, 0))
    done = 0
    for block in blocks_of(log):
        count = len(block["offsets"]) - 1
        where = random.random(count)
        chosen, second = where < 0.5, where >= 1.0 - 0.5 * share
        if done == 0 and count > 1:
            # Of the shortest of logs, too, there are some on either side.
            chosen[:2], second[:2] = (True, False), (False, True)
        sides[0].add(block, chosen)
        sides[1].add(block, second)
        done += count
        if progress is not None:
            progress("counting the log", done, log.sessions)
    return sides[0], sides[1]
