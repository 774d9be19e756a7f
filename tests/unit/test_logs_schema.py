"""Schema files: what they hold, what is refused, and the draft of one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import cli

pyarrow = pytest.importorskip("pyarrow")

from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError  # noqa: E402
from virtualtb_fast.records import LogSchema, check_log, draft_schema  # noqa: E402

SCHEMA: dict[str, Any] = {
    "format": "virtualtb_fast.log_schema",
    "version": 1,
    "rows": {"session": "visit", "page": "page_no", "first_page": 1, "hour": "hour"},
    "customer": {
        "categorical": ["gender", "city"],
        "numeric": ["age"],
        "categories": {"gender": ["f", "m"]},
    },
    "action": {"columns": ["w0", "w1"], "low": -1, "high": 1},
    "feedback": {"clicks": "clicks", "second": "orders", "leave": "left", "page_items": 5},
}


def changed(**tables: Any) -> dict[str, Any]:
    """SCHEMA with other tables; None leaves a key out."""
    out = {key: dict(value) if isinstance(value, dict) else value for key, value in SCHEMA.items()}
    for key, value in tables.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] |= value
            out[key] = {one: two for one, two in out[key].items() if two is not None}
        elif value is None:
            del out[key]
        else:
            out[key] = value
    return out


def test_a_schema_is_read_and_written_back() -> None:
    schema = LogSchema.from_dict(SCHEMA, "visits.toml")
    assert schema.columns == (
        *("visit", "page_no", "hour", "gender", "city", "age"),
        *("w0", "w1", "clicks", "orders", "left"),
    )
    assert (schema.first_page, schema.action_range) == (1, (-1.0, 1.0))
    assert (schema.feedback.form, schema.feedback.heads) == ("clicks", "clicks")
    assert schema.categories == {"gender": ("f", "m")}
    assert LogSchema.from_dict(schema.to_dict(), "visits.toml") == schema
    assert json.loads(schema.to_json()) == json.loads(
        LogSchema.from_dict(schema.to_dict()).to_json()
    )


@pytest.mark.parametrize(
    ("feedback", "form"),
    [
        ({"outcome": "result", "buy": ["order", "preorder"], "turn": "next"}, "outcome"),
        ({"bought": "order"}, "bought"),
        ({"bought": "order", "leave": "left"}, "bought"),
    ],
)
def test_other_forms_of_feedback(feedback: dict[str, Any], form: str) -> None:
    schema = LogSchema.from_dict(changed(feedback=None) | {"feedback": feedback})
    assert (schema.feedback.form, schema.feedback.heads) == (form, "outcome")
    if form == "outcome":
        assert schema.feedback.outcomes["buy"] == ("order", "preorder")
        assert schema.feedback.outcomes["turn"] == ("next",)
        assert schema.feedback.outcomes["leave"] == ("leave",)
    assert LogSchema.from_dict(schema.to_dict()) == schema


def test_hours_may_be_the_customers_too() -> None:
    schema = LogSchema.from_dict(changed(customer={"numeric": ["age", "hour"]}))
    assert schema.columns.count("hour") == 1


def test_what_is_read_from_elsewhere_is_refused_by_its_origin(tmp_path: Path) -> None:
    """Bad files are in ``tests/reliability/bad_files_texts.py``."""
    with pytest.raises(FileFormatError, match=r"^mine: version: expected 1, got 2$"):
        LogSchema.from_dict(changed(version=2), "mine")
    with pytest.raises(OutputError, match=r"visits\.toml"):
        LogSchema.load(tmp_path / "visits.toml")


# --- drafts -----------------------------------------------------------------------------------


def test_a_draft_of_a_shops_log_is_right(
    own: Callable[..., dict[str, Any]], parquet_file: Callable[..., str], tmp_path: Path
) -> None:
    columns = own(400)
    rows = len(columns["clicks"])
    columns["user_id"] = [10_000_000 + int(visit[-5:]) for visit in columns["visit"]]
    columns["stamp"] = np.arange(rows)
    path = parquet_file(columns)
    draft = draft_schema(path)
    assert draft.missing == ()
    assert draft.left_out == ("user_id", "stamp")
    held = tomllib.loads(draft.text)
    assert held["rows"] == {"session": "visit", "page": "page_no", "first_page": 1}
    assert held["customer"] == {"categorical": ["gender", "city"], "numeric": ["age"]}
    assert held["action"] == {"columns": ["w0", "w1", "w2"]}
    assert held["feedback"] == {
        "clicks": "clicks",
        "second": "orders",
        "leave": "left",
        "page_items": 10,
    }
    # Every choice that it made is marked as a guess or says what it looked at.
    chosen = [line for line in draft.text.splitlines() if line.startswith(("session", "clicks"))]
    assert all("guess" in line for line in chosen)
    (tmp_path / "draft.toml").write_text(draft.text)
    report = check_log(path, tmp_path / "draft.toml")
    assert report.errors == ()
    assert report.rows == rows


def test_a_draft_warns_of_identifiers(
    own: Callable[..., dict[str, Any]],
    parquet_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = own(1_500)
    assert draft_schema(parquet_file(columns)).warnings == ()
    # Too many to be kept, and few enough to be mistaken for a category.
    columns["member"] = [f"m{visit[-5:]}" for visit in columns["visit"]]
    columns["city"] = [f"c{int(visit[-5:])}" for visit in columns["visit"]]
    draft = draft_schema(parquet_file(columns))
    assert draft.left_out == ("city", "member")
    what = "1,500 values in 1,500 sessions: an identifier? (left out)"
    assert draft.warnings == (f"column 'city': {what}", f"column 'member': {what}")
    columns = own(40)
    columns["city"] = [visit[-5:] for visit in columns["visit"]]
    path = parquet_file(columns)
    draft = draft_schema(path)
    assert "city" not in draft.left_out
    (warning,) = draft.warnings
    assert warning.startswith("column 'city': 40 values in 40 sessions: an identifier?")
    assert cli.main(["logs", "schema", path]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"warning: {warning}\n"
    assert shown.out == draft.text
    assert cli.main(["logs", "schema", path, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert json.loads(shown.out)["warnings"] == [warning]


def test_a_draft_finds_outcomes_by_their_values(parquet_file: Callable[..., str]) -> None:
    draws = np.random.default_rng(0)
    rows = 4_000
    result = draws.choice(["browse", "order", "quit"], rows, p=[0.7, 0.1, 0.2])
    columns = {
        "trajectory": np.concatenate(([0], np.cumsum(result != "browse")[:-1])),
        "kind": ["x", "y"] * (rows // 2),
        "member": np.zeros(rows, bool),
        "ranking": pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(draws.normal(size=rows * 4)), 4
        ),
        "result": result,
    }
    draft = draft_schema(parquet_file(columns))
    held = tomllib.loads(draft.text)
    assert held["rows"] == {"session": "trajectory"}
    assert held["action"] == {"columns": ["ranking"]}
    assert held["customer"]["categorical"] == ["member"]
    assert held["feedback"] == {
        "outcome": "result",
        "buy": ["order"],
        "leave": ["quit"],
        "turn": ["browse"],
    }
    assert draft.left_out == ("kind",)


def changing(rows: int = 4_000, **columns: Any) -> dict[str, Any]:
    """A shop's log whose actions are numbers without numbers in their names."""
    visit = np.repeat(np.arange(rows // 4), 4)
    draws = np.random.default_rng(1)
    return {
        "visit": [f"v{one}" for one in visit],
        "user_age": 16 + visit % 64,
        "rooms": 1 + visit % 20,
        "city_code": 100 + visit % 30,
        "ts": pyarrow.array(np.arange(rows), pyarrow.timestamp("us")),
        "dwell_time": draws.exponential(9.0, rows),
        **columns,
        "clicks": draws.integers(0, 5, rows),
        "left": np.tile([False, False, False, True], rows // 4),
    }


@pytest.mark.parametrize("low", [-2.0, 0.0])
def test_numbers_that_change_within_a_session_are_offered_as_actions(
    parquet_file: Callable[..., str], low: float
) -> None:
    draws = np.random.default_rng(0).uniform(low, 2.0, (4, 4_000))
    boosts = dict(zip(("boost_price", "boost_new", "boost_pop"), draws, strict=False))
    path = parquet_file(changing(**boosts, revenue=draws[3] + 2))
    draft = draft_schema(path)
    held = tomllib.loads(draft.text)
    assert held["action"] == {"columns": ["boost_price", "boost_new", "boost_pop"]}
    assert held["rows"]["value"] == "revenue"
    assert draft.missing == ()
    # A guess that is worth a look, one column a line.
    assert "# guess: numbers that change within a session" in draft.text
    assert draft.text.count("double, 4,000 values") == 4 + 1  # with revenue and what is left out
    assert set(draft.left_out) == {"ts", "dwell_time"}
    schema = LogSchema.from_dict(held)
    assert check_log(path, schema).errors == ()


def test_what_changes_and_is_money_an_answer_or_a_count_is_no_action(
    parquet_file: Callable[..., str],
) -> None:
    counts = np.arange(4_000) % 7 + 0.0
    draws = np.random.default_rng(0).uniform(0, 9, (2, 4_000))
    draft = draft_schema(parquet_file(changing(price=draws[0], seen=counts)))
    assert draft.missing == ("action.columns",)
    assert tomllib.loads(draft.text)["rows"]["value"] == "price"
    # One more without such a name is offered, alone.
    draft = draft_schema(parquet_file(changing(price=draws[0], shift=draws[1])))
    assert tomllib.loads(draft.text)["action"] == {"columns": ["shift"]}


def test_whole_numbers_over_a_range_are_numbers_and_codes_are_not(
    parquet_file: Callable[..., str],
) -> None:
    draft = draft_schema(parquet_file(changing()))
    held = tomllib.loads(draft.text)["customer"]
    assert held == {"categorical": ["rooms", "city_code"], "numeric": ["user_age"]}
    # What was not counted is not said to be nothing.
    assert "a time (timestamp[us])" in draft.text
    assert ", 0 values" not in draft.text


def test_a_draft_says_what_it_did_not_find(parquet_file: Callable[..., str]) -> None:
    draft = draft_schema(parquet_file({"a": [1.5, 2.5], "b": ["x", "y"]}))
    assert {"rows.session", "action.columns", "feedback.clicks"} <= set(draft.missing)
    assert "NOT FOUND" in draft.text
    with pytest.raises(FileFormatError, match=r"expected the name of a column, got ''"):
        LogSchema.from_dict(tomllib.loads(draft.text))


def test_names_that_toml_must_quote(parquet_file: Callable[..., str]) -> None:
    columns = {
        'visit "id"\\': np.repeat(np.arange(10), 3),
        "größe\t": np.repeat(["a", "b"], 15),
        "w.0": np.arange(30.0),
        "w.1": np.arange(30.0),
        "clicks": [0, 1, 2] * 10,
    }
    held = tomllib.loads(draft_schema(parquet_file(columns)).text)
    assert held["rows"]["session"] == 'visit "id"\\'
    assert held["customer"]["categorical"] == ["größe\t"]
    assert held["action"]["columns"] == ["w.0", "w.1"]


def test_logs_of_this_package_need_no_schema(tmp_path: Path, simulator: vtb.Simulator) -> None:
    path = tmp_path / "log.parquet"
    vtb.rollout(simulator, sessions=30, out=path)
    with pytest.raises(InvalidArgumentError, match="needs no schema file"):
        draft_schema(path)


# --- the command ------------------------------------------------------------------------------


def test_the_command_prints_or_writes_a_draft(
    own: Callable[..., dict[str, Any]],
    parquet_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = parquet_file(own()), str(tmp_path / "draft.toml")
    assert cli.main(["logs", "schema", path]) == 0
    text, error = capsys.readouterr()
    assert error == ""
    assert tomllib.loads(text)["rows"]["session"] == "visit"
    assert cli.main(["logs", "schema", path, "--out", out]) == 0
    assert "a draft" in capsys.readouterr().out
    assert Path(out).read_text() == text
    assert cli.main(["logs", "schema", path, "--out", out]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["logs", "schema", path, "--out", out, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == text
    assert cli.main(["logs", "schema", parquet_file({"a": [1.0]}, "other.parquet")]) == 0
    assert "rows.session, action.columns" in capsys.readouterr().err


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ([], ["check"], ["schema"]):
        assert cli.main(["logs", *action, "--help"]) == 0
        out, error = capsys.readouterr()
        assert error == ""
        assert max(map(len, out.splitlines())) <= 80
