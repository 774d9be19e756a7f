"""A first schema file for a log, by looking at it. What it guesses, it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.records.check import FEWEST_SESSIONS, identifies
from virtualtb_fast.records.looks import WORDS, Column, Looked
from virtualtb_fast.records.schema import FORMAT, VERSION
from virtualtb_fast.records.source import Source, open_source

__all__ = ["Draft", "draft_schema"]

_WIDTH: Final = 36
_FEW, _MANY = 64, 1_000
"""Whole numbers with more values than the first are numbers, not categories; what has more values
than the second may be an identifier."""
_SPREAD: Final = 12
"""Whole numbers with more values than this are numbers if they count from elsewhere than 0 and 1,
or leave many out: codes of categories do neither."""
_IDENTIFIER: Final = "an identifier"

_MEANINGS: Final = {
    "turn": r"turn|next|pass|skip|scroll|continue|more|view|none",
    "buy": r"buy|bought|purchase|order|convert|conversion",
    "leave": r"leave|left|exit|quit|abandon|end$",
    "max_pages": r"max|cut|limit|trunc",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A schema file to be reviewed."""

    text: str
    """The file: TOML with a comment on every guess."""
    missing: tuple[str, ...]
    """Keys for which no column was found; the file does not load before they are filled in."""
    left_out: tuple[str, ...]
    """Columns that the file does not use."""
    warnings: tuple[str, ...] = ()
    """What one should know of: columns of the customer's that look like identifiers."""


def draft_schema(logs: Any) -> Draft:
    """Drafts the schema file of a log.

    It looks at the first 500,000 rows: names, types, how many values a column has, which columns
    keep their value within a session.

    Args:
        logs: A Parquet file, DataFrame or other Arrow table.

    Raises:
        InvalidArgumentError: a log of this package, which says itself what its columns are.
        FileFormatError: no Parquet file, or a damaged one.
        OutputError: the operating system could not read it.
    """
    source = open_source(logs, "logs schema")
    if source.ours:
        raise InvalidArgumentError(
            f"{source.name}: expected a log of another form, got one of this package, "
            "which needs no schema file"
        )
    looked = Looked(source)
    return _Writer(source, looked).draft()


class _Writer:
    """Gives columns their roles and writes the file."""

    def __init__(self, source: Source, looked: Looked) -> None:
        self._source, self._looked, self._columns = source, looked, looked.columns
        self._used: set[str] = set()
        self._missing: list[str] = []
        self._session = looked.session
        self._take(self._session)
        self._page, self._first = self._pages()
        self._day = self._find("day", ("whole",))
        self._hour = self._find("hour", ("whole", "number"), low=0, high=24)
        self._named = True
        self._action = self._actions()
        self._feedback = self._answers()
        self._value = self._find("value", ("number",), low=0, steady=False)
        self._customers()

    def _take(self, name: str | None) -> str | None:
        if name is not None:
            self._used.add(name)
        return name

    def _free(self, kinds: Sequence[str]) -> Iterator[Column]:
        for column in self._columns.values():
            if column.name not in self._used and column.kind in kinds:
                yield column

    def _find(
        self,
        role: str,
        kinds: Sequence[str],
        *,
        low: float = -np.inf,
        high: float = np.inf,
        steady: bool | None = None,
    ) -> str | None:
        for column in self._free(kinds):
            fits = column.kind not in ("whole", "number") or (
                low <= column.low and column.high <= high
            )
            same = steady is None or column.steady == steady or self._session is None
            if fits and same and re.search(WORDS[role], column.name.lower()):
                return self._take(column.name)
        return None

    def _pages(self) -> tuple[str | None, int]:
        if self._session is None:
            return None, 0
        named = [
            column.name
            for column in self._free(("whole",))
            if re.search(WORDS["page"], column.name.lower())
        ]
        others = [column.name for column in self._free(("whole",)) if not column.steady]
        for name in dict.fromkeys([*named, *others]):
            first = self._looked.counts_pages(name)
            if first is not None:
                return self._take(name), first
        return None, 0

    def _actions(self) -> list[str]:
        lists = [column for column in self._free(("list",)) if column.length]
        numbers = [column for column in lists if "int" not in column.type] or lists
        named = [one for one in numbers if re.search(WORDS["action"], one.name.lower())]
        if numbers:
            return [str(self._take((named or numbers)[0].name))]
        groups: dict[str, list[str]] = {}
        for column in self._free(("number", "whole")):
            match = re.fullmatch(r"(.*?)[_\[.]?(\d+)\]?", column.name)
            if match:
                groups.setdefault(match[1], []).append(column.name)
        floats = {
            stem: names
            for stem, names in groups.items()
            if len(names) > 1
            and (
                re.search(WORDS["action"], stem.lower() or "?")
                or all(self._columns[name].kind == "number" for name in names)
            )
        }
        if not floats:
            self._named = False
            return self._changing()
        named_stems = [stem for stem in floats if re.search(WORDS["action"], stem.lower() or "?")]
        best = max(named_stems or floats, key=lambda stem: len(floats[stem]))
        self._used.update(floats[best])
        return floats[best]

    def _changing(self) -> list[str]:
        """Numbers that change within a session and do not look like anything else."""
        changing = [
            column.name
            for column in self._free(("number",))
            if not column.steady
            # Counts with gaps among them are numbers too, as pandas has it.
            and not all(float(value).is_integer() for value in column.values)
            and not re.search(WORDS["time"], column.name.lower())
        ]

        def stem(name: str) -> str:
            return re.split(r"[_.\-]", name, maxsplit=1)[0]

        def other(name: str) -> bool:
            """Whether its name says money or an answer, and no two others are named like it."""
            roles = ("value", "clicks", "second", "leave")
            said = any(re.search(WORDS[role], name.lower()) for role in roles)
            alike = sum(stem(one) == stem(name) for one in changing) - 1
            return said and (alike < 2 or stem(name) == name)

        found = [name for name in changing if not other(name)]
        stems = [stem(name) for name in found]
        largest = max(stems, key=stems.count, default="")
        if stems.count(largest) > 1:
            # What is named alike belongs together.
            found = [name for name in found if stem(name) == largest]
        self._used.update(found)
        return found

    def _answers(self) -> list[tuple[str, Any, str]]:
        """(key, value, comment) of the feedback."""
        for column in self._free(("text",)):
            values = [str(value) for value in column.values]
            meant = {
                meaning: [value for value in values if re.search(words, value.lower())]
                for meaning, words in _MEANINGS.items()
            }
            if column.distinct <= 8 and meant["buy"] and meant["leave"]:
                return self._outcome(column, meant)
        clicks = self._find("clicks", ("whole", "flag"), low=0, high=255)
        if clicks is not None:
            lines = [("clicks", clicks, f"guess, from its name: {self._columns[clicks].looks}")]
            second = self._find("second", ("whole", "flag"), low=0, high=255, steady=False)
            if second is not None:
                lines.append(("second", second, f"guess, from its name: {self._looks(second)}"))
            most = max(10, int(self._columns[clicks].high))
            return [*lines, *self._left(), ("page_items", most, "items on a page, the most clicks")]
        bought = self._find("bought", ("whole", "flag"), low=0, high=255)
        if bought is not None:
            lines = [("bought", bought, f"guess, from its name: {self._columns[bought].looks}")]
            return [*lines, *self._left()]
        self._missing.append("feedback.clicks")
        return [("clicks", "", "NOT FOUND: clicks, outcome or bought, see the documentation")]

    def _outcome(self, column: Column, meant: dict[str, list[str]]) -> list[tuple[str, Any, str]]:
        self._take(column.name)
        lines: list[tuple[str, Any, str]] = [
            ("outcome", column.name, f"guess, from its values: {column.looks}")
        ]
        seen: set[str] = set()
        for meaning in ("buy", "leave", "max_pages", "turn"):
            values = [value for value in meant[meaning] if value not in seen]
            seen.update(values)
            if meaning == "turn":
                # What says neither goes on, as far as one can tell.
                values += [str(one) for one in column.values if str(one) not in seen]
            if values:
                lines.append((meaning, values, "guess"))
        return lines

    def _left(self) -> list[tuple[str, Any, str]]:
        name = self._find("leave", ("flag", "whole"), low=0, high=1, steady=False)
        if name is None:
            return []
        return [("leave", name, f"guess, from its name: {self._looks(name)}")]

    def _customers(self) -> None:
        self._categorical: list[Column] = []
        self._numeric: list[Column] = []
        self._left_out: list[tuple[Column, str]] = []
        # Where sessions were not found, how many values there are decides alone.
        sessions = self._columns[self._session].distinct if self._session else FEWEST_SESSIONS
        for column in self._columns.values():
            if column.name in self._used:
                continue
            kind = column.kind
            if kind in ("list", "other"):
                time = column.type.startswith(("timestamp", "time", "duration"))
                what = "a time" if time else "no category and no number"
                self._left_out.append((column, what))
            elif not column.steady:
                self._left_out.append((column, "changes within a session"))
            elif self._identifies(column, sessions):
                self._left_out.append((column, _IDENTIFIER))
            elif kind == "number" or (kind == "whole" and self._measures(column)):
                self._numeric.append(column)
            else:
                self._categorical.append(column)
        if not self._categorical and not self._numeric:
            self._missing.append("customer.categorical")

    def _identifies(self, column: Column, sessions: int) -> bool:
        """Whether it says who somebody is rather than what they are like."""
        unique = identifies(column.distinct, sessions)
        if column.kind == "text":
            return unique and column.distinct > _MANY
        named = re.search(r"(^|_)(id|key|uuid)$|time|stamp", column.name.lower())
        return column.kind == "whole" and unique and column.distinct > _FEW and named is not None

    def _measures(self, column: Column) -> bool:
        """Whether whole numbers say how much rather than which."""
        if column.distinct > _FEW:
            return True
        if re.search(WORDS["code"], column.name.lower()):
            return False
        dense = column.distinct > 0.9 * (column.high - column.low + 1)
        return column.distinct > _SPREAD and not (dense and column.low in (0, 1))

    def _looks(self, name: str) -> str:
        return self._columns[name].looks

    def draft(self) -> Draft:
        rows = len(self._looked.table)
        part = "" if self._source.rows in (None, rows) else "first "
        lines = [
            f"# Draft of a schema for {self._source.name}, from its {part}{rows:,} rows.",
            "# Every line with a comment is a guess: read it, mend it, then run",
            "# virtualtb-fast logs check LOGS --schema THIS_FILE",
            f"format = {_toml(FORMAT)}",
            f"version = {VERSION}",
            "",
            "[rows]",
            *self._row_lines(),
            "",
            "[customer]",
            *_listed("categorical", [(one.name, one.looks) for one in self._categorical]),
            *_listed("numeric", [(one.name, one.looks) for one in self._numeric]),
            *self._left_out_lines(),
            "",
            "[action]",
            *self._action_lines(),
            "",
            "[feedback]",
            *(_line(key, value, comment) for key, value, comment in self._feedback),
        ]
        if not any(key in ("leave", "outcome") for key, _, _ in self._feedback):
            lines.append("# no leave: a customer leaves after the last page of a session")
        left_out = tuple(column.name for column, _ in self._left_out)
        return Draft("\n".join(lines) + "\n", tuple(self._missing), left_out, (*self._warnings(),))

    def _warnings(self) -> Iterator[str]:
        """Columns with nearly one value a session, whether they were left out or not."""
        if self._session is None:
            return
        sessions = self._columns[self._session].distinct
        out = {column.name for column, why in self._left_out if why == _IDENTIFIER}
        for column in self._columns.values():
            if column.name in out or (
                column in self._categorical and identifies(column.distinct, sessions)
            ):
                what = "left out" if column.name in out else "leave it out if so"
                yield (
                    f"column {column.name!r}: {column.distinct:,} values in {sessions:,} sessions: "
                    f"an identifier? ({what})"
                )

    def _row_lines(self) -> Iterator[str]:
        if self._session is None:
            self._missing.append("rows.session")
            yield _line("session", "", "NOT FOUND: name the column of sessions")
        else:
            looks = self._looks(self._session)
            yield _line("session", self._session, f"guess: {looks}")
        if self._page is None:
            yield "# no page: the rows of a session are its pages, in order"
        else:
            yield _line("page", self._page, "counts up within sessions")
            yield _line("first_page", self._first, "where most sessions start")
        for key, name in (("day", self._day), ("hour", self._hour), ("value", self._value)):
            if name is not None:
                yield _line(key, name, f"guess, from its name: {self._looks(name)}")

    def _left_out_lines(self) -> Iterator[str]:
        if self._left_out:
            yield "# left out:"
        for column, why in self._left_out:
            yield f"#   {_toml(column.name):{_WIDTH - 6}} {why} ({column.looks})"

    def _action_lines(self) -> Iterator[str]:
        if not self._action:
            self._missing.append("action.columns")
            yield _line("columns", [""], "NOT FOUND: columns of numbers, or one column of lists")
            return
        if not self._named:
            yield "# guess: numbers that change within a session; take out what you did not choose"
            yield from _listed("columns", [(name, self._looks(name)) for name in self._action])
            return
        if len(self._action) == 1:
            yield _line("columns", self._action, f"guess: {self._looks(self._action[0])}")
            return
        yield f"# guess, from their names: {len(self._action)} columns of numbers"
        yield from _wrapped("columns", self._action)


def _listed(key: str, columns: list[tuple[str, str]]) -> Iterator[str]:
    """A list with one column a line, each with a comment."""
    if not columns:
        yield f"{key} = []"
        return
    yield f"{key} = ["
    for name, looks in columns:
        yield f"{f'    {_toml(name)},':{_WIDTH}} # {looks}"
    yield "]"


def _wrapped(key: str, names: list[str]) -> Iterator[str]:
    yield f"{key} = ["
    line = "   "
    for name in names:
        if len(line) + len(_toml(name)) > 78:
            yield line
            line = "   "
        line += f" {_toml(name)},"
    yield line
    yield "]"


def _line(key: str, value: Any, comment: str) -> str:
    return f"{f'{key} = {_toml(value)}':{_WIDTH}} # {comment}"


def _toml(value: Any) -> str:
    """TOML's basic strings, integers and arrays are written as JSON's."""
    return json.dumps(value, ensure_ascii=False)
