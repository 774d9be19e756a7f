"""Experiments in cells, and the published table and figures in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.processes import Started

from virtualtb_fast import cli
from virtualtb_fast.errors import InvalidArgumentError, OutputError
from virtualtb_fast.evaluation.cells import Cell, _read, mean_and_interval, run_cells
from virtualtb_fast.evaluation.reproduce import figure3, table1

DONE: list[int] = []


def square(number: int) -> dict[str, Any]:
    DONE.append(number)
    if number < 0:
        raise InvalidArgumentError(f"number: expected none below 0, got {number}")
    return {"square": number * number}


def cells(*numbers: int) -> list[Cell]:
    return [Cell(f"square-{number}", square, {"number": number}) for number in numbers]


def test_a_cell_of_other_settings_is_another(tmp_path: Path) -> None:
    DONE.clear()
    for settings in ("steps=1", "steps=1", "steps=2", ""):
        run_cells(tmp_path, [Cell("square-2", square, {"number": 2}, settings)])
    assert DONE == [2, 2, 2]


def test_cells_are_done_once(tmp_path: Path) -> None:
    DONE.clear()
    told: list[tuple[str, int, int]] = []
    assert run_cells(tmp_path, cells(2, 3), progress=lambda *words: told.append(words)) == [
        {"square": 4},
        {"square": 9},
    ]
    assert told == [("square-2", 0, 2), ("square-3", 1, 2)]
    assert run_cells(tmp_path, cells(3, 4, 2)) == [{"square": 9}, {"square": 16}, {"square": 4}]
    assert DONE == [2, 3, 4]
    # Where things are changes no result.
    run_cells(tmp_path, [Cell("square-2", square, {"number": 2}, places={"folder": "elsewhere"})])
    # Damaged, and of other arguments: done again.
    (tmp_path / "square-2.json").write_text("{")
    run_cells(tmp_path, [*cells(2), Cell("square-3", square, {"number": 5})])
    assert DONE == [2, 3, 4, 2, 5]


def test_a_cell_that_was_altered_is_done_again(tmp_path: Path) -> None:
    """Every cut and every flip; a reader that compares no digest would take some of the latter."""
    DONE.clear()
    (asked,) = cells(12)
    (expected,) = run_cells(tmp_path, [asked])
    path = tmp_path / "square-12.json"
    good = path.read_bytes()
    parsed = fooled = 0
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert _read(tmp_path, asked) is None, length
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        parsed += _read(tmp_path, asked) == expected
        try:
            held = json.loads(bytes(changed))
        except ValueError:
            continue
        # Spaces between the parts are no content.
        assert _read(tmp_path, asked) in (None, expected), bit
        fooled += held.get("key") == asked.key and held.get("result") not in (None, expected)
    assert fooled > 5
    assert parsed < 5
    assert DONE == [12]
    for content in ({"key": asked.key}, {"key": asked.key, "result": [3]}, [asked.key]):
        path.write_text(json.dumps(content))
        assert _read(tmp_path, asked) is None
    # A cell of before there were digests.
    path.write_text(json.dumps({"key": asked.key, "result": expected}))
    assert run_cells(tmp_path, [asked]) == [expected]
    assert DONE == [12]
    path.write_text(json.dumps({"key": asked.key, "result": None}))
    assert run_cells(tmp_path, [asked]) == [expected]
    assert DONE == [12, 12]
    assert path.read_bytes() == good


def test_two_runs_of_one_folder_are_refused(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from virtualtb_fast.evaluation.cells import Cell, run_cells\n"
        "def hold(*_):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
        "run_cells(sys.argv[1], [Cell('slow', dict)], progress=hold)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with Started(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = rf"expected no other run at work on it, got one \(process {holder.pid}\)"
        DONE.clear()
        with pytest.raises(OutputError, match=message):
            run_cells(tmp_path, cells(2))
        assert DONE == []
        holder.kill()
    # The lock goes with the process, and with the run.
    assert run_cells(tmp_path, cells(2)) == run_cells(tmp_path, cells(2)) == [{"square": 4}]


def test_what_was_done_before_an_error_stays(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="got -1"):
        run_cells(tmp_path, cells(2, -1, 3))
    DONE.clear()
    with pytest.raises(InvalidArgumentError):
        run_cells(tmp_path, cells(2, -1, 3))
    assert DONE == [-1]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run_cells(tmp_path / "file", cells(1))


def test_intervals_are_students() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [1.0, 2.5, 2.0, 4.0, 3.0]
    mean, half = mean_and_interval(values)
    low, high = stats.t.interval(
        0.95, 4, np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    )
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-3)
    assert mean_and_interval([3.0]) == (3.0, 0.0)


def test_table1_in_small_has_its_guard(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    found = table1(tmp_path, worlds=[0], samplers=["fresh", "rows"], size=4_000)
    rows = {name: {key: value[0] for key, value in row.items()}
            for name, row in found["rows"].items()}  # fmt: skip
    assert list(rows) == ["fresh", "rows", "independent"]
    assert rows["independent"]["ratio_pair"] == 1.0
    assert rows["rows"]["ratio_pair"] < 0.6
    assert rows["independent"]["auc"] > 0.7 > 0.58 > rows["fresh"]["auc"]
    # Copies of logged customers look right in every way but this.
    (copies,) = (cell for cell in found["cells"] if cell["sampler"] == "rows")
    assert copies["novel_unique"] == 0.0
    assert {path.name for path in tmp_path.iterdir()} == {
        "cells", "table1.json", "table1.md", "table1.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "table1.json").read_text()) == found
    table = (tmp_path / "table1.md").read_text()
    assert f"{rows['rows']['auc']:.4f}" in table
    # Figure 3 takes what is there.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    drawn = figure3(tmp_path, worlds=[0], samplers=["rows"], size=4_000)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    assert before == after
    for field in drawn["fields"]:
        assert sum(field["shares"]["real"]) == pytest.approx(1.0)
        gap = np.abs(np.array(field["shares"]["rows"]) - field["shares"]["real"]).sum() / 2
        assert gap < 0.1


def test_the_command_refuses_what_there_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", "table1", "--out", str(tmp_path), "--samplers", "best"]) == 2
    assert "best" in capsys.readouterr().err
    assert cli.main(["report", "figure5", "--out", str(tmp_path), "--effort", "0"]) == 2
    assert "above 0" in capsys.readouterr().err
    assert cli.main(["report", "table2", "--out", str(tmp_path), "--methods", "sac"]) == 2
    assert "sac" in capsys.readouterr().err
    for name in ("fidelity", "responses", "table1", "table2", "figure3", "figure4", "figure5"):
        assert cli.main(["report", name, "--help"]) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
