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
from virtualtb_fast.evaluation import machine
from virtualtb_fast.evaluation.cells import Cell, _read, mean_and_interval, run_cells
from virtualtb_fast.evaluation.reproduce import figure3, table1
from virtualtb_fast.evaluation.reproduce.parts import about, markdown, row

ROOT = Path(__file__).parents[2]
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
    # Of a single run nothing is known; runs that agree have an interval, of no width.
    assert mean_and_interval([3.0]) == (3.0, None)
    assert mean_and_interval([3.0, 3.0]) == (3.0, 0.0)


def test_what_a_single_run_does_not_tell_is_not_shown() -> None:
    titles = {"error": "error", "rank": "rank"}
    one, two = (row([{"error": value} for value in values], ["error", "rank"])
                for values in ([0.5], [0.5, 0.5]))  # fmt: skip
    table = markdown({"one": one, "two": two}, titles)
    assert "| one | 0.5000 |  |" in table
    assert "| two | 0.5000 ± 0.0000 |  |" in table


def test_results_name_the_code_and_the_machine() -> None:
    found = about([0], size=3)
    assert found["commit"] == machine.commit()
    assert found["machine"] == machine.machine()
    assert {"virtualtb_fast", "numpy", "python", "machine"} <= set(found["versions"])
    json.dumps(found, allow_nan=False)


def test_the_commit_is_that_of_this_codes_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    code, result = tmp_path / "code.py", tmp_path / "benches" / "results" / "a.json"
    result.parent.mkdir(parents=True)
    for file in (code, result):
        file.write_text("1")
    monkeypatch.setattr(machine, "__file__", str(code))
    assert machine.commit() is None
    try:
        git("init", "--quiet")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    # Code that lies in somebody's checkout and is not of it, as environments often do.
    assert machine.commit() is None
    git("add", "code.py", "benches")
    git("commit", "--quiet", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert len(head) == 40
    assert machine.commit() == head
    (tmp_path / "new.py").write_text("")
    result.write_text("2")
    assert machine.commit() == head
    code.write_text("2")
    assert machine.commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit() is None


def test_the_bench_of_fits_names_the_commit(tmp_path: Path) -> None:
    program = (
        "import sys, benches.fits as fits\n"
        "fits.scale = lambda pages, *_: {'seconds': float(pages)}\n"
        "fits.published = lambda *_: {'fits': {}}\n"
        "fits.keep_page = lambda *_: None\n"
        "fits.main()\n"
    )
    out = tmp_path / "fits.json"
    for words in (["scale", "--pages", "7"], ["published", "--published", "x"]):
        words += ["--work", str(tmp_path), "--json", str(out)]
        subprocess.run([sys.executable, "-c", program, *words], check=True, cwd=ROOT)
    found = json.loads(out.read_text())
    for held in (found, found["published"], found["scale"]["7"]):
        assert held["commit"] == machine.commit()
    assert found["machine"] == machine.machine()
    assert found["scale"]["7"]["seconds"] == 7


def test_table1_in_small_has_its_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert f"{rows['rows']['auc']:.4f} |" in table
    # One world has no interval, in neither file.
    assert "±" not in table
    assert {value[1] for row in found["rows"].values() for value in row.values()} == {None}
    # The released networks are not here: the command says so.
    assert "published" not in rows
    monkeypatch.delenv("VIRTUALTB_DATA", raising=False)
    words = ["--worlds", "0", "--samplers", "fresh", "rows", "--size", "4000", "--workers", "1"]
    assert cli.main(["report", "table1", "--out", str(tmp_path), *words]) == 0
    assert "published generator is left out" in capsys.readouterr().out
    with pytest.raises(OutputError):
        table1(tmp_path, worlds=[0], samplers=["rows"], size=4_000, published=tmp_path / "none")
    # Figure 3 takes what is there.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    drawn = figure3(tmp_path, worlds=[0], samplers=["rows"], size=4_000)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    assert before == after
    for field in drawn["fields"]:
        assert sum(field["shares"]["real"]) == pytest.approx(1.0)
        gap = np.abs(np.array(field["shares"]["rows"]) - field["shares"]["real"]).sum() / 2
        assert gap < 0.1
    cell = json.loads((tmp_path / "cells" / "customers-0-rows.json").read_text())["result"]
    for place, key in (("rows", "marginal_kl"), ("rows_back", "marginal_kl_back")):
        assert [value[0] for value in drawn[place]["rows"].values()] == cell[key]
    assert drawn["rows"] != drawn["rows_back"]
    text = (tmp_path / "figure3.md").read_text()
    assert text.index("KL(real || generated)") < text.index("KL(generated || real)")


def test_the_released_generator_meets_none_of_the_bounds(
    tmp_path: Path, published_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fields are independent, so it is held against the guard, and no better."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    settings: dict[str, Any] = {"worlds": [0], "samplers": ["fresh"], "size": 20_000}
    found = table1(tmp_path, **settings, published=published_folder)
    assert list(found["rows"]) == ["fresh", "published", "independent"]
    rows = {name: {key: value[0] for key, value in row.items()}
            for name, row in found["rows"].items()}  # fmt: skip
    released, fresh = rows["published"], rows["fresh"]
    assert released["worst_kl"] > 0.001
    assert released["ratio_pair"] > 1 > 0.2 > fresh["ratio_pair"]
    assert released["ratio_triple"] > 1
    assert released["ratio_excess"] > 1 > 0.2 > fresh["ratio_excess"]
    assert released["auc"] > 0.8 > 0.56 > fresh["auc"]
    assert "cpu_seconds" not in released
    assert "meets none" in found["notes"][0]
    cell = next(cell for cell in found["cells"] if cell["sampler"] == "published")
    # The aim is .5 nat.
    assert cell["noise_information"]["fields"] < 0.05
    # Where the files are changes no cell; the command finds them by itself.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    monkeypatch.setenv("VIRTUALTB_DATA", str(published_folder.parent))
    words = ["--worlds", "0", "--samplers", "fresh", "--size", "20000", "--workers", "1"]
    assert cli.main(["report", "table1", "--out", str(tmp_path), *words]) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    assert before == after
    assert json.loads((tmp_path / "table1.json").read_text())["rows"] == json.loads(
        json.dumps(found["rows"])
    )


def real_cell(table: str, seed: int, sampler: str, pair: float) -> dict[str, Any]:
    return {
        "sampler": sampler,
        "data": f"{table}-{seed}",
        "seed": seed,
        "train": 800,
        "generated": 800,
        "marginal_kl": [0.1, 0.2 + seed],
        "marginal_kl_back": [0.3, 0.2],
        "pair_kl": pair,
        "auc": 0.5 + seed / 10,
        "novel_rows": 1.0,
        "report": {"data": "of customers"},
    }


def test_cells_of_real_customers_are_put_together(tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    cells.mkdir()
    for seed, pair in ((1, 3.0), (2, 8.0)):
        for sampler, share in (("independent", 2.0), ("fresh", 1.0), ("gan-sd", 0.5)):
            cell = real_cell("kuai-rand", seed, sampler, pair * share)
            if (seed, sampler) != (2, "gan-sd"):
                (cells / f"kuai-rand-{seed}-{sampler}.json").write_text(json.dumps(cell))
    out = tmp_path / "real.json"
    words = ["-m", "benches.customers", "--cells", str(cells), "--json", str(out)]
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT, capture_output=True)
    found = json.loads(out.read_text())
    assert found["commit"] == machine.commit()
    rows = found["tables"]["kuai-rand"]["rows"]
    assert list(rows) == ["fresh", "gan-sd", "independent"]
    assert rows["fresh"]["ratio_pair"] == [0.5, 0.0]
    assert rows["gan-sd"]["by_seed"]["ratio_pair"] == {"1": 0.25}
    assert (rows["gan-sd"]["seeds"], rows["independent"]["seeds"]) == ([1], [1, 2])
    assert rows["independent"]["ratio_pair"] == [1.0, 0.0]
    assert rows["fresh"]["field_kl"][0] == pytest.approx(1.7)
    assert rows["fresh"]["field_kl_back"] == pytest.approx([0.3, 0.0])
    assert rows["fresh"]["by_seed"]["auc"] == {"1": 0.6, "2": 0.7}
    # Figures alone: nothing of the customers, nor of what was fitted to them.
    assert "of customers" not in out.read_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    words[3] = str(empty)
    ran = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "expected cells" in ran.stderr


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
