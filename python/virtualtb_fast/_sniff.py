"""What a file that should be Parquet is instead, from its first bytes."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["not_parquet"]

_MAGIC: Final = b"PAR1"
"""What Parquet begins and ends with."""
_HEAD: Final = 4_096

_OTHERS: Final = (
    (b"ARROW1", "a Feather (Arrow) file", "feather.read_table({0!r})"),
    (b"FEA1", "an old Feather file", "feather.read_table({0!r})"),
    (b"ORC", "an ORC file", "orc.read_table({0!r})"),
    (b"PK\3\4", "a ZIP archive, perhaps of Excel", None),
    (b"\x1f\x8b", "a gzip archive", None),
    (b"\x93NUMPY", "an array (.npy)", None),
    (b"SQLite format 3", "an SQLite database", None),
)
"""How other files begin, what they are, and which of pyarrow's modules reads them."""


def not_parquet(path: str) -> str | None:
    """What a file is that is no Parquet, in words, and how to make Parquet of it.

    Returns:
        None if it cannot be read, has both of Parquet's ends, or looks like nothing known.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_MAGIC)))
            tail = file.read()
    except OSError:
        return None
    if not head:
        return "an empty file"
    if head.startswith(_MAGIC):
        return None if tail == _MAGIC else "a Parquet file that was cut short: its end is missing"
    for begins, what, remedy in _OTHERS:
        if head.startswith(begins):
            return what + _told(remedy, path)
    return _as_text(head, path)


def _as_text(head: bytes, path: str) -> str | None:
    """Text, if the bytes are some: JSON, CSV or another."""
    try:
        # The last character may have been cut.
        text = head.decode("utf-8-sig", "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return None
    if not text.strip() or any(ord(one) < 32 and one not in "\t\r\n\f" for one in text):
        return None
    first = text.lstrip().partition("\n")[0]
    if first[0] in "{[":
        # Arrow reads one object a line.
        whole = first.rstrip().endswith("}") and first[0] == "{"
        return "text, JSON" + _told("json.read_json({0!r})" if whole else None, path)
    for mark, name in ((",", "CSV"), ("\t", "CSV with tabs"), (";", "CSV with semicolons")):
        if mark in first:
            how = "" if mark == "," else f", parse_options=csv.ParseOptions(delimiter={mark!r})"
            return f"text, {name}" + _told(f"csv.read_csv({{0!r}}{how})", path)
    return "text"


def _told(remedy: str | None, path: str) -> str:
    """How to make Parquet of it: a line of Python."""
    if remedy is None:
        return ""
    module = remedy.partition(".")[0]
    stem, ending = os.path.splitext(path)
    other = f"{path if ending == '.parquet' else stem}.parquet"
    read = remedy.format(path)
    write = f"from pyarrow import {module}, parquet; parquet.write_table({read}, {other!r})"
    return f"; in Python, {write} makes Parquet of it"
