"""Bad files of reports, and of other people's data that comparisons are made on."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.bad_files_kit import (
    DIRECTORY,
    GZIP,
    HTML,
    LOOP,
    NOISE,
    SYSTEM,
    TEXT,
    ZEROS,
    Kind,
    Rewrite,
    Table,
    cut,
    instead,
    less,
    swap,
)
from tests.reliability.bad_files_others import npy

from virtualtb_fast.schema import V0_SCHEMA


def read_report(path: Path) -> None:
    """Reads a report back."""
    from virtualtb_fast.evaluation import report

    report.read_report(path)


@functools.cache
def good_report() -> bytes:
    """A report's keys."""
    from virtualtb_fast.evaluation import report

    held = {"format": report.FORMAT, "version": report.VERSION}
    return json.dumps(held | {part: {"a": 1.0} for part in report._PARTS}).encode()


REPORTS: Table = {
    "empty": (instead(b""), "expected JSON, got"),
    "a note": (instead(TEXT), "expected JSON, got"),
    "a web page": (instead(HTML), "expected JSON, got"),
    "zeros": (instead(ZEROS), "expected JSON, got"),
    "an archive": (instead(GZIP), "expected JSON, got .*utf-8"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "expected JSON, got .*utf-8"),
    "a BOM": (lambda data: b"\xef\xbb\xbf" + data, "expected JSON, got .*BOM"),
    "half of it": (cut(0.5), "expected JSON, got"),
    "a byte less": (less(1), "expected JSON, got"),
    "twice": (lambda data: data + data, "expected JSON, got Extra data"),
    "brackets": (instead(b"[" * 100_000), "expected JSON, got maximum recursion"),
    "a number of digits": (swap("1.0", "9" * 5000), "expected JSON, got Exceeds the limit"),
    "null": (instead(b"null"), "expected a report of format .*, got a NoneType"),
    "a list": (instead(b"[]"), "expected a report of format .*, got a list"),
    "another format": (swap('"format": "', '"format": "my.'), "expected a report .* got 'my."),
    "no format": (swap('"format"', '"form"'), "expected a report of format .* got None"),
    "a later version": (swap('"version": ', '"version": 9'), "expected version [0-9]+, got 9"),
    "a part less": (swap('"pairs"', '"pears"'), r"expected a whole report, got .*without ..pairs"),
    "a key twice": (swap('"pairs"', '"pages"'), "expected each key once, got 'pages' again"),
    "a folder": (DIRECTORY, "expected a report .JSON., got a directory"),
    "a link to itself": (LOOP, SYSTEM),
}

USERS = b"user_id,active,fans_num,fans_range\n" + b"".join(
    f"{row},{'high' if row % 3 else 'low'},{row * 7 % 50},x\n".encode() for row in range(400)
)
USER_TABLES: Table = {
    "empty": (instead(b""), "expected users with a user_id, got no rows"),
    "names of columns alone": (instead(b"user_id,active\n"), "expected users .* got no rows"),
    "a note": (instead(TEXT + TEXT), "expected users with a user_id, got columns"),
    "no users": (swap("user_id", "item_id"), "expected users with a user_id, got columns"),
    "an archive": (instead(GZIP), "expected a table of users .CSV., got .*utf-8"),
    "Latin-1": (
        swap("high", "hö".encode("latin-1")),
        "expected a table of users .CSV., got .*utf-8",
    ),
    "half a row": (less(3), "expected 4 columns in each row, got others in row"),
    "a column more in a row": (swap("low,0,x", "low,0,x,y"), "columns .* got others in row 0"),
    "an open text": (swap("low", '"low'), "expected a table of users .CSV., got unexpected end"),
    "a field of a megabyte": (swap("low", "x" * (1 << 20)), "expected a table .* got field larger"),
    "a folder": (DIRECTORY, "[Dd]irectory"),
    "a link to itself": (LOOP, SYSTEM),
}


def read_users(path: Path) -> None:
    """Reads users as categories and numbers."""
    from virtualtb_fast.evaluation.customer_data import kuairand_customers

    kuairand_customers(path, 1)


def counts(**arrays: Any) -> Rewrite:
    """An archive of arrays."""

    def change(_: bytes) -> bytes:
        out = io.BytesIO()
        np.savez(out, **arrays)
        return out.getvalue()

    return change


def good_counts() -> bytes:
    """Twenty customers a category of two, and as many in all of the others."""
    parts = [np.full(field.size, 7_920 // field.size) for field in V0_SCHEMA.customer]
    return counts(column_sums=np.concatenate(parts))(b"")


def read_counts(path: Path) -> None:
    """Reads the counts of VirtualTB-v0's customers."""
    from virtualtb_fast.evaluation.customer_data import published_counts

    published_counts(path, 1)


WIDTH = V0_SCHEMA.customer_width
COUNTS_EXPECTED = "expected column_sums of 88 counts in an archive .*, got"
COUNTS: Table = {
    "empty": (instead(b""), COUNTS_EXPECTED),
    "a note": (instead(TEXT), COUNTS_EXPECTED),
    "noise in an archive": (instead(b"PK\3\4" + NOISE), COUNTS_EXPECTED),
    "half of it": (cut(0.5), COUNTS_EXPECTED),
    "an array": (npy(np.ones(WIDTH)), COUNTS_EXPECTED),
    "another name": (counts(sums=np.ones(WIDTH)), COUNTS_EXPECTED),
    "a count less": (counts(column_sums=np.ones(WIDTH - 1)), rf"{COUNTS_EXPECTED} shape \(87,\)"),
    "texts": (counts(column_sums=np.full(WIDTH, "a")), COUNTS_EXPECTED),
    "no numbers": (counts(column_sums=np.full(WIDTH, np.nan)), f"{COUNTS_EXPECTED} .*no counts"),
    "infinite": (counts(column_sums=np.full(WIDTH, np.inf)), f"{COUNTS_EXPECTED} .*no counts"),
    "negative": (counts(column_sums=np.full(WIDTH, -1.0)), f"{COUNTS_EXPECTED} .*no counts"),
    "a folder": (DIRECTORY, "[Dd]irectory"),
    "a link to itself": (LOOP, SYSTEM),
}

CELLS: Table = {
    "empty": (instead(b""), "expected JSON, got"),
    "a note": (instead(TEXT), "expected JSON, got"),
    "zeros": (instead(ZEROS), "expected JSON, got"),
    "Latin-1": (swap("table", b"t\xe4ble"), "expected JSON, got .*utf-8"),
    "half of it": (cut(0.5), "expected JSON, got"),
    "a key twice": (swap('"sampler"', '"data"'), "expected each key once, got 'data' again"),
    "brackets": (instead(b"[" * 100_000), "expected JSON, got .*recursion"),
    "a list": (instead(b"[1]"), "expected the result of a cell .JSON. with .*, got a list"),
    "no keys": (instead(b"{}"), "expected .*, got one without .'data', 'sampler', 'pair_kl'"),
    "another form": (instead(b'{"key": "0", "result": {}}'), "expected .*, got one without"),
    "a folder": (DIRECTORY, "[Dd]irectory"),
    "a link to itself": (LOOP, SYSTEM),
}


def read_cell(path: Path) -> None:
    """Reads the result of a cell of the comparison of samplers."""
    from virtualtb_fast.evaluation import customer_table

    customer_table.read_cell(path)


KINDS = [
    Kind(
        "cell",
        "store-0-independent.json",
        lambda: b'{"data": "table", "sampler": "rows", "pair_kl": 1.0, "triple_kl": 2.0}',
        read_cell,
        CELLS,
        times=100,
    ),
    Kind(
        "report",
        "fidelity.json",
        good_report,
        read_report,
        REPORTS,
        needs=("sklearn", "matplotlib"),
        times=100,
    ),
    Kind("users", "users.csv", lambda: USERS, read_users, USER_TABLES, times=100),
    Kind("counts", "counts.npz", good_counts, read_counts, COUNTS),
]
