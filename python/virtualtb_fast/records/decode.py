"""From a log's columns to arrays: types, missing values, categories, ranges.

Whatever is wrong with a value becomes a finding with its row, and something harmless takes its
place, so that one pass finds everything.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.records.findings import Findings
from virtualtb_fast.records.schema import LogSchema
from virtualtb_fast.records.source import Source, pyarrow

__all__ = ["Decoder", "Rows", "Vocabulary"]

TURN, BUY, LEAVE, MAX_PAGES = range(len(OUTCOMES))
"""The codes of `virtualtb_fast.logs.OUTCOMES`."""

MOST_CATEGORIES: Final = 1 << 20
"""Distinct values of a categorical column: more of them is an identifier, not a category."""

_LARGEST: Final = {"page": 2**31, "day": 2**15 - 1, "count": 255}


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a log as arrays."""

    first: int
    """Number of the first row."""
    starts: NDArray[np.bool_]
    """(n,): rows in which the session is another than in the row before."""
    keys: NDArray[np.int64]
    """(starts,): a number for each session that starts; equal for equal sessions."""
    page: NDArray[np.int64] | None
    """(n,): page numbers as logged."""
    categorical: NDArray[np.int32]
    """(n, C): numbers within each column's `Vocabulary`, -1 for missing."""
    numeric: NDArray[np.float64]
    """(n, N): NaN for missing."""
    action: NDArray[np.float32]
    """(n, A)."""
    clicks: NDArray[np.int64]
    """(n,)."""
    second: NDArray[np.int64]
    """(n,)."""
    outcome: NDArray[np.int64]
    """(n,): codes; with an implied leave, `TURN` also for a session's last page."""
    day: NDArray[np.int64]
    hour: NDArray[np.float32]
    value: NDArray[np.float32]

    def __len__(self) -> int:
        """Rows."""
        return len(self.starts)


class Vocabulary:
    """The distinct values of a categorical column, numbered as they come up."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def number(self, values: Sequence[Any]) -> NDArray[np.int32]:
        """The number of each value; None is -1."""
        numbers = self.numbers
        out = [-1 if one is None else numbers.setdefault(one, len(numbers)) for one in values]
        return np.array(out, np.int32)

    def __len__(self) -> int:
        """Distinct values so far."""
        return len(self.numbers)


class Decoder:
    """Takes record batches apart by a schema."""

    def __init__(self, schema: LogSchema, source: Source, findings: Findings) -> None:
        self._arrow = pyarrow("reading a log")
        self._schema, self._source, self._findings = schema, source, findings
        self._last_session: Any = _NOTHING
        self._row = 0
        self.vocabularies = [Vocabulary() for _ in schema.categorical]
        self.action_width: int | None = None
        """Dimensions of the action, once known."""

    # --- before any row ---------------------------------------------------------------------

    def bind(self) -> bool:
        """Whether the source has the schema's columns, of types that can be read."""
        schema, held = self._schema, self._source.schema
        good = True
        for name in schema.columns:
            if held.get_all_field_indices(name):
                if len(held.get_all_field_indices(name)) > 1:
                    self._findings.add("duplicate-column", "expected one, got several", column=name)
                    good = False
                continue
            near = difflib.get_close_matches(name, held.names, 1)
            self._findings.add(
                "missing-column",
                f"expected in the log (named by {schema.origin}), got none",
                column=name,
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
            good = False
        return self._types() and good

    def _types(self) -> bool:
        schema, good = self._schema, True
        feedback = schema.feedback
        if len(schema.action) == 1:
            good &= self._expect(schema.action[0], "numbers or lists of numbers", "number", "list")
        for name in schema.action if len(schema.action) > 1 else ():
            good &= self._expect(name, "numbers", "number")
        good &= self._expect(schema.session, "whole numbers or texts", "whole", "text")
        for one in (schema.page, schema.day, schema.hour, schema.value, feedback.second):
            good &= self._expect(one, "numbers", "number")
        if schema.codes is not None:
            good &= self._expect("customer", "lists of codes", "list")
        for name in schema.categorical:
            expected = "texts, whole numbers or flags"
            good &= self._expect(name, expected, "text", "number", "flag", "date", "null")
        for name in schema.numeric:
            good &= self._expect(name, "numbers", "number", "flag", "null")
        if feedback.form == "outcome" or schema.codes is not None:
            column = "outcome" if schema.codes is not None else feedback.column
            good &= self._expect(column, "texts, whole numbers or flags", "text", "whole", "flag")
        else:
            good &= self._expect(feedback.column, "numbers or flags", "number", "flag")
            good &= self._expect(feedback.leave, "flags, or 0 and 1", "number", "flag")
        return good

    def _expect(self, name: str | None, expected: str, *kinds: str) -> bool:
        if name is None or not self._source.schema.get_all_field_indices(name):
            return True
        got = self._source.schema.field(name).type
        if kind_of(self._arrow, got) in kinds or (
            "number" in kinds and kind_of(self._arrow, got) == "whole"
        ):
            return True
        self._findings.add("wrong-type", f"expected {expected}, got {got}", column=name)
        return False

    # --- rows -------------------------------------------------------------------------------

    def rows(self, batch: Any) -> Rows:
        """The arrays of a record batch that follows the last one."""
        schema, count = self._schema, batch.num_rows
        starts, keys = self._sessions(batch.column(schema.session))
        clicks, second, outcome = self._feedback(batch)
        none = np.zeros(count, np.float32)
        rows = Rows(
            first=self._row,
            starts=starts,
            keys=keys,
            page=self._optional(batch, schema.page, "page"),
            categorical=self._categorical(batch),
            numeric=self._numeric(batch),
            action=self._action(batch),
            clicks=clicks,
            second=second,
            outcome=outcome,
            day=self._day(batch, count),
            hour=none if schema.hour is None else self._hour(batch.column(schema.hour)),
            value=none if schema.value is None else self._value(batch.column(schema.value)),
        )
        self._row += count
        return rows

    def _found(
        self, kind: str, bad: NDArray[np.bool_], message: str | Callable[[int], str], column: str
    ) -> None:
        """Adds the rows where something is bad; ``message`` makes the text from the first."""
        where = np.flatnonzero(bad)
        if len(where):
            text = message if isinstance(message, str) else message(int(where[0]))
            self._findings.add(kind, text, column=column, rows=where + self._row)

    def _sessions(self, column: Any) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        name = self._schema.session
        null = _nulls(column)
        self._found("missing-value", null, "expected a session, got none", name)
        pairs = column if _is_dictionary(self._arrow, column) else column.dictionary_encode()
        codes, values = _codes_of(self._arrow, pairs), pairs.dictionary.to_pylist()
        starts = np.empty(len(codes), np.bool_)
        starts[1:] = codes[1:] != codes[:-1]
        first = None if codes[0] < 0 else values[codes[0]]
        starts[0] = first != self._last_session
        self._last_session = None if codes[-1] < 0 else values[codes[-1]]
        keys = [0 if code < 0 else _key(values[code]) for code in codes[starts].tolist()]
        return starts, np.array(keys, np.int64)

    def _optional(self, batch: Any, name: str | None, kind: str) -> NDArray[np.int64] | None:
        if name is None:
            return None
        return self._whole(name, batch.column(name), 0, _LARGEST[kind])

    def _day(self, batch: Any, count: int) -> NDArray[np.int64]:
        day = self._optional(batch, self._schema.day, "day")
        return np.zeros(count, np.int64) if day is None else day

    def _numbers(self, name: str, column: Any, missing: bool = False) -> NDArray[np.float64]:
        """float64; NaN for null, which is a finding unless it may be missing."""
        null = _nulls(column)
        values = _filled(column.cast(self._arrow.float64(), safe=False), np.nan)
        if not missing:
            self._found("missing-value", null, "expected a number, got none", name)
            nan = np.isnan(values) & ~null
            self._found("not-finite", nan, "expected a number, got NaN", name)
        infinite = np.isinf(values)
        self._found("not-finite", infinite, "expected a finite number, got infinity", name)
        if infinite.any() or not missing:
            values = np.where(np.isfinite(values), values, np.nan if missing else 0.0)
        return values

    def _whole(self, name: str, column: Any, low: int, high: int) -> NDArray[np.int64]:
        """Whole numbers within bounds."""
        kind = self._arrow.types
        if kind.is_integer(column.type) or kind.is_boolean(column.type):
            null = _nulls(column)
            self._found("missing-value", null, "expected a whole number, got none", name)
            if kind.is_uint64(column.type):
                # Beyond 64 bits signed there is only what is out of range anyway.
                largest = self._arrow.scalar(2**63 - 1, column.type)
                column = self._arrow.compute.min_element_wise(column, largest, skip_nulls=False)
            values = _filled(column.cast(self._arrow.int64(), safe=False), low)
        else:
            numbers = self._numbers(name, column)
            broken = numbers != np.floor(numbers)

            def say(row: int) -> str:
                return f"expected a whole number, got {numbers[row]:g}"

            self._found("not-whole", broken, say, name)
            values = np.clip(np.floor(numbers), -(2.0**62), 2.0**62).astype(np.int64)
        outside = (values < low) | (values > high)

        def tell(row: int) -> str:
            return f"expected {low:,} to {high:,}, got {values[row]:,}"

        self._found("out-of-range", outside, tell, name)
        return np.where(outside, low, values)

    def _flag(self, name: str, column: Any) -> NDArray[np.bool_]:
        return self._whole(name, column, 0, 1) > 0

    def _hour(self, column: Any) -> NDArray[np.float32]:
        name = str(self._schema.hour)
        # A store without hours logs none.
        values = self._numbers(name, column, missing=True)
        outside = (values < 0) | (values >= 24)

        def say(row: int) -> str:
            return f"expected an hour of the day, 0 to 24, got {values[row]:g}"

        self._found("out-of-range", outside, say, name)
        return values.astype(np.float32)

    def _value(self, column: Any) -> NDArray[np.float32]:
        values = self._numbers(str(self._schema.value), column, missing=True)
        with np.errstate(over="ignore"):
            return values.astype(np.float32)

    def _categorical(self, batch: Any) -> NDArray[np.int32]:
        schema, count = self._schema, batch.num_rows
        if schema.codes is not None:
            return self._codes(batch.column("customer"))
        out = np.empty((count, len(schema.categorical)), np.int32)
        for index, name in enumerate(schema.categorical):
            out[:, index] = self._category(index, name, batch.column(name))
        return out

    def _codes(self, column: Any) -> NDArray[np.int32]:
        """The codes of a log of this package."""
        fields = self._schema.codes.customer if self._schema.codes else ()
        values = self._lists("customer", column, len(fields)).astype(np.int32)
        for index, one in enumerate(fields):
            outside = (values[:, index] < 0) | (values[:, index] >= one.size)

            def say(row: int, index: int = index, size: int = one.size) -> str:
                return f"expected a code of 0 to {size - 1}, got {values[row, index]}"

            self._found("unseen-category", outside, say, f"customer[{index}] ({one.name})")
            values[outside, index] = 0
        return values

    def _category(self, index: int, name: str, column: Any) -> NDArray[np.int32]:
        arrow, kind = self._arrow, self._arrow.types
        if kind.is_floating(column.type) or kind.is_decimal(column.type):
            numbers = self._numbers(name, column, missing=True)
            known = np.isfinite(numbers)
            broken = known & (numbers != np.floor(numbers))

            def tell(row: int) -> str:
                return f"expected whole numbers, got {numbers[row]:g} (is it a numeric column?)"

            self._found("not-whole", broken, tell, name)
            good = known & ~broken & (np.abs(numbers) < 2**62)
            column = arrow.array(np.where(good, numbers, 0).astype(np.int64), mask=~good)
        elif kind_of(arrow, column.type) in ("date", "null"):
            column = column.cast(arrow.string())
        pairs = column if _is_dictionary(arrow, column) else column.dictionary_encode()
        values = pairs.dictionary.to_pylist()
        vocabulary, codes = self.vocabularies[index], _codes_of(arrow, pairs)
        if len(vocabulary) <= MOST_CATEGORIES:
            numbers_of = vocabulary.number(values)
            if len(vocabulary) > MOST_CATEGORIES:
                got = f"expected at most {MOST_CATEGORIES:,} categories, got more"
                hint = "is it an identifier?"
                self._findings.add("too-many-categories", got, column=name, hint=hint)
        else:
            numbers_of = np.zeros(len(values), np.int32)
        if name in self._schema.categories:
            self._unseen(name, values, codes)
        return np.append(numbers_of, np.int32(-1))[codes]

    def _unseen(self, name: str, values: list[Any], codes: NDArray[Any]) -> None:
        allowed = self._schema.categories[name]
        # In Python True is 1: what is meant is the value and its kind.
        known = {(type(one), one) for one in allowed}
        strange = np.array([one is not None and (type(one), one) not in known for one in values])
        bad = np.append(strange, False)[codes]
        listed = ", ".join(repr(one) for one in allowed[:8]) + (", ..." if len(allowed) > 8 else "")

        def say(row: int) -> str:
            return f"expected one of {listed}, got {values[codes[row]]!r}"

        self._found("unseen-category", bad, say, name)

    def _numeric(self, batch: Any) -> NDArray[np.float64]:
        names = self._schema.numeric
        out = np.empty((batch.num_rows, len(names)))
        for index, name in enumerate(names):
            out[:, index] = self._numbers(name, batch.column(name), missing=True)
        return out

    def _action(self, batch: Any) -> NDArray[np.float32]:
        names = self._schema.action
        if len(names) == 1 and kind_of(self._arrow, batch.column(names[0]).type) == "list":
            column = batch.column(names[0])
            if self.action_width is None:
                lengths = self._arrow.compute.list_value_length(column).drop_null()
                self.action_width = max(1, int(lengths[0].as_py())) if len(lengths) else 1
            values = self._lists(names[0], column, self.action_width)
        else:
            self.action_width = len(names)
            columns = [self._numbers(name, batch.column(name)) for name in names]
            values = np.stack(columns, axis=1)
        with np.errstate(over="ignore"):
            action = values.astype(np.float32)
        large: NDArray[np.bool_] = ~np.isfinite(action)
        if large.any():
            message = "expected numbers that float32 can hold, got larger ones"
            self._found("not-finite", large.max(1), message, names[0])
            action[large] = 0
        self._box(action)
        return action

    def _box(self, action: NDArray[np.float32]) -> None:
        if self._schema.action_range is None:
            return
        low, high = (np.float32(bound) for bound in self._schema.action_range)
        outside = (action < low) | (action > high)
        if not outside.any():
            return
        names = self._schema.action
        for index in np.flatnonzero(outside.any(0)).tolist():
            column = f"{names[0]}[{index}]" if len(names) == 1 else names[index]

            def say(row: int, index: int = index) -> str:
                return f"expected {low:g} to {high:g}, got {action[row, index]:g}"

            self._found("out-of-range", outside[:, index], say, column)

    def _lists(self, name: str, column: Any, width: int) -> NDArray[np.float64]:
        """Lists of ``width`` numbers as (n, width); what is missing or not finite becomes 0."""
        compute = self._arrow.compute
        null = _nulls(column)
        self._found("missing-value", null, f"expected {width} numbers, got none", name)
        lengths = _filled(compute.list_value_length(column), width)
        wrong = (lengths != width) & ~null

        def say(row: int) -> str:
            return f"expected {width} numbers, got {lengths[row]}"

        self._found("wrong-length", wrong, say, name)
        flat = compute.list_flatten(column)
        good = ~wrong & ~null
        values = _filled(flat.cast(self._arrow.float64(), safe=False), np.nan)
        out = np.zeros((len(lengths), width))
        # list_flatten leaves the values of null lists out; those of wrong length are skipped.
        kept = np.repeat(~wrong[~null], lengths[~null])
        out[good] = values[kept].reshape(-1, width)
        broken = ~np.isfinite(out)
        for index in np.flatnonzero(broken.any(0)).tolist():

            def tell(row: int, index: int = index) -> str:
                return f"expected a finite number, got {out[row, index]:g}"

            self._found("not-finite", broken[:, index], tell, f"{name}[{index}]")
        out[broken] = 0
        return out

    def _feedback(self, batch: Any) -> tuple[NDArray[np.int64], ...]:
        schema = self._schema
        feedback = schema.feedback
        none = np.zeros(batch.num_rows, np.int64)
        if feedback.form == "outcome":
            outcome = self._outcome(feedback.column, batch.column(feedback.column))
            bought = (outcome == BUY).astype(np.int64)
            return bought, bought, outcome
        if feedback.form == "bought":
            column = batch.column(feedback.column)
            count = self._whole(feedback.column, column, 0, _LARGEST["count"])
            left = self._left(batch)
            outcome = np.where(count > 0, BUY, np.where(left, LEAVE, TURN))
            return np.minimum(count, 1), count, outcome
        most = _LARGEST["count"] if schema.codes is not None else feedback.page_items
        clicks = self._whole(feedback.column, batch.column(feedback.column), 0, most)
        second = none
        if feedback.second is not None:
            column = batch.column(feedback.second)
            second = self._whole(feedback.second, column, 0, _LARGEST["count"])
        if schema.codes is not None:
            return clicks, second, self._outcome("outcome", batch.column("outcome"))
        return clicks, second, np.where(self._left(batch), LEAVE, TURN)

    def _left(self, batch: Any) -> NDArray[np.bool_]:
        name = self._schema.feedback.leave
        if name is None:
            return np.zeros(batch.num_rows, np.bool_)
        return self._flag(name, batch.column(name))

    def _outcome(self, name: str, column: Any) -> NDArray[np.int64]:
        null = _nulls(column)
        self._found("missing-value", null, "expected an outcome, got none", name)
        pairs = column if _is_dictionary(self._arrow, column) else column.dictionary_encode()
        values, codes = pairs.dictionary.to_pylist(), _codes_of(self._arrow, pairs)
        outcomes = self._schema.feedback.outcomes
        meaning = {
            (type(one), one): code
            for code, outcome in enumerate(OUTCOMES)
            for one in outcomes[outcome]
        }
        coded = np.array([*(meaning.get((type(one), one), -1) for one in values), -1])[codes]
        strange = (coded < 0) & ~null
        listed = ", ".join(repr(one) for all_ in outcomes.values() for one in all_)

        def say(row: int) -> str:
            return f"expected one of {listed}, got {values[codes[row]]!r}"

        self._found("unseen-category", strange, say, name)
        return np.where(coded < 0, TURN, coded).astype(np.int64)


_NOTHING: Final = object()
"""What no session is called."""


def kind_of(arrow: Any, type_: Any) -> str:
    """``whole``, ``number``, ``text``, ``flag``, ``list``, ``date``, ``null``, ``other``."""
    kind = arrow.types
    if kind.is_dictionary(type_):
        return kind_of(arrow, type_.value_type)
    if kind.is_integer(type_):
        return "whole"
    if kind.is_floating(type_) or kind.is_decimal(type_):
        return "number"
    if kind.is_string(type_) or kind.is_large_string(type_) or kind.is_string_view(type_):
        return "text"
    if kind.is_boolean(type_):
        return "flag"
    if kind.is_list(type_) or kind.is_large_list(type_) or kind.is_fixed_size_list(type_):
        return "list" if kind_of(arrow, type_.value_type) in ("whole", "number") else "other"
    if kind.is_date(type_):
        return "date"
    return "null" if kind.is_null(type_) else "other"


def _is_dictionary(arrow: Any, column: Any) -> bool:
    return bool(arrow.types.is_dictionary(column.type))


def _codes_of(arrow: Any, pairs: Any) -> NDArray[np.int64]:
    """The place of each value in the dictionary, -1 for null."""
    return _filled(pairs.indices.cast(arrow.int64()), -1)


def _nulls(column: Any) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _filled(column: Any, value: float) -> NDArray[Any]:
    """A column of numbers as an array, with ``value`` for null."""
    filled: NDArray[Any] = column.fill_null(value).to_numpy(zero_copy_only=False)
    return filled


def _key(session: Any) -> int:
    """A 64-bit number for a session: itself, or a hash."""
    if isinstance(session, int):
        return (session + 2**63) % 2**64 - 2**63
    hashed = hashlib.blake2b(str(session).encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "little", signed=True)
