"""The prepared log: what is in it, when it is made anew, and in how much memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from virtualtb_fast.errors import InvalidArgumentError, LogError, OutputError  # noqa: E402
from virtualtb_fast.logs import OUTCOMES  # noqa: E402
from virtualtb_fast.records import columns, prepare, prepared, source  # noqa: E402

Own = Callable[..., dict[str, Any]]


def content(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(path.iterdir())}


def test_a_log_of_ours_is_what_it_was(tmp_path: Path, simulator: vtb.Simulator) -> None:
    path = tmp_path / "log.parquet"
    played = vtb.rollout(simulator, "gaussian:0.3", sessions=3_000, seed=5, out=path)
    held = prepare(path, tmp_path / "work" / "log")
    for name in ("customer", "action", "page", "clicks", "second", "outcome"):
        assert held[name].dtype == played[name].dtype
        np.testing.assert_array_equal(held[name], played[name])
    np.testing.assert_array_equal(held["offsets"], played.log.session_offsets())
    np.testing.assert_array_equal(held["session_customer"], played["customer"][played["page"] == 0])
    assert held.schema == simulator.schema
    assert (held.rows, held.sessions, held.heads) == (len(played), 3_000, "clicks")
    assert held.table is None
    # The same content in memory has the same digest, and the same bytes but for its origin.
    again = prepare(played.log, tmp_path / "other")
    assert again.digest == held.digest


def test_a_stores_log_has_hours_and_outcomes(tmp_path: Path) -> None:
    played = vtb.rollout(vtb.GroundTruthStore(seed=0, hour=13.5), "logger", sessions=500)
    held = prepare(played.log, tmp_path / "log")
    np.testing.assert_array_equal(held["outcome"], played["outcome"])
    np.testing.assert_array_equal(held["hour"], played["hour"])
    np.testing.assert_array_equal(held["clicks"], played["outcome"] == OUTCOMES.index("buy"))
    assert held.heads == "outcome"


def test_own_columns_become_codes_and_come_back(
    own: Own, own_schema: Path, parquet_file: Callable[..., str], tmp_path: Path
) -> None:
    columns = own(2_000)
    held = prepare(parquet_file(columns), tmp_path / "log", own_schema)
    starts = np.asarray(columns["page_no"]) == 1
    sessions = np.cumsum(starts) - 1
    np.testing.assert_array_equal(held["page"], np.asarray(columns["page_no"]) - 1)
    np.testing.assert_array_equal(held["customer"], held["session_customer"][sessions])
    np.testing.assert_array_equal(held["clicks"], columns["clicks"])
    np.testing.assert_array_equal(held["second"], columns["orders"])
    np.testing.assert_array_equal(held["outcome"] == OUTCOMES.index("leave"), columns["left"])
    np.testing.assert_array_equal(
        held["action"], np.column_stack([columns[f"w{index}"] for index in range(3)])
    )
    table = held.table
    assert table is not None
    back = table.decode(held["session_customer"])
    expected = np.array(columns["gender"], object)[starts]
    assert back["gender"].tolist() == expected.tolist()
    np.testing.assert_array_equal(back["city"], columns["city"][starts])
    age = columns["age"][starts]
    np.testing.assert_array_equal(np.isnan(back["age"]), np.isnan(age))
    known = ~np.isnan(age)
    # Ages come back from within their bin of 1 / 32 of all.
    ranks = np.argsort(np.argsort(age[known])), np.argsort(np.argsort(back["age"][known]))
    assert np.abs(ranks[0] - ranks[1]).max() < known.sum() / 16
    assert held.schema.action_range == (-6.0, 6.0)
    assert held.schema.action == 3


@pytest.mark.parametrize("rows", [1, 3, 1_000])
def test_batches_do_not_matter(
    own: Own, own_schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    table = pyarrow.table(own(100))
    expected = prepare(table, tmp_path / "whole", own_schema)
    monkeypatch.setattr(source, "_BATCH_ROWS", rows)
    monkeypatch.setattr(prepared, "_BLOCK", 64)
    held = prepare(table, tmp_path / "pieces", own_schema)
    assert held.digest == expected.digest
    assert content(held.folder) == content(expected.folder)


def test_sessions_without_a_known_end_end_with_max_pages(
    own: Own, own_schema: Path, tmp_path: Path
) -> None:
    columns = own(100)
    columns["left"] = np.zeros(len(columns["left"]), bool)
    columns["left"][-1] = True
    held = prepare(pyarrow.table(columns), tmp_path / "log", own_schema)
    last = held["offsets"][1:] - 1
    assert (held["outcome"][last[:-1]] == OUTCOMES.index("max_pages")).all()
    # Without the flag a session's end is leaving.
    own_schema.write_text(own_schema.read_text().replace('leave = "left"\n', ""))
    held = prepare(pyarrow.table(columns), tmp_path / "log", own_schema)
    np.testing.assert_array_equal(np.flatnonzero(held["outcome"] == OUTCOMES.index("leave")), last)


# --- made anew, or not ------------------------------------------------------------------------


def test_it_is_taken_up_until_something_changes(
    own: Own, own_schema: Path, parquet_file: Callable[..., str], tmp_path: Path
) -> None:
    columns = own(100)
    path, folder = parquet_file(columns), tmp_path / "log"
    read: list[int] = []

    def again() -> prepared.Prepared:
        read.clear()
        return prepare(path, folder, own_schema, lambda stage, done, total: read.append(done))

    first = again()
    assert read
    same = again()
    assert not read
    assert same.digest == first.digest
    assert same.report.rows == len(columns["left"])
    assert same.report.to_dict() == first.report.to_dict()
    # The same rows in another file: made anew, with the same digest.
    parquet_file(columns, row_group_size=7)
    assert again().digest == first.digest
    assert read
    columns["w1"][5] += 0.25
    parquet_file(columns)
    changed = again()
    assert read
    assert changed.digest != first.digest
    own_schema.write_text(own_schema.read_text().replace("high = 6", "high = 7"))
    assert again().digest != changed.digest
    assert read
    # A column that was cut short is noticed too.
    with open(folder / "action.npy", "r+b") as file:
        file.truncate(500)
    again()
    assert read
    (folder / "meta.json").write_text("{")
    again()
    assert read


def test_a_log_with_errors_leaves_what_was_there(
    own: Own, own_schema: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    first = prepare(pyarrow.table(own(100)), folder, own_schema)
    before = content(folder)
    columns = own(100)
    columns["w0"][7] = np.nan
    with pytest.raises(LogError, match=r"column 'w0': expected a number, got NaN in row 7"):
        prepare(pyarrow.table(columns), folder, own_schema)
    assert content(folder) == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "visits.toml"]
    assert np.asarray(first["clicks"]).sum() > 0


def test_interruptions_leave_nothing(own: Own, own_schema: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(pyarrow.table(own(100)), tmp_path / "log", own_schema, stop)
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / ".log.virtualtb-writing").exists()


def test_a_small_disk_is_said_before_it_is_full(
    own: Own, own_schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"GB of free disk for the prepared log, got 0\.0 GB"):
        prepare(pyarrow.table(own(100)), tmp_path / "log", own_schema)
    assert not (tmp_path / ".log.virtualtb-writing").exists()


def test_a_folder_that_cannot_be_written(own: Own, own_schema: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        prepare(pyarrow.table(own(100)), tmp_path / "file" / "log", own_schema)


def test_what_is_no_prepared_log_is_not_replaced(
    own: Own, own_schema: Path, tmp_path: Path
) -> None:
    folder, file = tmp_path / "notes", tmp_path / "notes.txt"
    others = [tmp_path / "notes.new", tmp_path / "notes.old"]
    for one in (folder, *others):
        one.mkdir()
    table = pyarrow.table(own(100))
    digest = prepare(table, folder, own_schema).digest
    assert prepare(table, folder, own_schema).digest == digest
    shutil.rmtree(folder)
    folder.mkdir()
    for path in (folder / "thoughts", file):
        path.write_text("dear")
    with pytest.raises(InvalidArgumentError, match=r"folder: expected .* got .* 'thoughts'"):
        prepare(table, folder, own_schema)
    with pytest.raises(OutputError, match=r"notes\.txt"):
        prepare(table, file, own_schema)
    assert (folder / "thoughts").read_text() == file.read_text() == "dear"
    assert sorted(tmp_path.glob("notes*")) == sorted([folder, file, *others])


def test_a_kill_leaves_the_last_one_or_none(own: Own, own_schema: Path, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    parquet.write_table(pyarrow.table(own(3_000)), path, row_group_size=500)
    program = (
        "import os, sys\n"
        "from virtualtb_fast.records import prepare, source\n"
        "source._BATCH_ROWS = 500\n"
        "def stop(stage, done, total):\n"
        "    if done > int(sys.argv[4]): os.kill(os.getpid(), 9)\n"
        "prepare(sys.argv[1], sys.argv[2], sys.argv[3], stop)\n"
    )
    folder = tmp_path / "log"
    for row in (600, 4_000):
        words = [sys.executable, "-c", program, str(path), str(folder), str(own_schema), str(row)]
        assert subprocess.run(words, check=False).returncode == -9
        assert not folder.exists()
        assert (tmp_path / ".log.virtualtb-writing").exists()
    held = prepare(path, folder, own_schema)
    assert held["clicks"].shape == (held.rows,)
    assert not (tmp_path / ".log.virtualtb-writing").exists()


# --- damage -----------------------------------------------------------------------------------


def unseen(folder: Path, good: dict[str, bytes]) -> bool:
    """Whether names and sizes are all that is looked at: the void guard of what follows."""
    try:
        json.loads((folder / "meta.json").read_bytes())
    except ValueError:
        return False
    return all((folder / name).stat().st_size == len(data) for name, data in good.items())


def test_flips_and_cuts_are_noticed_and_it_is_prepared_anew(
    own: Own, own_schema: Path, parquet_file: Callable[..., str], tmp_path: Path
) -> None:
    path, folder = parquet_file(own(60)), tmp_path / "log"
    expected = prepare(path, folder, own_schema).digest
    good = content(folder)
    meta = prepared._load(folder)
    assert meta is not None
    assert prepared._is_whole(folder, meta, None)
    assert {*good} == {"meta.json", *(f"{name}.npy" for name in meta["columns"])}
    random, fooled = np.random.default_rng(0), 0

    def noticed() -> bool:
        held = prepared._load(folder)
        return held is None or not prepared._is_whole(folder, held, None)

    for name, data in good.items():
        file = folder / name
        flips = {*range(0, 1024, 17), *random.integers(0, 8 * len(data), 60).tolist()}
        for bit in sorted(flips):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
            assert noticed(), (name, bit)
            fooled += unseen(folder, good)
        for length in {0, 1, 127, 128, 129, len(data) // 2, len(data) - 1} - {len(data)}:
            file.write_bytes(data[:length])
            assert noticed(), (name, length)
        file.write_bytes(data + b"\0")
        assert noticed()
        file.unlink()
        assert noticed()
        file.write_bytes(data)
        assert not noticed()
    assert fooled > 300
    # Any of it makes a new one, of the same bytes.
    for name, data in good.items():
        for changed in (data[:-1], data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]):
            (folder / name).write_bytes(changed)
            assert prepare(path, folder, own_schema).digest == expected
            assert content(folder) == good


CUT = """
import os, sys
import numpy as np
from virtualtb_fast.errors import FileFormatError
from virtualtb_fast.records import prepare

held = prepare(*sys.argv[1:4])
names = [name for name in held.meta["columns"] if name != "offsets"]
columns = {name: held[name] for name in names}
mapped = {name: np.load(held.folder / f"{name}.npy", mmap_mode="r") for name in names}
some = {name: column[:100] for name, column in columns.items()}
for name in held.meta["columns"]:
    os.truncate(held.folder / f"{name}.npy", 4096)
if sys.argv[4] == "mapped":
    print(mapped["action"][::7].sum())
for name, column in columns.items():
    rows = np.arange(0, len(column), 7)
    for key in (rows, slice(None), rows[-1], np.ones(len(column), bool)):
        try:
            column[key]
        except FileFormatError as error:
            assert "it was cut while in use" in str(error), error
        else:
            raise AssertionError(name)
try:
    held["offsets"]
except FileFormatError as error:
    print("refused", error)
"""


def test_a_column_that_is_cut_while_it_is_used_is_an_error(
    own: Own, own_schema: Path, parquet_file: Callable[..., str], tmp_path: Path
) -> None:
    """With a map the process is gone, which is the void guard."""
    path = parquet_file(own(20_000))

    def run(how: str) -> subprocess.CompletedProcess[str]:
        words = [path, str(tmp_path / "log"), str(own_schema), how]
        return subprocess.run(
            [sys.executable, "-c", CUT, *words], check=False, capture_output=True, text=True
        )

    done = run("read")
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout
    assert run("mapped").returncode == -signal.SIGBUS


def test_columns_are_indexed_as_arrays_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for, in whatever order, with room for all rows, for few and for fewest."""
    random = np.random.default_rng(1)
    for shape, most in (((), 1 << 30), ((), 4096), ((3,), 1), ((3,), 20_000), ((0,), 1)):
        monkeypatch.setattr(columns, "_KEPT_ROWS", 1)
        monkeypatch.setattr(columns, "_KEPT", (most, most))
        writer = columns.ColumnWriter(tmp_path, "some", np.float32, shape)
        array = random.random((10_007, *shape), np.float32)
        for part in np.array_split(array, 7):
            writer.write(part)
        writer.close()
        column = writer.read()
        assert (column.shape, column.dtype, column.ndim) == (array.shape, array.dtype, array.ndim)
        for number in range(60):
            near = random.integers(0, 10_007 - 200)
            keys: list[Any] = [
                random.integers(-10_007, 10_007, random.integers(0, 400)),
                near + random.integers(0, 200, 300),
                random.integers(0, 10_007, (3, 5)),
                random.random(10_007) < 0.1,
                slice(*sorted(random.integers(-9_000, 9_000, 2).tolist())),
                slice(9_000, int(near) // 2, -3),
                int(random.integers(-10_007, 10_007)),
                (slice(3, 9), ...),
                [],
                [number, -1],
            ]
            for key in keys:
                np.testing.assert_array_equal(column[key], array[key], strict=True)
        np.testing.assert_array_equal(column, array)
        np.testing.assert_array_equal(column > 0.5, array > 0.5)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(column))[5:9], array[5:9])
        for bad in (10_007, [10_007], [-10_008], np.ones(3, bool), [0.5], "x"):
            with pytest.raises(IndexError):
                column[bad]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_what_another_thread_was_reading(tmp_path: Path) -> None:
    writer = columns.ColumnWriter(tmp_path, "some", np.int64, ())
    writer.write(np.arange(1_000))
    writer.close()
    column = writer.read()
    with column._held():
        pid = os.fork()
        if not pid:
            # Void guard: the lock that was held is held still, by nobody who is here.
            wrong = column._lock.acquire(blocking=False)
            signal.alarm(60)
            os._exit(int(wrong or column[[3, 999]].tolist() != [3, 999]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# --- memory -----------------------------------------------------------------------------------

PEAK = """
import json, sys
import numpy as np
from virtualtb_fast.records import prepare
from virtualtb_fast._batches import SessionRows

def anonymous():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["RssAnon"].split()[0]) * 1024

peak = 0
def watch(stage, done, total):
    global peak
    peak = max(peak, anonymous())

whole = None
if sys.argv[3] == "void":
    # What loads the log and keeps it.
    from pyarrow import parquet
    whole = parquet.read_table(sys.argv[1], memory_map=False)
    sys.argv[2] += "-void"

held = prepare(sys.argv[1], sys.argv[2], None, watch)
rows = SessionRows(held["offsets"], np.ones(held.sessions, np.bool_), handful=1 << 15)
action, customer = held["action"], held["customer"]
total = 0.0
for number, batch in enumerate(rows.batches(4096, np.random.default_rng(0))):
    total += float(action[batch].sum()) + int(customer[batch].sum())
    if number % 10 == 0:
        watch("", 0, 0)
print(json.dumps({"peak": peak, "rows": held.rows}))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Four times the log takes no more memory; loading it would take 140 MB."""
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    policy = "gaussian:0.1"
    vtb.rollout("virtualtb-v0-refit", policy, pages=300_000, out=small, keep=False)
    vtb.rollout("virtualtb-v0-refit", policy, pages=1_200_000, out=large, keep=False)

    def peak(path: Path, kind: str = "in pieces") -> int:
        words = [sys.executable, "-c", PEAK, str(path), str(tmp_path / "work"), kind]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        report = json.loads(done.stdout)
        assert report["rows"] >= 300_000
        return int(report["peak"])

    few, many = peak(small), peak(large)
    assert many < few + 40e6
    # The void guard, in the same run: a log in memory fails by far.
    assert peak(large, "void") > few + 80e6
