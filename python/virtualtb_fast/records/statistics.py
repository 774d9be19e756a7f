"""What a log's columns hold, counted as its rows go by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.records.decode import Decoder, Rows
from virtualtb_fast.records.schema import LogSchema

__all__ = ["Sample", "Statistics"]

_SAMPLE: Final = 100_000


class Sample:
    """A uniform sample of a stream of rows, the same for the same stream.

    Every row gets a random number; the rows with the smallest are kept.
    """

    def __init__(self, columns: int, size: int = _SAMPLE) -> None:
        self._size = size
        self._values = np.empty((0, columns))
        self._marks = np.empty(0)
        self._draws = np.random.default_rng(0)

    def feed(self, values: NDArray[np.float64]) -> None:
        """Adds rows."""
        marks = self._draws.random(len(values))
        if len(self._marks) == self._size:
            chosen = marks < self._marks.max()
            values, marks = values[chosen], marks[chosen]
        self._values = np.concatenate((self._values, values))
        self._marks = np.concatenate((self._marks, marks))
        if len(self._marks) > self._size:
            kept = np.sort(np.argpartition(self._marks, self._size)[: self._size])
            self._values, self._marks = self._values[kept], self._marks[kept]

    @property
    def values(self) -> NDArray[np.float64]:
        """(rows kept, columns)."""
        return self._values


class Statistics:
    """Counts of a log's values; customers once a session."""

    def __init__(self, schema: LogSchema) -> None:
        self._schema = schema
        self.rows = self.sessions = 0
        self.clicks = np.zeros(256, np.int64)
        """Pages by clicks."""
        self.second = np.zeros(256, np.int64)
        """Pages by the second count."""
        self.outcomes = np.zeros(len(OUTCOMES), np.int64)
        """Pages by how they ended."""
        self.lengths = np.zeros(1, np.int64)
        """Sessions by their number of pages."""
        fields = schema.codes.customer if schema.codes else schema.categorical
        self.categories = [np.zeros(1, np.int64) for _ in fields]
        """Sessions by category, missing ones last, for each categorical column."""
        self.numbers = Sample(len(schema.numeric))
        """Numeric columns of some sessions."""
        self.missing = np.zeros(len(schema.numeric), np.int64)
        self._bounds = np.array([[np.inf], [-np.inf]]) * np.ones((1, len(schema.numeric)))
        self._action: NDArray[np.float64] | None = None
        self._pending: int | None = None
        self._start = 0

    def feed(
        self,
        rows: Rows,
        starts: NDArray[np.bool_],
        outcome: NDArray[np.int64],
        before: int | None,
    ) -> None:
        """Counts rows that follow the last ones; see `virtualtb_fast.records.check.Checked`."""
        if self._pending is not None:
            self.outcomes[self._pending if before is None else before] += 1
        self._pending = int(outcome[-1])
        self.outcomes += np.bincount(outcome[:-1], minlength=len(OUTCOMES))
        self.rows += len(rows)
        self.clicks += np.bincount(rows.clicks, minlength=256)
        self.second += np.bincount(rows.second, minlength=256)
        first = np.flatnonzero(starts) + rows.first
        if len(first):
            ends = first if self.sessions else first[1:]
            begins = np.concatenate(([self._start], first[:-1])) if self.sessions else first[:-1]
            self._lengths(ends - begins)
            self._start = int(first[-1])
        self.sessions += len(first)
        self._customers(rows.categorical[starts], rows.numeric[starts])
        self._actions(rows.action)

    def finish(self, outcome: int | None) -> None:
        """Counts how the last row ended."""
        if outcome is not None:
            self.outcomes[outcome] += 1
            self._lengths(np.array([self.rows - self._start]))

    def _lengths(self, lengths: NDArray[np.int64]) -> None:
        self.lengths = _added(self.lengths, np.bincount(np.minimum(lengths, 2**15)))

    def _customers(self, categorical: NDArray[np.int32], numeric: NDArray[np.float64]) -> None:
        for index in range(categorical.shape[1]):
            # Entry 0 counts the missing ones, -1.
            counts = np.bincount(categorical[:, index] + 1)
            self.categories[index] = _added(self.categories[index], counts)
        if numeric.shape[1] and len(numeric):
            missing = np.isnan(numeric)
            self.missing += missing.sum(0)
            low = np.where(missing, np.inf, numeric).min(0)
            high = np.where(missing, -np.inf, numeric).max(0)
            self._bounds[0] = np.minimum(self._bounds[0], low)
            self._bounds[1] = np.maximum(self._bounds[1], high)
            self.numbers.feed(numeric)

    def _actions(self, action: NDArray[np.float32]) -> None:
        if self._action is None:
            self._action = np.zeros((4, action.shape[1]))
            self._action[0], self._action[1] = np.inf, -np.inf
        held, values = self._action, action.astype(np.float64)
        held[0] = np.minimum(held[0], values.min(0))
        held[1] = np.maximum(held[1], values.max(0))
        held[2] += values.sum(0)
        held[3] += (values**2).sum(0)

    @property
    def action_bounds(self) -> tuple[float, float]:
        """The lowest and the highest number of all actions."""
        if self._action is None:
            return 0.0, 0.0
        return float(self._action[0].min()), float(self._action[1].max())

    @property
    def action_spread(self) -> NDArray[np.float64]:
        """(A,): the standard deviation of each dimension."""
        if self._action is None:
            return np.zeros(1)
        mean = self._action[2] / self.rows
        spread: NDArray[np.float64] = np.sqrt(np.maximum(self._action[3] / self.rows - mean**2, 0))
        return spread

    @property
    def longest(self) -> int:
        """Pages of the longest session."""
        return len(self.lengths) - 1

    def sample(self, index: int) -> tuple[NDArray[np.float64], float]:
        """Numbers of a numeric column, none of them missing, and the share of missing ones."""
        values = self.numbers.values[:, index]
        values = values[~np.isnan(values)]
        if not len(values):
            # So rare that the sample has none.
            values = self._bounds[:, index]
        return values, float(self.missing[index]) / max(1, self.sessions)

    def constants(self, decoder: Decoder) -> Iterator[tuple[str, str]]:
        """Columns of which every row has the same value, and that value."""
        schema = self._schema
        for index, counts in enumerate(self.categories):
            seen = np.flatnonzero(counts)
            if len(seen) != 1:
                continue
            if schema.codes is not None:
                name = f"customer[{index}] ({schema.codes.customer[index].name})"
                yield name, str(seen[0] - 1)
            else:
                values = list(decoder.vocabularies[index].numbers)
                yield schema.categorical[index], repr(values[seen[0] - 1]) if seen[0] else "null"
        for index, name in enumerate(schema.numeric):
            low, high = self._bounds[:, index]
            if low > high:
                yield name, "null"
            elif low == high and not self.missing[index]:
                yield name, f"{low:g}"
        if self._action is None:
            return
        names = schema.action
        same = np.flatnonzero(self._action[0] == self._action[1]).tolist()
        for index in same:
            column = f"{names[0]}[{index}]" if len(names) == 1 else names[index]
            yield column, f"{self._action[0, index]:g}"

    def summary(self, decoder: Decoder) -> dict[str, Any]:
        """What reports show, as JSON can hold it."""
        low, high = self.action_bounds
        clicks = np.trim_zeros(self.clicks, "b")
        return {
            "customer": [*self._fields(decoder)],
            "action": {
                "dimensions": decoder.action_width,
                "low": low,
                "high": high,
                # Rounded: sums over batches differ in the last digits.
                "spread": float(f"{np.sqrt((self.action_spread**2).mean()):.6g}"),
            },
            "clicks": clicks.tolist(),
            "second": np.trim_zeros(self.second, "b").tolist(),
            "outcomes": dict(zip(OUTCOMES, self.outcomes.tolist(), strict=True)),
            "pages_per_session": self.rows / self.sessions if self.sessions else None,
            "longest": self.longest,
        }

    def _fields(self, decoder: Decoder) -> Iterator[dict[str, Any]]:
        schema = self._schema
        for index, counts in enumerate(self.categories):
            yield {
                "name": schema.codes.customer[index].name
                if schema.codes
                else schema.categorical[index],
                "kind": "categorical",
                "distinct": int((counts[1:] > 0).sum()),
                "categories": schema.codes.customer[index].size
                if schema.codes
                else len(decoder.vocabularies[index]),
                "missing": int(counts[0]) if len(counts) else 0,
            }
        for index, name in enumerate(schema.numeric):
            low, high = self._bounds[:, index].tolist()
            known = low <= high
            yield {
                "name": name,
                "kind": "numeric",
                "low": low if known else None,
                "high": high if known else None,
                "missing": int(self.missing[index]),
            }


def _added(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two arrays of counts, the shorter of which goes on with zeros."""
    if len(left) < len(right):
        left, right = right, left
    out: NDArray[np.int64] = left.copy()
    out[: len(right)] += right
    return out
