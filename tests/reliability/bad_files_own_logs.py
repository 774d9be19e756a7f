"""Bad files of people's own: their logs, and the tables that catalogues are built from."""

from __future__ import annotations

import functools
import io
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
    cut,
    instead,
    less,
    more,
    put_at,
)

from virtualtb_fast.catalog import Catalog
from virtualtb_fast.records import check_log

SCHEMA = """\
format = "virtualtb_fast.log_schema"
version = 1
[rows]
session = "visit"
page = "page"
[customer]
categorical = ["city"]
numeric = ["age"]
[action]
columns = ["w"]
[feedback]
clicks = "clicks"
leave = "left"
"""


def parquet_of(columns: dict[str, Any], **options: Any) -> bytes:
    """A Parquet file."""
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out, **options)
    return out.getvalue()


def visits() -> dict[str, Any]:
    """Twenty visits of three pages."""
    draw = np.random.default_rng(9)
    return {
        "visit": [f"visit-{row // 3}" for row in range(60)],
        "page": [row % 3 for row in range(60)],
        "city": np.repeat(draw.integers(0, 4, 20), 3).tolist(),
        "age": np.repeat(draw.normal(40, 9, 20), 3).tolist(),
        "w": draw.normal(size=(60, 2)).tolist(),
        "clicks": draw.integers(0, 3, 60).tolist(),
        "left": [row % 3 == 2 for row in range(60)],
    }


def items() -> dict[str, Any]:
    """Forty items."""
    draw = np.random.default_rng(10)
    return {
        "id": [f"item {row}" for row in range(40)],
        "vector": draw.normal(size=(40, 3)).tolist(),
        "price": draw.lognormal(3, 1, 40).tolist(),
        "brand": [f"brand {row % 5}" for row in range(40)],
    }


@functools.cache
def good_log() -> bytes:
    """`visits` as a file."""
    return parquet_of(visits())


@functools.cache
def good_items() -> bytes:
    """`items` as a file."""
    return parquet_of(items())


def of(whole: Callable[[], dict[str, Any]], **changed: Any) -> Rewrite:
    """Other columns; a function changes the values, None leaves a column out."""

    def change(_: bytes) -> bytes:
        columns = whole()
        for name, values in changed.items():
            columns[name] = values(columns.get(name)) if callable(values) else values
        return parquet_of({name: one for name, one in columns.items() if one is not None})

    return change


def log(**changed: Any) -> Rewrite:
    """A log of other columns."""
    return of(visits, **changed)


def table(**changed: Any) -> Rewrite:
    """A table of other columns."""
    return of(items, **changed)


def at(row: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    """One value changed."""
    return lambda values: [*values[:row], value, *values[row + 1 :]]


def compressed(data: bytes) -> bytes:
    """Compressed pages with a damaged one."""
    packed = parquet_of(visits(), compression="gzip")
    return packed[:60] + b"\xff" * 40 + packed[100:]


NOT_PARQUET = "expected a Parquet file, got"

NO_PARQUET: Table = {
    "empty": (instead(b""), "expected a Parquet file, got an empty file"),
    "its first bytes": (instead(b"PAR1"), "expected a Parquet file, got"),
    "zeros": (instead(ZEROS), NOT_PARQUET),
    "noise": (instead(NOISE), NOT_PARQUET),
    "a note": (instead(TEXT), "expected a Parquet file, got text"),
    "a web page": (instead(HTML), "expected a Parquet file, got text"),
    "a pointer to a large file": (instead(LFS), "expected a Parquet file, got text"),
    "an archive": (instead(GZIP), "expected a Parquet file, got a gzip archive"),
    "a workbook": (
        instead(b"PK\3\4" + NOISE),
        "expected a Parquet file, got a ZIP archive, perhaps",
    ),
    "a database": (instead(b"SQLite format 3\0" + ZEROS), "got an SQLite database"),
    "an array": (instead(b"\x93NUMPY\1\0" + ZEROS), r"got an array \(.npy\)"),
    "CSV": (instead(b"visit,page\n1,0\n"), "got text, CSV; in Python, .* makes Parquet of it"),
    "CSV of another country": (instead(b"visit;page\n1;0\n"), "got text, CSV with semicolons"),
    "JSON": (instead(b'{"visit": 1, "page": 0}\n'), "expected a Parquet file, got text, JSON"),
    "Feather": (instead(b"ARROW1\0\0" + ZEROS), "expected a Parquet file, got a Feather"),
    "ORC": (instead(b"ORC" + NOISE), "expected a Parquet file, got an ORC file"),
    "a folder": (DIRECTORY, "expected a .*Parquet.*, got a directory"),
    "a link to itself": (LOOP, SYSTEM),
    "half of it": (cut(0.5), "got a Parquet file that was cut short: its end is missing"),
    "a byte less": (less(1), "got a Parquet file that was cut short: its end is missing"),
    "a byte more": (more(b"\0"), "got a Parquet file that was cut short: its end is missing"),
    "a footer beyond the file": (put_at(-8, b"\xff\xff\xff\x7f"), NOT_PARQUET),
    "a footer of no length": (put_at(-8, b"\0\0\0\0"), NOT_PARQUET),
}

LOGS: Table = NO_PARQUET | {
    "a damaged page": (compressed, "expected an intact file, got"),
    "no columns": (
        lambda _: parquet_of({}),
        "column 'city': expected in the log .named by .*toml., got none",
    ),
    "no rows": (
        lambda _: parquet_of({name: values[:0] for name, values in visits().items()}),
        "column 'clicks': expected numbers or flags, got null",
    ),
    "no sessions": (log(visit=None), "column 'visit': expected in the log .*, got none"),
    "no actions": (log(w=None), "column 'w': expected in the log .*, got none"),
    "sessions of fractions": (
        log(visit=[row / 2 for row in range(60)]),
        "'visit': expected whole numbers or texts, got double",
    ),
    "pages of text": (log(page=["1"] * 60), "column 'page': expected numbers, got string"),
    "customers that are lists": (
        log(city=[[1]] * 60),
        "column 'city': expected texts, .* got list",
    ),
    "ages of text": (log(age=["old"] * 60), "column 'age': expected numbers, got string"),
    "actions of text": (
        log(w=["a"] * 60),
        "column 'w': expected numbers or lists of numbers, got string",
    ),
    "actions of two lengths": (
        log(w=at(7, [1.0])),
        "column 'w': expected 2 numbers, got 1 in row 7",
    ),
    "actions of no length": (
        log(w=[[]] * 60),
        "column 'w': expected numbers or lists of numbers, got list",
    ),
    "a session that is missing": (
        log(visit=at(4, None)),
        "column 'visit': expected a session, got none in row 4",
    ),
    "an action that is missing": (log(w=at(4, None)), "'w': expected 2 numbers, got none in row 4"),
    "an action that is no number": (
        log(w=at(4, [0.0, float("nan")])),
        "'w.1.': expected .* got nan in row 4",
    ),
    "an infinite action": (
        log(w=at(4, [float("inf"), 0.0])),
        "'w.0.': expected .* got inf in row 4",
    ),
    "an action beyond float32": (
        log(w=at(4, [1e300, 0.0])),
        "'w': expected numbers that float32 can hold, got .* in row 4",
    ),
    "an infinite age": (
        log(age=at(4, float("-inf"))),
        "'age': expected a finite number, got infinity in row 4",
    ),
    "negative clicks": (log(clicks=at(4, -1)), "'clicks': expected 0 to 10, got -1 in row 4"),
    "more clicks than items": (
        log(clicks=at(4, 11)),
        "'clicks': expected 0 to 10, got 11 in row 4",
    ),
    "clicks beyond all": (
        log(clicks=lambda values: np.array(at(4, 2**64 - 1)(values), np.uint64)),
        "'clicks': expected 0 to 10, got .* in row 4",
    ),
    "half a click": (log(clicks=at(4, 0.5)), "expected a whole number, got 0.5"),
    "a negative page": (log(page=at(0, -1)), "'page': expected 0 to .* got -1 in row 0"),
    "a page left out": (log(page=at(1, 5)), "'page': expected page 1 after page 0, got 5 in row 1"),
    "leaving that is a word": (log(left=["yes"] * 60), "'left': expected flags, .* got string"),
    "leaving and staying": (
        log(left=at(0, True)),
        "'left': expected no page after the customer left, got .* in row 1",
    ),
    "a session in pieces": (
        log(visit=at(30, "visit-0")),
        "'visit': expected the rows of a session .* got .* in row 30",
    ),
    "a customer who moves": (
        log(city=at(1, 99)),
        "'city': expected the same customer .* got another in row 1",
    ),
    "cities that are fractions": (log(city=[0.5] * 60), "'city': expected whole numbers, got 0.5"),
}

ITEMS: Table = NO_PARQUET | {
    "an empty table": (lambda _: parquet_of({}), 'ids: expected a column of .*, got "id"'),
    "no items": (
        lambda _: parquet_of({"vector": np.zeros((0, 3)).tolist(), "id": []}),
        "column id: expected a column of texts or whole numbers, got Null",
    ),
    "no attributes": (table(vector=None), r"attributes: expected one column of lists, .* got \[\]"),
    "attributes of text": (
        table(vector=["a"] * 40),
        "attributes: expected one column of lists, .* got",
    ),
    "attributes of two lengths": (
        table(vector=at(7, [1.0])),
        "vector: expected lists of 3 numbers, got 1 in row 7",
    ),
    "attributes of no length": (
        table(vector=[[]] * 40),
        "attributes: expected 1 to 512 an item, got 0",
    ),
    "an attribute that is missing": (
        table(vector=at(7, [1.0, None, 2.0])),
        "got null in row 7, column 1",
    ),
    "attributes that are missing": (
        table(vector=at(7, None)),
        "vector: expected no nulls, got one in row 7",
    ),
    "an attribute that is no number": (
        table(vector=at(7, [1.0, float("nan"), 2.0])),
        "expected finite numbers, got NaN in row 7, column 1",
    ),
    "an infinite attribute": (
        table(vector=at(7, [1.0, float("inf"), 2.0])),
        "expected .* got inf in row 7, column 1",
    ),
    "an attribute beyond float32": (
        table(vector=at(7, [1e300, 1.0, 2.0])),
        "expected .* got inf in row 7, column 0",
    ),
    "513 attributes": (table(vector=[[0.5] * 513] * 40), "expected 1 to 512 .*got 513"),
    "ids twice": (
        table(id=at(7, "item 3")),
        "ids: expected each id once, got .item 3. in rows 3 and 7",
    ),
    "an id that is missing": (
        table(id=at(7, None)),
        "column id: expected no nulls, got one in row 7",
    ),
    "ids of fractions": (
        table(id=[row / 2 for row in range(40)]),
        "column id: expected .* got Float64",
    ),
    "negative ids": (
        table(id=list(range(-1, 39))),
        "ids: expected whole numbers from 0 .* got -1 in row 0",
    ),
    "no ids": (
        table(id=None),
        "ids: expected a column of .* one of vector, price, brand, got .id.",
    ),
    "prices of text": (
        table(price=["cheap"] * 40),
        "column price: expected a column of numbers, got Utf8",
    ),
    "an infinite price": (
        table(price=at(7, float("inf"))),
        "price: expected finite numbers, .* got inf in row 7",
    ),
    "brands that are lists": (table(brand=[["a"]] * 40), "column brand: expected .* got List"),
    "brands of fractions": (
        table(brand=[row / 2 for row in range(40)]),
        "column brand: expected .* got Float64",
    ),
}


def write_schema(folder: Path) -> None:
    """The schema file beside the log."""
    (folder / "visits.toml").write_text(SCHEMA)


KINDS = [
    Kind(
        "own log",
        "visits.parquet",
        good_log,
        lambda path: check_log(path, path.with_name("visits.toml")).require(),
        LOGS,
        needs=("pyarrow",),
        times=0,
        beside=write_schema,
    ),
    Kind(
        "table of items",
        "items.parquet",
        good_items,
        lambda path: Catalog.build(path, ids="id", price="price", category="brand"),
        ITEMS,
        needs=("pyarrow",),
        times=0,
    ),
]
