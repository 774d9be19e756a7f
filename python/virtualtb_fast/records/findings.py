"""What is wrong with a log, as a list that people and programs can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import LogError

__all__ = ["Finding", "Findings", "LogReport"]

_ROWS_SHOWN = 5
_CAUSE = "session-scattered"

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, however often it occurs."""

    kind: str
    """What it is, in a word: ``page-gap``."""
    severity: Severity
    """An error keeps a log from being learned from, a warning does not."""
    column: str | None
    """The column, if it is about one."""
    message: str
    """What was expected and what was got, at its first occurrence."""
    count: int = 1
    """How many rows it was found in; 0: it is about the whole column or log."""
    rows: tuple[int, ...] = ()
    """The first of these rows, counted from 0."""
    hint: str | None = None
    """What to do about it."""

    def __str__(self) -> str:
        where = "" if self.column is None else f"column {self.column!r}: "
        place = ""
        if self.rows:
            place = f" in row {self.rows[0]:,}"
            if self.count > 1:
                place += f" (and {self.count - 1:,} more)"
        return f"{where}{self.message}{place}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "column": self.column,
            "message": self.message,
            "count": self.count,
            "rows": list(self.rows),
            "hint": self.hint,
        }


class Findings:
    """Findings as they come up, one for each kind and column."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str | None], Finding] = {}

    def add(
        self,
        kind: str,
        message: str,
        *,
        column: str | None = None,
        rows: NDArray[np.int64] | Sequence[int] = (),
        severity: Severity = "error",
        hint: str | None = None,
    ) -> None:
        """Adds rows to a finding, which keeps the message of its first occurrence."""
        count, first = len(rows), tuple(int(row) for row in rows[:_ROWS_SHOWN])
        key = (kind, column)
        old = self._held.get(key)
        if old is None:
            self._held[key] = Finding(kind, severity, column, message, count, first, hint)
        else:
            shown = (old.rows + first)[:_ROWS_SHOWN]
            self._held[key] = Finding(
                kind, old.severity, column, old.message, old.count + count, shown, old.hint
            )

    def has(self, kind: str) -> bool:
        """Whether there is one of this kind."""
        return any(held == kind for held, _ in self._held)

    @property
    def errors(self) -> int:
        """How many of them are errors."""
        return sum(finding.severity == "error" for finding in self._held.values())

    def listed(self) -> tuple[Finding, ...]:
        """Errors first, each by the first row in which it was found."""

        def place(one: Finding) -> tuple[bool, bool, bool, int, str, str]:
            # Where sessions are in pieces, what is wrong with page numbers follows from that.
            first = one.rows[0] if one.rows else 0
            error = one.severity == "error"
            return one.kind != _CAUSE, not error, not one.rows, first, one.column or "", one.kind

        return tuple(sorted(self._held.values(), key=place))


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a log holds, and what is wrong with it."""

    source: str
    """The file, or the kind of object."""
    schema: str
    """Where its schema comes from."""
    rows: int
    """Pages."""
    sessions: int
    heads: str
    """What is learned from its feedback: ``clicks`` or ``outcome``."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """What the columns hold: customers, actions, feedback, lengths of sessions."""
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the log from being learned from."""
        return tuple(one for one in self.findings if one.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What one should know of."""
        return tuple(one for one in self.findings if one.severity == "warning")

    def require(self) -> None:
        """Raises `LogError` if there is an error: file, column and row of the first ones."""
        errors = self.errors
        if not errors:
            return
        shown = [str(one) + (f"; {one.hint}" if one.hint else "") for one in errors[:3]]
        text = f"{self.source}: {shown[0]}"
        for line in shown[1:]:
            text += f"\n  {line}"
        if len(errors) > 3:
            text += f"\n  and {len(errors) - 3} more: virtualtb-fast logs check shows them all"
        raise LogError(text)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "source": self.source,
            "schema": self.schema,
            "usable": not self.errors,
            "pages": self.rows,
            "sessions": self.sessions,
            "heads": self.heads,
            **self.summary,
            "findings": [one.to_dict() for one in self.findings],
        }
