"""The short form of ``make fuzz`` for what Python reads; ``files.rs`` has that of the core."""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from virtualtb_fast.customers.table import Table
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError
from virtualtb_fast.records import LogSchema

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
    """Void guard: other errors, work without end and, where the system tells, a lot of memory."""
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
    if one.peak.can:
        # Far more than what a process of many tests may give back meanwhile.
        gc.collect()
        one._read["schema"] = lambda _: bytearray(b"x") * (readers.SLACK * 8) and None
        one.judge("schema", b"x", 3, tally)
        assert " bytes of 1" in tally.failures[2]


def test_a_mutator_in_vain_is_seen(readers: ModuleType) -> None:
    """Void guard: of many files, not of few."""
    for tally in (readers.Tally(files=400, work=400), readers.Tally(files=400)):
        with pytest.raises(AssertionError, match="of 400 files"):
            readers.require_fates("json", tally)
    readers.require_fates("json", readers.Tally(files=399, work=399))


SCHEMA = """\
format = "virtualtb_fast.log_schema"
version = 1
rows = { session = "s" }
customer = { numeric = ["age"] }
action = { columns = ["w"], low = LOW, high = 1 }
feedback = { bought = "order" }
"""


@pytest.mark.parametrize(
    "low", ["nan", "-inf", "-" + "9" * 400, "9" * 5000, "[" * 5000], ids=lambda low: low[:4]
)
def test_numbers_that_no_float_holds_are_refused_in_schema_files(tmp_path: Path, low: str) -> None:
    path = tmp_path / "log.toml"
    path.write_text(SCHEMA.replace("LOW", "-1"))
    LogSchema.load(path)
    path.write_text(SCHEMA.replace("LOW", low))
    with pytest.raises(FileFormatError, match=r"log\.toml: .*expected"):
        LogSchema.load(path)
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(FileFormatError, match="at most 1,048,576 bytes"):
        LogSchema.load(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"atoms": [1.0, "2"]}, "atoms"),
        ({"atoms": [2.0, 1.0]}, "atoms"),
        ({"atoms": [1.0, 10**400]}, "atoms"),
        ({"edges": [[0.0, 1.0]]}, "edges"),
        ({"edges": [[{}] * 9]}, "edges"),
        ({"atoms": [], "edges": []}, "codes"),
        ({"missing": 1}, "missing"),
        ({"name": ["age"]}, "name"),
    ],
)
def test_columns_that_could_not_be_are_refused(change: dict[str, object], what: str) -> None:
    """What no one counts or samples would fail later, in the middle of a computation."""
    good = Table.of({"age": [1.0, 2.0, 3.0] * 9}, numeric=["age"])
    held = json.loads(good.to_json())
    assert Table.from_json(json.dumps(held)) == good
    with pytest.raises(InvalidArgumentError, match=what):
        Table.from_json(json.dumps([held[0] | change]))
    cities = Table.of({"city": ["a", "b", "a"]})
    held = json.loads(cities.to_json())
    for wrong in ({"shares": [0.0, 0.0]}, {"shares": ["1", 1]}, {"values": ["a", "a"]}):
        with pytest.raises(InvalidArgumentError):
            Table.from_json(json.dumps([held[0] | wrong]))
