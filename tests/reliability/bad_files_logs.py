"""Bad files of session logs: those that this package wrote, altered or rewritten."""

from __future__ import annotations

import functools
import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from tests.reliability.bad_files_kit import (
    DIRECTORY,
    GZIP,
    HTML,
    LFS,
    LOOP,
    NOISE,
    SYSTEM,
    TEXT,
    ZEROS,
    Kind,
    Rewrite,
    Table,
    corpus,
    cut,
    instead,
    less,
    more,
    put_at,
    swap,
)

from virtualtb_fast.logs import read_log

MARK = b"\x18\x08checksum\x18\x08"
"""What comes before the digits of a log's checksum."""


def good() -> bytes:
    """A log of drawn actions."""
    return corpus("log/drawn.parquet")


def sealed(data: bytes) -> bytes:
    """A log with a right checksum, whatever else is wrong with it."""
    at = data.rindex(MARK) + len(MARK)
    blank = data[:at] + b"0" * 8 + data[at + 8 :]
    return blank[:at] + f"{zlib.crc32(blank):08x}".encode() + blank[at + 8 :]


def sealed_after(change: Callable[[bytes], bytes]) -> Rewrite:
    """A change that leaves the checksum right."""
    return lambda data: sealed(change(data))


def footer_length(value: int) -> Rewrite:
    """Another length of the footer."""
    return lambda data: put_at(-8, struct.pack("<I", value))(data)


def damaged_page(data: bytes) -> bytes:
    """A header of the first page that is none, under a right checksum."""
    return sealed(data[:4] + b"\xff" * 12 + data[16:])


def damaged_footer(data: bytes) -> bytes:
    """A footer whose first fields are none."""
    size = struct.unpack("<I", data[-8:-4])[0]
    at = len(data) - 8 - size
    return sealed(data[:at] + b"\xff" * 8 + data[at + 8 :])


NOT_PARQUET = "expected a Parquet file, got"
ALTERED = "expected a file of checksum .*, got .*: the file was altered"

ALTERED_LOGS: Table = {
    "empty": (instead(b""), NOT_PARQUET),
    "four bytes": (instead(b"PAR1"), NOT_PARQUET),
    "no rows and no footer": (instead(b"PAR1\0\0\0\0PAR1"), NOT_PARQUET),
    "zeros": (instead(ZEROS), NOT_PARQUET),
    "noise": (instead(NOISE), NOT_PARQUET),
    "a note": (instead(TEXT), NOT_PARQUET),
    "a web page": (instead(HTML), NOT_PARQUET),
    "a pointer to a large file": (instead(LFS), NOT_PARQUET),
    "an archive": (instead(GZIP), NOT_PARQUET),
    "a table of text": (instead(b"session,page\n0,0\n0,1\n"), NOT_PARQUET),
    "a simulator": (instead(corpus("simulator/a-mlp.safetensors")), NOT_PARQUET),
    "a catalogue": (instead(corpus("catalog/texts")), NOT_PARQUET),
    "a folder": (DIRECTORY, "expected a Parquet file, got a directory"),
    "a link to itself": (LOOP, SYSTEM),
    "half of it": (cut(0.5), NOT_PARQUET),
    "a byte less": (less(1), NOT_PARQUET),
    "a byte less in front": (lambda data: data[1:], ALTERED),
    "a byte more": (more(b"\0"), NOT_PARQUET),
    "zeros behind it": (more(ZEROS), NOT_PARQUET),
    "its own beginning behind it": (lambda data: data + data[:400], NOT_PARQUET),
    "twice": (lambda data: data + data, ALTERED),
    "another end": (put_at(-4, b"par1"), NOT_PARQUET),
    "the end of an encrypted file": (put_at(-4, b"PARE"), NOT_PARQUET),
    "another beginning": (put_at(0, b"RAP1"), ALTERED),
    "a footer of no length": (footer_length(0), NOT_PARQUET),
    "a footer a byte too short": (
        lambda data: put_at(-8, struct.pack("<I", struct.unpack("<I", data[-8:-4])[0] - 1))(data),
        ALTERED,
    ),
    "a footer beyond the file": (footer_length(1 << 20), NOT_PARQUET),
    "a footer beyond all": (footer_length(2**32 - 1), NOT_PARQUET),
    "a number altered": (put_at(200, b"\xa5"), ALTERED),
    "a seed altered": (swap(b"seed\x18\x013", b"seed\x18\x014"), ALTERED),
    "a checksum altered": (
        lambda data: (
            (at := data.rindex(MARK) + len(MARK)) and data[:at] + b"x" * 8 + data[at + 8 :]
        ),
        "expected a file of checksum xxxxxxxx, got",
    ),
    "a checksum of another name": (swap(b"\x08checksum", b"\x08checksun"), "expected a checksum"),
    "line ends of another system": (
        lambda data: data.replace(b"\n", b"\r\n"),
        ALTERED,
    ),
    "a page whose header is none": (damaged_page, "expected rows that can be decoded, got"),
    "a footer that is none": (damaged_footer, NOT_PARQUET),
    "another format": (
        sealed_after(swap(b"virtualtb_fast.sessions", b"virtualtb_fast.sessionz")),
        'expected format "virtualtb_fast.sessions", got "virtualtb_fast.sessionz"',
    ),
}


# --- rewritten with another tool, with a right checksum -----------------------------------------


def table_of(data: bytes) -> Any:
    """The log as Arrow has it."""
    from pyarrow import parquet

    held = parquet.read_table(io.BytesIO(data))
    # pyarrow takes metadata from Arrow's schema, where a checksum of the file has no place.
    return held.replace_schema_metadata({**held.schema.metadata, b"checksum": b"0" * 8})


def bytes_of(table: Any, **options: Any) -> bytes:
    """A Parquet file."""
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(table, out, use_compliant_nested_type=False, **options)
    return out.getvalue()


@functools.cache
def rewritten() -> bytes:
    """The good log, written by pyarrow, with a right checksum."""
    return sealed(bytes_of(table_of(good())))


def table(edit: Callable[[Any], Any]) -> Rewrite:
    """Another table."""

    def change(data: bytes) -> bytes:
        held = table_of(data)
        out = edit(held)
        return sealed(
            bytes_of(
                out.replace_schema_metadata(held.schema.metadata | (out.schema.metadata or {}))
            )
        )

    return change


def column(name: str, values: Callable[[Any], Any], to: str | None = None) -> Rewrite:
    """Another column in the place of one; pyarrow's type by name, if it is not the old one."""

    def edit(held: Any) -> Any:
        import pyarrow

        at = held.schema.get_field_index(name)
        field = held.schema.field(at)
        kind = field.type if to is None else getattr(pyarrow, to)()
        array = pyarrow.array(values(held[name].to_pylist()), kind)
        nullable = field.nullable or array.null_count > 0
        return held.set_column(at, pyarrow.field(name, kind, nullable), array)

    return table(edit)


def metadata(**values: str | None) -> Rewrite:
    """Other metadata; None leaves a key out."""

    def change(data: bytes) -> bytes:
        held = table_of(data)
        kept = {key.decode(): value.decode() for key, value in held.schema.metadata.items()}
        kept |= {"checksum": kept.pop("checksum"), **values}
        some = {key: value for key, value in kept.items() if value is not None}
        return sealed(bytes_of(held.replace_schema_metadata(some)))

    return change


def schema(**values: Any) -> Rewrite:
    """Another schema of customers and actions."""

    def change(data: bytes) -> bytes:
        held = json.loads(table_of(data).schema.metadata[b"schema"])
        return metadata(schema=json.dumps(held | values))(data)

    return change


def unsealed(data: bytes) -> bytes:
    """Without a checksum."""
    held = table_of(data)
    kept = {key: one for key, one in held.schema.metadata.items() if key != b"checksum"}
    return bytes_of(held.replace_schema_metadata(kept))


def rename(old: str, new: str) -> Rewrite:
    """A column of another name."""
    return table(
        lambda held: held.rename_columns([new if n == old else n for n in held.schema.names])
    )


def reorder(held: Any) -> Any:
    """The first column last."""
    names = held.schema.names
    return held.select([*names[1:], names[0]])


def lists(size: int) -> Rewrite:
    """Actions of another number of dimensions."""

    def edit(held: Any) -> Any:
        import pyarrow

        rows = [row[:1] * size for row in held["action"].to_pylist()]
        item = pyarrow.field("item", pyarrow.float32(), nullable=False)
        at = held.schema.get_field_index("action")
        array = pyarrow.array(rows, pyarrow.list_(item, size))
        return held.set_column(at, pyarrow.field("action", array.type, False), array)

    return table(edit)


REWRITTEN: Table = {
    "no checksum": (unsealed, "expected a checksum of the file, got none"),
    "no format": (metadata(format=None), 'expected metadata key "format", got none'),
    "no version": (metadata(format_version=None), 'expected metadata key "format_version", got'),
    "an earlier version": (
        metadata(format_version="0"),
        'expected format_version "[0-9]", got "0"',
    ),
    "a later version": (metadata(format_version="99"), 'expected format_version ".", got "99"'),
    "no schema": (metadata(schema=None), 'expected metadata key "schema", got none'),
    "no number of rows": (metadata(rows=None), 'expected metadata key "rows", got none'),
    "another number of rows": (metadata(rows="7"), "expected 7 rows, got [0-9]+"),
    "a number of rows that is a word": (metadata(rows="many"), "expected many rows, got [0-9]+"),
    "a schema that is a word": (metadata(schema="shop"), "expected schema as JSON .* got"),
    "a schema of no fields": (
        schema(customer=[]),
        "schema.customer: expected 1 to 256 fields, got 0",
    ),
    "a schema of another action": (schema(action=5), "expected column action: .* got action"),
    "a schema of more fields": (
        schema(customer=[{"name": str(n), "size": 2} for n in range(4)]),
        "expected column customer: .* got customer",
    ),
    "a schema of a negative action": (schema(action=-6), "expected schema as JSON .* got"),
    "a schema beyond memory": (
        schema(action=1 << 40),
        "schema.action: expected 1 to 16384 dimensions, got 1099511627776",
    ),
    "a schema of a key more": (schema(items=3), "expected schema as JSON .* got unknown field"),
    "a schema beyond numbers": (
        schema(action=(1 << 32) + 6),
        "schema.action: expected 1 to 16384 dimensions, got 4294967302",
    ),
    "a schema of a range upside down": (
        schema(action_range=[1, -1]),
        "schema.action_range: expected .* got .1, -1",
    ),
    "a schema of one category": (
        schema(customer=[{"name": str(n), "size": n + 1} for n in range(3)]),
        "customer field .0.: expected 2 to 256 categories, got 1",
    ),
    "a schema of one name": (
        schema(customer=[{"name": "a", "size": 5} for _ in range(3)]),
        "schema: customer: expected fields of different names, got",
    ),
    "a schema with a key twice": (
        metadata(schema='{"action": 6, "action": 6, "customer": [], "action_range": [0, 1]}'),
        "expected schema as JSON .* got duplicate field `action`",
    ),
    "items that are a word": (metadata(page_items="ten"), "expected page_items as a number"),
    "negative items": (metadata(page_items="-1"), 'expected page_items as a number.* got "-1"'),
    "items beyond memory": (metadata(page_items="99999999999"), "expected page_items as a number"),
    "items on no page": (metadata(page_items="4"), "expected 13 columns, got 11"),
    "a column less": (
        table(lambda held: held.drop_columns(["units"])),
        "expected column units: UInt16, got value",
    ),
    "the last column less": (
        table(lambda held: held.drop_columns(["value"])),
        "expected 11 columns, got 10",
    ),
    "a column more": (
        table(lambda held: held.append_column("note", held["page"])),
        "expected 11 columns, got 12",
    ),
    "a column twice": (
        table(lambda held: held.append_column("page", held["page"])),
        "expected 11 columns, got 12",
    ),
    "no columns but one": (
        table(lambda held: held.select(["session"])),
        "expected .* columns, got 1",
    ),
    "columns in another order": (table(reorder), "expected column session: Int64, got page"),
    "a column of another name": (
        rename("clicks", "click"),
        "expected column clicks: .* got click:",
    ),
    "sessions of another type": (column("session", list, "int32"), "session: Int64, got .*: Int32"),
    "pages as texts": (
        column("page", lambda all_: [str(one) for one in all_], "string"),
        "expected column page: Int16, got page: Utf8",
    ),
    "clicks with a sign": (column("clicks", list, "int8"), "expected column clicks: UInt8, got"),
    "actions in double precision": (
        column("action_logp", list, "float64"),
        "expected column action_logp: Float32, got action_logp: Float64",
    ),
    "outcomes as texts": (column("outcome", list, "string"), "expected column outcome: Dict.* got"),
    "actions of fewer dimensions": (lists(5), "expected column action: .* got action"),
    "actions of more dimensions": (lists(7), "expected column action: .* got action"),
    "a session that is missing": (
        column("session", lambda all_: [None, *all_[1:]]),
        "expected column session: .* got session",
    ),
    "an outcome that nobody knows": (
        column("outcome", lambda all_: ["returned", *all_[1:]]),
        'column outcome: expected turn, buy, leave, max_pages, got "returned"',
    ),
    "no rows but the number of them": (
        table(lambda held: held.slice(0, 0)),
        "expected .* rows, got 0",
    ),
    "a row less": (table(lambda held: held.slice(1)), "expected [0-9]+ rows, got [0-9]+"),
}

KINDS = [
    Kind("log", "log.parquet", good, read_log, ALTERED_LOGS),
    Kind(
        "rewritten log",
        "again.parquet",
        rewritten,
        read_log,
        REWRITTEN,
        needs=("pyarrow",),
        times=0,
    ),
]
