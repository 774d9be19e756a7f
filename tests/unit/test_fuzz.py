"""The short form of ``make fuzz`` for what Python reads; ``files.rs`` has that of the core."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def readers() -> ModuleType:
    pytest.importorskip("torch", reason="checkpoints are PyTorch's")
    pytest.importorskip("pyarrow", reason="people's own logs are read with it")
    path = ROOT / "tests" / "fuzz" / "readers.py"
    spec = importlib.util.spec_from_file_location("virtualtb_fuzz_readers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_mutated_files_are_refused_or_work(readers: ModuleType) -> None:
    for kind, tally in readers.fuzz(0, 4000).items():
        assert not tally.failures, "\n".join(tally.failures[:10])
        readers.require_fates(kind, tally)


def test_a_reader_that_fails_is_seen(readers: ModuleType, tmp_path: Path) -> None:
    """Void guard: other errors, work without end and a lot of memory."""
    one = readers.Readers(tmp_path)
    tally = readers.Tally()

    def wrong(data: bytes) -> None:
        raise KeyError(data)

    one._read["schema"] = wrong
    one.judge("schema", b"x", 1, tally)
    assert len(tally.failures) == 1
    assert "KeyError" in tally.failures[0]
    readers.LIMIT, before = 0.0, readers.LIMIT
    try:
        one.judge("json", b"{}", 2, tally)
    finally:
        readers.LIMIT = before
    assert " s for 2 bytes" in tally.failures[1]
    if sys.platform == "linux":
        one._read["schema"] = lambda _: bytearray(b"x") * (readers.SLACK * 2) and None
        one.judge("schema", b"x", 3, tally)
        assert " bytes of 1" in tally.failures[2]
