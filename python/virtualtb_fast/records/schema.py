"""The schema file of people's own logs: which column is what.

The file is TOML: people write and review it by hand, so it needs comments (the draft marks its
guesses with them), and Python reads it without a dependency. JSON has no comments.

```toml
format = "virtualtb_fast.log_schema"
version = 1

[rows]
session = "visit"           # one value a session: whole numbers or texts
page = "page_no"            # optional: without it the rows of a session are its pages, in order
first_page = 1              # what the first page of a session is called (default: 0)
day = "day"                 # optional, whole numbers
hour = "hour"               # optional, 0 <= hour < 24
value = "price"             # optional, what was bought was worth this

[customer]
categorical = ["gender", "city"]      # texts, whole numbers or flags; null is a category too
numeric = ["age"]                     # numbers; null and NaN are a category too

[customer.categories]                 # optional: the only values that these columns may have
gender = ["f", "m"]

[action]
columns = ["w0", "w1"]                # columns of numbers, or one column of lists
low = -1.0                            # optional: the box of actions (default: what was logged)
high = 1.0

[feedback]                            # one of three forms
clicks = "clicks"                     # 1. clicks on the page: 0, 1, 2, ...
second = "orders"                     #    optional, a second count
leave = "left"                        #    optional flag: the customer left after this page
page_items = 10                       #    items on a page, the most clicks (default: 10)

# outcome = "result"                  # 2. how the page ended; one purchase ends a session
# buy = ["order"]                     #    the values that mean this (default: the word itself)
# turn = ["next"]
# leave = ["exit"]
# max_pages = ["cut"]                 #    the log stops here though the customer did not leave

# bought = "order"                    # 3. a flag or count of purchases; one ends a session
# leave = "left"                      #    optional flag, as above
```

In forms 1 and 3 without ``leave``, a customer leaves after the last page of a session.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, cast

from virtualtb_fast._arguments import as_path
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError
from virtualtb_fast.schema import Schema

__all__ = ["FORMAT", "VERSION", "Category", "Feedback", "LogSchema"]

FORMAT: Final = "virtualtb_fast.log_schema"
VERSION: Final = 1

Category = str | int | bool
"""A value of a categorical column."""

_OUTCOMES: Final = ("turn", "buy", "leave", "max_pages")

_KEYS: Final[dict[str, frozenset[str]]] = {
    "": frozenset({"format", "version", "rows", "customer", "action", "feedback"}),
    "rows": frozenset({"session", "page", "first_page", "day", "hour", "value"}),
    "customer": frozenset({"categorical", "numeric", "categories"}),
    "action": frozenset({"columns", "low", "high"}),
    "feedback": frozenset(
        {"clicks", "second", "page_items", "outcome", "bought", *_OUTCOMES},
    ),
}

_LARGEST_FILE: Final = 1 << 20
"""Bytes of a schema file: people write it."""
_LARGEST: Final = 10**6
"""The largest magnitude of an action's bounds, as in `virtualtb_fast.schema.Schema`."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a customer's answer to a page is."""

    form: Literal["clicks", "outcome", "bought"]
    """Clicks; how the page ended; or a purchase."""
    column: str
    """The column of clicks, of outcomes, or of purchases."""
    second: str | None = None
    """With clicks: a second count."""
    leave: str | None = None
    """With clicks and purchases: a flag, that the customer left after the page."""
    page_items: int = 10
    """With clicks: items on a page, and so the most clicks."""
    outcomes: Mapping[str, tuple[Category, ...]] = field(
        default_factory=lambda: {name: (name,) for name in _OUTCOMES}
    )
    """With outcomes: the values of the column that mean turn, buy, leave and max_pages."""

    @property
    def heads(self) -> Literal["clicks", "outcome"]:
        """The form of response that is learned from it: see `virtualtb_fast.schema.Response`."""
        return "clicks" if self.form == "clicks" else "outcome"


@dataclass(frozen=True, slots=True)
class LogSchema:
    """Which column of a log is what; see the module for the file's form."""

    session: str
    """Column of sessions: whole numbers or texts."""
    action: tuple[str, ...]
    """Columns of the action: numbers, or one column of lists."""
    feedback: Feedback
    categorical: tuple[str, ...] = ()
    """Columns of the customer with categories."""
    numeric: tuple[str, ...] = ()
    """Columns of the customer with numbers."""
    page: str | None = None
    """Column of page numbers; without one, rows are counted."""
    first_page: int = 0
    """The number of a session's first page."""
    day: str | None = None
    hour: str | None = None
    value: str | None = None
    categories: Mapping[str, tuple[Category, ...]] = field(default_factory=dict)
    """The only categories that some of the columns may have."""
    action_range: tuple[float, float] | None = None
    """The box of actions; None: what was logged."""
    codes: Schema | None = None
    """Set for a log of this package: its column ``customer`` holds codes of these fields."""
    origin: str = "schema"
    """Where it comes from, for messages."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, each once, in the order of the file."""
        feedback = self.feedback
        names = (
            *(self.session, self.page, self.day, self.hour, self.value),
            *(("customer",) if self.codes else (*self.categorical, *self.numeric)),
            *self.action,
            *(feedback.column, feedback.second, feedback.leave),
        )
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @classmethod
    def of_package(cls, metadata: Mapping[str, str], origin: str) -> LogSchema:
        """The schema of a log that this package wrote, from the log's own metadata.

        Raises:
            FileFormatError: the metadata are damaged.
        """
        if not isinstance(cast(object, metadata), Mapping):
            got = type(metadata).__name__
            raise FileFormatError(f"{origin}: expected a log's metadata, got a {got}")
        try:
            schema = Schema.from_json(metadata["schema"])
        except (InvalidArgumentError, KeyError) as error:
            raise FileFormatError(f"{origin}: expected a log's metadata, got {error}") from error
        # A store's customers, and those of a simulator with that head, buy, turn or leave.
        outcome = "store" in metadata or metadata.get("heads") == "outcome"
        feedback = (
            Feedback("outcome", "outcome")
            if outcome
            else Feedback("clicks", "clicks", second="second", leave="outcome")
        )
        return cls(
            session="session",
            page="page",
            day="day",
            hour="hour" if "store" in metadata else None,
            value="value" if "store" in metadata else None,
            action=("action",),
            action_range=schema.action_range,
            feedback=feedback,
            codes=schema,
            origin=origin,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LogSchema:
        """Reads a schema file.

        Raises:
            FileFormatError: it is no schema; the message names the key.
            OutputError: the operating system could not read it.
        """
        text = as_path(path)
        try:
            with open(text, "rb") as file:
                held = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            told = OutputError(error.errno, error.strerror, text)
            raise told.naming("a schema file (TOML)") from error
        if len(held) > _LARGEST_FILE:
            expected = f"a schema file of at most {_LARGEST_FILE:,} bytes"
            raise FileFormatError(f"{text}: expected {expected}, got a larger one")
        try:
            data = tomllib.loads(held.decode())
        # No TOML, no UTF-8, a number of thousands of digits: all are ValueErrors.
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{text}: expected TOML, got {error}") from error
        return cls.from_dict(data, text)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], origin: str = "schema") -> LogSchema:
        """The schema that a parsed file holds; raises `FileFormatError` if it is none."""
        if not isinstance(cast(object, data), Mapping):
            raise FileFormatError(f"{origin}: expected a mapping, got a {type(data).__name__}")
        return _Reader(data, origin).schema()

    def to_dict(self) -> dict[str, Any]:
        """The form of the file; `from_dict` takes it back."""
        rows = {
            "session": self.session,
            "page": self.page,
            "first_page": self.first_page,
            "day": self.day,
            "hour": self.hour,
            "value": self.value,
        }
        customer: dict[str, Any] = {
            "categorical": list(self.categorical),
            "numeric": list(self.numeric),
        }
        if self.categories:
            customer["categories"] = {key: list(all_) for key, all_ in self.categories.items()}
        action: dict[str, Any] = {"columns": list(self.action)}
        if self.action_range is not None:
            action |= dict(zip(("low", "high"), self.action_range, strict=True))
        return {
            "format": FORMAT,
            "version": VERSION,
            "rows": {key: value for key, value in rows.items() if value is not None},
            "customer": customer,
            "action": action,
            "feedback": self._feedback_dict(),
        }

    def _feedback_dict(self) -> dict[str, Any]:
        feedback = self.feedback
        out: dict[str, Any] = {feedback.form: feedback.column}
        if feedback.form == "outcome":
            return out | {name: list(values) for name, values in feedback.outcomes.items()}
        if feedback.second is not None:
            out["second"] = feedback.second
        if feedback.leave is not None:
            out["leave"] = feedback.leave
        if feedback.form == "clicks":
            out["page_items"] = feedback.page_items
        return out

    def to_json(self) -> str:
        """One line of JSON, for digests and provenance; a log of this package says its own."""
        if self.codes is not None:
            return json.dumps({"format": "virtualtb_fast.sessions", "heads": self.feedback.heads})
        return json.dumps(self.to_dict(), sort_keys=True)


class _Reader:
    """Takes a parsed file apart; every message names the file and the key."""

    def __init__(self, data: Mapping[str, Any], origin: str) -> None:
        self._data, self._origin = data, origin

    def schema(self) -> LogSchema:
        self._keys("", self._data)
        if self._data.get("format") != FORMAT:
            self._fail("format", f"{FORMAT!r}", self._data.get("format"))
        if self._data.get("version") != VERSION:
            self._fail("version", str(VERSION), self._data.get("version"))
        rows, customer, action = (self._table(name) for name in ("rows", "customer", "action"))
        categorical = self._names("customer.categorical", customer.get("categorical", []))
        numeric = self._names("customer.numeric", customer.get("numeric", []))
        if not categorical and not numeric:
            self._fail("customer", "at least one column of customers", "none")
        schema = LogSchema(
            session=self._name("rows.session", rows.get("session")),
            page=self._optional("rows.page", rows),
            first_page=self._whole("rows.first_page", rows.get("first_page", 0), 0, 2**31),
            day=self._optional("rows.day", rows),
            hour=self._optional("rows.hour", rows),
            value=self._optional("rows.value", rows),
            categorical=categorical,
            numeric=numeric,
            categories=self._categories(customer.get("categories", {}), categorical),
            action=self._names("action.columns", action.get("columns")),
            action_range=self._range(action),
            feedback=self._feedback(self._table("feedback")),
            origin=self._origin,
        )
        if not schema.action:
            self._fail("action.columns", "at least one column", "none")
        self._once(schema)
        return schema

    def _fail(self, key: str, expected: str, got: object) -> NoReturn:
        shown = got if isinstance(got, str) and got in ("none", "neither") else repr(got)
        raise FileFormatError(f"{self._origin}: {key}: expected {expected}, got {shown}")

    def _keys(self, table: str, data: Mapping[str, Any]) -> None:
        for key in data:
            if key not in _KEYS[table]:
                near = difflib.get_close_matches(str(key), _KEYS[table], 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                known = ", ".join(sorted(_KEYS[table]))
                where = table or "file"
                raise FileFormatError(
                    f"{self._origin}: {where}: expected keys out of {known}, got {key!r}{hint}"
                )

    def _table(self, name: str) -> Mapping[str, Any]:
        data: Any = self._data.get(name)
        if not isinstance(data, dict):
            self._fail(f"[{name}]", "a table", "none" if data is None else data)
        table: Mapping[str, Any] = data
        self._keys(name, table)
        return table

    def _name(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value:
            self._fail(key, "the name of a column", "none" if value is None else value)
        return value

    def _optional(self, key: str, table: Mapping[str, Any]) -> str | None:
        value = table.get(key.rpartition(".")[2])
        return None if value is None else self._name(key, value)

    def _names(self, key: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            self._fail(key, "a list of names of columns", "none" if value is None else value)
        return tuple(self._name(key, name) for name in value)

    def _whole(self, key: str, value: object, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._fail(key, f"a whole number, {low:,} to {high:,}", value)
        return value

    def _categories(self, value: object, known: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
        if not isinstance(value, dict):
            self._fail("customer.categories", "a table of lists", value)
        table: dict[str, Any] = value
        for name, categories in table.items():
            key = f"customer.categories.{name}"
            if name not in known:
                self._fail(key, f"a column of customer.categorical ({', '.join(known)})", name)
            self._values(key, categories)
        return {name: tuple(categories) for name, categories in table.items()}

    def _values(self, key: str, value: object) -> tuple[Category, ...]:
        values: list[Any] = value if isinstance(value, list) else [value]
        kinds = {type(one) for one in values}
        if not values or len(kinds) != 1 or not kinds <= {str, int, bool}:
            self._fail(key, "texts, whole numbers or flags, of one kind", value)
        return tuple(values)

    def _range(self, action: Mapping[str, Any]) -> tuple[float, float] | None:
        if ("low" in action) != ("high" in action):
            missing = "high" if "low" in action else "low"
            self._fail(f"action.{missing}", "both bounds or neither", "none")
        if "low" not in action:
            return None
        bounds = []
        for key in ("low", "high"):
            value = action[key]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            # No number compares with NaN; whole numbers may be too large for a float.
            if not number or not abs(value) <= _LARGEST:
                self._fail(f"action.{key}", f"a number within +-{_LARGEST:,}", value)
            bounds.append(float(value))
        if bounds[0] >= bounds[1]:
            self._fail("action.high", f"more than action.low ({bounds[0]:g})", bounds[1])
        return bounds[0], bounds[1]

    def _feedback(self, table: Mapping[str, Any]) -> Feedback:
        forms = [form for form in ("clicks", "outcome", "bought") if form in table]
        if len(forms) != 1:
            got = " and ".join(forms) or "none"
            raise FileFormatError(
                f"{self._origin}: feedback: expected one of clicks, outcome and bought, got {got}"
            )
        form: Any = forms[0]
        allowed = {
            "clicks": {"clicks", "second", "leave", "page_items"},
            "outcome": {"outcome", *_OUTCOMES},
            "bought": {"bought", "leave"},
        }[form]
        surplus = sorted(set(table) - allowed)
        if surplus:
            self._fail(f"feedback.{surplus[0]}", f"nothing beside {form}", table[surplus[0]])
        column = self._name(f"feedback.{form}", table[form])
        if form == "outcome":
            outcomes = {
                name: self._values(f"feedback.{name}", table.get(name, name)) for name in _OUTCOMES
            }
            every = [value for values in outcomes.values() for value in values]
            for value in every:
                if every.count(value) > 1:
                    self._fail("feedback", "each value in one place", value)
            return Feedback(form, column, outcomes=outcomes)
        return Feedback(
            form,
            column,
            second=self._optional("feedback.second", table),
            leave=self._optional("feedback.leave", table),
            page_items=self._whole("feedback.page_items", table.get("page_items", 10), 1, 255),
        )

    def _once(self, schema: LogSchema) -> None:
        feedback = schema.feedback
        roles = [
            ("rows.session", schema.session),
            *(("rows." + key, getattr(schema, key)) for key in ("page", "day", "hour", "value")),
            *(("customer.categorical", name) for name in schema.categorical),
            *(("customer.numeric", name) for name in schema.numeric),
            *(("action.columns", name) for name in schema.action),
            (f"feedback.{feedback.form}", feedback.column),
            ("feedback.second", feedback.second),
            ("feedback.leave", feedback.leave),
        ]
        seen: dict[str, str] = {}
        for key, name in roles:
            if name is None:
                continue
            # Who comes may depend on day and hour, so these may be the customer's too.
            shared = {key.partition(".")[0], seen.get(name, "").partition(".")[0]}
            if name in seen and not (
                shared == {"rows", "customer"} and "session" not in seen[name]
            ):
                self._fail(key, f"a column that {seen[name]} does not name", name)
            seen[name] = key
