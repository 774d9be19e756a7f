"""Figures 4 and 5 in small: simulators are fitted, played and compared, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtualtb_fast.evaluation.cells import run_cells
from virtualtb_fast.evaluation.reproduce import figure4, figure5
from virtualtb_fast.evaluation.reproduce.simulators import part_cell

pytest.importorskip("torch")
pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

QUICK = {"customers": "rows", "responses": "linear", "effort": 0.05}


def test_figure4_in_small(tmp_path: Path) -> None:
    found = figure4(tmp_path, worlds=[0], sessions=8_000, **QUICK)
    assert set(found["rows"]) == {"simulator", "fresh", "blind"}
    # The guard of spec T6.2 knows no feature.
    assert found["rows"]["blind"]["spearman"][0] == 0.0
    assert found["rows"]["fresh"]["spearman"][0] > 0.5
    (cell,) = found["cells"]
    assert abs(cell["r2p"]["real"] - 0.09) < 0.01
    assert (tmp_path / "figure4.png").read_bytes().startswith(b"\x89PNG")


def test_figure5_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = figure5(tmp_path, worlds=[0], sessions=400, **QUICK)
    (day,) = found["days"]
    hours = day["hours"]
    assert [len(hours["rate"][name]) for name in ("real", "fresh", "simulator", "pooled")] == [
        12, 12, 12, 12,
    ]  # fmt: skip
    assert len(list((tmp_path / "cells").iterdir())) == 13
    # One cell is missing: it alone is done, to the same figures.
    (tmp_path / "cells" / "part-0-3-rows-linear.json").unlink()
    asked: list[int | None] = []

    def counted(folder, cells, **options):
        asked.extend(cell.arguments["part"] for cell in cells
                     if not (Path(folder) / f"{cell.name}.json").exists())  # fmt: skip
        return run_cells(folder, cells, **options)

    monkeypatch.setattr("virtualtb_fast.evaluation.reproduce.simulators.run_cells", counted)
    again = figure5(tmp_path, worlds=[0], sessions=400, **QUICK)
    assert asked == [3]
    assert again["rows"] == found["rows"]


def test_processes_change_nothing(tmp_path: Path) -> None:
    from virtualtb_fast.evaluation.cells import Cell

    arguments = {"world": 0, "sessions": 300, **QUICK}
    cells = [Cell(f"part-{part}", part_cell, {"part": part, **arguments}) for part in (0, 1)]
    spread = run_cells(tmp_path / "two", cells, workers=2)
    alone = run_cells(tmp_path / "one", cells, workers=1)
    for one, other in zip(spread, alone, strict=True):
        assert one.pop("fit_seconds") > 0 < other.pop("fit_seconds")
        assert one == other
