"""Every bad file is refused: by our own error, that names it and says what was expected and came.

Within a second of the processor, in memory that the file's size bounds, and the file stays as it
is. The mutated files of ``tests/fuzz`` are read by the same bounds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import time
from pathlib import Path

import pytest
from tests.fuzz.readers import LIMIT, SLACK, Peak
from tests.reliability.bad_files import KINDS
from tests.reliability.bad_files_kit import Change, Kind, Put, state

import virtualtb_fast as vtb

CASES = [(kind, *case) for kind in KINDS for case in kind.bad.items()]
IDS = [f"{kind.name}-{name}" for kind, name, _ in CASES]


def same(data: bytes) -> bytes:
    return data


@pytest.fixture(scope="module")
def folder_of_good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("good")


def available(kind: Kind) -> None:
    """Skips what not everybody can read."""
    for module in kind.needs:
        pytest.importorskip(module)


@pytest.fixture(scope="module")
def read_before(folder_of_good: Path) -> set[str]:
    """Kinds of which the good file was read."""
    return set()


def read_good(kind: Kind, folder: Path, before: set[str]) -> None:
    """Void guard: or bad files were refused for something else than what was changed.

    What readers import at their first use counts neither as time nor as memory of a bad file.
    """
    if kind.name not in before:
        own = folder / kind.name
        own.mkdir()
        kind.read(kind.write(own, same))
        before.add(kind.name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_good_file_is_read(kind: Kind, folder_of_good: Path, read_before: set[str]) -> None:
    available(kind)
    read_good(kind, folder_of_good, read_before)


# PyTorch warns of what it then refuses, or we do.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("kind", "name", "case"), CASES, ids=IDS)
def test_a_bad_file_is_refused(
    kind: Kind,
    name: str,
    case: tuple[Change, str],
    tmp_path: Path,
    folder_of_good: Path,
    read_before: set[str],
) -> None:
    available(kind)
    read_good(kind, folder_of_good, read_before)
    change, message = case
    require_refusal(kind, kind.write(tmp_path, change), message)


def require_refusal(kind: Kind, path: Path, message: str) -> None:
    """What is promised of every bad file."""
    before, size = state(path), path.stat().st_size if path.is_file() else 0
    peak = Peak()
    held, began = peak.reset(), time.process_time()
    with pytest.raises(vtb.VirtualTBError) as caught:
        kind.read(path)
    took = time.process_time() - began
    beyond = peak.read() - held - kind.times * min(size, 1 << 28)
    said = str(caught.value)
    assert re.search(message, said, re.DOTALL), said
    system = isinstance(caught.value, vtb.OutputError) and caught.value.errno is not None
    assert system or ("expected" in said and "got" in said), said
    assert (kind.file if kind.told is None else kind.told) in said, said
    assert took < LIMIT
    assert beyond < SLACK, f"{beyond:,} bytes of {size:,}"
    assert state(path) == before


def test_a_reader_that_fails_is_seen(tmp_path: Path) -> None:
    """Void guard: of each promise, a reader that breaks it."""
    said = "expected x.json to be good, got x"

    def accept(path: Path) -> None:
        path.read_bytes()

    def other(path: Path) -> None:
        raise ValueError(f"{path}: expected good, got bad")

    def unnamed(_: Path) -> None:
        raise vtb.FileFormatError("expected good, got bad")

    def silent(path: Path) -> None:
        raise vtb.FileFormatError(f"{path}: bad")

    def slow(_: Path) -> None:
        began = time.process_time()
        while time.process_time() - began < 1.1 * LIMIT:
            pass
        raise vtb.FileFormatError(said)

    def large(_: Path) -> None:
        assert len(bytearray(b"x") * (SLACK * 8))
        raise vtb.FileFormatError(said)

    def destroy(path: Path) -> None:
        path.write_bytes(b"")
        raise vtb.FileFormatError(said)

    def good(_: Path) -> None:
        raise vtb.FileFormatError(said)

    failed = (AssertionError, ValueError, pytest.fail.Exception)
    for read in (accept, other, unnamed, silent, slow, large, destroy, good):
        if read is large and not Peak().can:
            continue
        kind = Kind("x", "x.json", lambda: b"{}", read, {})
        path = kind.write(tmp_path, same)
        if read is good:
            require_refusal(kind, path, "expected .* got")
            continue
        with pytest.raises(failed):
            require_refusal(kind, path, "expected .* got|bad")


def test_there_are_at_least_250_of_them(tmp_path: Path) -> None:
    """No file is there twice: neither in a kind's table nor, but for a few, in all of them."""
    assert len(CASES) >= 250
    digests = set()
    for kind in KINDS:
        if any(importlib.util.find_spec(module) is None for module in kind.needs):
            continue
        good = kind.good()
        mine = [
            change.name if isinstance(change, Put) else hashlib.sha256(change(good)).hexdigest()
            for change, _ in kind.bad.values()
        ]
        assert len(set(mine)) == len(mine), kind.name
        assert hashlib.sha256(good).hexdigest() not in mine, kind.name
        digests |= set(mine)
    assert len(digests) >= 250
