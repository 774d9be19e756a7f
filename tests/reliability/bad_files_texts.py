"""Bad texts: schema files of people's logs (TOML), the JSON of schemas, configurations and tables.

The JSON stands in other files; who reads it has a text and no file's name to tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reliability.bad_files_kit import (
    DIRECTORY,
    GZIP,
    HTML,
    LOOP,
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
    swap,
)

from virtualtb_fast.customers.table import Table as Columns
from virtualtb_fast.records import LogSchema
from virtualtb_fast.schema import Config, Schema

LOG_SCHEMAS: Table = {
    "empty": (instead(b""), "format: expected 'virtualtb_fast.log_schema', got None"),
    "blanks": (instead(b" \n\n"), "format: expected 'virtualtb_fast.log_schema', got None"),
    "zeros": (instead(ZEROS), "expected TOML, got"),
    "a note": (instead(TEXT), "expected TOML, got"),
    "a web page": (instead(HTML), "expected TOML, got"),
    "an archive": (instead(GZIP), "expected TOML, got .*utf-8"),
    "JSON": (instead(b'{"format": "virtualtb_fast.log_schema"}'), "expected TOML, got"),
    "a log": (instead(corpus("log/drawn.parquet")), "expected TOML, got"),
    "a folder": (DIRECTORY, "expected a schema file .TOML., got a directory"),
    "a link to itself": (LOOP, SYSTEM),
    "cut within a word": (cut(0.3), "expected TOML, got|expected a table, got none"),
    "cut before the feedback": (
        lambda data: data[: data.index(b"[feedback]")],
        "feedback.*: expected a table, got none",
    ),
    "a BOM": (lambda data: b"\xef\xbb\xbf" + data, "expected TOML, got"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "expected TOML, got .*utf-8"),
    "Latin-1": (swap("gender", "größe".encode("latin-1"), 9), "expected TOML, got .*utf-8"),
    "line ends of old systems": (lambda data: data.replace(b"\n", b"\r"), "expected TOML, got"),
    "a byte of zero": (more(b"\0"), "expected TOML, got"),
    "a file of a megabyte": (more(b"#" * (1 << 20)), "expected .* at most 1,048,576 bytes, got"),
    "a deep value": (swap("-1.0", "[" * 5000), "expected TOML, got"),
    "a key twice": (
        swap('page = "page_no"', 'page = "a"\npage = "b"'),
        "expected TOML, got Cannot overwrite",
    ),
    "a table twice": (more(b"[rows]\n"), "expected TOML, got .*rows"),
    "an open text": (swap('"visit"', '"visit'), "expected TOML, got"),
    "another format": (
        swap("fast.log_schema", "fast.schema"),
        "format: expected 'virtualtb_fast.log_schema', got 'virtualtb_fast.schema'",
    ),
    "a later version": (swap("version = 1", "version = 2"), "version: expected 1, got 2"),
    "a version of text": (swap("version = 1", 'version = "1"'), "version: expected 1, got '1'"),
    "no version": (swap("version = 1\n", ""), "version: expected 1, got None"),
    "a table of another name": (
        swap("[rows]", "[row]"),
        "file: expected keys .* got 'row' .did you",
    ),
    "a key of another name": (swap("page_items", "items"), "expected keys out of .* got 'items'"),
    "rows that are a list": (
        lambda data: b"rows = []\n" + data.replace(b"[rows]", b"[customer.rows]"),
        "expected TOML, got|expected a table, got",
    ),
    "no session": (swap('session = "visit"\n', ""), "rows.session: expected the name .* got none"),
    "a session without a name": (
        swap('"visit"', '""'),
        "rows.session: expected the name .* got ''",
    ),
    "a session that is a number": (
        swap('"visit"', "3"),
        "rows.session: expected the name .* got 3",
    ),
    "a page that is a number": (swap('"page_no"', "3"), "rows.page: expected the name .* got 3"),
    "a negative first page": (swap("first_page = 1", "first_page = -1"), "first_page: .* got -1"),
    "a first page beyond all": (
        swap("first_page = 1", f"first_page = {10**30}"),
        "rows.first_page: expected a whole number, .* got 10000",
    ),
    "a first page of digits": (
        swap("first_page = 1", "first_page = " + "9" * 5000),
        "expected TOML",
    ),
    "a first page that is a flag": (swap("first_page = 1", "first_page = true"), "got True"),
    "a first page of a fraction": (swap("first_page = 1", "first_page = 1.0"), "got 1.0"),
    "no customers": (
        lambda data: data.replace(b'categorical = ["gender", "city"]', b"").replace(
            b'numeric = ["age"]', b""
        ),
        "customer: expected at least one column of customers, got none",
    ),
    "customers that are a text": (swap('["age"]', '"age"'), "numeric: expected a list of names"),
    "customers that are numbers": (swap('["age"]', "[1]"), "numeric: expected the name .* got 1"),
    "a column twice": (
        swap('["age"]', '["city"]'),
        "numeric: expected a column that .* got 'city'",
    ),
    "categories of nobody": (swap("gender = [", "colour = ["), "colour: expected a column of"),
    "no categories": (swap('["f", "m"]', "[]"), "gender: expected texts, whole numbers or flags"),
    "mixed categories": (swap('["f", "m"]', '["f", 1]'), "expected texts, .* got .'f', 1"),
    "categories of times": (swap('["f", "m"]', "[1979-05-27]"), "expected texts, whole numbers or"),
    "no actions": (swap('["w0", "w1"]', "[]"), "action.columns: expected at least one column, got"),
    "actions that are a table": (
        swap('["w0", "w1"]', "{a = 1}"),
        "action.columns: expected a list",
    ),
    "a lower bound alone": (
        swap("high = 1.0\n", ""),
        "action.high: expected both bounds .* got none",
    ),
    "bounds upside down": (
        swap("high = 1.0", "high = -2.0"),
        "action.high: expected more than .* got",
    ),
    "an infinite bound": (
        swap("high = 1.0", "high = inf"),
        "high: expected a number within .* got inf",
    ),
    "a bound that is no number": (
        swap("low = -1.0", "low = nan"),
        "low: expected a number .* got nan",
    ),
    "a bound of text": (
        swap("low = -1.0", 'low = "-1"'),
        "low: expected a number within .* got '-1'",
    ),
    "two kinds of feedback": (
        swap("[feedback]", '[feedback]\nbought = "b"'),
        "feedback: expected one of clicks, outcome and bought, got clicks and bought",
    ),
    "no feedback": (swap('clicks = "clicks"\n', ""), "expected one of clicks, .* got none"),
    "feedback of another kind": (
        swap("page_items = 10", 'turn = ["next"]'),
        "turn: expected nothing",
    ),
    "a value of two outcomes": (
        lambda _: swap('"exit"', '"order"')(corpus("schema/outcome.toml")),
        "feedback: expected each value in one place, got 'order'",
    ),
    "256 items on a page": (swap("items = 10", "items = 256"), "page_items: .* 1 to 255, got 256"),
    "no items on a page": (
        swap("items = 10", "items = 0"),
        "page_items: expected a whole .* got 0",
    ),
    "feedback that is the session": (
        swap('"orders"', '"visit"'),
        "expected a column that rows.sess",
    ),
}


# --- JSON ---------------------------------------------------------------------------------------


def edited(edit: Callable[[Any], Any]) -> Rewrite:
    """Other JSON; what the edit gives, or what it was given if it gives nothing."""

    def change(data: bytes) -> bytes:
        held = json.loads(data)
        out = edit(held)
        return json.dumps(held if out is None else out).encode()

    return change


def with_(*path: Any, **values: Any) -> Rewrite:
    """Other values of an object within; `...` leaves one out."""

    def edit(held: Any) -> None:
        for step in path:
            held = held[step]
        held.update(values)
        for key in [key for key, value in held.items() if value is ...]:
            del held[key]

    return edited(edit)


def text_of(path: Path) -> str:
    """A file as whoever holds such JSON in another file has it."""
    return path.read_text(encoding="utf-8")


def no_json(what: str) -> Table:
    """What is no JSON at all."""
    return {
        "empty": (instead(b""), f"{what}: expected .*got"),
        "a note": (instead(TEXT), f"{what}: expected .*got"),
        "a web page": (instead(HTML), f"{what}: expected .*got"),
        "null": (instead(b"null"), f"{what}: expected .*got"),
        "a number": (instead(b"3"), f"{what}: expected .*got"),
        "cut": (cut(0.6), f"{what}: expected .*got"),
        "a character less": (less(1), f"{what}: expected .*got"),
        "two of them": (lambda data: data + data, f"{what}: expected .*got .*Extra data"),
        "a BOM": (lambda data: b"\xef\xbb\xbf" + data, f"{what}: expected .*got .*BOM"),
        "a byte of zero": (more(b"\0"), f"{what}: expected .*got .*Extra data"),
        "single quotes": (swap('"', "'", -1), f"{what}: expected .*got"),
        "a comma at the end": (
            lambda data: data[:-1] + b"," + data[-1:],
            f"{what}: expected .*got",
        ),
        "brackets": (instead(b"[" * 100_000), f"{what}: expected .*got"),
        "braces": (instead(b'{"a":' * 50_000), f"{what}: expected .*got"),
        "a number of digits": (instead(b"9" * 5000), f"{what}: expected .*got"),
    }


FIELD = ("customer", 0)
SCHEMAS: Table = no_json("schema") | {
    "a list": (instead(b"[]"), r"schema: expected an object of .*, got \[\]"),
    "a text": (instead(b'"shop"'), "schema: expected an object of .*, got 'shop'"),
    "nothing": (instead(b"{}"), r"schema: expected an object of .*, got \[\]"),
    "no action": (with_(action=...), r"schema: expected an object of .*, got \['action_range'"),
    "a key more": (with_(items=3), "schema: expected an object of .* got .*'items'"),
    "an action that is null": (with_(action=None), "schema.action: expected a value, got None"),
    "a customer that is an object": (with_(customer={}), "schema.customer: expected a list, got"),
    "a range that is a number": (
        with_(action_range=1),
        "schema.action_range: expected a list, got 1",
    ),
    "an action of none": (with_(action=0), "action: expected 1 to 16384 dimensions, got 0"),
    "a negative action": (with_(action=-6), "action: expected 1 to 16384 dimensions, got -6"),
    "an action of a fraction": (with_(action=6.0), "action: expected 1 to 16384 .* got 6.0"),
    "an action that is a flag": (with_(action=True), "action: expected 1 to 16384 .* got True"),
    "an action beyond all": (with_(action=2**64), "action: expected 1 to 16384 .* got 18446744"),
    "an infinite range": (with_(action_range=[-1, 1e400]), "action_range: expected .* got .*inf"),
    "a range that is no number": (
        with_(action_range=[float("nan"), 1]),
        "action_range: .* got .nan",
    ),
    "a range of texts": (with_(action_range=["-1", "1"]), "action_range: expected .* got .'-1'"),
    "a range of three": (with_(action_range=[0, 1, 2]), "action_range: expected .* got .0, 1, 2"),
    "a range upside down": (with_(action_range=[1, -1]), "action_range: expected .* got .1, -1"),
    "a key twice": (
        swap('"action": 6', '"action": 5, "action": 6'),
        "expected .*once, got 'action'",
    ),
    "a field's key twice": (
        swap('"size": 5', '"size": 5, "size": 6'),
        "expected .*once, got 'size'",
    ),
    "no fields": (with_(customer=[]), "customer: expected a tuple of 1 to 256 Fields, got"),
    "fields that are texts": (with_(customer=["region"]), "field: expected .* got"),
    "a field without a size": (
        with_(*FIELD, size=...),
        r"field: expected an object of .* got \['name'",
    ),
    "a field without a name": (with_(*FIELD, name=""), "expected a name, got ''"),
    "a field whose name is a number": (with_(*FIELD, name=3), "name: expected .* got 3"),
    "a field of one category": (with_(*FIELD, size=1), "expected 2 to 256 categories, got 1"),
    "a field of 257 categories": (with_(*FIELD, size=257), "expected 2 to 256 categories, got 257"),
    "a field of a text's size": (with_(*FIELD, size="5"), "expected 2 to 256 categories, got '5'"),
    "two fields of one name": (with_(*FIELD, name="age"), "customer: expected fields of different"),
}

CONFIGS: Table = no_json("config") | {
    "a list": (instead(b"[]"), r"config: expected an object of .*, got \[\]"),
    "a key twice": (swap('{"c', '{"slope": 0.5, "c'), "expected .*once, got 'slope'"),
    "no leave": (with_(leave=...), "config: expected an object of .*, got"),
    "a leave that is null": (with_(leave=None), "config.leave: expected a value, got None"),
    "a leave that is a word": (with_(leave="once"), "leave: expected .* got"),
    "a key more": (with_(depth=3), "config: expected an object of .*, got .*'depth'"),
    "a slope of one": (with_(slope=1.0), r"slope: expected a number in \[0, 1\), got 1.0"),
    "a slope that is no number": (with_(slope=float("nan")), "slope: expected a number .* got nan"),
    "a slope of text": (with_(slope="0.2"), "slope: expected a number .* got '0.2'"),
    "another sampler": (
        with_("customers", kind="gmm"),
        "customers: expected an object of a kind .* got .*'gmm'",
    ),
    "a sampler that is a number": (
        with_("customers", kind=3),
        "customers: expected an object of a kind .* got .*'kind': 3",
    ),
    "a sampler of two kinds": (
        with_("customers", rows=9),
        "customers: expected an object of .* got .*'rows'",
    ),
    "a latent of none": (with_("customers", latent=0), "latent.*: expected .* got 0"),
    "a latent beyond all": (with_("customers", latent=10**30), "latent.*: expected .* got 1000000"),
    "layers that are a number": (with_("customers", hidden=9), "hidden: expected a list, got 9"),
    "a layer of none": (with_("response", hidden=[0]), "hidden: expected a tuple of .* got .0"),
    "a negative layer": (with_("leave", hidden=[-6]), "hidden: expected a tuple of .* got .-6"),
    "a layer of a fraction": (
        with_("leave", hidden=[2.5]),
        "hidden: expected a tuple of .* got .2.5",
    ),
    "no layers": (
        with_("response", hidden=[]),
        "hidden: expected a tuple of layer sizes .* got ()",
    ),
    "an infinite scale": (with_("response", page_scale=1e400), "page_scale: expected .* got inf"),
    "one click": (with_("response", clicks=1), "clicks.*: expected 2 to 256 .* got 1"),
    "clicks of text": (with_("response", clicks="5"), "clicks.*: expected 2 to 256 .* got '5'"),
    "a head of both kinds": (
        with_("response", heads="outcome"),
        "response: expected an object of .* got .*'clicks'",
    ),
    "a leave of one class": (with_("leave", classes=1), "classes.*: expected .* got 1"),
    "a leave of both kinds": (
        with_("leave", longest=3),
        "leave: expected an object of .* got .*'longest'",
    ),
}

CITY, AGE = (0,), (1,)
COLUMNS: Table = no_json("table") | {
    "a list of nothing": (instead(b"[]"), r"expected a tuple of .* or more, got \(\)"),
    "an object": (edited(lambda held: {"columns": held}), "table: expected a list of columns, got"),
    "a text": (instead(b'"city"'), "table: expected a list of columns, got 'city'"),
    "columns that are texts": (
        edited(lambda _: ["city"]),
        "expected an object of kind .* got 'city'",
    ),
    "a column without a kind": (with_(*CITY, kind=...), "expected an object of kind .* got {"),
    "a column of another kind": (
        with_(*CITY, kind="date"),
        "expected an object of kind .* got {.*date",
    ),
    "a column of a kind that is a list": (
        with_(*CITY, kind=[]),
        "expected an object of kind .* got {",
    ),
    "a column without a name": (with_(*CITY, name=...), "expected the keys .*'name'.* got"),
    "a column whose name is a list": (with_(*CITY, name=["city"]), "name: expected a name, got"),
    "a key more": (with_(*CITY, weight=1), "expected the keys .* got .*'weight'"),
    "a key twice": (
        swap('"name": "age"', '"name": "a", "name": "age"'),
        "expected .*once, got 'name'",
    ),
    "two columns of one name": (
        with_(*CITY, name="age"),
        "expected different names, got .'age', 'age'",
    ),
    "a missing that is a number": (
        with_(*AGE, missing=1),
        "missing: expected a truth value, got 1",
    ),
    "atoms that are texts": (
        with_(*AGE, atoms=["1"]),
        "atoms: expected numbers, ascending, got .'1'",
    ),
    "atoms that fall": (
        with_(*AGE, atoms=[2.0, 1.0]),
        "atoms: expected numbers, ascending, got .2.0",
    ),
    "an atom beyond all": (with_(*AGE, atoms=[1.0, 10**400]), "atoms: expected numbers, ascending"),
    "edges that are a text": (with_(*AGE, edges="0 1"), "edges.* expected .* got '0 1'"),
    "edges that are numbers": (with_(*AGE, edges=[0.0, 1.0]), "edges.* expected .* got"),
    "edges of one": (with_(*AGE, edges=[[0.0]]), "edges: expected bins of 9 numbers, .* got .*0.0"),
    "edges that are no numbers": (with_(*AGE, edges=[[float("nan")] * 9]), "edges: .* got .*nan"),
    "infinite edges": (
        with_(*AGE, edges=[[-1e400] + [1e400] * 8]),
        "edges: expected bins .* got .*inf",
    ),
}

KINDS = [
    Kind(
        "log schema",
        "visits.toml",
        lambda: corpus("schema/clicks.toml"),
        LogSchema.load,
        LOG_SCHEMAS,
        times=100,
    ),
    Kind(
        "schema",
        "schema.json",
        lambda: corpus("json/schema.json"),
        lambda path: Schema.from_json(text_of(path)),
        SCHEMAS,
        told="",
        times=100,
    ),
    Kind(
        "config",
        "config.json",
        lambda: corpus("json/config-a-mlp.json"),
        lambda path: Config.from_json(text_of(path)),
        CONFIGS,
        told="",
        times=100,
    ),
    Kind(
        "table",
        "table.json",
        lambda: corpus("json/table.json"),
        lambda path: Columns.from_json(text_of(path)),
        COLUMNS,
        told="",
        times=100,
    ),
]
