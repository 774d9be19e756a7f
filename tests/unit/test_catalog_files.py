"""Files and processes of catalogues: shared, closed, cut, replaced, killed while they are built."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.processes import Started

import virtualtb_fast as vtb
from virtualtb_fast.catalog import Catalog

ITEMS, WIDTH = 3000, 9
WEIGHTS = np.random.default_rng(7).standard_normal((6, WIDTH)).astype(np.float32)


def build(path: Any = None, *, seed: int = 0, **changes: Any) -> Catalog:
    """Random items with a column of every kind."""
    draw = np.random.default_rng(seed)
    return Catalog.build(
        draw.standard_normal((ITEMS, WIDTH), dtype=np.float32),
        path,
        ids=draw.permutation(ITEMS) * 3 + 5,
        price=draw.lognormal(3, 1, ITEMS),
        category={
            "brand": draw.choice(["ash", "birch", "cedar"], ITEMS),
            "year": draw.integers(1990, 2020, ITEMS),
        },
        **changes,
    )


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return build()


def test_copies_and_pickles_are_cheap(catalog: Catalog, tmp_path: Path) -> None:
    filed = build(tmp_path / "items")
    assert copy.copy(filed) is copy.deepcopy(filed) is filed
    assert len(pickle.dumps(filed)) < 500
    for one in (filed, catalog):
        other = pickle.loads(pickle.dumps(one))
        assert other == one
        assert hash(other) == hash(one)
        np.testing.assert_array_equal(other.search(WEIGHTS)[0], one.search(WEIGHTS)[0])
    first, second = (pickle.loads(pickle.dumps(catalog)) for _ in range(2))
    assert first._native is second._native
    first.close()
    np.testing.assert_array_equal(second.search(WEIGHTS)[0], catalog.search(WEIGHTS)[0])
    data = pickle.dumps(filed)
    build(tmp_path / "items", seed=1, overwrite=True)
    with pytest.raises(vtb.FileFormatError, match="replaced"):
        pickle.loads(data)


def _search_elsewhere(catalog: Catalog) -> list[list[int]]:
    return catalog.search(WEIGHTS, 3)[0].tolist()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_processes_share_a_catalogue(tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    filed, kept = build(tmp_path / "items"), build()
    expected = _search_elsewhere(filed)
    if method == "spawn":
        code = (
            "import pickle, sys; one = pickle.load(sys.stdin.buffer); import numpy as np\n"
            "print(one.search(np.ones(one.dimensions), 3)[0].tolist())"
        )
        for one in (filed, kept):
            ran = subprocess.run(
                [sys.executable, "-c", code], input=pickle.dumps(one), capture_output=True,
                check=True,
            )  # fmt: skip
            assert ran.stdout.decode().strip() == str(one.search(np.ones(WIDTH), 3)[0].tolist())
        return
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_search_elsewhere, [filed, kept] * 3) == [expected] * 6


def test_closing_lets_go(tmp_path: Path) -> None:
    with build(tmp_path / "items") as catalog:
        assert "3,000 items x 9 in" in repr(catalog)
    assert repr(catalog) == "<Catalog, closed>"
    catalog.close()
    for use in (len, lambda one: one.search(WEIGHTS), lambda one: one.digest, pickle.dumps):
        with pytest.raises(vtb.StateError, match="closed"):
            use(catalog)
    with pytest.raises(vtb.InvalidArgumentError):
        Catalog(None)  # type: ignore[arg-type]


def test_what_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items"
    with pytest.raises(vtb.OutputError, match="items"):
        Catalog.open(path)
    build(path)
    data = path.read_bytes()
    for cut in [*range(0, len(data), 4096 * 5), 10, len(data) - 1]:
        path.write_bytes(data[:cut])
        with pytest.raises(vtb.FileFormatError):
            Catalog.open(path)
    draw = np.random.default_rng(5)
    header = int.from_bytes(data[16:24], "little")
    for bit in draw.integers(0, 8 * header, 200):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(changed)
        with pytest.raises(vtb.FileFormatError):
            Catalog.open(path)
    for at in draw.integers(header, len(data), 60):
        changed = bytearray(data)
        changed[at] ^= 16
        path.write_bytes(changed)
        with pytest.raises(vtb.FileFormatError):
            Catalog.open(path).verify()


def test_an_id_whose_text_was_altered_points_at_verify(tmp_path: Path) -> None:
    path = tmp_path / "items"
    Catalog.build(np.eye(3), path, ids=["hat", "coat", "shoe"])
    assert Catalog.open(path).rows(["coat"]).tolist() == [1]
    data = path.read_bytes()
    assert data.count(b"hatcoatshoe") == 1
    path.write_bytes(data.replace(b"hatcoatshoe", b"hatcostshoe"))
    catalog = Catalog.open(path)
    with pytest.raises(vtb.InvalidArgumentError, match=r'"coat".*unknown.*verify\(\) tells'):
        catalog.rows(["coat"])
    with pytest.raises(vtb.FileFormatError):
        catalog.verify()
    # An id that nobody knows, in a file that is whole and in memory, where nothing can be altered.
    path.write_bytes(data)
    with pytest.raises(vtb.InvalidArgumentError, match="unknown"):
        Catalog.open(path).rows(["glove"])
    with pytest.raises(vtb.InvalidArgumentError, match=r"unknown$"):
        Catalog.build(np.eye(2), ids=["hat", "coat"]).rows(["glove"])


@pytest.mark.parametrize("length", [0, 4096, 40_000])
def test_a_file_that_is_shortened_is_an_error(tmp_path: Path, length: int) -> None:
    path = tmp_path / "items"
    catalog = build(path)
    catalog.search(WEIGHTS)
    os.truncate(path, length)
    for use in (
        lambda: catalog.search(WEIGHTS),
        lambda: catalog.search(WEIGHTS, category={"year": 2000}),
        lambda: catalog.count(price=(1, 2)),
        lambda: catalog.attributes(),
        lambda: catalog.ids(),
        lambda: catalog.rows([5]),
        lambda: catalog.column("brand"),
        catalog.verify,
    ):
        with pytest.raises(vtb.FileFormatError, match="as when it was opened"):
            use()


def test_a_file_that_is_shortened_while_it_is_searched_ends_no_process(tmp_path: Path) -> None:
    """Another process cuts and mends the file again and again: errors, but no crash."""
    path = tmp_path / "items"
    code = f"""
import os, sys, threading, time
import numpy as np
import virtualtb_fast as vtb
draw = np.random.default_rng(0)
x, w = draw.standard_normal((60_000, 27), dtype=np.float32), draw.standard_normal((64, 27))
path, outcomes = {str(path)!r}, {{"found": 0, "refused": 0}}
vtb.Catalog.build(x, path)
data = open(path, "rb").read()
expected = vtb.Catalog.open(path).search(w, 5)[0]
for turn in range(30):
    with open(path, "wb") as file:
        file.write(data)
    catalog = vtb.Catalog.open(path)
    thread = threading.Timer(0.002 * (turn % 8), os.truncate, (path, 8192 * (turn % 3)))
    thread.start()
    try:
        for _ in range(20):
            found = catalog.search(w, 5)[0]
            assert (found == expected).all(), "a wrong answer"
            outcomes["found"] += 1
    except vtb.FileFormatError:
        outcomes["refused"] += 1
    thread.join()
print(outcomes)
assert outcomes["refused"] >= 25 and outcomes["found"] > 10, outcomes
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"{ran.returncode} {ran.stdout} {ran.stderr}"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGBUS there")
def test_a_handler_that_came_later_does_not_take_the_guard_away(tmp_path: Path) -> None:
    """`faulthandler.enable()` after the first open, and a real SIGBUS still ends the process."""
    code = f"""
import faulthandler, mmap, os, sys
import numpy as np
import virtualtb_fast as vtb
path = {str(tmp_path / "items")!r}
x = np.random.default_rng(0).standard_normal((60_000, 27), dtype=np.float32)
vtb.Catalog.build(x, path)
first = vtb.Catalog.open(path)
faulthandler.enable()
catalog = vtb.Catalog.open(path)
ids = catalog.ids()
# Two uses, each after handlers were changed: the file is cut before anything is read.
weights = np.ones((2, 27), np.float32)
def cut(*told):
    os.truncate(path, 8192)
try:
    catalog.verify(cut)
except vtb.FileFormatError as error:
    print("refused", error)
if sys.argv[1] == "disable":
    faulthandler.disable()
    try:
        vtb.Catalog.open(path)
    except vtb.FileFormatError:
        print("again")
with open({str(tmp_path / "plain")!r}, "w+b") as file:
    file.truncate(8192)
    plain = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
    print("reading", flush=True)
    plain[5000]
"""
    for what in ("keep", "disable"):
        ran = subprocess.run(
            [sys.executable, "-c", code, what], capture_output=True, text=True, timeout=60
        )
        assert ran.stdout.startswith("refused"), ran
        assert ran.stdout.endswith("reading\n"), ran
        assert ran.returncode == -signal.SIGBUS, ran
        assert ("Fatal Python error: Bus error" in ran.stderr) == (what == "keep"), ran
        (tmp_path / "items").unlink()


def test_a_file_that_is_replaced_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "items"
    catalog = build(path)
    with pytest.raises(vtb.OutputError, match="exists"):
        build(path)
    build(path, seed=1, overwrite=True)
    with pytest.raises(vtb.FileFormatError, match="another of this name"):
        catalog.search(WEIGHTS)
    catalog = Catalog.open(path)
    data = path.read_bytes()
    time.sleep(0.02)
    path.write_bytes(data)
    with pytest.raises(vtb.FileFormatError, match="written to"):
        catalog.search(WEIGHTS)


def _building(path: Path) -> subprocess.Popen[str]:
    """A process that builds, slowly, and has begun to."""
    code = f"""
import sys, time
import numpy as np
import virtualtb_fast as vtb
def told(stage, done, total):
    print(stage, flush=True)
    time.sleep(0.05)
x = np.random.default_rng(0).standard_normal((400_000, 27), dtype=np.float32)
print("ready", flush=True)
vtb.Catalog.build(x, {str(path)!r}, progress=told)
"""
    process = Started(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "clusters" in line or "sorting" in line or "encoding" in line:
            break
    return process


def test_a_killed_build_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    path = tmp_path / "items"
    with _building(path) as process:
        with pytest.raises(vtb.OutputError, match="another process"):
            build(path)
        process.kill()
    assert not path.exists()
    # What it left is built over.
    build(path).verify()
    assert os.listdir(tmp_path) == ["items"]


def test_ctrl_c_ends_a_build(tmp_path: Path) -> None:
    with _building(tmp_path / "items") as process:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in error
    assert os.listdir(tmp_path) == []


def test_a_progress_function_that_fails_ends_the_build(tmp_path: Path) -> None:
    def fail(*told: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Catalog.build(np.eye(100), tmp_path / "items", progress=fail)
    assert os.listdir(tmp_path) == []
