"""Bad files of catalogues: altered ones, and ones whose checksums are right but which are wrong."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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

from virtualtb_fast.catalog import Catalog

FRAME, PAGE = 64, 4096
Header = dict[str, Any]


def header_of(data: bytes | bytearray) -> Header:
    """The JSON of a catalogue."""
    held: Header = json.loads(data[FRAME : struct.unpack_from("<Q", data, 16)[0]])
    return held


def signed(data: bytearray, header: Header | bytes | None = None) -> bytes:
    """The file with a header, and that header's checksum."""
    length = struct.unpack_from("<Q", data, 16)[0]
    if header is not None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        if not isinstance(header, bytes):
            text = json.dumps(header, separators=(",", ":")).encode()
        assert len(text) <= length - FRAME, "an edit that takes another page"
        data[FRAME:length] = text.ljust(length - FRAME)
    data[32:64] = bytes(32)
    data[32:64] = hashlib.sha256(data[:length]).digest()
    return bytes(data)


def frame(at: int, form: str, value: int) -> Rewrite:
    """Another number in the frame, under a right checksum where there is room for one."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        struct.pack_into(form, changed, at, value)
        length = struct.unpack_from("<Q", changed, 16)[0]
        return signed(changed) if FRAME <= length <= len(data) else bytes(changed)

    return change


def says(edit: Callable[[Header], object]) -> Rewrite:
    """Another header."""

    def change(data: bytes) -> bytes:
        header = header_of(data)
        edit(header)
        return signed(bytearray(data), header)

    return change


def top(**values: Any) -> Rewrite:
    """Other values in the header; `...` leaves one out."""

    def edit(header: Header) -> None:
        header.update(values)
        for key in [key for key, value in header.items() if value is ...]:
            del header[key]

    return says(edit)


def column(index: int, /, **values: Any) -> Rewrite:
    """Another description of a column."""
    return says(lambda header: header["columns"][index].update(values))


def section(kind: str, of: int = 0, /, **values: Any) -> Rewrite:
    """Another description of a section."""
    return says(lambda header: place(header, kind, of).update(values))


def place(header: Header, kind: str, of: int) -> Header:
    """A section's description."""
    found = [one for one in header["sections"] if (one["kind"], one["column"]) == (kind, of)]
    entry: Header = found[0]
    return entry


def text(content: bytes) -> Rewrite:
    """A header that is other text."""
    return lambda data: signed(bytearray(data), content)


def holds(
    kind: str, of: int, edit: Callable[[np.ndarray], object], dtype: str = "u1", *, sums: int = -1
) -> Rewrite:
    """Other content of a section, with checksums of it: of the section, and of its blocks."""

    def change(data: bytes) -> bytes:
        changed, header = bytearray(data), header_of(data)
        entry = place(header, kind, of)
        first, end = entry["offset"], entry["offset"] + entry["bytes"]
        values = np.frombuffer(bytes(changed[first:end]), dtype).copy()
        edit(values)
        changed[first:end] = values.tobytes()
        sealed = [entry]
        if sums >= 0:
            other = place(header, "sums", sums)
            at = other["offset"]
            changed[at : at + 8] = hashlib.sha256(values.tobytes()).digest()[:8]
            sealed.append(other)
        for one in sealed:
            pages = -(-one["bytes"] // PAGE) * PAGE
            held = changed[one["offset"] : one["offset"] + pages]
            one["sha256"] = hashlib.sha256(held).hexdigest()
        return signed(changed, header)

    return change


def altered(kind: str, of: int = 0) -> Rewrite:
    """A byte of a section changed, and nothing else."""

    def change(data: bytes) -> bytes:
        return put_at(place(header_of(data), kind, of)["offset"] + 1, b"\xa5")(data)

    return change


def to(index: int, value: float) -> Callable[[np.ndarray], object]:
    """Sets one value."""
    return lambda values: values.__setitem__(index, value)


WEIGHTS = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)


def read(path: Path) -> None:
    """All that can be done with a catalogue, its checksums last."""
    with Catalog.open(path) as catalog:
        every = np.arange(len(catalog))
        ids = catalog.ids()
        catalog.search(WEIGHTS, 40)
        if isinstance(ids[0], str):
            for filters in (
                {"category": {"brand": ["brand 1", "brand 4"]}},
                {"category": {"year": 0}},
                {"category": {"year": [0, 1, 2]}},
                {"price": (0.0, 1e9)},
                {"category": {"year": 1}, "price": (5.0, 40.0)},
            ):
                catalog.search(WEIGHTS, 40, **filters)
            for name in ("price", "brand", "year"):
                catalog.column(name, rows=every)
        catalog.attributes(rows=every)
        catalog.rows(ids)
        catalog.verify()


CATALOGS: Table = {
    "empty": (instead(b""), "expected a catalogue file, got an empty one"),
    "one byte": (instead(b"V"), "expected a catalogue file, got another of 1 bytes"),
    "a frame too short": (cut(63.5 / 98304), "expected a catalogue file, got another of 63 bytes"),
    "zeros": (instead(ZEROS), "expected a catalogue file, got another of 4096 bytes"),
    "noise": (instead(NOISE), "expected a catalogue file, got another of 4096 bytes"),
    "a note": (instead(TEXT), "expected a catalogue file, got another of 42 bytes"),
    "a web page": (instead(HTML), "expected a catalogue file, got another of 57 bytes"),
    "a pointer to a large file": (instead(LFS), "expected a catalogue file, got another"),
    "an archive": (instead(GZIP), "expected a catalogue file, got another"),
    "a simulator": (instead(corpus("simulator/a-mlp.safetensors")), "expected a catalogue file"),
    "a log": (instead(corpus("log/store.parquet")), "expected a catalogue file, got another"),
    "a folder": (DIRECTORY, "expected a catalogue.*, got a directory"),
    "a link to itself": (LOOP, SYSTEM),
    "half of it": (cut(0.5), "expected 98304 bytes, got 49152: cut short or altered"),
    "a byte less": (less(1), "expected 98304 bytes, got 98303: cut short or altered"),
    "a page less": (less(PAGE), "expected 98304 bytes, got 94208: cut short or altered"),
    "a byte more": (more(b"\0"), "expected 98304 bytes, got 98305: cut short or altered"),
    "a page more": (more(ZEROS), "expected 98304 bytes, got 102400: cut short or altered"),
    "read as text": (swap(b"\x1a\n", b"\x1a\r\n"), "expected a catalogue file, got another"),
    # The frame.
    "other first bytes": (put_at(0, b"vtbcat"), "expected a catalogue file, got another"),
    "a version of none": (frame(8, "<I", 0), "expected format version 1, got 0"),
    "a later version": (frame(8, "<I", 2), "expected format version 1, got 2"),
    "flags": (frame(12, "<I", 1), "expected format version 1, got 1 .flags 0x1"),
    "a header of no length": (frame(16, "<Q", 0), "expected a header of 4096 to .* got 0"),
    "a header of half a page": (frame(16, "<Q", 2048), "expected a header of .* got 2048"),
    "a header beyond the end": (frame(16, "<Q", 1 << 40), "expected a header of .* got 1099511"),
    "a header beyond all": (frame(16, "<Q", 2**64 - 4096), "expected a header of .* got 1844674"),
    "a header of two pages": (frame(16, "<Q", 8192), "expected a catalogue's header, got"),
    "a file beyond all": (frame(24, "<Q", 2**64 - 1), "expected 18446744073709551615 bytes, got"),
    "a header altered": (swap('"rows":40', '"rows":41'), "expected a header of digest .* altered"),
    "a checksum altered": (put_at(40, b"\0\0\0\0"), "expected a header of digest .* altered"),
    # The header's JSON.
    "no header": (text(b""), "expected a catalogue's header, got EOF"),
    "a header that is a list": (text(b"[]"), "expected a catalogue's header, got"),
    "a header that is null": (text(b"null"), "expected a catalogue's header, got"),
    "an open header": (text(b'{"rows":40'), "expected a catalogue's header, got EOF"),
    "a header of brackets": (text(b"[" * 2000), "expected a catalogue's header, got"),
    "a header that is not UTF-8": (text(b'{"rows":"\xff"}'), "expected a catalogue's header"),
    "a key twice": (text(b'{"rows":40,"rows":40}'), "got duplicate field `rows`"),
    "no rows key": (top(rows=...), "got missing field `rows`"),
    "one key more": (top(author="me"), "got unknown field `author`"),
    "no rows": (top(rows=0), "expected 1 to 4294967294 rows, got 0"),
    "negative rows": (top(rows=-40), "got invalid value: integer `-40`"),
    "rows of a fraction": (top(rows=40.5), "got invalid type: floating point"),
    "a row more": (top(rows=41), "expected 492 bytes of Attributes of column 0 at byte 8192"),
    "rows beyond all": (top(rows=2**64 - 1), "expected 1 to 4294967294 rows, got 18446744"),
    "rows that overflow": (top(rows=2**62), "expected 1 to 4294967294 rows, got 461168"),
    "most rows": (top(rows=2**32 - 2), "expected 51539607528 bytes of Attributes"),
    "no dimensions": (top(dimensions=0), "expected 1 to 512 dimensions, got 0"),
    "many dimensions": (top(dimensions=513), "expected 1 to 512 dimensions, got 513"),
    "another dimension": (top(dimensions=4), "expected 640 bytes of Attributes"),
    "ids of another kind": (top(ids="names"), "got unknown variant `names`"),
    "ids as numbers": (top(ids="integers"), "expected 22 sections, got 23"),
    "ids as rows": (top(ids="rows"), "expected 20 sections, got 23"),
    "no columns": (top(columns=[]), "expected 9 sections, got 23"),
    "columns that are null": (top(columns=None), "got invalid type: null"),
    "a column without a name": (column(0, name=""), "expected column names of 1 to 256 bytes"),
    "a column of a long name": (column(0, name="x" * 257), "expected column names of 1 to 256"),
    "two columns of one name": (column(2, name="brand"), 'expected each column once, got "brand"'),
    "another kind of column": (column(0, kind="date"), "got unknown variant `date`"),
    "more entries than rows": (column(0, present=41), "column price: expected at most 40 entries"),
    "fewer entries": (column(0, present=39), "expected 156 bytes of Sorted of column 0"),
    "more categories than entries": (
        column(1, kind={"texts": {"values": 33}}),
        "column brand: expected at most 40 entries and as many values, got 32 and 33",
    ),
    "categories beyond all": (
        column(2, kind={"integers": {"values": 2**32}}),
        "got invalid value: integer `4294967296`",
    ),
    "a category less": (column(2, kind={"integers": {"values": 2}}), "expected 16 bytes of Values"),
    # The table of sections.
    "no sections": (top(sections=[]), "expected 23 sections, got 0"),
    "a section less": (says(lambda held: held["sections"].pop()), "expected 23 sections, got 22"),
    "a section twice": (
        says(lambda held: held["sections"].append(held["sections"][0])),
        "expected 23 sections, got 24",
    ),
    "sections in another order": (
        says(lambda held: held["sections"].reverse()),
        "expected some bytes of Plan of column 0 at byte 4096, got 8 of Sums of column 2",
    ),
    "an unknown section": (section("codes", kind="embeddings"), "got unknown variant `embeddings`"),
    "a section of another column": (section("values", 1, column=7), "got 40 of Values of column 7"),
    "sections that overlap": (section("attributes", offset=4096), "of Attributes .* at 4096"),
    "a section beyond the end": (section("plan", offset=1 << 60), "of Plan of column 0 at 1152921"),
    "an offset beyond all": (section("codes", offset=2**64 - 1), "at 18446744073709551615"),
    "an offset in a page": (section("codes", offset=12289), "got 1536 of Codes .* at 12289"),
    "a negative offset": (section("codes", offset=-1), "got invalid value: integer `-1`"),
    "a plan beyond the end": (section("plan", bytes=1 << 40), "got 1099511627776 of Plan"),
    "a plan beyond all": (section("plan", bytes=2**64 - 1), "got 18446744073709551615 of Plan"),
    "codes of no bytes": (section("codes", bytes=0), "Bounds of column 0 at byte 12288, got 448"),
    "codes of a byte more": (
        section("codes", bytes=1537),
        "expected 1536 bytes of Codes, got 1537",
    ),
    "bounds of a byte less": (
        section("bounds", bytes=447),
        "expected 448 bytes of Bounds, got 447",
    ),
    "a short checksum": (section("order", sha256="00"), "expected 160 bytes of Order"),
    "another checksum": (
        section("plan", sha256="0" * 64),
        "Plan.*: expected SHA-256 0+, got .* altered",
    ),
    # Bytes altered by accident: found at the first use, or by `verify`.
    "attributes altered": (
        altered("attributes"),
        "Attributes of .*: expected SHA-256 .* got .* altered",
    ),
    "codes altered": (altered("codes"), "Codes of .*: expected SHA-256 .*altered"),
    "bounds altered": (altered("bounds"), "Bounds of .*: expected SHA-256 .*altered"),
    "an order altered": (altered("order"), "expected rows of items, got others.*altered"),
    "positions altered": (altered("positions"), "expected positions of items, got others.*altered"),
    "ids altered": (altered("id_texts"), "expected an id for each row, got a damaged one"),
    "prices altered": (altered("numbers"), "Numbers of .*: expected SHA-256 .*altered"),
    "a sorted list altered": (
        altered("sorted"),
        "expected lists of positions as they were .*altered",
    ),
    "a list altered": (altered("lists", 1), "altered"),
    "checksums of lists altered": (altered("sums", 2), "altered"),
    "starts altered": (altered("starts", 1), "altered"),
    "categories altered": (altered("value_texts", 1), "altered"),
    "padding altered": (put_at(-1, b"\1"), "altered"),
    # Right checksums over what cannot be.
    "a plan of other dimensions": (
        holds("plan", 0, to(2, 4), "<u4"),
        "plan.*: expected 52 bytes, got 44",
    ),
    "a plan of no centroids": (holds("plan", 0, to(3, 0), "<u4"), "expected .* centroids .* got"),
    "a row beyond the last": (
        holds("order", 0, to(3, 40), "<u4"),
        "expected rows of items, got others",
    ),
    "a row twice": (holds("order", 0, to(3, 4), "<u4"), "expected an order of all rows, got"),
    "a position beyond the last": (
        holds("positions", 0, to(3, 2**32 - 1), "<u4"),
        "expected positions of",
    ),
    "ids that end before they start": (holds("ids", 0, to(3, 0), "<u8"), "expected an id for each"),
    "ids beyond their texts": (
        holds("ids", 0, to(40, 2**63), "<u8"),
        "expected an id for each row",
    ),
    "an id that is no UTF-8": (
        holds("id_texts", 0, to(0, 0xFF)),
        "expected an id for each row, got",
    ),
    "starts that fall": (holds("starts", 1, to(1, 31), "<u8"), "expected starts of lists, asc"),
    "starts beyond their lists": (holds("starts", 2, to(3, 2**40), "<u8"), "expected starts of"),
    "starts not from 0": (holds("starts", 2, to(0, 1), "<u8"), "expected starts of lists"),
    "a list of positions beyond": (
        holds("lists", 1, to(0, 2**32 - 1), "<u4", sums=1),
        "expected .* got others",
    ),
    "a sorted list of positions beyond": (
        holds("sorted", 0, to(0, 2**32 - 1), "<u4", sums=0),
        "expected positions of items, got others",
    ),
    "categories beyond their texts": (holds("values", 1, to(2, 2**40), "<u8"), "expected texts of"),
    "a category that is no UTF-8": (holds("value_texts", 1, to(3, 0xC3)), "expected texts of"),
}

KINDS = [
    Kind("catalogue", "items.vtbcat", lambda: corpus("catalog/texts"), read, CATALOGS),
]
