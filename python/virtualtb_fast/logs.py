"""Session logs: one row a page, in the order (session, page), as columns.

| column | NumPy | Arrow and Parquet | what |
|---|---|---|---|
| ``session`` | int64 (R,) | int64 | number of the session within the seed's stream |
| ``page`` | int16 (R,) | int16 | page within the session, from 0 |
| ``day`` | int16 (R,) | int16 | of the store; 0: a simulator has no calendar |
| ``customer`` | uint8 (R, fields) | fixed-size list of uint8 | category codes, one a field |
| ``action`` | float32 (R, A) | fixed-size list of float32 | what was shown, after clipping |
| ``action_logp`` | float32 (R,) | float32 | log-density of the draw before clipping, 0 if none |
| ``clicks`` | uint8 (R,) | uint8 | clicks on the page; of outcomes 1 for a purchase |
| ``second`` | uint8 (R,) | uint8 | the second head (probably purchases); of outcomes ``units`` |
| ``outcome`` | uint8 codes (R,) | dictionary of strings | how the page ended, one of `OUTCOMES` |
| ``units`` | uint16 (R,) | uint16 | units bought: a simulator's second head, as far as known |
| ``value`` | in a store float32 (R,) | float32, null without prices | price of what was bought |

A store, and a simulator whose head is ``outcome``, answer a page with an *outcome*: turn, buy or
leave. The log of a store has two columns more:

| column | NumPy | Arrow and Parquet | what |
|---|---|---|---|
| ``hour`` | float32 (R,) | float32 | of the day; NaN (null) if the store has no hours |
| ``items`` | uint32 (R, 10) | fixed-size list of uint32 | rows of the catalogue, best first |

Prices are whole cents: ``round(100 * value)`` is exact. Where another customer may take over in
a session (``leave="respawn"``), or ask for something else, ``customer`` is that of the page, and
``page`` counts the pages of the session, an observation's page column those of the customer.

R is the number of rows, A the dimensions of an action. Nothing here needs pyarrow; the columns go
to anything that speaks the Arrow PyCapsule interface (``polars.from_arrow(log)``,
``pyarrow.table(log)``) and to NumPy without a copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, MissingExtraError
from virtualtb_fast.schema import Schema

__all__ = ["COLUMNS", "OUTCOMES", "STORE_COLUMNS", "SessionLog", "read_log"]

OUTCOMES: Final[tuple[str, ...]] = tuple(_core.OUTCOMES)
"""How a page can end, in the order of the codes of the column ``outcome``."""

COLUMNS: Final = (
    "session",
    "page",
    "day",
    "customer",
    "action",
    "action_logp",
    "clicks",
    "second",
    "outcome",
    "units",
)
"""The columns that every log has as NumPy arrays."""

STORE_COLUMNS: Final = (*COLUMNS, "value", "hour", "items")
"""The columns of a store's log."""


class SessionLog:
    """The pages of some sessions. ``log["clicks"]`` is a read-only view of a column, not a copy.

    Made by `virtualtb_fast.rollout` and `read_log`.
    """

    __slots__ = ("_columns", "_native", "_schema")

    def __init__(self, native: _core.Log) -> None:
        """Wraps a native log; callers outside the package use the functions above."""
        self._native = native
        self._columns: dict[str, NDArray[Any]] | None = None
        self._schema: Schema | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self._native)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """A column as a read-only view; see the table above for its dtype and shape."""
        if self._columns is None:
            self._columns = self._native.columns()
        try:
            return self._columns[column]
        except (KeyError, TypeError):
            names = ", ".join(self.keys())
            raise InvalidArgumentError(f"column: expected one of {names}, got {column!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> tuple[str, ...]:
        """Names of the columns; ``dict(log)`` holds them all."""
        return STORE_COLUMNS if "store" in self.metadata else COLUMNS

    @property
    def metadata(self) -> dict[str, str]:
        """What the log says of itself, as text.

        Keys: ``format``, ``format_version``, ``schema`` (JSON), ``simulator``,
        ``simulator_digest``, ``policy``, ``seed``, ``stream_version``, ``sessions``, ``rows``, and
        ``complete``, which is ``false`` in what an interrupted rollout left. A store's log has
        ``store``, ``store_digest``, ``store_config`` (JSON: seed, items and rules, but not what is
        hidden), ``customers``, ``page_items`` and what was observed (``memory``, ``observe_page``,
        ``observe_feedback``) in place of the simulator's two. ``heads`` is ``outcome`` in the log
        of a simulator that answers with outcomes; others do not have it.
        """
        return self._native.metadata()

    @property
    def schema(self) -> Schema:
        """What customers and actions look like."""
        if self._schema is None:
            self._schema = Schema.from_json(self._native.metadata()["schema"])
        return self._schema

    @property
    def complete(self) -> bool:
        """Whether the rollout ran to its end."""
        return self._native.metadata().get("complete") == "true"

    def observations(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        """What the policy saw before each page, as environments show it.

        Args:
            rows: Rows to make; all of them take ``4 * observation_width`` bytes each.

        Returns:
            float32 of shape (rows, ``schema.observation_width``); for a store that observes
            ``memory`` actions ``(memory - 1) * A`` columns more.

        Raises:
            InvalidArgumentError: rows that are no slice of integers.
        """
        try:
            _arguments.instance("rows", rows, slice).indices(len(self))
        except TypeError as error:
            message = f"rows: expected a slice of integers, got {rows!r}"
            raise InvalidArgumentError(message) from error
        if "store" in self.metadata:
            return self._store_observations(rows)
        schema = self.schema
        page = self["page"][rows]
        out = np.empty((len(page), schema.observation_width), np.float32)
        out[:, schema.customer_columns] = schema.one_hot(self["customer"][rows])
        # The first page of a session follows no other.
        follows = page > 0
        if self.metadata.get("heads") == "outcome":
            # A purchase ends the session, so a page only follows one that was turned.
            out[:, schema.clicks_column] = 0
            out[:, schema.second_column] = follows
        else:
            for name, column in (
                ("clicks", schema.clicks_column),
                ("second", schema.second_column),
            ):
                out[:, column] = np.where(follows, np.roll(self[name], 1)[rows], 0)
        out[:, schema.page_column] = page
        return out

    def _store_observations(self, rows: slice) -> NDArray[np.float32]:
        schema, about = self.schema, self.metadata
        turned = self["outcome"] == OUTCOMES.index("turn")
        # Pages that the customer of each row has seen before it: the rows since the last one that
        # was not turned, or since the session began.
        index = np.arange(len(self))
        starts = self["page"] == 0
        starts[1:] |= ~turned[:-1]
        seen = index - np.maximum.accumulate(np.where(starts, index, 0))
        earlier = int(about["memory"]) - 1
        chosen = index[rows]
        width = schema.observation_width + earlier * schema.action
        out = np.zeros((len(chosen), width), np.float32)
        out[:, schema.customer_columns] = schema.one_hot(self["customer"][rows])
        # A purchase ends the session or brings another customer, so none is ever observed.
        if about["observe_feedback"] == "true":
            out[:, schema.second_column] = seen[chosen] > 0
        if about["observe_page"] == "true":
            out[:, schema.page_column] = seen[chosen]
        for age in range(1, earlier + 1):
            first = schema.observation_width + (age - 1) * schema.action
            known = seen[chosen] >= age
            out[known, first : first + schema.action] = self["action"][chosen[known] - age]
        return out

    def session_offsets(self) -> NDArray[np.int64]:
        """Where sessions start: session ``i`` is rows ``offsets[i]`` to ``offsets[i + 1]``.

        Returns:
            int64 of shape (sessions + 1,).
        """
        return np.append(np.flatnonzero(self["page"] == 0), len(self)).astype(np.int64)

    def digest(self) -> str:
        """SHA-256 of the schema and the columns: equal for equal rows, in memory or on disk."""
        return self._native.digest()

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the Parquet file that ``rollout(..., out=path)`` would have written.

        Raises:
            OutputError: ``path`` exists and ``overwrite`` is false, or the system refused.
        """
        self._native.write(_arguments.as_path(path), _arguments.flag("overwrite", overwrite))

    def to_arrow(self) -> Any:
        """The log as a `pyarrow.Table`, sharing memory with this one.

        Raises:
            MissingExtraError: pyarrow is not installed. Other Arrow libraries take the log itself.
        """
        try:
            import pyarrow
        except ImportError as error:
            raise MissingExtraError("to_arrow needs pyarrow: pip install pyarrow") from error
        return pyarrow.table(self)

    def __arrow_c_schema__(self) -> object:
        return self._native.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._native.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        about = self.metadata
        part = "" if self.complete else ", incomplete"
        return (
            f"<SessionLog of {len(self):,} pages, {int(about['sessions']):,} sessions of "
            f"{about.get('simulator') or about['store']!r} under policy {about['policy'][:40]}, "
            f"seed {about['seed']}{part}>"
        )


def read_log(path: str | os.PathLike[str]) -> SessionLog:
    """Reads a session log that a rollout wrote.

    What an interrupted rollout left, ``FILE.partial``, can be read too: see
    `SessionLog.complete`. That of a killed one cannot, but the rollout can go on with it
    (``resume=True``).

    Raises:
        FileFormatError: the file is no session log of this version, was cut short, or was altered:
            its checksum covers every bit.
        OutputError: the operating system could not read it.
    """
    name = _arguments.as_path(path)
    log = SessionLog(_core.Log.read(name))
    try:
        # The native reader looks at numbers; names that are there twice are found here.
        _ = log.schema
    except InvalidArgumentError as error:
        raise FileFormatError(f"{name}: schema: {error}") from error
    return log


def has_checksum(path: str) -> bool:
    """Whether a log's file has a checksum, which then is right; for who reads the rows otherwise.

    Other tools that rewrite a log leave it out.

    Raises:
        FileFormatError: the file was altered.
        OutputError: the operating system could not read it.
    """
    return _core.Log.check_file(path)
