"""Mutated files of the kinds that Python reads, and the whole of ``make fuzz``.

Schema files of people's logs (TOML), the JSON of schemas, configurations and tables, checkpoints of
trainings, and people's own Parquet files: a typed error or a value that works, within a second of
the processor, and in memory that the file's size bounds. Case n is the same everywhere and always.

``python tests/fuzz/readers.py --files 2000000 --json FILE`` reads that many, four fifths of them in
the core (``files.rs``); ``tests/unit/test_fuzz.py`` reads a few thousand.

Memory is the most that the process held to itself while it read, where Linux tells (`Peak`).
Python's own objects take some fifty times the text that they were parsed from, so the bound for
texts is what 100 times the file and `SLACK` hold; for checkpoints twice the file and `SLACK`; for
Parquet `SLACK` and what a batch of the rows takes, whatever the file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
SLACK = 32 << 20
"""Bytes beyond what the size bounds: decoders of Parquet, allocators that give nothing back."""
LIMIT = 1.0
"""Seconds of the processor that a file may take."""
FEWEST = 400
"""Files of a kind from which on there must be some of every fate."""
SHARES = {"schema": 9, "json": 6, "checkpoint": 3, "table": 2}
"""Of twenty cases, how many are of each kind."""

_NUMBERS = (
    *("0", "-1", "1", "255", "256", "257", "16384", "4294967296", "9223372036854775808"),
    *("1e400", "-0.0", "0.5", "nan", "inf", "NaN", "Infinity", "null", "true", '""', '"a"'),
    *("[]", "{}", "[[1]]", "[" * 200, "9" * 5000, "1979-05-27T07:32:00Z", '{"a": 1}'),
)


class Draw:
    """What a case needs, from its number."""

    def __init__(self, case: int) -> None:
        self._draw = np.random.Generator(np.random.PCG64(case))

    def below(self, bound: int) -> int:
        """A number below a bound, 0 if there is none."""
        return int(self._draw.integers(max(bound, 1)))

    def of(self, all_: Any) -> Any:
        """One of some."""
        return all_[self.below(len(all_))]


def mutate(draw: Draw, data: bytes, others: list[bytes], *, text: bool) -> bytes:
    """One file out of a whole one, changed once to four times, mostly once.

    Args:
        draw: What is drawn from.
        data: The whole file.
        others: Files of the same kind, to take pieces of.
        text: Whether words are words.
    """
    for _ in range(draw.of((1, 1, 1, 2, 4))):
        data = _change(draw, data, others, text=text)
    return data


def _change(draw: Draw, data: bytes, others: list[bytes], *, text: bool) -> bytes:
    if not data:
        return draw.of(others)
    at = draw.below(len(data)) if draw.below(2) else draw.of((1, -1)) * draw.below(300) % len(data)
    end = min(len(data), at + 1 + draw.below(draw.of((1, 4, 16, 64))))
    what = draw.below(8)
    if text and what > 3:
        return _rewrite(draw, data, at)
    if what == 0:
        return data[:at] + bytes([data[at] ^ 1 << draw.below(8)]) + data[at + 1 :]
    if what == 1:
        return data[:at] if draw.below(2) else data[:at] + data[end:]
    if what == 2:
        other = draw.of(others)
        start = draw.below(len(other)) if draw.below(2) else min(at, len(other))
        piece = other[start : start + 1 + draw.below(200)]
        return data[:at] + piece + data[at + draw.of((0, len(piece))) :]
    if what == 3:
        return data[:at] + data[at:end] * draw.of((2, 3, 50)) + data[end:]
    extreme = draw.of((0, 1, 0x7F, 0xFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1))
    width = draw.of((1, 4, 8))
    value = (extreme & (1 << 8 * width) - 1).to_bytes(width, "little")
    return data[:at] + value[: len(data) - at] + data[at + width :]


def _rewrite(draw: Draw, data: bytes, at: int) -> bytes:
    """Another word, number or value in the place of one."""
    part = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.+"
    while at < len(data) and data[at] not in part:
        at += 1
    first, end = at, at
    while first and data[first - 1] in part:
        first -= 1
    while end < len(data) and data[end] in part:
        end += 1
    words = data.split()
    value = draw.of(_NUMBERS).encode() if draw.below(3) else draw.of(words or [b"x"])
    return data[:first] + value + data[end:]


class Peak:
    """The most that the process held to itself, in bytes, since it was asked last."""

    def __init__(self) -> None:
        self.can = sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK)
        """Whether the system tells."""

    def reset(self) -> int:
        """Begins anew; what is held now."""
        if not self.can:
            return 0
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return self._read("VmRSS")

    def read(self) -> int:
        """The most since."""
        return self._read("VmHWM") if self.can else 0

    @staticmethod
    def _read(name: str) -> int:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))


@dataclass
class Tally:
    """What was seen of a kind."""

    files: int = 0
    bytes: int = 0
    work: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    beyond: int = 0

    def add(self, other: Tally) -> None:
        """Takes in another."""
        self.files += other.files
        self.bytes += other.bytes
        self.work += other.work
        self.reasons += other.reasons
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.beyond = max(self.beyond, other.beyond)

    def to_dict(self) -> dict[str, Any]:
        """For the result."""
        sealed = sum(count for text, count in self.reasons.items() if "digest" in text)
        return {
            "files": self.files,
            "bytes": self.bytes,
            "work": self.work,
            "refused": sum(self.reasons.values()),
            "refused_by_checksum": sealed,
            "reasons": len(self.reasons),
            "failures": self.failures,
            "slowest_ms": round(1e3 * self.slowest, 1),
            "bytes_beyond_bound_by_size": self.beyond,
        }


class Readers:
    """Reads and uses files, all of them under one name in a folder."""

    def __init__(self, folder: Path) -> None:
        self.corpus = {
            kind: [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]
            for kind in ("schema", "json", "checkpoint")
        }
        self._path = folder / "mutated"
        self.corpus["table"] = [_table(folder, codec) for codec in ("none", "snappy", "zstd")]
        (folder / "schema.toml").write_text(_TABLE_SCHEMA)
        self._schema = folder / "schema.toml"
        self.peak = Peak()
        self._read: dict[str, Callable[[bytes], None]] = {
            "schema": self._read_schema,
            "json": self._read_json,
            "checkpoint": self._read_checkpoint,
            "table": self._read_table,
        }

    def _read_schema(self, _: bytes) -> None:
        from virtualtb_fast.records import LogSchema

        schema = LogSchema.load(self._path)
        assert LogSchema.from_dict(schema.to_dict(), schema.origin) == schema
        assert schema.columns
        schema.to_json()

    def _read_json(self, data: bytes) -> None:
        from virtualtb_fast.customers.table import Table
        from virtualtb_fast.errors import InvalidArgumentError
        from virtualtb_fast.schema import Config, Schema

        text, errors = data.decode("utf-8", "replace"), []
        # A table is a list; the reason that counts is that of what the file seems to be.
        first = Table if text[:1] == "[" else Schema if '"action"' in text else Config
        for kind in sorted((Schema, Config, Table), key=lambda kind: kind is not first):
            try:
                value: Any = kind.from_json(text)
            except InvalidArgumentError as error:
                errors.append(error)
                continue
            assert kind.from_json(value.to_json()) == value
            if isinstance(value, Schema):
                value.one_hot(np.zeros(len(value.customer), np.int64))
            elif isinstance(value, Table):
                codes = np.zeros((2, len(value.fields)), np.uint8)
                value.decode(codes)
        if len(errors) == 3:
            raise errors[0]

    def _read_checkpoint(self, _: bytes) -> None:
        from virtualtb_fast._training import Checkpoint

        Checkpoint(self._path, "key").load()

    def _read_table(self, _: bytes) -> None:
        from virtualtb_fast.records import check_log

        check_log(self._path, self._schema)

    def file_of(self, case: int) -> tuple[str, bytes]:
        """The kind and the bytes of a case."""
        kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
        kind, draw = kinds[case % 20], Draw(case)
        files = self.corpus[kind]
        whole = draw.of(files)
        data = mutate(draw, whole, files, text=kind in ("schema", "json"))
        if kind == "checkpoint" and draw.below(5):
            data = _sealed(data)
        return kind, data

    def read(self, kind: str, data: bytes) -> str | None:
        """Reads a file; the reason if it is refused.

        Raises whatever the reader raises that is no typed error.
        """
        from virtualtb_fast.errors import FileFormatError, InvalidArgumentError

        # In place: a file that is made anew goes to the disk each time.
        with open(self._path, "r+b" if self._path.exists() else "w+b") as file:
            file.write(data)
            file.truncate()
        try:
            self._read[kind](data)
        except (FileFormatError, InvalidArgumentError) as error:
            text = str(error).partition(": ")[2].partition(", got")[0]
            if "content of digest" in text:
                return "expected content of digest"
            return "".join("#" if letter.isdigit() else letter for letter in text)[:100]
        return None

    def measure(self, case: int, tally: Tally) -> None:
        """Reads a case, twice if it seems slow: first uses import modules and fill caches."""
        kind, data = self.file_of(case)
        self.judge(kind, data, case, tally)

    def judge(self, kind: str, data: bytes, case: int, tally: Tally) -> None:
        """Reads some bytes and writes down what came of it."""
        tally.files += 1
        tally.bytes += len(data)
        before, took = self.peak.reset(), LIMIT + 1
        for _ in range(2):
            began = time.process_time()
            try:
                reason = self.read(kind, data)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                message = f"case {case} ({kind}): {type(error).__name__}: {str(error)[:200]}"
                tally.failures.append(message)
                return
            took = min(took, time.process_time() - began)
            if took <= LIMIT:
                break
        else:
            tally.failures.append(f"case {case} ({kind}): {took:.1f} s for {len(data)} bytes")
        times = {"checkpoint": 2, "table": 0}.get(kind, 100)
        beyond = self.peak.read() - before - times * len(data)
        if beyond > SLACK:
            tally.failures.append(f"case {case} ({kind}): {beyond:,} bytes of {len(data)}")
        tally.slowest, tally.beyond = max(tally.slowest, took), max(tally.beyond, beyond)
        if reason is None:
            tally.work += 1
        else:
            tally.reasons[reason] += 1

    def require_whole_files(self) -> None:
        """Void guard: files as they are must be read."""
        for kind, files in self.corpus.items():
            for index, data in enumerate(files):
                reason = self.read(kind, data)
                assert reason is None, f"{kind} {index}: {reason}"


def _sealed(data: bytes) -> bytes:
    """A checkpoint with a digest that fits."""
    import hashlib

    from virtualtb_fast import _training

    content = data.rpartition(_training._SEAL)[0]
    digest = hashlib.sha256(content).hexdigest().encode()
    return content + _training._SEAL + digest + b"\n" if content else data


_TABLE_SCHEMA = """\
format = "virtualtb_fast.log_schema"
version = 1
[rows]
session = "visit"
[customer]
categorical = ["city"]
numeric = ["age"]
[action]
columns = ["w"]
[feedback]
clicks = "clicks"
"""


def _table(folder: Path, codec: str) -> bytes:
    """A Parquet file as somebody's shop may write it."""
    import pyarrow
    from pyarrow import parquet

    draw = np.random.default_rng(9)
    rows = 60
    columns = {
        "visit": [f"visit-{row // 3}" for row in range(rows)],
        "city": np.repeat(draw.integers(0, 4, rows // 3), 3),
        "age": np.repeat(draw.normal(40, 9, rows // 3), 3),
        "w": draw.normal(size=(rows, 2)).astype(np.float32).tolist(),
        "clicks": draw.poisson(0.5, rows),
    }
    path = folder / f"{codec}.parquet"
    parquet.write_table(pyarrow.table(columns), path, compression=codec)
    return path.read_bytes()


def require_fates(kind: str, tally: Tally) -> None:
    """Void guard: a mutator that only breaks files, or breaks none, would show nothing.

    Fewer than `FEWEST` files may all meet the same fate.
    """
    if tally.files < FEWEST:
        return
    least = tally.files // 200
    refused = sum(tally.reasons.values())
    assert tally.work >= least, f"{kind}: {tally.work} of {tally.files} files work"
    assert refused >= least, f"{kind}: {refused} of {tally.files} files are refused"
    assert len(tally.reasons) >= 3, f"{kind}: {tally.reasons}"


def fuzz(first: int, files: int, show: Callable[[int], None] | None = None) -> dict[str, Tally]:
    """Reads ``files`` cases from ``first`` on; what was seen, by kind."""
    tallies = {kind: Tally() for kind in SHARES}
    with tempfile.TemporaryDirectory() as folder:
        readers = Readers(Path(folder))
        readers.require_whole_files()
        kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
        for case in range(first, first + files):
            readers.measure(case, tallies[kinds[case % 20]])
            if show is not None and (case - first) % 1000 == 999:
                show(case - first + 1)
    return tallies


def _child(job: tuple[int, int]) -> dict[str, Tally]:
    return fuzz(*job)


def _core(files: int, threads: int, folder: Path) -> dict[str, Any]:
    """The core's share, with its own progress."""
    result = folder / "core.json"
    told = {"FILES": files, "THREADS": threads, "JSON": result}
    environment = os.environ | {f"VIRTUALTB_FUZZ_{key}": str(value) for key, value in told.items()}
    command = ["cargo", "test", "--release", "--quiet", "--test", "files"]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        sys.exit("mutated files: the core failed on some; see above")
    held: dict[str, Any] = json.loads(result.read_text())
    return held


def _python(files: int, threads: int) -> dict[str, Tally]:
    """Python's share, in processes of a few thousand files each."""
    tallies = {kind: Tally() for kind in SHARES}
    piece, began, done = 4000, time.perf_counter(), 0
    jobs = [(first, min(piece, files - first)) for first in range(0, files, piece)]
    with multiprocessing.get_context("spawn").Pool(threads) as pool:
        for number, held in enumerate(pool.imap_unordered(_child, jobs), 1):
            for kind, tally in held.items():
                tallies[kind].add(tally)
            done += jobs[number - 1][1]
            seconds = time.perf_counter() - began
            print(f"{done} of {files} files in Python, {seconds:.0f} s", file=sys.stderr)
    return tallies


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description="Read mutated files of every kind.")
    parser.add_argument("--files", type=int, default=2_000_000)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    python = given.files // 5
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kinds = dict(_core(given.files - python, given.threads, Path(folder))["kinds"])
    failures = []
    tallies = _python(python, given.threads)
    for kind, tally in tallies.items():
        kinds[kind] = tally.to_dict()
        failures += tally.failures
        print(f"{kind}: {json.dumps(kinds[kind])}")
    result = {
        "what": "mutated files read: a typed error or a value that works",
        "files": sum(about["files"] for about in kinds.values()),
        "failures": sum(len(about["failures"]) for about in kinds.values()),
        "kinds": kinds,
        "seconds": round(time.perf_counter() - began),
        "threads": given.threads,
    }
    if given.json is not None:
        from virtualtb_fast.evaluation.machine import machine

        text = json.dumps(result | {"machine": machine()}, indent=2) + "\n"
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text)
    print(f"{result['files']:,} files, {result['failures']} failures, {result['seconds']} s")
    if failures:
        sys.exit("\n".join(failures[:20]))
    for kind, tally in tallies.items():
        require_fates(kind, tally)


if __name__ == "__main__":
    main()
