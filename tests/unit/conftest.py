"""Logs of somebody's own to read, check and learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VISITS = """\
format = "virtualtb_fast.log_schema"
version = 1

[rows]
session = "visit"
page = "page_no"
first_page = 1

[customer]
categorical = ["gender", "city"]
numeric = ["age"]

[action]
columns = ["w0", "w1", "w2"]
low = -6
high = 6

[feedback]
clicks = "clicks"
second = "orders"
leave = "left"
"""
"""The schema of `visits`."""


def visits(sessions: int = 60, seed: int = 0) -> dict[str, Any]:
    """The columns of a shop's log, one list or array a column, rows in order."""
    draws = np.random.default_rng(seed)
    lengths = draws.integers(1, 6, sessions)
    rows = int(lengths.sum())
    visit = np.repeat(np.arange(sessions), lengths)
    page = np.concatenate([np.arange(1, length + 1) for length in lengths])
    gender = np.array(["f", "m", None], object)[draws.integers(0, 3, sessions)]
    age = np.where(draws.random(sessions) < 0.1, np.nan, draws.normal(40, 10, sessions))
    weights = draws.normal(size=(rows, 3)).astype(np.float32)
    left = np.append(visit[1:] != visit[:-1], True)
    return {
        "visit": [f"visit-{number:05}" for number in visit],
        "page_no": page.astype(np.int32),
        "gender": gender[visit].tolist(),
        "city": draws.integers(0, 5, sessions)[visit],
        "age": age[visit],
        "w0": weights[:, 0],
        "w1": weights[:, 1],
        "w2": weights[:, 2].astype(np.float64),
        "clicks": draws.poisson(0.5, rows).clip(0, 10).astype(np.uint8),
        "orders": draws.binomial(1, 0.1, rows),
        "left": left,
    }


@pytest.fixture
def own() -> Callable[..., dict[str, Any]]:
    """`visits`."""
    return visits


@pytest.fixture
def own_schema(tmp_path: Path) -> Path:
    """The schema file of `visits`."""
    path = tmp_path / "visits.toml"
    path.write_text(VISITS)
    return path


@pytest.fixture
def parquet_file(tmp_path: Path) -> Callable[..., str]:
    """Writes columns to a Parquet file."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(columns: Any, name: str = "visits.parquet", **options: Any) -> str:
        table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
        parquet.write_table(table, tmp_path / name, **options)
        return str(tmp_path / name)

    return write
