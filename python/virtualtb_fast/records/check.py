"""Whether a log can be learned from: everything that is wrong with it, in one pass.

Memory holds one batch, the distinct values of categorical columns, and a sample of numbers; it
does not grow with the log.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._arguments import function
from virtualtb_fast.errors import FileFormatError
from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.records.decode import BUY, LEAVE, MAX_PAGES, TURN, Decoder, Rows
from virtualtb_fast.records.findings import Findings, LogReport
from virtualtb_fast.records.schema import LogSchema
from virtualtb_fast.records.source import Source, open_source
from virtualtb_fast.records.statistics import Statistics

__all__ = ["FEWEST_SESSIONS", "Checked", "Scan", "check_log", "identifies", "schema_for"]

FEWEST_SESSIONS: Final = 20
"""Fewer sessions than this cannot be split into some to learn from and some to check with."""

_FEW_SESSIONS: Final = 1_000
_MOST_PAGES: Final = 2**15 - 1
_BUCKET: Final = 1 << 20

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, rows done, rows in all or 0 if not known)."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What follows from the order of rows."""

    starts: NDArray[np.bool_]
    """(n,): rows with which a session starts."""
    page: NDArray[np.int64]
    """(n,): pages of the session before this one."""
    outcome: NDArray[np.int64]
    """(n,): how each page ended; that of the last row holds if its session goes on."""
    before: int | None
    """How the row before these ended, if its session did so with it."""


def schema_for(source: Source, schema: Any) -> LogSchema:
    """The schema of a log: the one given, a file, or what a log of this package says of itself.

    Raises:
        FileFormatError: the file is no schema; or none is given and the log is not ours.
    """
    if isinstance(schema, LogSchema):
        return schema
    if schema is not None:
        return LogSchema.load(schema)
    if source.ours:
        return LogSchema.of_package(source.metadata, "the log itself")
    raise FileFormatError(
        f"{source.name}: expected a log of this package or a schema file beside it, got neither; "
        "virtualtb-fast logs schema drafts one"
    )


def check_log(logs: Any, schema: Any = None, *, progress: Progress | None = None) -> LogReport:
    """Says what a log holds and what is wrong with it.

    Args:
        logs: A Parquet file, `SessionLog`, DataFrame or other Arrow table.
        schema: A `LogSchema` or the path of a schema file; not needed for a log of this package.
        progress: Called with ("checking", rows done, rows in all or 0).

    Raises:
        FileFormatError: no Parquet file, a damaged one, or no schema.
        OutputError: the operating system could not read it.
        MissingExtraError: pyarrow is not installed.
    """
    told = function("progress", progress)
    source = open_source(logs, "logs check")
    scan = Scan(source, schema_for(source, schema))
    for rows, _ in scan.batches():
        if told is not None:
            told("checking", rows.first + len(rows), source.rows or 0)
    return scan.report()


class Scan:
    """One pass over a log: decodes, checks, counts."""

    def __init__(self, source: Source, schema: LogSchema) -> None:
        self.source, self.schema = source, schema
        self.findings = Findings()
        self.decoder = Decoder(schema, source, self.findings)
        self.statistics = Statistics(schema)
        self._order = _Order(schema, _splits(source), self.findings)
        self.readable = self.decoder.bind()
        """Whether the columns are there and of types that can be read."""
        self.final: int | None = None
        """How the last row ended, once all have been read."""

    def batches(self) -> Iterator[tuple[Rows, Checked]]:
        """Rows after rows; then `final` is known and `report` is whole."""
        if not self.readable:
            return
        with tempfile.TemporaryFile() as spool:
            for batch in self.source.batches(self.schema.columns):
                rows = self.decoder.rows(batch)
                checked = self._order.feed(rows, spool)
                self.statistics.feed(rows, checked.starts, checked.outcome, checked.before)
                yield rows, checked
            self.final = self._order.finish(spool)
            self.statistics.finish(self.final)
        self._whole()

    def report(self) -> LogReport:
        """What was found."""
        return LogReport(
            source=self.source.name,
            schema=self.schema.origin,
            rows=self.statistics.rows,
            sessions=self.statistics.sessions,
            heads=self.schema.feedback.heads,
            summary=self.statistics.summary(self.decoder) if self.readable else {},
            findings=self.findings.listed(),
        )

    def _whole(self) -> None:
        """What only the whole log shows."""
        counted = self.statistics
        if counted.rows == 0:
            self.findings.add("empty", "expected rows, got none")
            return
        got = f"{counted.sessions:,} session{'' if counted.sessions == 1 else 's'}"
        got += f" ({counted.rows:,} row{'' if counted.rows == 1 else 's'})"
        if counted.sessions == 1:
            hint = f"is {self.schema.session!r} the column of sessions?"
            expected = f"expected at least {FEWEST_SESSIONS} sessions"
            message, column = f"{expected}, got {got}", self.schema.session
            self.findings.add("single-session", message, column=column, hint=hint)
        elif counted.sessions < FEWEST_SESSIONS:
            message = f"expected at least {FEWEST_SESSIONS} sessions, got {got}"
            self.findings.add("too-few-sessions", message)
        elif counted.sessions < _FEW_SESSIONS:
            message = f"expected some thousands of sessions, got {got}: figures will be rough"
            self.findings.add("few-sessions", message, severity="warning")
        self._single_answers()
        self._constant_columns()
        self._identifiers()

    def _single_answers(self) -> None:
        counted, feedback = self.statistics, self.schema.feedback
        if feedback.form == "clicks":
            seen = np.flatnonzero(counted.clicks)
            if len(seen) == 1:
                message = f"expected different numbers of clicks, got {seen[0]} on every page"
                self.findings.add("single-outcome", message, column=feedback.column)
        ends = counted.outcomes.copy()
        column = feedback.leave or feedback.column
        if self.schema.codes is not None:
            column = "outcome"
        present = [OUTCOMES[code] for code in np.flatnonzero(ends)]
        if len(present) == 1:
            message = f"expected different outcomes, got {present[0]!r} for every page"
            if not self.findings.has("single-session"):
                self.findings.add("single-outcome", message, column=column)
            return
        wanted = (TURN, BUY, LEAVE) if feedback.heads == "outcome" else (TURN, LEAVE)
        for code in wanted:
            if ends[code] == 0:
                message = f"expected some pages with outcome {OUTCOMES[code]!r}, got none"
                kind = f"never-{OUTCOMES[code]}"
                self.findings.add(kind, message, column=column, severity="warning")

    def _constant_columns(self) -> None:
        for name, value in self.statistics.constants(self.decoder):
            if value == "null":
                self.findings.add(
                    "empty-column",
                    "expected values, got none in any row",
                    column=name,
                    hint="leave it out of the schema",
                )
                continue
            self.findings.add(
                "constant-column",
                f"expected different values, got {value} in every row",
                column=name,
                severity="warning",
                hint="nothing can be learned about it",
            )

    def _identifiers(self) -> None:
        if self.statistics.sessions < FEWEST_SESSIONS or self.schema.codes is not None:
            return
        for name, counts in zip(self.schema.categorical, self.statistics.categories, strict=True):
            distinct, present = int((counts[1:] > 0).sum()), int(counts[1:].sum())
            if identifies(distinct, present):
                self.findings.add(
                    "identifier",
                    "expected values that many sessions share, "
                    f"got {distinct:,} in {present:,} sessions",
                    column=name,
                    severity="warning",
                    hint="is it an identifier? then leave it out of the schema",
                )


def identifies(distinct: int, sessions: int) -> bool:
    """Whether a column of so many values in so many sessions says who somebody is."""
    return sessions >= FEWEST_SESSIONS and distinct > sessions // 2


class _Order:
    """Sessions in one piece, pages in order, nothing after the end."""

    def __init__(self, schema: LogSchema, splits: bool, findings: Findings) -> None:
        self._schema, self._splits, self._findings = schema, splits, findings
        self._page = self._length = self._row = 0
        self._outcome: int | None = None
        self._customer: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._last_key: int | None = None
        self._ascending = True
        self._implied = schema.feedback.leave is None and schema.feedback.form != "outcome"

    def feed(self, rows: Rows, spool: BinaryIO) -> Checked:
        """Checks rows that follow the last ones; keys of sessions go to the spool."""
        count = len(rows)
        self._spool(rows, spool)
        first = self._outcome is None
        ended = self._before(rows.outcome) != TURN
        starts = rows.starts.copy()
        starts[0] |= first
        if self._splits:
            # In such a store another customer takes over where one has bought or left.
            starts |= ended
        index = np.arange(count)
        since = np.maximum.accumulate(np.where(starts, index, -1))
        page = np.where(since < 0, self._length + index, index - since)
        self._pages(rows, starts, page)
        self._after_the_end(rows, starts, ended)
        self._same_customer(rows, starts)
        self._too_long(rows.first, page)
        outcome = rows.outcome.copy()
        last = np.append(starts[1:], False)
        self._ends(rows.first, outcome, last)
        before = None
        if starts[0] and not first:
            before = self._closed(np.array([rows.first - 1]))
        self._page = 0 if rows.page is None else int(rows.page[-1])
        self._length = int(page[-1]) + 1
        self._outcome, self._row = int(rows.outcome[-1]), rows.first + count
        self._customer = rows.categorical[-1:].copy(), rows.numeric[-1:].copy()
        return Checked(starts, page, outcome, before)

    def finish(self, spool: BinaryIO) -> int | None:
        """How the last row ended; looks for sessions in several pieces."""
        if not self._ascending:
            self._scattered(spool)
        return None if self._outcome is None else self._closed(np.array([self._row - 1]))

    def _closed(self, row: NDArray[np.int64]) -> int:
        """The outcome of a session's last row, which is the last one of a batch."""
        outcome = np.array([self._outcome])
        self._ends(int(row[0]), outcome, np.array([True]))
        return int(outcome[0])

    def _ends(self, first: int, outcome: NDArray[np.int64], last: NDArray[np.bool_]) -> None:
        """Gives sessions that end with a turned page their end."""
        open_ = last & (outcome == TURN)
        if self._implied:
            outcome[open_] = LEAVE
            return
        outcome[open_] = MAX_PAGES
        if open_.any():
            self._findings.add(
                "cut-short",
                "expected sessions to end, got one that stops after a turned page",
                column=self._schema.feedback.leave or self._schema.feedback.column,
                rows=np.flatnonzero(open_) + first,
                severity="warning",
                hint="learned from as sessions whose end is not known",
            )

    def _before(self, outcome: NDArray[np.int64]) -> NDArray[np.int64]:
        """How the page before each one ended."""
        return np.append(TURN if self._outcome is None else self._outcome, outcome[:-1])

    def _spool(self, rows: Rows, spool: BinaryIO) -> None:
        keys = rows.keys
        if not len(keys):
            return
        before = keys[0] - 1 if self._last_key is None else self._last_key
        # Ascending keys cannot come again.
        ascending = before < keys[0] and bool((keys[1:] > keys[:-1]).all())
        self._ascending = self._ascending and bool(ascending)
        self._last_key = int(keys[-1])
        pairs = np.empty((len(keys), 2), np.int64)
        pairs[:, 0], pairs[:, 1] = keys, np.flatnonzero(rows.starts) + rows.first
        spool.write(pairs.tobytes())

    def _scattered(self, spool: BinaryIO) -> None:
        spool.flush()
        bytes_ = os.fstat(spool.fileno()).st_size
        pairs = np.memmap(spool, np.int64, "r", shape=(bytes_ // 16, 2))
        buckets = -(-len(pairs) // _BUCKET)
        again: list[NDArray[np.int64]] = []
        for bucket in range(buckets):
            chosen = [
                piece[(piece[:, 0] % buckets) == bucket]
                for piece in (pairs[at : at + _BUCKET] for at in range(0, len(pairs), _BUCKET))
            ]
            held = np.concatenate(chosen)
            held = held[np.argsort(held[:, 0], kind="stable")]
            twice = np.flatnonzero(held[1:, 0] == held[:-1, 0]) + 1
            again.append(held[twice, 1])
        rows = np.sort(np.concatenate(again))
        if len(rows):
            self._findings.add(
                "session-scattered",
                "expected the rows of a session one after the other, got more of one after others",
                column=self._schema.session,
                rows=rows,
                hint=f"sort the log by {self._schema.session!r}"
                + (f" and {self._schema.page!r}" if self._schema.page else ""),
            )

    def _pages(self, rows: Rows, starts: NDArray[np.bool_], page: NDArray[np.int64]) -> None:
        name, logged = self._schema.page, rows.page
        if name is None or logged is None or self._splits:
            return
        before = np.concatenate(([self._page], logged[:-1]))
        first = self._schema.first_page
        wrong = starts & (logged != first)
        go_on = ~starts
        hint = "is the session's first page missing?"
        if 2 * int(wrong.sum()) > int(starts.sum()):
            # A slip of the schema and not of some sessions.
            usual = int(np.bincount(np.clip(logged[wrong], 0, _MOST_PAGES)).argmax())
            hint = f"do pages count from {usual}? (first_page)"
        twice = "is the row in the log twice, a duplicate?"
        again = "are rows in the log twice, duplicates? Or are they not in order?"

        def found(kind: str, bad: NDArray[np.bool_], what: str, hint: str | None = None) -> None:
            where = np.flatnonzero(bad)
            if len(where):
                row = int(where[0])
                message = what.format(got=logged[row], before=before[row], due=before[row] + 1)
                self._findings.add(kind, message, column=name, rows=where + rows.first, hint=hint)

        found(
            "first-page", wrong, f"expected a session to start with page {first}, got {{got}}", hint
        )
        expected = "expected page {due} after page {before}, got {got}"
        found("duplicate-page", go_on & (logged == before), expected, twice)
        found("page-gap", go_on & (logged > before + 1), expected)
        found("page-order", go_on & (logged < before), expected, again)

    def _after_the_end(
        self, rows: Rows, starts: NDArray[np.bool_], ended: NDArray[np.bool_]
    ) -> None:
        bad = ended & ~starts
        if not bad.any():
            return
        before = self._before(rows.outcome)
        feedback = self._schema.feedback
        for code, kind, word in (
            (LEAVE, "leave", "left"),
            (BUY, "purchase", "bought"),
            (MAX_PAGES, "end", "reached the last page"),
        ):
            where = np.flatnonzero(bad & (before == code))
            if not len(where):
                continue
            hint = None
            if code == BUY:
                hint = "one purchase ends a session; log more of them as feedback.clicks"
            self._findings.add(
                f"feedback-after-{kind}",
                f"expected no page after the customer {word}, got another one",
                column=feedback.leave or feedback.column,
                rows=where + rows.first,
                hint=hint,
            )

    def _same_customer(self, rows: Rows, starts: NDArray[np.bool_]) -> None:
        held: tuple[NDArray[Any], NDArray[Any]] = (rows.categorical, rows.numeric)
        for index, values in enumerate(held):
            last = None if self._customer is None else self._customer[index]
            if not values.shape[1]:
                continue
            before = np.concatenate((values[:1] if last is None else last, values[:-1]))
            with np.errstate(invalid="ignore"):
                other = (values != before) & ~(np.isnan(values) & np.isnan(before))
            other &= ~starts[:, None]
            for column in np.flatnonzero(other.any(0)).tolist():
                self._findings.add(
                    "customer-changes",
                    "expected the same customer on all pages of a session, got another",
                    column=self._customer_name(index, column),
                    rows=np.flatnonzero(other[:, column]) + rows.first,
                )

    def _customer_name(self, numeric: int, column: int) -> str:
        if self._schema.codes is not None:
            return f"customer[{column}] ({self._schema.codes.customer[column].name})"
        return (self._schema.numeric if numeric else self._schema.categorical)[column]

    def _too_long(self, first: int, page: NDArray[np.int64]) -> None:
        long = np.flatnonzero(page == _MOST_PAGES)
        if len(long):
            message = f"expected sessions of at most {_MOST_PAGES:,} pages, got a longer one"
            name = self._schema.session
            self._findings.add("too-long", message, column=name, rows=long + first)


def _splits(source: Source) -> bool:
    """Whether it is the log of a store in which customers take over within a session."""
    try:
        rules = json.loads(source.metadata.get("store_config", "{}"))
    except ValueError:
        return False
    return isinstance(rules, dict) and (
        bool(rules.get("continuing")) or str(rules.get("leave")).lower() == "respawn"
    )
