"""Logs of other forms than a table with a column for everything: lists, named outcomes, frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from virtualtb_fast.errors import (  # noqa: E402
    FileFormatError,
    InvalidArgumentError,
    OutputError,
)
from virtualtb_fast.records import LogSchema, check_log  # noqa: E402

Own = Callable[..., dict[str, Any]]


def outcomes(rows: int = 900) -> dict[str, Any]:
    draws = np.random.default_rng(2)
    result = draws.choice(["next", "order", "exit"], rows, p=[0.6, 0.1, 0.3])
    result[-1] = "exit"
    return {
        "visit": np.concatenate(([0], np.cumsum(result != "next")[:-1])),
        "kind": np.zeros(rows, int),
        "weights": draws.normal(size=(rows, 4)).tolist(),
        "result": result,
    }


OUTCOMES = LogSchema.from_dict(
    {
        "format": "virtualtb_fast.log_schema",
        "version": 1,
        "rows": {"session": "visit"},
        "customer": {"categorical": ["kind"]},
        "action": {"columns": ["weights"]},
        "feedback": {"outcome": "result", "turn": "next", "buy": "order", "leave": "exit"},
    }
)


def test_lists_of_actions_and_named_outcomes(parquet_file: Callable[..., str]) -> None:
    columns = outcomes()
    report = check_log(parquet_file(columns), OUTCOMES)
    assert report.errors == ()
    result = columns["result"]
    assert report.summary["outcomes"] == {
        "turn": int((result == "next").sum()),
        "buy": int((result == "order").sum()),
        "leave": int((result == "exit").sum()),
        "max_pages": 0,
    }
    assert report.sessions == int((result != "next").sum())


def test_bad_lists_and_strange_outcomes(parquet_file: Callable[..., str]) -> None:
    columns = outcomes()
    columns["weights"][5] = [1.0, 2.0, 3.0]
    columns["weights"][6] = None
    columns["weights"][7] = [1.0, None, 3.0, float("inf")]
    columns["result"] = columns["result"].astype(object)
    columns["result"][8] = "sale"
    report = check_log(parquet_file(columns), OUTCOMES)
    found = {(one.kind, one.column): one for one in report.errors}
    assert found["wrong-length", "weights"].rows == (5,)
    assert "expected 4 numbers, got 3" in found["wrong-length", "weights"].message
    assert found["missing-value", "weights"].rows == (6,)
    assert found["not-finite", "weights[1]"].rows == (7,)
    assert found["not-finite", "weights[3]"].rows == (7,)
    assert found["unseen-category", "result"].rows == (8,)
    assert "expected one of 'next', 'order', 'exit'" in found["unseen-category", "result"].message


def test_frames_and_dictionaries(own: Own, own_schema: Path) -> None:
    table = pyarrow.table(own())
    columns = [
        column.dictionary_encode() if name in ("visit", "gender", "city") else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    coded = pyarrow.table(columns, names=table.column_names)
    expected = check_log(table, own_schema).to_dict()
    assert check_log(coded, own_schema).to_dict() == expected
    reader = pyarrow.RecordBatchReader.from_batches(table.schema, table.to_batches(11))
    assert check_log(reader, own_schema).to_dict() | {"source": ""} == expected | {"source": ""}


def test_what_is_no_log(tmp_path: Path, own: Own, own_schema: Path) -> None:
    for thing in (3, None, {"a": [1]}):
        with pytest.raises(InvalidArgumentError, match="logs: expected a Parquet file"):
            check_log(thing, own_schema)
    path = tmp_path / "visits.parquet"
    with pytest.raises(OutputError, match=r"visits\.parquet"):
        check_log(path, own_schema)
    path.write_text("visit,page\n1,1\n")
    with pytest.raises(FileFormatError, match=r"visits\.parquet: expected a Parquet file"):
        check_log(path, own_schema)
    parquet.write_table(pyarrow.table(own(3_000)), path)
    with pytest.raises(FileFormatError, match=r"visits\.parquet: .* logs schema drafts one"):
        check_log(path)
    data = bytearray(path.read_bytes())
    data[2_000:12_000] = bytes(10_000)
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"visits\.parquet"):
        check_log(path, own_schema)
