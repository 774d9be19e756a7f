"""The reports in small: simulators are fitted, played and compared, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtualtb_fast import cli
from virtualtb_fast.errors import InvalidArgumentError, OutputError
from virtualtb_fast.evaluation.cells import run_cells
from virtualtb_fast.evaluation.reproduce import figure4, figure5, responses, simulators, table2
from virtualtb_fast.evaluation.reproduce.simulators import part_cell
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import GroundTruthStore

pytest.importorskip("torch")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("matplotlib")

QUICK = {"customers": "rows", "responses": "linear", "effort": 0.05}


def test_responses_in_small(tmp_path: Path) -> None:
    found = responses(
        tmp_path, worlds=[0], methods=["linear", "mail"], sessions=2_000, iterations=1
    )
    rows = {name: {key: mean for key, (mean, _) in row.items()}
            for name, row in found["rows"].items()}  # fmt: skip
    assert list(rows) == ["linear", "mail", "guard", "feature_blind", "fresh"]
    assert rows["guard"]["effect"] == 0.0
    # The same table that does not know the customer, under both policies.
    assert rows["feature_blind"]["distance"] == rows["guard"]["distance"]
    assert rows["feature_blind"]["shifted"] < rows["guard"]["shifted"]
    (linear, _) = found["cells"]
    assert rows["linear"]["excess"] == linear["excess_likelihood"]["learned"]
    assert rows["guard"]["excess"] == linear["excess_likelihood"]["constant"]
    # Customers who buy, or leave, more than those that were learned.
    assert rows["guard"]["logger"] > rows["linear"]["logger"] + 0.002
    assert rows["guard"]["length"] < rows["linear"]["length"] - 0.05
    # One iteration from random weights teaches nothing of actions.
    assert abs(rows["mail"]["effect"]) < 0.2
    table = (tmp_path / "responses.md").read_text()
    assert f"{rows['linear']['excess']:.4f}" in table
    assert (tmp_path / "responses.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidArgumentError, match="methods: expected bc, linear"):
        responses(tmp_path, methods=["guess"])


def test_figure4_in_small(tmp_path: Path) -> None:
    found = figure4(tmp_path, worlds=[0], sessions=8_000, **QUICK)
    assert set(found["rows"]) == {"simulator", "fresh", "blind"}
    # The guard knows no feature.
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
    assert len(list((tmp_path / "cells").glob("*.json"))) == 14
    # The real day is none that a simulator has seen: counted as it is, the log is another one.
    store, logged = GroundTruthStore(hour="uniform"), []
    for part in range(12):
        simulators._day(store, 0, part, 400, tmp_path / "log.parquet")
        logged.append(pq.ParquetFile(tmp_path / "log.parquet").metadata.num_rows)
    seen = simulators._true(store, 400 * 12, simulators._seed(0, simulators._LOG))
    assert logged == seen.by_slice[0].tolist()
    assert logged != hours["pages"]
    rates = hours["rate"]
    assert rates["real"] != (seen.by_slice[1] / seen.by_slice[0]).tolist() != rates["fresh"]
    assert rates["real"] != rates["fresh"]
    # One cell is missing: it alone is done, to the same figures.
    (tmp_path / "cells" / "part-0-3-rows-linear.json").unlink()
    asked: list[int | str | None] = []

    def counted(folder, cells, **options):
        asked.extend(cell.arguments.get("part", "true") for cell in cells
                     if not (Path(folder) / f"{cell.name}.json").exists())  # fmt: skip
        return run_cells(folder, cells, **options)

    monkeypatch.setattr("virtualtb_fast.evaluation.reproduce.simulators.run_cells", counted)
    again = figure5(tmp_path, worlds=[0], sessions=400, **QUICK)
    assert asked == [3]
    assert again["rows"] == found["rows"]


def test_figure5_with_a_warm_start_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted, fits = simulators._fitted, []
    stop_at: list[int] = []

    def counted(log, *given):
        if len(fits) in stop_at:
            raise KeyboardInterrupt
        fits.append(None if given[-1] is None else given[-1].digest)
        return fitted(log, *given)

    monkeypatch.setattr(simulators, "_fitted", counted)
    given = {"worlds": [0], "sessions": 200, "warm": True, **QUICK}
    told: list[tuple[int, int]] = []
    whole = figure5(tmp_path / "whole", **given, progress=lambda _, *now: told.append(now))
    # The guard, and the first part, start from nothing; the others from the part before.
    assert len(fits) == 13
    kept = {}
    for path in (tmp_path / "whole" / "cells").glob("*.safetensors"):
        kept[int(path.name.split("-")[2])] = Simulator.load(path)
    assert sorted(kept) == list(range(12))
    assert fits == [None, None, *(kept[part].digest for part in range(11))]
    starts = [kept[part].provenance["fit"].get("warm_start") for part in range(12)]
    assert starts == fits[1:]
    assert told == [(done, 14) for done in range(14)]
    assert whole["settings"]["warm"] is True
    # Killed in the fifth part: four of them, and the guard, are not done again.
    fits.clear()
    out, stop_at[:] = tmp_path / "killed", [5]
    with pytest.raises(KeyboardInterrupt):
        figure5(out, **given)
    assert len(fits) == 5
    assert not (out / "figure5-warm.json").exists()
    fits.clear()
    stop_at.clear()
    again = figure5(out, **given)
    assert fits == [kept[part].digest for part in range(3, 11)]
    assert (again["rows"], again["days"]) == (whole["rows"], whole["days"])
    # A simulator is gone: it alone is fitted again, to the same bits.
    fits.clear()
    (gone,) = (out / "cells").glob("warm-0-6-*.safetensors")
    before = gone.read_bytes()
    gone.unlink()
    assert figure5(out, **given)["days"] == whole["days"]
    assert fits == [kept[5].digest]
    assert gone.read_bytes() == before
    # The other mode has cells of its own, but for the guard and the truth, and files of its own.
    fits.clear()
    stop_at[:] = [12]
    report = (out / "figure5-warm.json").read_bytes()
    cold = figure5(out, **{**given, "warm": False})
    assert fits == [None] * 12
    assert cold["settings"]["warm"] is False
    hours, others = cold["days"][0]["hours"]["rate"], whole["days"][0]["hours"]["rate"]
    for name in ("real", "fresh", "pooled"):
        assert hours[name] == others[name]
    # The first part starts from nothing in both.
    assert hours["simulator"][0] == others["simulator"][0]
    assert hours["simulator"][1:] != others["simulator"][1:]
    assert (out / "figure5-warm.json").read_bytes() == report
    # The command finds what is there.
    fits.clear()
    words = ["report", "figure5", "--out", str(out), "--worlds", "0", "--sessions", "200", "--warm"]
    words += [word for key, value in QUICK.items() for word in (f"--{key}", str(value))]
    assert cli.main(words) == 0
    assert fits == []
    assert f"{out}/figure5-warm.json" in capsys.readouterr().out
    with pytest.raises(InvalidArgumentError, match=r"warm: expected responses out of .*'mail'"):
        figure5(out, **{**given, "responses": "mail"})


def test_table2_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"worlds": [0], "methods": ["bc", "bc+mail"], "sessions": 3_000, "effort": 0.01}
    found = table2(tmp_path, **given)
    rows = {name: {key: mean for key, (mean, _) in row.items()}
            for name, row in found["rows"].items()}  # fmt: skip
    assert list(rows) == ["bc", "bc+mail", "zero", "logger", "blind"]
    for row in rows.values():
        for side in ("simulator", "truth"):
            assert row[f"{side}_drop"] == pytest.approx(row[f"{side}_0"] - row[f"{side}_30"])
        assert row["truth_over_zero"] == pytest.approx(row["truth_30"] - rows["zero"]["truth_30"])
    # The zero action's are exact, those of the random engine on other sessions are nothing.
    for day in (0, 1, 7, 30):
        store = GroundTruthStore(day=day)
        lift = store.expected("zero").r2p / store.expected("logger").r2p - 1
        assert rows["zero"][f"truth_{day}"] == pytest.approx(100 * lift)
        assert abs(rows["logger"][f"truth_{day}"]) < 6
    # What three iterations teach is nothing, whoever teaches it.
    assert abs(rows["blind"]["truth_0"] - rows["zero"]["truth_0"]) < 6
    note, plateau = found["notes"]
    assert plateau == "0 of 2 policies were trained to a plateau."
    fits = [fit["fits"]["bc+mail"]["report"]["steps"] for fit in found["fits"]]
    assert f"took steps in {sum(steps > 0 for steps in fits)} of 4 fits" in note
    table = (tmp_path / "table2.md").read_text()
    assert note in table
    assert f"{rows['bc']['truth_30']:.2f}" in table
    assert (tmp_path / "table2.png").read_bytes().startswith(b"\x89PNG")
    # A simulator is gone, and a policy's figures are: these alone are done again, to the same.
    one = found["fits"][1]["fits"]["bc"]["digest"]
    next((tmp_path / "simulators").glob(f"0-1-{one[:16]}*")).unlink()
    (tmp_path / "cells" / "policy-0-zero.json").unlink()
    asked: list[str] = []

    def counted(folder, cells, **options):
        asked.extend(cell.name for cell in cells
                     if not (Path(folder) / f"{cell.name}.json").exists())  # fmt: skip
        return run_cells(folder, cells, **options)

    monkeypatch.setattr("virtualtb_fast.evaluation.reproduce.drift.run_cells", counted)
    again = table2(tmp_path, **given)
    assert asked == ["fit-0-1-bc", "policy-0-zero"]
    assert again["rows"] == found["rows"]
    with pytest.raises(InvalidArgumentError, match="bc, mail"):
        table2(tmp_path, methods=["bc", "best"])
    with pytest.raises(OutputError):
        table2(tmp_path / "table2.md", **given)


def test_methods_with_the_same_simulators_share_a_row(tmp_path: Path) -> None:
    from virtualtb_fast.evaluation.reproduce import drift

    fits = [
        {"world": 0, "day": day, "mu": 0.1, "fits": {
            "bc": {"digest": f"a{day}"}, "bc+mail": {"digest": f"a{day}"},
            "mail": {"digest": f"b{day}"},
        }}
        for day in drift.DAYS
    ]  # fmt: skip
    asked: list[str] = []

    def told(folder, cells, **options):
        asked.extend(cell.name for cell in cells)
        return [{"name": cell.name} for cell in cells]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "run_cells", told)
        rows = drift._policies(tmp_path, [0], drift.TABLE2, fits, {}, {})
    assert asked == ["policy-0-bc", "policy-0-mail", *(f"policy-0-{name}" for name in
                     ("zero", "logger", "blind"))]  # fmt: skip
    assert rows[0, "bc+mail"] is rows[0, "bc"]
    report = {"steps": 3, "best_iteration": 0}
    fits = [{"fits": {"bc+mail": {"report": report}}}] * 4
    (note,) = drift._notes(fits, ["bc", "bc+mail"])
    assert "steps in 4 of 4 fits (12 in all), of which 0 kept any" in note
    assert note.endswith("kept any: its simulators, and so its row, are those of bc.")


def test_processes_change_nothing(tmp_path: Path) -> None:
    from virtualtb_fast.evaluation.cells import Cell

    arguments = {"world": 0, "sessions": 300, **QUICK}
    cells = [Cell(f"part-{part}", part_cell, {"part": part, **arguments}) for part in (0, 1)]
    spread = run_cells(tmp_path / "two", cells, workers=2)
    alone = run_cells(tmp_path / "one", cells, workers=1)
    for one, other in zip(spread, alone, strict=True):
        assert one.pop("fit_seconds") > 0 < other.pop("fit_seconds")
        assert one == other
