"""Bad calls of what reads people's own logs, for `bad_calls`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.reliability.bad_kit import FILES, NO_FUNCTION, NO_PATH, Bad, Call, Made, in_folder

from virtualtb_fast.records import LogSchema, check_log, draft_schema, prepare

SCHEMA: dict[str, Any] = {
    "format": "virtualtb_fast.log_schema",
    "version": 1,
    "rows": {"session": "s"},
    "customer": {"numeric": ["age"]},
    "action": {"columns": ["w"], "low": -1, "high": 1},
    "feedback": {"bought": "order"},
}
"""What a schema file holds."""

NO_LOG: list[Any] = [
    None, 3, 2.5, b"x", "", "a\0b", "\ud800", ["a"], {}, *FILES, in_folder("items.vtbcat"), Bad(),
]  # fmt: skip
NO_SCHEMA: list[Any] = [*NO_PATH[1:], *FILES, in_folder("log.parquet"), SCHEMA]


def own() -> Any:
    """A log of people's own."""
    import pyarrow

    return pyarrow.table(
        {
            "s": [1, 1, 2, 2],
            "age": [20.0, 20.0, 30.0, 30.0],
            "w": [0.5, -0.5, 0.25, 0.0],
            "order": [0, 1, 0, 0],
        }
    )


def record_calls() -> Iterator[Call]:
    """All of them."""
    yield Call(
        "check_log", lambda kit: check_log, lambda kit: {"logs": kit.log_path},
        {"logs": NO_LOG, "schema": NO_SCHEMA, "progress": NO_FUNCTION}, needs="pyarrow",
    )  # fmt: skip
    yield Call(
        "draft_schema", lambda kit: draft_schema, lambda kit: {"logs": own()},
        {"logs": [*NO_LOG, in_folder("log.parquet"), Made(lambda kit: kit.log, "<a log of ours>")]},
        needs="pyarrow",
    )  # fmt: skip
    yield Call(
        "prepare", lambda kit: prepare,
        lambda kit: {"logs": kit.log_path, "folder": kit.folder / "prepared.new"},
        {
            "logs": NO_LOG,
            # What is there already would be lost.
            "folder": [*NO_PATH, in_folder("text.txt"), in_folder("")],
            "schema": NO_SCHEMA,
            "progress": NO_FUNCTION,
            "table": [3, "table", {}, [], Bad()],
        },
        needs="pyarrow",
    )  # fmt: skip
    yield Call(
        "LogSchema.load", lambda kit: LogSchema.load, lambda kit: {"path": kit.folder / "own.toml"},
        {"path": [*NO_PATH, *FILES, in_folder("log.parquet"), in_folder("items.vtbcat")]},
    )  # fmt: skip
    yield Call(
        "LogSchema.from_dict", lambda kit: LogSchema.from_dict, lambda kit: {"data": SCHEMA},
        {"data": [None, 3, "data", b"data", [], {}, ["format"], {3: 4}, Bad(),
                  *[SCHEMA | {key: wrong} for key in SCHEMA
                    for wrong in (None, 3, "x", [], {}, {3: "x"}, {"columns": [3]}, Bad())],
                  *[{name: value for name, value in SCHEMA.items() if name != key}
                    for key in SCHEMA]]},
    )  # fmt: skip
    yield Call(
        "LogSchema.of_package", lambda kit: LogSchema.of_package,
        lambda kit: {"metadata": kit.log.metadata, "origin": "the log"},
        {"metadata": [None, 3, "schema", [], {}, {"schema": None}, {"schema": 3}, {"schema": "{"},
                      {"schema": "{}"}, Bad()]},
    )  # fmt: skip
