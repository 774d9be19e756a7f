"""Fidelity: what is counted, what guards score, what the verdict makes of it.

The simulators are made by hand of what a store hides, so that it is known where they are right:
``exact`` has the true customers, ``apart`` their fields independently; both answer all pages and
customers alike.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.errors import InvalidArgumentError, LogError, MissingExtraError, OutputError
from virtualtb_fast.evaluation import metrics, sides
from virtualtb_fast.evaluation.comparisons import compare_hours
from virtualtb_fast.evaluation.fidelity import fidelity, play
from virtualtb_fast.evaluation.logged import linear_policy, logged_policy
from virtualtb_fast.evaluation.sides import Side, blocks_of, halves
from virtualtb_fast.evaluation.verdict import grade, verdict
from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.policies import Policy
from virtualtb_fast.records import LogSchema, prepare
from virtualtb_fast.rollout import rollout
from virtualtb_fast.schema import Config, Customers, Leave, Response, Schema
from virtualtb_fast.store import GroundTruthStore

pytest.importorskip("pyarrow")

ANSWERS = np.array([0.803, 0.0905, 0.1065])
"""About how pages of a store end: turn, buy, leave."""


def same_for_all(
    schema: Schema, shares: np.ndarray, fields: np.ndarray, provenance: Any = None
) -> vtb.Simulator:
    """A simulator of mixture customers who answer every page alike."""
    config = Config(
        Customers(kind="mixture", components=len(shares)),
        Response(page_scale=0.1, hidden=(1,), kind="mlp", heads="outcome"),
        Leave(kind="hazard", longest=101),
    )
    tensors = {name: np.zeros(shape, np.float32) for name, shape in config.shapes(schema).items()}
    tensors["customers.shares"] = shares.astype(np.float32)
    tensors["customers.fields"] = fields.astype(np.float32)
    last = max(name for name in tensors if name.startswith("action.") and name.endswith(".bias"))
    tensors[last] = np.log(ANSWERS).astype(np.float32)
    return vtb.Simulator.from_tensors(
        tensors, name="same for all", schema=schema, config=config, provenance=provenance
    )


@pytest.fixture(scope="module")
def store() -> GroundTruthStore:
    return GroundTruthStore(0)


@pytest.fixture(scope="module")
def log(store: GroundTruthStore) -> Any:
    return rollout(store, "logger", sessions=60_000, seed=1).log


@pytest.fixture(scope="module")
def exact(store: GroundTruthStore) -> vtb.Simulator:
    hidden = store.reveal()
    return same_for_all(store.schema, hidden.shares, hidden.fields)


@pytest.fixture(scope="module")
def apart(store: GroundTruthStore) -> vtb.Simulator:
    hidden = store.reveal()
    return same_for_all(store.schema, np.ones(1), (hidden.shares @ hidden.fields)[None])


@pytest.fixture(scope="module")
def found(log: Any, exact: vtb.Simulator, store: GroundTruthStore) -> dict[str, Any]:
    return fidelity(log, exact, store=store, judged=4_000, baselines=["independent"])


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in found["checks"]}


def test_true_customers_are_close_and_what_they_do_is_not(found: dict[str, Any]) -> None:
    checks = by_name(found)
    for name in ("fields", "pairs", "customers", "customer_excess"):
        assert checks[name]["grade"] == "very close", name
    # It answers everybody alike, on every page: no better than the guards.
    for name in ("features", "lengths", "action_effect"):
        assert checks[name]["grade"] == "far off", name
        assert checks[name]["position"] > 0.8, name
    assert found["truth"]["action_effect"] == {"simulator": 0.0, "blind": 0.0}
    excess = found["truth"]["response_excess"]
    assert excess["simulator"] == pytest.approx(excess["constant"], abs=0.002)
    # Said in the same words as the figures.
    assert "what another page does to a customer" in found["verdict"]["headline"]
    assert "(0.00)" in checks["features"]["says"]


def test_guards_fail_in_the_same_run(found: dict[str, Any]) -> None:
    rows = found["customers"]
    low, high = rows["fresh"]["auc_null"]
    assert low < rows["fresh"]["auc"] < high
    assert low - 0.01 < rows["simulator"]["auc"] < high + 0.01
    assert rows["independent"]["auc"] > 0.7
    assert found["whole_sessions"]["independent"]["auc"] > 0.7
    assert rows["independent"]["pair_kl"] > 5 * rows["fresh"]["pair_kl"]
    # Marginals cannot tell it from the truth: what the other figures are there for.
    assert max(rows["independent"]["marginal_kl"]) < 0.005
    assert found["features"]["spearman"]["fresh"] > 0.8
    assert found["features"]["spearman"]["blind"] == 0.0


def test_independent_customers_are_found_out(
    log: Any, apart: vtb.Simulator, found: dict[str, Any]
) -> None:
    other = by_name(fidelity(log, apart, judged=4_000))
    assert other["fields"]["grade"] == "very close"
    for name in ("pairs", "customers"):
        assert other[name]["grade"] == "far off", name
        assert other[name]["position"] == pytest.approx(1.0, abs=0.2), name
        assert by_name(found)[name]["position"] < 0.1, name


def test_the_pairs_that_are_wrong_are_named(
    log: Any, store: GroundTruthStore, found: dict[str, Any]
) -> None:
    rows = found["customers"]
    fields = len(store.schema.customer)
    for name in ("fresh", "simulator", "independent"):
        assert rows[name]["pair_kl"] == pytest.approx(sum(rows[name]["pair_kls"]))
        assert len(rows[name]["pair_kls"]) == fields * (fields - 1) // 2
    # The true customers have none wrong: chance alone names nobody.
    assert found["pairs"]["worst"] == []
    assert found["verdict"]["worst_pairs"] == "No pair of fields is further off than chance allows."
    # One field that comes by itself, and is right by itself.
    hidden = store.reveal()
    blocks, loner = hidden.fields.copy(), store.schema.customer[4]
    columns = store.schema.slices[loner.name]
    blocks[:, columns] = hidden.shares @ hidden.fields[:, columns]
    other = fidelity(log, same_for_all(store.schema, hidden.shares, blocks), judged=400)
    worst = other["pairs"]["worst"]
    assert 1 <= len(worst) <= 3
    assert all(loner.name in pair["fields"] for pair in worst)
    assert all(pair["kl"]["simulator"] > pair["chance"] > pair["kl"]["fresh"] for pair in worst)
    # They are as wrong as an independent sampler has them, and said so.
    assert worst[0]["kl"]["simulator"] == pytest.approx(worst[0]["kl"]["independent"], rel=0.2)
    assert f"{' and '.join(worst[0]['fields'])} (" in by_name(other)["pairs"]["says"]


def test_a_usual_baseline_that_cannot_be_fitted_is_left_out_with_a_word(
    simulator: vtb.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = rollout(simulator, "gaussian:0.1", sessions=400, seed=1).log
    found = fidelity(log, simulator, judged=50)
    assert "gmm" in found["customers"]
    assert found["left_out"] == {}
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    without = fidelity(log, simulator, judged=50)
    assert "gmm" not in without["customers"]
    assert any("gmm was left out: fit_gmm needs scikit-learn" in note
               for note in without["verdict"]["notes"])  # fmt: skip
    # Whoever asks for it is told at once.
    with pytest.raises(MissingExtraError, match="fit_gmm needs scikit-learn"):
        fidelity(log, simulator, judged=50, baselines=["gmm"])


def test_the_same_seed_gives_the_same(log: Any, exact: vtb.Simulator) -> None:
    small = rollout(exact, f"gaussian:{0.1}", sessions=2_000, seed=4).log
    one, other, third = (
        fidelity(small, exact, judged=200, seed=seed, num_threads=threads)
        for seed, threads in ((3, 1), (3, 2), (4, 1))
    )
    assert one == other
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert one["sides"] != third["sides"]


def test_clicks_are_compared_as_clicks(simulator: vtb.Simulator) -> None:
    log = rollout(simulator, "random", sessions=3_000, seed=2).log
    found = fidelity(log, simulator, judged=500)
    assert found["rate"]["name"] == "CTR"
    assert found["rate"]["items"] == simulator.page_items
    assert found["about"]["policy"] == {"name": "random", "how": "that of the log"}
    every = found["sides"]["real"]["pages"], found["sides"]["fresh"]["pages"]
    rates = found["sides"]["real"]["rate"], found["sides"]["fresh"]["rate"]
    assert sum(every) == len(log)
    total = sum(pages * rate for pages, rate in zip(every, rates, strict=True))
    assert total == pytest.approx(log["clicks"].sum() / simulator.page_items)


def test_counts_are_those_of_plain_python(
    log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 1_500
    rows = int(log.session_offsets()[many])
    counted = []
    for block in (7, 1 << 14):
        monkeypatch.setattr(sides, "_BLOCK", block)
        side, taken = Side(log.schema, 50, (1,)), 0
        for one in blocks_of(log):
            chosen = np.arange(len(one["offsets"]) - 1) + taken < many
            side.add(one, chosen)
            taken += len(chosen)
            if taken >= many:
                break
        counted.append(side)
    small, large = counted
    for name in ("lengths", "by_page", "by_slice", "ends", "sessions", "pages"):
        assert np.array_equal(getattr(small, name), getattr(large, name)), name
    lengths, bought = {}, {}
    for row in range(rows):
        session, code = int(log["session"][row]), int(log["customer"][row, 9])
        lengths[session] = lengths.get(session, 0) + 1
        pages, buys = bought.get(code, (0, 0))
        bought[code] = (pages + 1, buys + (OUTCOMES[log["outcome"][row]] == "buy"))
    assert small.sessions == many
    assert small.lengths.tolist() == np.bincount(list(lengths.values()), minlength=513).tolist()
    assert {code: tuple(small.cells[9][:, code]) for code in bought} == bought
    assert small.by_slice.sum() == 0
    assert len(small.sample) == 50
    assert small.actions["norm"] == pytest.approx(
        np.linalg.norm(log["action"][:rows].astype(float), axis=1).mean()
    )


def test_halves_are_all_of_the_log(log: Any, tmp_path: Path) -> None:
    prepared = prepare(log, tmp_path / "log")
    one, other = halves(prepared, 1_000, 5)
    assert one.sessions + other.sessions == log.session_offsets().size - 1
    assert one.pages + other.pages == len(log)
    assert abs(one.sessions - other.sessions) < 5 * np.sqrt(60_000)
    assert not np.array_equal(one.sample.whole, other.sample.whole)
    again, _ = halves(prepared, 1_000, 5)
    assert np.array_equal(one.sample.whole, again.sample.whole)


def test_a_policy_that_the_log_does_not_name_is_fitted(
    store: GroundTruthStore, exact: vtb.Simulator, tmp_path: Path
) -> None:
    log = rollout(store, "logger:query", sessions=20_000, seed=9).log
    prepared = prepare(log, tmp_path / "log")
    assert logged_policy(prepared.meta["metadata"], log.schema) is None
    policy = linear_policy(prepared, exact.schema)
    played = rollout(exact, policy, sessions=20_000, seed=3).log
    query = 4
    gaps = {}
    for name, one in (("fitted", played), ("zero", rollout(exact, "zero", sessions=2_000).log)):
        means = [each["action"][each["customer"][:, 9] == query].mean(0) for each in (log, one)]
        gaps[name] = np.abs(means[0] - means[1]).max()
    assert gaps["fitted"] < 0.0003 < gaps["zero"]
    assert played["action"].std(0) == pytest.approx(log["action"].std(0), rel=0.05)
    found = fidelity(log, exact, judged=200, sessions=2_000)
    assert found["about"]["policy"]["how"] == "linear, fitted to the log's actions"
    given = fidelity(log, exact, judged=200, sessions=2_000, policy="zero")
    assert given["about"]["policy"] == {"name": "zero", "how": "given"}


def test_a_store_names_its_logger(store: GroundTruthStore, log: Any) -> None:
    policy = logged_policy(log.metadata, log.schema)
    assert isinstance(policy, Policy)
    assert policy.name.startswith("gaussian:0.0058")


def test_hours_are_compared(exact: vtb.Simulator) -> None:
    log = rollout(GroundTruthStore(0, hour="uniform"), "logger", sessions=120_000, seed=1).log
    found = fidelity(log, exact, judged=100)
    hours = found["hours"]
    slices = (log["hour"] / 2).astype(int)
    assert sum(hours["pages"]) == found["sides"]["real"]["pages"]
    both = (np.bincount(slices) - np.array(hours["pages"])) > 0
    assert both.all()
    assert hours["pearson"]["simulator"] == 0.0
    assert "knows no time of day" in by_name(found)["hours"]["says"]
    with pytest.raises(InvalidArgumentError, match="hourly: expected 12 simulators, got 1"):
        fidelity(log, exact, judged=100, hourly=[exact])
    twelve = fidelity(log, exact, judged=100, sessions=2_400, hourly=[exact] * 12)["hours"]
    assert twelve["by_slice"]
    assert len(set(twelve["rate"]["simulator"])) > 1


def test_the_correlation_over_the_day_has_a_guard() -> None:
    """What follows the day passes, one rate for the whole day does not."""
    random = np.random.default_rng(0)
    pages = np.full(12, 300_000)
    rate = 0.09 + 0.0085 * np.sin(np.arange(12) * np.pi / 6)
    real, fresh = (np.stack((pages, random.binomial(pages, rate))) for _ in range(2))
    noise = random.normal(0, 0.0005, (2, 12))
    hours = compare_hours(real, fresh, rate + noise[0], 1, 0.09 + noise[1])
    assert hours["pearson"]["simulator"] > 0.9
    assert hours["largest_error"]["simulator"] < 0.004
    assert hours["pearson"]["pooled"] < 0.9
    assert hours["largest_error"]["pooled"] > 0.004


def test_where_nothing_can_be_told_it_says_so(simulator: vtb.Simulator) -> None:
    log = rollout(simulator, "gaussian:0.1", sessions=60, seed=1).log
    found = fidelity(log, simulator)
    checks = by_name(found)
    assert checks["pairs"]["grade"] == "void"
    assert checks["pairs"]["position"] is None
    assert "cannot tell" in checks["pairs"]["says"]


def test_what_is_worse_than_a_guard_that_proves_nothing_is_told(found: dict[str, Any]) -> None:
    even = json.loads(json.dumps(found))
    rows = even["customers"]
    rows["fresh"]["pair_kl"], rows["independent"]["pair_kl"] = 0.492, 0.491
    rows["simulator"]["pair_kl"] = 0.5
    assert by_name(verdict(even))["pairs"]["grade"] == "void"
    rows["simulator"]["pair_kl"] = 1.521
    pairs = by_name(verdict(even))["pairs"]
    assert (pairs["grade"], pairs["position"]) == ("far off", pytest.approx(1.521 / 0.492))
    assert pairs["says"].startswith("Worse than an independent sampler")
    assert "how fields hang together" in verdict(even)["verdict"]["headline"]


def test_fresh_sessions_are_as_few_as_simulated_ones(log: Any, tmp_path: Path) -> None:
    held = prepare(log, tmp_path / "log")
    half, whole = halves(held, 50, 3)
    same, few = halves(held, 50, 3, None, held.sessions // 10)
    assert (half.sessions, half.answers) == (same.sessions, same.answers)
    assert half.sessions + whole.sessions == held.sessions
    assert 0.8 < few.sessions / (held.sessions // 10) < 1.2
    assert whole.sessions > 4 * few.sessions


def test_grades_are_in_order() -> None:
    assert [grade(x) for x in (-0.5, 0.1, 0.11, 0.3, 0.51, 9.0)] == [
        "very close", "very close", "close", "some way off", "far off", "far off",
    ]  # fmt: skip


def test_the_verdict_follows_the_figures(found: dict[str, Any]) -> None:
    worse = json.loads(json.dumps(found))
    worse["customers"]["simulator"]["pair_kl"] = worse["customers"]["independent"]["pair_kl"]
    assert by_name(verdict(found))["pairs"]["grade"] == "very close"
    assert by_name(verdict(worse))["pairs"]["position"] == pytest.approx(1.0)
    assert "how fields hang together" in verdict(worse)["verdict"]["headline"]


def test_what_does_not_fit_is_refused(
    log: Any, exact: vtb.Simulator, simulator: vtb.Simulator, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match="expected the log's feedback, outcome, got"):
        fidelity(log, simulator)
    few = rollout(exact, "zero", sessions=39).log
    with pytest.raises(InvalidArgumentError, match="expected 40 sessions or more, got 39"):
        fidelity(few, exact)
    with pytest.raises(InvalidArgumentError, match="expected that of the log, seed 0"):
        fidelity(log, exact, store=GroundTruthStore(1 << 32), judged=50)
    with pytest.raises(InvalidArgumentError, match="baselines: expected one of gan-sd"):
        fidelity(log, exact, baselines=["best"], judged=50)
    with pytest.raises(OutputError, match="missing"):
        fidelity(tmp_path / "missing.parquet", exact)


def test_another_log_is_read_by_the_simulators_own_table(
    own: Any, own_schema: Path, parquet_file: Any, tmp_path: Path
) -> None:
    first = prepare(parquet_file(own(sessions=300)), tmp_path / "first", own_schema)
    table = first.table
    assert table is not None
    columns = own(sessions=200, seed=5)
    second = prepare(parquet_file(columns, "second.parquet"), tmp_path / "second", own_schema)
    read = prepare(
        parquet_file(columns, "third.parquet"), tmp_path / "third", own_schema, table=table
    )
    assert read.schema.customer == first.schema.customer
    assert read.table == table
    # Numbers fall into other bins of another log: the guard of this test.
    assert second.table != table
    starts = np.flatnonzero(np.array(columns["page_no"]) == 1)
    cities = np.array(columns["city"], object)[starts]
    decoded = table.decode(np.array(read["session_customer"]), 0)["city"]
    assert [a for a in decoded if a is not None] == [a for a in cities if a is not None]


def test_a_simulator_of_peoples_own_log_needs_no_schema(
    own: Any, own_schema: Path, parquet_file: Any, tmp_path: Path
) -> None:
    text = own_schema.read_text()
    own_schema.write_text(text[: text.index("[feedback]")] + '[feedback]\nbought = "buys"\n')

    def visits(seed: int) -> dict[str, Any]:
        columns = own(sessions=200, seed=seed)
        # One purchase ends a session.
        columns["buys"] = columns["left"] & (columns["orders"] > 0)
        return columns

    first = prepare(parquet_file(visits(0)), tmp_path / "first", own_schema)
    table = first.table
    assert table is not None
    fields = np.concatenate([np.full(one.size, 1 / one.size) for one in table.fields])
    learned = {
        "table": table.to_json(),
        "log_schema": LogSchema.load(own_schema).to_json(),
    }
    simulator = same_for_all(first.schema, np.ones(1), fields[None], {"fit": learned})
    found = fidelity(parquet_file(visits(5), "second.parquet"), simulator)
    assert [field["name"] for field in found["fields"]] == ["gender", "city", "age"]
    assert found["fields"][0]["labels"] == ["f", "m", "missing"]
    assert found["about"]["policy"]["how"].startswith("linear")
    bought = sum(visits(5)["buys"])
    counted = sum(found["sides"][n]["pages"] * found["sides"][n]["rate"] for n in ("real", "fresh"))
    assert counted == pytest.approx(bought)

    # What it plays is a log of this package: codes, and the schema of them in the file.
    played = tmp_path / "played.parquet"
    rollout(simulator, "zero", sessions=200, seed=3, out=played)
    again = fidelity(str(played), simulator)
    assert [field["labels"] for field in again["fields"]] == [
        field["labels"] for field in found["fields"]
    ]
    assert again["about"]["log"]["name"] == "played.parquet"
    assert again["about"]["policy"]["how"] == "that of the log"
    # That of another one is told apart by what it is of.
    rollout(GroundTruthStore(0), "zero", sessions=200, out=played, overwrite=True)
    with pytest.raises(InvalidArgumentError, match=r"expected the log's customers, .*, got"):
        fidelity(str(played), simulator)


def test_a_table_that_does_not_know_a_value_is_refused(
    own: Any, own_schema: Path, parquet_file: Any, tmp_path: Path
) -> None:
    columns = own(sessions=300)
    table = prepare(parquet_file(columns), tmp_path / "first", own_schema).table

    def refused(name: str, value: Any, whole: str) -> None:
        changed = {**columns, name: list(columns[name])}
        row = int(np.flatnonzero(np.array(columns["page_no"]) == 1)[-1])
        for later in range(row, len(changed[name])):
            changed[name][later] = value
        message = rf"b\.parquet: column '{name}': {whole} in row {row:,}( \(|$)"
        with pytest.raises(LogError, match=message):
            prepare(parquet_file(changed, "b.parquet"), tmp_path / "b", own_schema, table=table)

    # The file, the log's own row, the value, and what is known.
    refused("city", 77, "expected one of 0, 1, 2, 3, 4, got 77")
    refused("gender", "x", "expected one of 'f', 'm', got 'x'")
    refused("city", None, "expected a value, as all had .*, got none")


def test_a_table_of_many_values_shows_some_and_pools_what_it_does_not_know(
    own: Any, own_schema: Path, parquet_file: Any, tmp_path: Path
) -> None:
    columns = own(sessions=300)
    sessions = np.cumsum(np.array(columns["page_no"]) == 1) - 1
    prepared = {}
    for name, many in (("some", 20), ("pooled", 290)):
        columns["city"] = sessions % many
        prepared[name] = prepare(parquet_file(columns), tmp_path / name, own_schema).table
    columns["city"] = np.where(sessions == 250, 999, sessions % 20)
    path, row = parquet_file(columns), int(np.flatnonzero(sessions == 250)[0])
    with pytest.raises(LogError, match=rf"0, 1, 2, 3, 4, 5, 6, 7, \.\.\., got 999 in row {row}"):
        prepare(path, tmp_path / "a", own_schema, table=prepared["some"])
    read = prepare(path, tmp_path / "b", own_schema, table=prepared["pooled"])
    code = len(prepared["pooled"].columns[1].values)
    assert read["session_customer"][250][1] == code


def test_ranks_share_what_is_equal() -> None:
    one, other = np.array([1.0, 2.0, 2.0, 5.0]), np.array([10.0, 30.0, 30.0, 40.0])
    assert metrics.spearman(one, other) == pytest.approx(1.0)
    assert metrics.spearman(one, -other) == pytest.approx(-1.0)
    assert metrics.spearman(np.ones(4), other) == 0.0
    scipy = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    a, b = random.integers(0, 5, (2, 40)).astype(float)
    assert metrics.spearman(a, b) == pytest.approx(scipy.spearmanr(a, b).statistic)


def test_memory_does_not_grow_with_what_is_simulated(exact: vtb.Simulator) -> None:
    side = play(exact, Policy.parse("zero"), 45_000, 100, 1)
    assert side.sessions == 45_000
    assert len(side.sample) == 100
