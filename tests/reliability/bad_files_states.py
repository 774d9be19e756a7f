"""Bad files of what goes on: checkpoints, columns of prepared logs, journals of rollouts."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.bad_files_kit import (
    DIRECTORY,
    GZIP,
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
from tests.reliability.cases import small_simulator

from virtualtb_fast import _core, _training
from virtualtb_fast._training import Checkpoint
from virtualtb_fast.records import columns
from virtualtb_fast.rollout import rollout

# --- checkpoints --------------------------------------------------------------------------------


def sealed(content: bytes) -> bytes:
    """A checkpoint with a right digest, whatever is in it."""
    return content + _training._SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


def inner(change: Callable[[bytes], bytes]) -> Rewrite:
    """Another content under a right digest."""
    return lambda data: sealed(change(data.rpartition(_training._SEAL)[0]))


def of(held: Any) -> Rewrite:
    """Something else that PyTorch wrote."""

    def change(_: bytes) -> bytes:
        import torch

        out = io.BytesIO()
        torch.save(held, out)
        return sealed(out.getvalue())

    return change


class Harmful:
    """What would run code when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


SEAL = "expected a checkpoint with its digest at the end, got none"
CHECKPOINTS: Table = {
    "empty": (instead(b""), "expected a checkpoint, got too short a file"),
    "a note": (instead(TEXT), "expected a checkpoint, got too short a file"),
    "zeros": (instead(ZEROS), SEAL),
    "noise": (instead(NOISE), SEAL),
    "a folder": (DIRECTORY, "[Dd]irectory"),
    "a link to itself": (LOOP, SYSTEM),
    "a simulator": (instead(corpus("simulator/a-mlp.safetensors")), SEAL),
    "half of it": (cut(0.5), SEAL),
    "a byte less": (less(1), SEAL),
    "a byte more": (more(b"\n"), SEAL),
    "without a digest": (lambda data: data.rpartition(_training._SEAL)[0], SEAL),
    "a byte altered": (put_at(300, b"\xa5"), "expected content of digest .*, got .* altered"),
    "a digest altered": (put_at(-9, b"0000"), "expected content of digest .*, got .* altered"),
    "a digest of other letters": (put_at(-9, b"\xff\xfe"), "expected content of digest .*, got"),
    "a digest alone": (lambda _: sealed(b""), "expected a checkpoint, got [A-Z]"),
    "a sealed note": (lambda _: sealed(TEXT), "expected a checkpoint, got"),
    "a sealed archive": (lambda _: sealed(b"PK\3\4" + NOISE), "expected a checkpoint, got"),
    "half under a right digest": (
        inner(lambda held: held[: len(held) // 2]),
        "expected a checkpoint",
    ),
    "a directory of files altered": (inner(swap(b"PK\1\2", b"PK\1\3")), "expected a check.*, got"),
    "a list": (of([1, 2]), "of key and state, got a value of type list"),
    "a text": (of("state"), "of key and state, got a value of type str"),
    "a tensor's weights alone": (
        of({"0.weight": [1.0]}),
        r"of key and state, got one of .'0.weight'.",
    ),
    "no key": (of({"state": {}}), "of key and state, got one of .'state'."),
    "a key more": (
        of({"key": "key", "state": {}, "by": "me"}),
        "of key and state, got one of .'by', 'key', 'state'.",
    ),
    "a state that is a list": (
        of({"key": "key", "state": [1]}),
        "whose state is a mapping, got a value of type list",
    ),
    "a state that is a number": (
        of({"key": "key", "state": 3}),
        "whose state is a mapping, got a value of type int",
    ),
    "what would run code": (
        of(Harmful()),
        "expected a checkpoint, got UnpicklingError: Weights only load failed$",
    ),
}

# --- columns of prepared logs -------------------------------------------------------------------


@functools.cache
def good_column() -> bytes:
    """A column of 30 rows of two numbers."""
    with tempfile.TemporaryDirectory() as folder:
        writer = columns.ColumnWriter(Path(folder), "action", np.float32, (2,))
        writer.write(np.arange(60, dtype=np.float32).reshape(30, 2))
        writer.close()
        return (Path(folder) / "action.npy").read_bytes()


def array(values: Any) -> Rewrite:
    """What NumPy writes of an array."""

    def change(_: bytes) -> bytes:
        out = io.BytesIO()
        np.save(out, values)
        return out.getvalue()

    return change


BYTES = "expected 368 bytes, got"
HEADER = r"expected the header of float32 of shape \(30, 2\), got"
COLUMNS: Table = {
    "empty": (instead(b""), "expected 368 bytes, got 0"),
    "a note": (instead(TEXT), "expected 368 bytes, got 42"),
    "zeros": (instead(ZEROS[:368]), HEADER),
    "noise": (instead(NOISE[:368]), HEADER),
    "a folder": (DIRECTORY, "[Dd]irectory"),
    "a link to itself": (LOOP, SYSTEM),
    "half of it": (cut(0.5), "expected 368 bytes, got 184"),
    "its header alone": (cut(128 / 368), "expected 368 bytes, got 128"),
    "a byte less": (less(1), "expected 368 bytes, got 367"),
    "a row more": (more(bytes(8)), "expected 368 bytes, got 376"),
    "another number of rows": (array(np.zeros((31, 2), np.float32)), BYTES),
    "other dimensions": (array(np.zeros((20, 3), np.float32)), HEADER),
    "one dimension": (array(np.zeros(60, np.float32)), HEADER),
    "columns first": (array(np.zeros((2, 30), np.float32).T), HEADER),
    "whole numbers": (array(np.zeros((30, 2), np.int32)), HEADER),
    "other byte order": (array(np.zeros((30, 2), ">f4")), HEADER),
    "objects": (array(np.full((30, 2), None)), BYTES),
    "another version": (put_at(6, b"\2"), HEADER),
    "other first bytes": (put_at(0, b"\x94"), HEADER),
}

# --- journals of rollouts -----------------------------------------------------------------------

SESSIONS = 4 * _core.BLOCK + 7


@functools.cache
def stopped() -> tuple[bytes, bytes]:
    """What a rollout leaves that was stopped after some blocks: the rows and the journal."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "log.parquet"

        def stop(_: int, sessions: int) -> None:
            if sessions >= 3 * _core.BLOCK:
                raise ZeroDivisionError

        try:
            play(out, stop)
        except ZeroDivisionError:
            return tuple(
                out.with_name(out.name + ending).read_bytes() for ending in (".partial", ".journal")
            )
    raise AssertionError("the rollout was not stopped")


def play(out: Path, progress: Any = None) -> Any:
    """A rollout that begins or goes on."""
    return rollout(
        small_simulator(), "zero", sessions=SESSIONS, seed=3, num_threads=1, out=out, resume=True,
        progress=progress,
    )  # fmt: skip


def rows_beside(folder: Path) -> None:
    """Writes the rows that a journal tells of."""
    (folder / "log.parquet.partial").write_bytes(stopped()[0])


def resume(path: Path) -> None:
    """Goes on with the rollout that left a journal, and has gone on."""
    rows = path.with_name("log.parquet.partial")
    before = rows.read_bytes()
    try:
        played = play(path.with_suffix(""))
    except BaseException:
        assert rows.read_bytes() == before, "what was played is lost"
        raise
    assert played.resumed > 0, "it did not go on but began anew"


def chained(edit: Callable[[list[Any]], None]) -> Rewrite:
    """Other lines of a journal, each with a right digest."""

    def change(data: bytes) -> bytes:
        lines = [json.loads(line.partition(b" ")[2]) for line in data.splitlines()]
        edit(lines)
        out, digest = b"", ""
        for line in lines:
            text = line if isinstance(line, str) else json.dumps(line, separators=(",", ":"))
            digest = hashlib.sha256((digest + text).encode()).hexdigest()
            out += f"{digest} {text}\n".encode()
        return out

    return change


def asked(**values: Any) -> Rewrite:
    """Another first line: what was asked."""
    return chained(lambda lines: lines[0].update(values))


def record(**values: Any) -> Rewrite:
    """Another second line: the first block of rows. `...` leaves a key out."""

    def edit(lines: list[Any]) -> None:
        lines[1].update(values)
        for key in [key for key, value in lines[1].items() if value is ...]:
            del lines[1][key]

    return chained(edit)


def line(number: int, text: Any) -> Rewrite:
    """Another line altogether."""
    return chained(lambda lines: lines.__setitem__(number, text))


NO_JOURNAL = r"expected beside it the journal of the rollout that left it, got none"
JOURNALS: Table = {
    "zeros": (instead(ZEROS), NO_JOURNAL),
    "half of its first line": (lambda data: data[: data.index(b"\n") // 2], NO_JOURNAL),
    "a note": (instead(TEXT), "expected line 1 as it was written, got another"),
    "lines of blanks": (instead(b"\n\n"), "expected line 1 as it was written, got another"),
    "noise": (instead(b"\xff" * 80 + b"\n"), "expected line 1 as it was written, got another"),
    "an archive": (instead(GZIP.replace(b"\0", b"0") + b"\n"), "expected line 1 as it was written"),
    "a folder": (DIRECTORY, "[Dd]irectory"),
    "a link to itself": (LOOP, SYSTEM),
    "a line without end": (instead(b"x" * (5 << 20)), "expected line 1 as it was written, got"),
    "line ends of another system": (
        swap(b"\n", b"\r\n", 9),
        "expected line 1 as it was written, got",
    ),
    "a BOM": (lambda data: b"\xef\xbb\xbf" + data, "expected line 1 as it was written, got"),
    "what was asked altered": (
        swap('"seed":"3"', '"seed":"4"'),
        "expected line 1 as it was written",
    ),
    "a record altered": (swap('{"bytes":', '{"bytes":1'), "expected line 2 as it was written, got"),
    "a line left out": (
        lambda data: b"".join(data.splitlines(True)[::2]),
        "expected line 2 as it was written, got another",
    ),
    "a line twice": (
        lambda data: b"".join(data.splitlines(True)[n] for n in (0, 1, 1, 2)),
        "expected line 3 as it was written, got another",
    ),
    "another format": (asked(format="notes"), 'expected format ".*_journal", got "notes"'),
    "a later version": (asked(format_version="2"), 'expected format_version "1", got "2"'),
    "a number for a text": (asked(seed=3), "expected what a rollout was asked, got invalid type"),
    "a list of what was asked": (line(0, []), "expected what a rollout was asked, got invalid"),
    "no JSON": (line(0, "{"), "expected what a rollout was asked, got EOF"),
    "deep JSON": (line(0, "[" * 5000), "expected what a rollout was asked, got"),
    "another seed": (asked(seed="4"), "seed of a resumed rollout: expected 4 as in .*, got 3"),
    "another simulator": (
        asked(simulator_digest="0" * 64),
        "simulator_digest of a resumed rollout: expected 0* as in .*, got",
    ),
    "one thing more that was asked": (
        asked(gift="yes"),
        "gift of a resumed rollout: expected yes as in .*, got none",
    ),
    "a record that is null": (line(1, None), "expected a record of a row group, got invalid type"),
    "a record that is a text": (line(1, '"rows"'), "expected a record of a row group, got invalid"),
    "an open record": (line(1, '{"bytes":3'), "expected a record of a row group, got EOF"),
    "a record without bytes": (record(bytes=...), "expected a record .* got missing field `bytes`"),
    "a record without a note": (record(note=...), "expected a record .* got missing field `note`"),
    "negative bytes": (record(bytes=-1), "expected a record of a row group, got invalid value"),
    "bytes beyond all": (record(bytes=2**64), "expected a record of a row group, got"),
    "a checksum that is a number": (record(checksum=3), "expected a record .* got invalid type"),
    "a footer of other digits": (
        record(footer="xyz"),
        "expected a row group's part .*, got .*hexa",
    ),
    "a footer of odd digits": (record(footer="abc"), "expected a row group's part .*, got .*hexa"),
    "a footer of nothing": (record(footer=""), "expected a row group's part of the footer, got"),
    "a footer that is none": (record(footer="ff" * 40), "expected a row group's part .*, got"),
}

KINDS = [
    Kind(
        "checkpoint",
        "training.checkpoint",
        lambda: corpus("checkpoint/training.checkpoint"),
        lambda path: Checkpoint(path, "key").load(),
        CHECKPOINTS,
        needs=("torch",),
    ),
    Kind(
        "prepared column",
        "action.npy",
        good_column,
        lambda path: columns.Column(path, "<f4", [30, 2])[:],
        COLUMNS,
    ),
    Kind(
        "journal",
        "log.parquet.journal",
        lambda: stopped()[1],
        resume,
        JOURNALS,
        told="log.parquet",
        beside=rows_beside,
    ),
]
