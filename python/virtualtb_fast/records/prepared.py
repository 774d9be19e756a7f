"""The prepared log: checked, encoded, on disk beside the output; what all stages learn from.

| file | dtype and shape | what |
|---|---|---|
| ``customer.npy`` | uint8 (R, F) | codes of the customer's fields |
| ``action.npy`` | float32 (R, A) | what was shown |
| ``page.npy`` | int16 (R,) | pages of the session before this one |
| ``clicks.npy``, ``second.npy`` | uint8 (R,) | feedback; with outcomes, 1 for a purchase |
| ``outcome.npy`` | uint8 (R,) | codes of `virtualtb_fast.logs.OUTCOMES` |
| ``hour.npy`` | float32 (R,) | if the log has hours |
| ``offsets.npy`` | int64 (S + 1,) | session i is rows offsets[i] to offsets[i + 1] |
| ``session_customer.npy`` | uint8 (S, F) | codes, once a session |
| ``meta.json`` | | what it was made of, and what was found in it |

R is the number of pages, S of sessions, F of fields, A of dimensions of the action. The last page
of a session ends with buy, leave or max_pages, the last where the log does not know.

The log is read once. It is written beside its name and renamed, so that a kill leaves no half of
one; a log that has changed since, another schema or another version of this module make a new one.
So does a bit that has: ``meta.json`` ends with its own digest and holds those of all columns, which
are compared before anything is taken up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments
from virtualtb_fast.customers.table import Categorical, Numeric, Table
from virtualtb_fast.errors import InvalidArgumentError, OutputError, VirtualTBError
from virtualtb_fast.records.check import Checked, Progress, Scan, schema_for
from virtualtb_fast.records.columns import Column, ColumnWriter
from virtualtb_fast.records.decode import Rows
from virtualtb_fast.records.findings import Finding, LogReport
from virtualtb_fast.records.schema import LogSchema
from virtualtb_fast.records.source import open_source
from virtualtb_fast.schema import Schema

__all__ = ["Prepared", "prepare"]

VERSION: Final = 2
_META: Final = "meta.json"
_BLOCK: Final = 1 << 16
_SPARE: Final = 64 << 20
"""Bytes of disk that stay free."""
_TOLD: Final = 64 << 20
"""Bytes that are compared with their digests between two reports of progress."""

_ROW_COLUMNS: Final = {
    "page": np.int16,
    "clicks": np.uint8,
    "second": np.uint8,
    "outcome": np.uint8,
    "hour": np.float32,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A log in the form that training reads; its columns are files."""

    folder: Path
    meta: dict[str, Any]
    """What ``meta.json`` holds."""

    def __getitem__(self, name: str) -> Any:
        """A column, read-only; see the table above.

        ``offsets`` is an array in memory; others are `virtualtb_fast.records.columns.Column`, of
        which the rows that are asked for are read.

        Raises:
            FileFormatError: the file is missing or damaged.
            OutputError: the operating system could not read it.
        """
        found = _column(self.folder, self.meta, name)
        return found[:] if name == "offsets" else found

    @property
    def schema(self) -> Schema:
        """What customers and actions look like, as a simulator of this log has it."""
        return Schema.from_json(self.meta["schema"])

    @property
    def table(self) -> Table | None:
        """How the log's own columns of customers became codes; None for a log of this package."""
        held = self.meta["table"]
        return None if held is None else Table.from_json(json.dumps(held))

    @property
    def heads(self) -> str:
        """What is learned from the feedback: ``clicks`` or ``outcome``."""
        return str(self.meta["heads"])

    @property
    def digest(self) -> str:
        """SHA-256 of all columns: equal for equal content."""
        return str(self.meta["digest"])

    @property
    def rows(self) -> int:
        """Pages."""
        return int(self.meta["rows"])

    @property
    def sessions(self) -> int:
        """Sessions."""
        return int(self.meta["sessions"])

    @property
    def report(self) -> LogReport:
        """What was found when it was read."""
        held = dict(self.meta["report"])
        findings = tuple(
            Finding(**{**one, "rows": tuple(one["rows"])}) for one in held.pop("findings")
        )
        known = ("source", "schema", "pages", "sessions", "heads", "usable")
        summary = {key: value for key, value in held.items() if key not in known}
        parts = (held["source"], held["schema"], held["pages"], held["sessions"], held["heads"])
        return LogReport(*parts, summary, findings)


def prepare(
    logs: Any,
    folder: str | os.PathLike[str],
    schema: Any = None,
    progress: Progress | None = None,
    *,
    table: Table | None = None,
) -> Prepared:
    """Reads, checks and encodes a log, or takes up what is there of the same log.

    Args:
        logs: A Parquet file, `SessionLog`, DataFrame or other Arrow table.
        folder: Where to put it; made if it is not there. Another prepared log there is replaced.
        schema: A `LogSchema` or the path of a schema file; not needed for a log of this package.
        progress: Called with (what is going on, rows done, rows in all or 0).
        table: How columns of customers become codes, in place of what this log suggests: that of
            a simulator which was fitted to another one.

    Raises:
        LogError: the log cannot be learned from, or ``table`` does not know a value of it; the
            message names file, column and row.
        FileFormatError: no Parquet file, a damaged one, or no schema.
        InvalidArgumentError: ``table`` is of other columns; or ``folder`` holds something else,
            which would be lost.
        OutputError: the operating system refused, or the disk is too small.
    """
    path = Path(_arguments.as_path(folder))
    told = _arguments.function("progress", progress)
    if table is not None:
        _arguments.instance("table", table, Table)
    source = open_source(logs)
    bound = schema_for(source, schema)
    wanted: dict[str, Any] = {"version": VERSION, "source": source.digest()}
    wanted |= {"log_schema": bound.to_json()}
    if table is not None:
        wanted["given_table"] = hashlib.sha256(table.to_json().encode()).hexdigest()
    meta = _load(path)
    known = meta is not None and wanted["source"] is not None and wanted == _origin(meta)
    if meta is not None and known and _is_whole(path, meta, told):
        return Prepared(path, meta)
    _require_room_for_a_folder(path)
    scan = Scan(source, bound if table is None else _known_to(bound, table))
    beside = _beside(path, "writing")
    with _writing(beside):
        writer = _Writer(beside, scan, table)
        try:
            for rows, checked in scan.batches():
                if table is not None:
                    _require_values(scan, rows, table)
                if not scan.findings.errors:
                    writer.write(rows, checked)
                if told is not None:
                    told("reading the log", rows.first + len(rows), source.rows or 0)
            report = scan.report()
            report.require()
            meta = writer.finish(report, wanted, told)
        finally:
            writer.abandon()
        _replace(beside, path)
    return Prepared(path, meta)


def _require_room_for_a_folder(path: Path) -> None:
    """That nothing is there, or what may be replaced."""
    try:
        held = sorted(os.listdir(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path)) from error
    if held and _META not in held:
        expected = "a new or empty folder, or one with a prepared log"
        raise InvalidArgumentError(f"folder: expected {expected}, got {path} with {held[0]!r}")


def _origin(meta: dict[str, Any]) -> dict[str, Any]:
    keys = ("version", "source", "log_schema", "given_table")
    return {key: meta[key] for key in keys if key in meta}


def _load(folder: Path) -> dict[str, Any] | None:
    """What ``meta.json`` holds, if it is as it was written."""
    try:
        data = (folder / _META).read_bytes()
        meta: dict[str, Any] = json.loads(data)
        del meta[_SEAL]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return meta if data == _sealed(meta) else None


_SEAL: Final = "sha256"


def _sealed(meta: dict[str, Any]) -> bytes:
    """The content of ``meta.json``: its last entry is the digest of the others."""
    digest = hashlib.sha256(json.dumps(meta).encode()).hexdigest()
    return json.dumps({**meta, _SEAL: digest}).encode()


def _column(folder: Path, meta: dict[str, Any], name: str) -> Column:
    held = meta["columns"][name]
    return Column(folder / f"{name}.npy", held["dtype"], held["shape"])


def _is_whole(folder: Path, meta: dict[str, Any], told: Progress | None) -> bool:
    """Whether all columns are as they were written."""
    done = reported = 0
    columns = meta["columns"]
    try:
        files = {name: _column(folder, meta, name) for name in columns}
        total = sum(file.nbytes for file in files.values())

        def read(more: int) -> None:
            nonlocal done, reported
            done += more
            if told is not None and done - reported >= _TOLD:
                reported = done
                told("checking the prepared log", done, total)

        return all(file.digest(read) == columns[name]["sha256"] for name, file in files.items())
    except VirtualTBError:
        return False


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A folder that is gone again after an error; the system's errors are ours."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OutputError):
            raise
        raise OutputError(error.errno, error.strerror, error.filename or str(folder)) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _beside(path: Path, what: str) -> Path:
    """A folder's name that is ours alone: what a kill left under it is removed unasked."""
    return path.with_name(f".{path.name}.virtualtb-{what}")


def _replace(beside: Path, path: Path) -> None:
    """Puts a folder in the place of another."""
    old = _beside(path, "replaced")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(beside, path)
    shutil.rmtree(old, ignore_errors=True)


class _Writer:
    """Writes what one pass over a log gives."""

    def __init__(self, folder: Path, scan: Scan, table: Table | None = None) -> None:
        self._folder, self._scan, self._table = folder, scan, table
        self._columns: dict[str, ColumnWriter] = {}
        self._digests: dict[str, str] = {}
        self._outcome: int | None = None

    def _column(self, name: str, dtype: Any, shape: tuple[int, ...] = ()) -> ColumnWriter:
        self._columns[name] = ColumnWriter(self._folder, name, dtype, shape)
        return self._columns[name]

    def _open(self, rows: Rows) -> None:
        schema = self._scan.schema
        for name, dtype in _ROW_COLUMNS.items():
            if name != "hour" or schema.hour is not None:
                self._column(name, dtype)
        self._column("action", np.float32, (rows.action.shape[1],))
        self._column("offsets", np.int64)
        self._column("raw_categorical", np.int32, (rows.categorical.shape[1],))
        self._column("raw_numeric", np.float64, (rows.numeric.shape[1],))
        self._room(rows)

    def _room(self, rows: Rows) -> None:
        """Whether the disk will hold it."""
        fields = rows.categorical.shape[1] + rows.numeric.shape[1]
        row = 4 * rows.action.shape[1] + 9 + fields
        # Sessions are shorter than they may be: what is kept once a session is counted once a row.
        row += 4 * rows.categorical.shape[1] + 8 * rows.numeric.shape[1] + fields + 8
        needed = (self._scan.source.rows or len(rows)) * row + _SPARE
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            expected = f"about {needed / 1e9:,.1f} GB of free disk for the prepared log"
            message = f"{self._folder.parent}: expected {expected}, got {free / 1e9:,.1f} GB"
            raise OutputError(message)

    def write(self, rows: Rows, checked: Checked) -> None:
        """Writes rows that follow the last ones."""
        if not self._columns:
            self._open(rows)
        held, columns = checked.outcome, self._columns
        if self._outcome is not None:
            last = self._outcome if checked.before is None else checked.before
            columns["outcome"].write(np.array([last]))
        # How the last row ended is only known when the next one is seen.
        columns["outcome"].write(held[:-1])
        self._outcome = int(held[-1])
        columns["page"].write(checked.page)
        columns["clicks"].write(rows.clicks)
        columns["second"].write(rows.second)
        columns["action"].write(rows.action)
        if "hour" in columns:
            columns["hour"].write(rows.hour)
        columns["offsets"].write(np.flatnonzero(checked.starts) + rows.first)
        columns["raw_categorical"].write(rows.categorical[checked.starts])
        columns["raw_numeric"].write(rows.numeric[checked.starts])

    def finish(
        self, report: LogReport, wanted: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        """Encodes the customers and writes ``meta.json``."""
        scan, columns = self._scan, self._columns
        assert scan.final is not None, "a log without rows has a finding"
        columns["outcome"].write(np.array([scan.final]))
        columns["offsets"].write(np.array([report.rows]))
        for name in (*_ROW_COLUMNS, "action", "offsets", "raw_categorical", "raw_numeric"):
            if name in columns:
                self._digests[name] = columns[name].close()
        encoder = None if scan.schema.codes else _Encoder(scan, self._table)
        schema = self._schema(encoder)
        self._customers(encoder, len(schema.customer), report.rows, progress)
        for name in ("raw_categorical", "raw_numeric"):
            columns[name].path.unlink()
            del columns[name], self._digests[name]
        hashed = hashlib.sha256(schema.to_json().encode())
        for name in sorted(self._digests):
            hashed.update(f"{name} {self._digests[name]}\n".encode())
        meta = {
            **wanted,
            "digest": hashed.hexdigest(),
            "schema": schema.to_json(),
            "table": None if encoder is None else json.loads(encoder.table.to_json()),
            "heads": report.heads,
            "page_items": scan.schema.feedback.page_items,
            "rows": report.rows,
            "sessions": report.sessions,
            "longest": scan.statistics.longest,
            "metadata": scan.source.metadata,
            "report": report.to_dict(),
            "columns": {
                name: {**column.form, "sha256": self._digests[name]}
                for name, column in columns.items()
            },
        }
        path = self._folder / _META
        with open(path, "wb") as file:
            file.write(_sealed(meta))
            file.flush()
            os.fsync(file.fileno())
        return meta

    def abandon(self) -> None:
        """Closes what is open."""
        for column in self._columns.values():
            column.abandon()

    def _schema(self, encoder: _Encoder | None) -> Schema:
        scan = self._scan
        if encoder is None:
            assert scan.schema.codes is not None
            return scan.schema.codes
        span = scan.schema.action_range
        if span is None:
            low, high = scan.statistics.action_bounds
            # A box needs an inside; an action that never changes has none.
            span = (low, high) if low < high else (low - 1.0, high + 1.0)
        return Schema(encoder.table.fields, int(scan.decoder.action_width or 0), span)

    def _customers(
        self, encoder: _Encoder | None, width: int, total: int, progress: Progress | None
    ) -> None:
        """Codes once a session, and once a row."""
        raw = [self._columns[name].read() for name in ("raw_categorical", "raw_numeric")]
        offsets = self._columns["offsets"].read()
        sessions, rows = (
            self._column("session_customer", np.uint8, (width,)),
            self._column("customer", np.uint8, (width,)),
        )
        for first in range(0, len(raw[0]), _BLOCK):
            part = slice(first, first + _BLOCK)
            codes: NDArray[np.uint8]
            if encoder is None:
                codes = raw[0][part].astype(np.uint8)
            else:
                codes = encoder.codes(raw[0][part], raw[1][part])
            bounds = offsets[first : first + len(codes) + 1]
            sessions.write(codes)
            for at in range(0, len(codes), _BLOCK // 64):
                ends = np.diff(bounds[at : at + _BLOCK // 64 + 1])
                rows.write(np.repeat(codes[at : at + len(ends)], ends, axis=0))
            if progress is not None:
                progress("encoding customers", int(bounds[-1]), total)
        self._digests["session_customer"] = sessions.close()
        self._digests["customer"] = rows.close()


def _known_to(schema: LogSchema, table: Table) -> LogSchema:
    """The schema of a log whose categories are those of a table, where others have no code."""
    known = dict(schema.categories)
    for column in table.columns:
        if isinstance(column, Categorical) and not column.pooled and column.name in schema.columns:
            # Floats are read as the whole numbers that they are.
            values = [int(one) if isinstance(one, float) else one for one in column.values]
            known[column.name] = tuple(values)
    return dataclasses.replace(schema, categories=known)


def _require_values(scan: Scan, rows: Rows, table: Table) -> None:
    """Finds rows without a value in columns of which a table knows no missing one."""
    known = {column.name: column.missing for column in table.columns}
    parts = (
        (scan.schema.categorical, rows.categorical < 0),
        (scan.schema.numeric, np.isnan(rows.numeric)),
    )
    for names, gone in parts:
        for index, name in enumerate(names):
            where = np.flatnonzero(gone[:, index])
            if len(where) and not known.get(name, True):
                message = "expected a value, as all had that the simulator was fitted to, got none"
                where = where + rows.first
                scan.findings.add("missing-value", message, column=name, rows=where)


def _given(scan: Scan, table: Table | None) -> dict[str, Any]:
    """The columns of a table that is to be used, by name."""
    if table is None:
        return {}
    wanted = [(name, "categorical") for name in scan.schema.categorical]
    wanted += [(name, "numeric") for name in scan.schema.numeric]
    there = [(column.name, column.kind) for column in table.columns]
    if wanted != there:
        raise InvalidArgumentError(f"table: expected the log's columns {wanted}, got {there}")
    return {column.name: column for column in table.columns}


class _Encoder:
    """From numbers within vocabularies, and from numbers, to codes."""

    def __init__(self, scan: Scan, table: Table | None = None) -> None:
        counted = scan.statistics
        given = _given(scan, table)
        columns: list[Categorical] = []
        self._codes: list[NDArray[np.uint8]] = []
        for index, name in enumerate(scan.schema.categorical):
            values = list(scan.decoder.vocabularies[index].numbers)
            counts = np.zeros(len(values) + 1, np.int64)
            counts[: len(counted.categories[index])] = counted.categories[index]
            missing = int(counts[0])
            one = given.get(name)
            if one is None:
                one = Categorical.from_counts(name, values, counts[1:], missing=missing)
            self._codes.append(one.code_table(values))
            columns.append(one)
        self._numeric = [
            given.get(name) or Numeric.from_sample(name, *counted.sample(index))
            for index, name in enumerate(scan.schema.numeric)
        ]
        self.table = Table((*columns, *self._numeric))

    def codes(
        self, categorical: NDArray[np.int32], numeric: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """uint8 (n, F) of (n, C) and (n, N)."""
        out = np.empty((len(categorical), len(self.table.columns)), np.uint8)
        for index, codes in enumerate(self._codes):
            # -1, missing, is the last entry.
            out[:, index] = codes[categorical[:, index]]
        for index, column in enumerate(self._numeric):
            out[:, len(self._codes) + index] = column.encode(numeric[:, index])
        return out
