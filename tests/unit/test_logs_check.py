"""What is wrong with a log: every kind of it, by file, column and row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import cli

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from virtualtb_fast.errors import (  # noqa: E402
    LogError,
)
from virtualtb_fast.records import Finding, LogReport, check_log  # noqa: E402

Own = Callable[..., dict[str, Any]]


def kinds(report: LogReport) -> dict[str, Finding]:
    return {finding.kind: finding for finding in report.findings}


def one(report: LogReport, kind: str) -> Finding:
    found = kinds(report)
    assert kind in found, found
    return found[kind]


@pytest.fixture
def check(own_schema: Path, parquet_file: Callable[..., str]) -> Callable[..., LogReport]:
    """Writes columns, checks the file with the schema of `visits`, changed as told."""

    def run(columns: dict[str, Any], *changes: tuple[str, str]) -> LogReport:
        text = own_schema.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        own_schema.write_text(text)
        return check_log(parquet_file(columns), own_schema)

    return run


def test_a_good_log_has_no_errors(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own(2_000)
    report = check(columns)
    assert report.findings == ()
    assert (report.rows, report.sessions) == (len(columns["clicks"]), 2_000)
    assert report.heads == "clicks"
    about = report.summary
    assert about["longest"] == 5
    assert about["clicks"] == np.bincount(columns["clicks"]).tolist()
    assert about["outcomes"]["leave"] == 2_000
    assert sum(about["outcomes"].values()) == report.rows
    by_name = {field["name"]: field for field in about["customer"]}
    assert by_name["gender"]["distinct"] == 2
    starts = np.append(True, np.diff([int(visit[-5:]) for visit in columns["visit"]]) > 0)
    assert by_name["age"]["missing"] == int(np.isnan(columns["age"][starts]).sum())
    assert about["action"]["dimensions"] == 3
    report.require()
    json.dumps(report.to_dict(), allow_nan=False)


def test_logs_of_this_package_are_good_as_they_are(
    tmp_path: Path, simulator: vtb.Simulator
) -> None:
    path = tmp_path / "log.parquet"
    played = vtb.rollout(simulator, sessions=1_000, seed=3, out=path)
    report = check_log(path)
    assert report.errors == ()
    assert (report.rows, report.sessions, report.heads) == (len(played), 1_000, "clicks")
    assert report.summary["clicks"] == np.bincount(played["clicks"]).tolist()
    assert check_log(played.log).to_dict() | {"source": ""} == report.to_dict() | {"source": ""}
    assert check_log(played.to_arrow()).rows == report.rows
    played = vtb.rollout(vtb.GroundTruthStore(seed=0), "logger", sessions=1_000)
    report = check_log(played.log)
    assert report.errors == ()
    assert report.heads == "outcome"
    counts = np.bincount(played["outcome"], minlength=4).tolist()
    assert list(report.summary["outcomes"].values()) == counts


def test_a_store_whose_customers_take_over_is_split(tmp_path: Path) -> None:
    store = vtb.GroundTruthStore(seed=0, leave="respawn")
    log = vtb.rollout(store, "logger", sessions=200).log
    report = check_log(log)
    assert report.errors == ()
    ended = (log["outcome"] != 0).sum()
    assert report.sessions == ended > 200


# --- what does not fit ------------------------------------------------------------------------


def test_missing_columns_are_named_with_what_comes_near(
    own: Own, check: Callable[..., LogReport]
) -> None:
    columns = own()
    columns["page_nr"] = columns.pop("page_no")
    del columns["w1"]
    report = check(columns)
    assert {(one.kind, one.column) for one in report.findings} == {
        ("missing-column", "page_no"),
        ("missing-column", "w1"),
    }
    hints = [one.hint for one in report.findings]
    assert any(hint and "page_nr" in hint for hint in hints)
    with pytest.raises(LogError, match=r"visits\.parquet: column 'page_no': .*named by .*toml"):
        report.require()


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("visit", lambda n: np.arange(n) / 2, "expected whole numbers or texts, got double"),
        ("page_no", lambda n: ["1"] * n, "expected numbers, got string"),
        ("gender", lambda n: [[1]] * n, "expected texts, whole numbers or flags, got list"),
        ("age", lambda n: ["old"] * n, "expected numbers, got string"),
        ("w1", lambda n: [True] * n, "expected numbers, got bool"),
        ("clicks", lambda n: ["two"] * n, "expected numbers or flags, got string"),
        ("left", lambda n: ["yes"] * n, "expected flags, or 0 and 1, got string"),
    ],
)
def test_wrong_types_are_named(
    own: Own, check: Callable[..., LogReport], column: str, values: Any, expected: str
) -> None:
    columns = own()
    columns[column] = values(len(columns["visit"]))
    found = one(check(columns), "wrong-type")
    assert found.column == column
    assert found.message.startswith(expected)


def spoil(columns: dict[str, Any], name: str, row: int, value: Any) -> None:
    values = list(columns[name])
    values[row] = value
    columns[name] = values


@pytest.mark.parametrize(
    ("column", "value", "kind", "message"),
    [
        ("visit", None, "missing-value", "expected a session, got none"),
        ("page_no", None, "missing-value", "expected a whole number, got none"),
        ("w1", None, "missing-value", "expected a number, got none"),
        ("w0", float("nan"), "not-finite", "expected a number, got NaN"),
        ("w1", float("inf"), "not-finite", "expected a finite number, got infinity"),
        ("w2", 1e300, "not-finite", "expected numbers that float32 can hold"),
        ("w2", 6.5, "out-of-range", "expected -6 to 6, got 6.5"),
        ("age", float("-inf"), "not-finite", "expected a finite number, got infinity"),
        ("clicks", -1, "out-of-range", "expected 0 to 10, got -1"),
        ("clicks", 11, "out-of-range", "expected 0 to 10, got 11"),
        ("clicks", None, "missing-value", "expected a whole number, got none"),
        ("clicks", 0.5, "not-whole", "expected a whole number, got 0.5"),
        ("clicks", float("nan"), "not-finite", "expected a number, got NaN"),
        ("orders", 256, "out-of-range", "expected 0 to 255, got 256"),
        ("left", None, "missing-value", "expected a whole number, got none"),
        ("page_no", 2**40, "out-of-range", "expected 0 to 2,147,483,648, got"),
        ("page_no", float("1e300"), "out-of-range", "expected 0 to"),
        ("city", 1.5, "not-whole", "expected whole numbers, got 1.5 .is it a numeric column"),
    ],
)
def test_a_bad_value_is_found_in_its_row(
    own: Own, check: Callable[..., LogReport], column: str, value: Any, kind: str, message: str
) -> None:
    columns = own()
    spoil(columns, column, 17, value)
    report = check(columns)
    found = [one for one in report.findings if one.kind == kind]
    assert found, report.findings
    named = {"w2": ("w2", "w0")}.get(column, (column,))
    assert found[0].column in named
    assert found[0].rows == (17,)
    assert found[0].count == 1
    assert found[0].message.startswith(message.split(" .")[0])
    with pytest.raises(LogError, match=r"visits\.parquet: column .* in row 17"):
        report.require()


def test_missing_customers_are_a_category_and_no_error(
    own: Own, check: Callable[..., LogReport]
) -> None:
    assert None in own()["gender"]
    assert check(own()).errors == ()


def test_unseen_categories(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    listed = ('numeric = ["age"]', 'numeric = ["age"]\n[customer.categories]\ngender = ["f", "d"]')
    found = one(check(columns, listed), "unseen-category")
    wrong = [row for row, value in enumerate(columns["gender"]) if value == "m"]
    assert found.column == "gender"
    assert found.count == len(wrong)
    assert found.rows == tuple(wrong[:5])
    assert "expected one of 'f', 'd', got 'm'" in found.message


def test_unseen_codes_in_a_log_of_ours(tmp_path: Path, simulator: vtb.Simulator) -> None:
    path = tmp_path / "log.parquet"
    vtb.rollout(simulator, sessions=50, out=path)
    table = parquet.read_table(path)
    codes = np.stack(table["customer"].to_numpy())
    codes[7, 3] = 200
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(codes.ravel()), 11)
    at = table.schema.get_field_index("customer")
    parquet.write_table(table.set_column(at, "customer", column), path)
    found = one(check_log(path), "unseen-category")
    assert found.rows == (7,)
    assert found.column == "customer[3] (field_3)"
    assert "expected a code of 0 to 10, got 200" in found.message


# --- order ------------------------------------------------------------------------------------


def long_session(columns: dict[str, Any]) -> int:
    """The first row of a session of at least four pages."""
    pages = np.asarray(columns["page_no"])
    return int(np.flatnonzero(pages == 4)[0]) - 3


def drop(columns: dict[str, Any], row: int) -> None:
    for name in columns:
        columns[name] = [*columns[name][:row], *columns[name][row + 1 :]]


def again(columns: dict[str, Any], first: int, end: int) -> None:
    """Puts rows in a second time, after themselves."""
    for name in columns:
        columns[name] = [*columns[name][:end], *columns[name][first:]]


def test_gaps_in_page_numbers(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    first = long_session(columns)
    drop(columns, first + 1)
    found = one(check(columns), "page-gap")
    assert (found.column, found.rows) == ("page_no", (first + 1,))
    assert found.message == "expected page 2 after page 1, got 3"


def test_duplicate_pages(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    first = long_session(columns)
    again(columns, first + 1, first + 2)
    found = one(check(columns), "duplicate-page")
    assert (found.column, found.rows) == ("page_no", (first + 2,))
    assert "duplicate" in str(found.hint)


def test_a_session_that_is_there_twice_is_a_duplicate(
    own: Own, check: Callable[..., LogReport]
) -> None:
    columns = own()
    first = long_session(columns)
    again(columns, first, first + 2)
    found = one(check(columns), "page-order")
    assert found.rows == (first + 2,)
    assert "duplicate" in str(found.hint)


def test_pages_out_of_order_and_sessions_that_start_late(
    own: Own, check: Callable[..., LogReport]
) -> None:
    columns = own()
    first = long_session(columns)
    spoil(columns, "page_no", first + 2, 1)
    report = check(columns)
    assert one(report, "page-order").rows == (first + 2,)
    columns = own()
    drop(columns, long_session(columns))
    found = one(check(columns), "first-page")
    assert found.rows == (first,)
    assert found.message == "expected a session to start with page 1, got 2"
    # One session says nothing about where pages count from.
    assert found.hint == "is the session's first page missing?"


def test_a_wrong_first_page_is_said_once_with_a_hint(
    own: Own, check: Callable[..., LogReport]
) -> None:
    found = one(check(own(), ("first_page = 1", "first_page = 0")), "first-page")
    assert found.count == 60
    assert found.hint is not None
    assert "from 1? (first_page)" in found.hint


def test_feedback_after_leaving(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    first = long_session(columns)
    spoil(columns, "left", first + 1, True)
    found = one(check(columns), "feedback-after-leave")
    assert (found.column, found.rows) == ("left", (first + 2,))


def test_feedback_after_a_purchase(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    first = long_session(columns)
    columns["orders"] = np.zeros(len(columns["left"]), int)
    spoil(columns, "orders", first, 2)
    bought = ('clicks = "clicks"\nsecond = "orders"', 'bought = "orders"')
    report = check(columns, bought)
    assert report.heads == "outcome"
    found = one(report, "feedback-after-purchase")
    assert found.rows == (first + 1,)
    assert found.hint is not None
    assert "feedback.clicks" in found.hint


def test_sessions_in_pieces(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    order = np.random.default_rng(1).permutation(len(columns["left"]))
    for name in columns:
        columns[name] = [columns[name][row] for row in order]
    report = check(columns)
    # The cause comes before its consequences.
    assert report.findings[0].kind == "session-scattered"
    assert report.findings[0].hint == "sort the log by 'visit' and 'page_no'"
    visits = columns["visit"]
    starts = [row for row in range(len(visits)) if not row or visits[row] != visits[row - 1]]
    again = [row for row in starts if visits[row] in visits[:row]]
    assert report.findings[0].count == len(again)
    assert report.findings[0].rows == tuple(again[:5])


def test_whole_numbers_as_sessions_in_any_order_but_in_one_piece(
    own: Own, check: Callable[..., LogReport]
) -> None:
    columns = own()
    numbers = np.array([int(visit[-5:]) for visit in columns["visit"]])
    columns["visit"] = 10**15 - numbers
    assert check(columns).errors == ()
    columns["visit"] = numbers % 55
    assert one(check(columns), "session-scattered").count == 5


def test_a_customer_who_changes(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    first = long_session(columns)
    spoil(columns, "city", first + 1, 9)
    spoil(columns, "age", first + 2, 7.0)
    changes = [one for one in check(columns).findings if one.kind == "customer-changes"]
    assert {(one.column, one.rows) for one in changes} == {
        ("city", (first + 1, first + 2)),
        ("age", (first + 2, first + 3)),
    }


def test_sessions_that_are_cut_short_are_a_warning(
    own: Own, check: Callable[..., LogReport]
) -> None:
    columns = own(1_500)
    columns["left"] = np.array(columns["left"])
    last = int(np.flatnonzero(columns["left"])[3])
    columns["left"][last] = False
    report = check(columns)
    assert report.errors == ()
    found = one(report, "cut-short")
    assert (found.severity, found.rows) == ("warning", (last,))
    assert report.summary["outcomes"]["max_pages"] == 1


def test_what_holds_across_batches(
    own: Own, check: Callable[..., LogReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Findings are the same whatever the batches, each of which ends in the middle of things."""
    from virtualtb_fast.records import source

    columns = own()
    first = long_session(columns)
    spoil(columns, "left", first + 1, True)
    spoil(columns, "page_no", first + 3, 9)
    spoil(columns, "city", first + 3, 9)
    expected = check(columns).to_dict()
    for rows in (1, 2, 3, 7):
        monkeypatch.setattr(source, "_BATCH_ROWS", rows)
        assert check(columns).to_dict() == expected


# --- too little to learn from -----------------------------------------------------------------


def test_no_rows_one_session_ten_rows(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    empty = pyarrow.table(columns).slice(0, 0)
    assert one(check(empty), "empty").message == "expected rows, got none"
    ten = {name: values[:10] for name, values in columns.items()}
    found = one(check(ten), "too-few-sessions")
    assert "expected at least 20 sessions" in found.message
    assert "(10 rows)" in found.message
    single = own(1, seed=4)
    found = one(check(single), "single-session")
    assert "got 1 session" in found.message
    assert found.column == "visit"
    few = kinds(check(columns))["few-sessions"]
    assert few.severity == "warning"


def test_a_single_outcome(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own()
    columns["clicks"] = np.zeros(len(columns["left"]), int)
    found = one(check(columns), "single-outcome")
    assert (found.column, found.severity) == ("clicks", "error")
    assert found.message == "expected different numbers of clicks, got 0 on every page"
    columns = own()
    starts = np.asarray(columns["page_no"]) == 1
    columns = {name: np.array(values, object)[starts].tolist() for name, values in columns.items()}
    columns["left"] = [True] * 60
    columns["clicks"] = [0, 1] * 30
    found = one(check(columns), "single-outcome")
    assert found.message == "expected different outcomes, got 'leave' for every page"


def test_constant_columns_are_warnings(own: Own, check: Callable[..., LogReport]) -> None:
    columns = own(1_500)
    rows = len(columns["left"])
    columns["gender"] = ["f"] * rows
    columns["age"] = [30.0] * rows
    columns["w1"] = np.full(rows, 0.5)
    report = check(columns)
    assert report.errors == ()
    constant = {one.column: one for one in report.findings if one.kind == "constant-column"}
    assert set(constant) == {"gender", "age", "w1"}
    assert "got 'f' in every row" in constant["gender"].message
    assert "got 0.5 in every row" in constant["w1"].message


def test_an_identifier_among_the_customers_columns_is_a_warning(
    own: Own, check: Callable[..., LogReport]
) -> None:
    columns = own(1_500)
    number = np.array([int(visit[-5:]) for visit in columns["visit"]])
    assert "identifier" not in kinds(check(columns))
    # Every fifth customer comes again: nearly one value a session.
    columns["city"] = np.where(number % 5 == 0, 0, number)
    report = check(columns)
    assert report.errors == ()
    found = one(report, "identifier")
    assert (found.column, found.severity) == ("city", "warning")
    assert found.message.endswith("got 1,201 in 1,500 sessions")
    assert found.hint == "is it an identifier? then leave it out of the schema"
    columns["city"] = number // 2
    assert "identifier" not in kinds(check(columns))


# --- the command ------------------------------------------------------------------------------


def test_the_command_reports_and_sets_the_exit_code(
    own: Own,
    own_schema: Path,
    parquet_file: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = own()
    path = parquet_file(columns)
    words = ["logs", "check", path, "--schema", str(own_schema)]
    assert cli.main(words) == 0
    out, error = capsys.readouterr()
    assert error == ""
    for part in ("pages  ", "in 60 sessions", "gender", "3 numbers", "good to learn from"):
        assert part in out
    first = long_session(columns)
    drop(columns, first + 1)
    spoil(columns, "w0", 3, float("nan"))
    parquet_file(columns)
    assert cli.main(words) == 1
    out, error = capsys.readouterr()
    for part in ("page-gap", "row", "not-finite", "cannot be learned from (2 errors, 1 warning)"):
        assert part in out
    assert max(map(len, out.splitlines()[4:-1])) <= 80
    assert cli.main([*words, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is False
    assert {one["kind"] for one in report["findings"]} >= {"page-gap", "not-finite"}
    assert cli.main(["logs", "check", path]) == 2
    assert "virtualtb-fast logs: " in capsys.readouterr().err


def test_the_command_counts_and_aligns(
    own: Own,
    own_schema: Path,
    parquet_file: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = own()
    first = long_session(columns)
    spoil(columns, "left", first + 1, True)
    spoil(columns, "page_no", first + 1, 9)
    words = ["--schema", str(own_schema)]
    assert cli.main(["logs", "check", parquet_file(columns), *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    kinds = ("feedback-after-leave", "page-gap")
    heads = [line for line in lines if line.strip().startswith(kinds)]
    assert len(heads) == 2
    # Labels longer than the column make all of it wider.
    assert len({line.index("column '") for line in heads}) == 1
    # Once, however many rows are named.
    assert lines.count("The first row of the log is row 0.") == 1
    one = {name: values[:1] for name, values in own().items()}
    cli.main(["logs", "check", parquet_file(one, "one.parquet"), *words])
    out = capsys.readouterr().out
    assert "1 in 1 session," in out
    assert "1 sessions" not in out
    assert "1 categories" not in out
    assert cli.main(["logs", "check", parquet_file(own(), "good.parquet"), *words]) == 0
    assert "row 0" not in capsys.readouterr().out
