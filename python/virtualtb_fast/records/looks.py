"""What the columns of a log look like: names, types, how many values, which change in a session."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from virtualtb_fast.records.decode import kind_of
from virtualtb_fast.records.source import Source, pyarrow

__all__ = ["WORDS", "Column", "Looked"]

_ROWS: Final = 500_000

WORDS: Final = {
    "session": r"session|visit|sid$|trajectory|episode|request_?id|search_?id",
    "page": r"^page$|page_?(no|num|number|index|id)?$|^(step|turn|position|pv)(_?(no|index|id))?$",
    "day": r"^day$|day_?(no|num|index)$",
    "hour": r"hour",
    "value": r"price|value|revenue|amount|gmv|turnover",
    "clicks": r"click",
    "second": r"deal|order|purchase|buy|bought|conversion|units|cart|long_?view",
    "bought": r"buy|bought|purchase|order|conversion|deal",
    "outcome": r"outcome|result|feedback|event|behaviou?r|response",
    "leave": r"leave|left|exit|quit|done|terminal|last",
    "action": r"action|weight|^w_?\d*$|rank|score",
    "time": r"(^|_)(ts|time|timestamp|at|dwell|duration|latency|seconds|sec|ms)(_|$)|stamp|_time",
    "code": r"(^|_)(id|code|type|category|class|segment|group|cluster|zip|postcode)s?(_|$)",
}
"""What the columns of a role are often called."""


@dataclass(slots=True)
class Column:
    """What one column looks like."""

    name: str
    kind: str
    type: str
    distinct: int
    nulls: int
    values: list[Any]
    """Some of its values, the most frequent ones first."""
    low: float
    high: float
    length: int
    """Of lists, if all have the same; else 0."""
    steady: bool = True
    """Whether it has one value a session."""

    @property
    def looks(self) -> str:
        """A few words for a comment."""
        if self.kind == "other" or (self.kind == "list" and not self.length):
            return self.type
        if self.kind == "list":
            return f"lists of {self.length} numbers"
        parts = [self.type, f"{self.distinct:,} value{'' if self.distinct == 1 else 's'}"]
        if self.kind in ("whole", "number") and self.low <= self.high:
            parts.append(f"{self.low:g} to {self.high:g}")
        if self.nulls:
            parts.append(f"{self.nulls:,} missing")
        return ", ".join(parts)


class Looked:
    """The first rows of a log, and what its columns seem to be."""

    def __init__(self, source: Source) -> None:
        self._arrow = pyarrow("logs schema")
        self.table = self._head(source)
        self.columns = {name: self._column(name) for name in dict.fromkeys(source.schema.names)}
        self.session = self._named("session", ("whole", "text")) or self._by_runs()
        if self.session is not None:
            self._steadiness(self.session)

    def _head(self, source: Source) -> Any:
        taken, rows = [], 0
        for batch in source.batches(list(dict.fromkeys(source.schema.names))):
            taken.append(batch)
            rows += batch.num_rows
            if rows >= _ROWS:
                break
        schema = taken[0].schema if taken else source.schema
        return self._arrow.Table.from_batches(taken, schema)

    def _column(self, name: str) -> Column:
        compute, column = self._arrow.compute, self.table.column(name)
        if self._arrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = kind_of(self._arrow, column.type)
        nulls = column.null_count
        if kind in ("list", "other"):
            lengths = compute.unique(compute.list_value_length(column)) if kind == "list" else []
            one = len(lengths) == 1 and lengths[0].as_py()
            return Column(name, kind, str(column.type), 0, nulls, [], 0, 0, int(one or 0))
        counts = compute.value_counts(column.drop_null())
        order = compute.sort_indices(counts.field("counts"), sort_keys=[("", "descending")])
        values = counts.field("values").take(order[:20]).to_pylist()
        low, high = 1.0, 0.0
        if kind in ("whole", "number") and len(counts):
            bounds = compute.min_max(column).as_py()
            low, high = float(bounds["min"]), float(bounds["max"])
        return Column(name, kind, str(column.type), len(counts), nulls, values, low, high, 0)

    def _named(self, role: str, kinds: Sequence[str]) -> str | None:
        found: list[str] = [
            name
            for name, column in self.columns.items()
            if column.kind in kinds and re.search(WORDS[role], name.lower())
        ]
        return found[0] if found else None

    def _by_runs(self) -> str | None:
        """The column of identifiers whose equal values stand together."""
        for name, column in self.columns.items():
            if column.kind in ("whole", "text") and 1 < column.distinct < len(self.table):
                codes = self._codes(name)
                runs = 1 + int((codes[1:] != codes[:-1]).sum())
                if bool(runs == column.distinct) and len(codes) / runs < 200:
                    return column.name
        return None

    def _codes(self, name: str) -> Any:
        column = self.table.column(name).combine_chunks()
        if not self._arrow.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        return column.indices.cast(self._arrow.int64()).fill_null(-1).to_numpy(zero_copy_only=False)

    def _steadiness(self, session: str) -> None:
        codes = self._codes(session)
        self.starts = np.concatenate(([True], codes[1:] != codes[:-1]))
        for name, column in self.columns.items():
            if column.kind not in ("list", "other"):
                values = self._codes(name)
                changed = np.concatenate(([False], values[1:] != values[:-1]))
                column.steady = not bool((changed & ~self.starts).any())

    def counts_pages(self, name: str) -> int | None:
        """The first page's number, if the column counts the pages of sessions."""
        values = self.table.column(name).fill_null(-1).to_numpy()
        if values.dtype.kind not in "iu" or not len(values):
            return None
        values = values.astype(np.int64)
        steps = values[1:] - values[:-1]
        inside = ~self.starts[1:]
        first = values[self.starts]
        if not inside.any() or (steps[inside] == 1).mean() < 0.9:
            return None
        return int(np.bincount(np.clip(first, 0, 1000)).argmax())
