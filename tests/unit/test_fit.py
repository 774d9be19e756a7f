"""`virtualtb_fast.fit`: what comes of it, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import cli

torch = pytest.importorskip("torch")
pyarrow = pytest.importorskip("pyarrow")

from virtualtb_fast._training import torch_threads  # noqa: E402
from virtualtb_fast.customers.table import Table  # noqa: E402
from virtualtb_fast.errors import (  # noqa: E402
    InvalidArgumentError,
    LogError,
    OutputError,
    TrainingDivergedError,
)
from virtualtb_fast.logs import read_log  # noqa: E402
from virtualtb_fast.networks import _orthogonal  # noqa: E402

Own = Callable[..., dict[str, Any]]
FEW = 0.02
"""Of the usual steps: what comes of it need not be good here."""


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory, shop: vtb.Simulator) -> str:
    """A log of clicks."""
    path = tmp_path_factory.mktemp("logs") / "clicks.parquet"
    vtb.rollout(shop, "gaussian:0.5", sessions=600, seed=1, out=path)
    return str(path)


@pytest.fixture(scope="module")
def purchases(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of purchases."""
    path = tmp_path_factory.mktemp("logs") / "purchases.parquet"
    vtb.rollout(vtb.GroundTruthStore(seed=0), "logger", sessions=600, seed=1, out=path)
    return str(path)


def report(simulator: vtb.Simulator) -> dict[str, Any]:
    return dict(simulator.provenance["fit"])


# --- what comes of it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("customers", "responses", "leave"),
    [("ar", "mail", "hazard"), ("lca", "bc", "once"), ("independent", "bc+mail", "hazard")],
)
def test_a_log_of_clicks_becomes_a_simulator(
    clicks: str, tmp_path: Path, shop: vtb.Simulator, customers: str, responses: str, leave: Any
) -> None:
    out = tmp_path / "fit.safetensors"
    calls: list[tuple[str, int, int, dict[str, float]]] = []
    took: dict[str, Any] = {}
    fitted = vtb.fit(
        clicks,
        out=out,
        customers=customers,
        responses=responses,
        leave=leave,
        effort=FEW,
        engine=tmp_path / "engine.safetensors",
        progress=lambda *call: calls.append(call),  # type: ignore[arg-type]
        costs=took.update,
    )
    assert vtb.load_simulator(out) == fitted
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "engine.safetensors",
        "fit.safetensors",
    ]
    assert fitted.schema == shop.schema
    assert fitted.config.response.heads == "clicks"
    assert fitted.config.leave.kind == leave
    about = report(fitted)
    lengths = np.diff(read_log(clicks).session_offsets())
    assert (about["log"]["pages"], about["log"]["sessions"]) == (lengths.sum(), 600)
    assert (about["seed"], about["customers"], about["responses"]) == (0, customers, responses)
    assert set(about["versions"]) >= {"virtualtb_fast", "torch", "numpy", "python"}
    stages = about["report"]["stages"]
    assert {"log", "customers"} < set(stages)
    assert set(took["stages"]) == {*stages, "check"}
    assert ("mail" in stages) == ("mail" in responses)
    assert ("leave" in stages) == (leave == "once")
    assert sum(stage["seconds"] for stage in took["stages"].values()) == pytest.approx(
        took["seconds"], abs=0.05
    )
    assert 0 < took["simulating_share"] < 1
    assert took["peak_memory_bytes"] > 50e6
    assert set(about["report"]["check"]["simulated"]) == {"ctr", "mean_session_length"}
    seen = dict.fromkeys(stage for stage, *_ in calls)
    assert list(seen)[:2] == ["reading the log", "encoding customers"]
    assert list(seen)[-1] == "check"
    assert any(figures for _, _, _, figures in calls)
    # It runs in environments and rollouts, under the policy that was learned beside it.
    played = vtb.rollout(fitted, str(tmp_path / "engine.safetensors"), sessions=50)
    assert played.pages >= 50
    envs = gymnasium.make_vec("virtualtb_fast:VirtualTB-v1", num_envs=4, simulator=fitted)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    envs.close()


@pytest.mark.parametrize("responses", ["bc", "linear", "mail-paper"])
def test_a_log_of_purchases_becomes_a_simulator(purchases: str, responses: str) -> None:
    fitted = vtb.fit(purchases, customers="lca", responses=responses, effort=FEW)
    assert fitted.config.response.heads == "outcome"
    assert fitted.config.response.kind == ("linear" if responses == "linear" else "mlp")
    assert fitted.config.leave.kind == "hazard"
    assert fitted.config.leave.longest == 101
    played = vtb.rollout(fitted, "gaussian:0.006", sessions=100)
    assert 0 < played.clicks < played.pages
    figures = report(fitted)["report"]["check"]
    assert figures["logged"]["r2p"] == pytest.approx(0.09, abs=0.02)


def test_an_ensemble_is_written_and_says_how_far_it_disagrees(
    purchases: str, tmp_path: Path
) -> None:
    out = tmp_path / "fit.safetensors"
    asked: dict[str, Any] = {"customers": "lca", "responses": "linear", "effort": FEW}
    fitted = vtb.fit(purchases, out=out, ensemble=3, **asked)
    names = ["fit.2.safetensors", "fit.3.safetensors", "fit.safetensors"]
    assert sorted(one.name for one in tmp_path.iterdir()) == names
    members = [vtb.load_simulator(tmp_path / name) for name in names]
    assert members[2] == fitted
    assert [report(one)["report"]["member"] for one in members] == [2, 3, 1]
    # The first is the fit without an ensemble; the others share its customers alone.
    alone = vtb.fit(purchases, **asked)
    weights = [one.tensors() for one in (alone, fitted, *members[:2])]
    for name, weight in weights[0].items():
        np.testing.assert_array_equal(weight, weights[1][name])
        if name.startswith("customers"):
            np.testing.assert_array_equal(weight, weights[2][name])
    moved = [name for name in weights[0] if not np.array_equal(weights[2][name], weights[3][name])]
    assert moved
    assert not any(name.startswith("customers") for name in moved)
    found = report(fitted)["report"]["ensemble"]
    apart = found["disagreement"]
    assert found["members"] == 3
    assert 0 < apart["logged"] < apart["double"] < apart["fivefold"] < apart["random"]
    # Nothing of an earlier ensemble is lost, either.
    out.unlink()
    with pytest.raises(OutputError, match=r"fit\.2\.safetensors: expected a new file"):
        vtb.fit(purchases, out=out, ensemble=2, **asked)
    with pytest.raises(OutputError, match=r"fit\.3\.safetensors: expected an ensemble of 2 beside"):
        vtb.fit(purchases, out=out, ensemble=2, overwrite=True, **asked)
    with pytest.raises(
        InvalidArgumentError, match=r"expected different files, got .*fit\.2.* twice"
    ):
        vtb.fit(purchases, out=out, engine=tmp_path / "fit.2.safetensors", ensemble=2, **asked)
    assert sorted(one.name for one in tmp_path.iterdir()) == names[:2]


def test_gan_sd_is_what_customers_are_unless_told_otherwise(clicks: str) -> None:
    fitted = vtb.fit(clicks, responses="bc", effort=FEW)
    assert report(fitted)["customers"] == "gan-sd"
    assert fitted.config.customers.kind == "mlp"


def test_own_columns_are_learned_and_read_back(
    own: Own, own_schema: Path, parquet_file: Callable[..., str]
) -> None:
    path = parquet_file(own(400))
    fitted = vtb.fit(path, schema=own_schema, customers="ar", responses="bc", effort=FEW)
    assert [field.name for field in fitted.schema.customer] == ["gender", "city", "age"]
    assert fitted.schema.action_range == (-6.0, 6.0)
    assert fitted.config.response.clicks == 11
    about = report(fitted)
    assert about["log"]["name"] == "visits.parquet"
    assert json.loads(about["log_schema"])["rows"]["session"] == "visit"
    table = Table.from_json(about["table"])
    back = table.decode(fitted.customers(50, seed=3))
    assert set(back["gender"]) <= {"f", "m", None}
    assert set(back["city"]) <= set(range(5))
    assert np.nanmin(back["age"]) >= np.nanmin(own(400)["age"])
    # The same log from memory, the same simulator but for where it came from.
    again = vtb.fit(
        pyarrow.table(own(400)), schema=own_schema, customers="ar", responses="bc", effort=FEW
    )
    assert_same(fitted, again)


def assert_same(one: vtb.Simulator, other: vtb.Simulator) -> None:
    left, right = one.tensors(), other.tensors()
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_the_seed_decides(clicks: str) -> None:
    def run(seed: int) -> vtb.Simulator:
        return vtb.fit(clicks, customers="ar", responses="bc+mail", effort=0.01, seed=seed)

    first = run(7)
    assert_same(first, run(7))
    # Seeds that differ in their high bits only differ: the void guard of the line above.
    other = run(7 | 1 << 40).tensors()
    same = [np.array_equal(other[name], array) for name, array in first.tensors().items()]
    assert not any(same)


def test_a_fitted_simulator_answers_like_the_one_that_logged(
    tmp_path: Path, shop: vtb.Simulator
) -> None:
    """Clicks of a fresh log, nat a page: most of what there is to know is learned."""
    from virtualtb_fast.imitation.cloning import CloningConfig

    path = tmp_path / "log.parquet"
    vtb.rollout(shop, "gaussian:1", sessions=6_000, seed=1, out=path)
    fresh = vtb.rollout(shop, "gaussian:1", sessions=2_000, seed=2).log
    arguments = {"customers": "independent", "responses": "bc"}
    fitted = vtb.fit(path, effort=3, **arguments)
    # One pass with the settings for logs of purchases.
    hasty = vtb.fit(path, effort=0.01, responses_config=CloningConfig(), **arguments)

    def loss(simulator: vtb.Simulator) -> float:
        given = (fresh["customer"], fresh["page"], fresh["action"])
        chances = simulator.response(*given)["clicks"][np.arange(len(fresh)), fresh["clicks"]]
        return float(-np.log(chances).mean())

    shares = np.bincount(fresh["clicks"]) / len(fresh)
    constant, truth = float(-(shares * np.log(shares)).sum()), loss(shop)
    assert truth < constant

    def learned(simulator: vtb.Simulator) -> float:
        return (constant - loss(simulator)) / (constant - truth)

    print(f"learned {learned(fitted):.3f}, in haste {learned(hasty):.3f}")
    assert learned(fitted) > 0.85
    # The void guard.
    assert learned(hasty) < 0.3


# --- what it refuses --------------------------------------------------------------------------


def test_outputs_that_exist_are_not_lost(clicks: str, tmp_path: Path) -> None:
    out = tmp_path / "fit.safetensors"
    out.write_text("mine")
    for arguments in ({"out": out}, {"out": tmp_path / "other", "engine": out}):
        with pytest.raises(OutputError, match=r"fit\.safetensors: expected a new file"):
            vtb.fit(clicks, **arguments)
    assert out.read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["fit.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"customers": "gann"}, "customers: expected one of gan-sd, .*, got 'gann'"),
        ({"responses": 3}, "responses: expected one of mail, .*, got 3"),
        ({"leave": "never"}, "leave: expected one of hazard, once, got 'never'"),
        ({"seed": -1}, "seed: expected an integer"),
        ({"seed": 0.5}, "seed: expected an integer"),
        ({"effort": 0}, "effort: expected a finite number above 0, up to 100, got 0"),
        ({"effort": float("nan")}, "effort: expected a finite number above 0, up to 100, got nan"),
        ({"device": "abacus"}, "device: expected 'cpu' or 'cuda', got 'abacus'"),
        ({"device": "cuda:99"}, "device: expected .*'cpu'.*, got 'cuda:99'"),
        ({"responses": "linear"}, "expected a log of purchases for 'linear'"),
        ({"leave": "once"}, r"leave='once': expected responses='bc', got 'bc\+mail'"),
        ({"ensemble": 0}, "ensemble: expected an integer, 1 to 100, got 0"),
        ({"ensemble": 2}, r"ensemble: expected 1, or responses='bc' or 'linear'.*got 2 with"),
        ({"responses_config": 3}, "responses_config: expected a CloningConfig or a MailConfig"),
    ],
)
def test_arguments_that_do_not_fit(
    clicks: str, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    arguments = {"customers": "independent", **arguments}
    with pytest.raises(InvalidArgumentError, match=message):
        vtb.fit(
            clicks,
            out=tmp_path / "fit.safetensors",
            effort=arguments.pop("effort", FEW),
            **arguments,
        )
    assert not (tmp_path / "fit.safetensors").exists()


def test_once_is_no_way_to_buy(purchases: str) -> None:
    with pytest.raises(InvalidArgumentError, match="expected a log of clicks, got purchases"):
        vtb.fit(purchases, responses="bc", leave="once")


def spoil(name: str, row: int, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(columns: dict[str, Any]) -> dict[str, Any]:
        values = list(columns[name])
        values[row] = value
        return {**columns, name: values}

    return change


def first_rows(count: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda columns: {name: values[:count] for name, values in columns.items()}


def drop(columns: dict[str, Any]) -> dict[str, Any]:
    row = int(np.flatnonzero(np.asarray(columns["page_no"]) == 3)[0]) - 1
    return {name: [*values[:row], *values[row + 1 :]] for name, values in columns.items()}


def double(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: [values[0], *values] for name, values in columns.items()}


BAD: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "missing column": (
        lambda columns: {name: columns[name] for name in columns if name != "w1"},
        r"column 'w1': expected in the log \(named by .*visits.toml\), got none",
    ),
    "wrong type": (
        lambda columns: {**columns, "page_no": [str(page) for page in columns["page_no"]]},
        "column 'page_no': expected numbers, got string",
    ),
    "unseen category": (spoil("gender", 7, "x"), "column 'gender': .* got 'x' in row 7"),
    "gap": (drop, "column 'page_no': expected page 2 after page 1, got 3 in row"),
    "duplicate": (double, "column 'page_no': expected page 2 after page 1, got 1 in row 1"),
    "after leaving": (spoil("left", 0, True), "column 'left': expected no page after .* in row 1"),
    "nan": (spoil("w0", 5, float("nan")), "column 'w0': expected a number, got NaN in row 5"),
    "one session": (first_rows(2), "column 'visit': expected at least 20 sessions, got 1 session"),
    "ten rows": (first_rows(10), r"expected at least 20 sessions, got \d sessions \(10 rows\)"),
    "one answer": (
        lambda columns: {**columns, "clicks": [0] * len(columns["clicks"])},
        "column 'clicks': expected different numbers of clicks, got 0 on every page",
    ),
    "no values": (
        lambda columns: {**columns, "age": [None] * len(columns["age"])},
        "column 'age': expected values, got none in any row; leave it out of the schema",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_logs_are_refused_by_file_column_and_row(
    own: Own, own_schema: Path, parquet_file: Callable[..., str], tmp_path: Path, case: str
) -> None:
    change, message = BAD[case]
    own_schema.write_text(
        own_schema.read_text().replace(
            "[action]", '[customer.categories]\ngender = ["f", "m"]\n\n[action]'
        )
    )
    path = parquet_file(change(own(60, seed=3)))
    out = tmp_path / "fit.safetensors"
    with pytest.raises(LogError, match=rf"(?s)visits\.parquet: .*{message}"):
        vtb.fit(path, schema=own_schema, out=out)
    assert not out.exists()
    assert not (tmp_path / "fit.safetensors.work").exists()


def test_constant_columns_are_learned_from_all_the_same(own: Own, own_schema: Path) -> None:
    columns = own(200)
    rows = len(columns["left"])
    columns |= {"city": np.zeros(rows, int), "age": np.full(rows, 30.0), "w1": np.ones(rows)}
    fitted = vtb.fit(
        pyarrow.table(columns), schema=own_schema, customers="lca", responses="bc", effort=FEW
    )
    assert fitted.schema.customer[1].size == 2
    assert (fitted.customers(100, seed=0)[:, 1] == 0).all()


def test_what_is_wrong_with_a_log_and_its_simulator_is_said(
    own: Own,
    own_schema: Path,
    parquet_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fit(columns: dict[str, Any], *words: str) -> tuple[str, str]:
        path, out = parquet_file(columns), str(tmp_path / "fit.safetensors")
        asked = ["fit", path, "--schema", str(own_schema), "--out", out, "--overwrite"]
        asked += ["--customers", "independent", "--responses", "bc", "--effort", "0.1", *words]
        assert cli.main(asked) == 0
        captured = capsys.readouterr()
        return captured.out, captured.err

    # The guard: a log of which nothing is to be said.
    columns = own(1_200)
    summary, said = fit(columns)
    assert said == ""
    assert "OFF" not in summary
    # Sessions that never end, and an identifier.
    columns["left"] = np.zeros(len(columns["left"]), bool)
    columns["city"] = [int(visit[-5:]) for visit in columns["visit"]]
    summary, said = fit(columns)
    for part in (
        "warning: the log: column 'left': expected sessions to end, got one that stops after",
        "warning: the log: column 'left': expected some pages with outcome 'leave', got none",
        "warning: the log: column 'city': expected values that many sessions share, got 1,200 in",
        "warning: simulated sessions have ",
        " times those of the log (",
        "do not rely on this simulator",
    ):
        assert part in said
    (line,) = [line for line in summary.splitlines() if "OFF" in line]
    assert line.strip() == "MORE THAN TWOFOLD OFF: do not rely on this simulator"
    shown, again = fit(columns, "--json")
    assert again == said
    report = json.loads(shown)["report"]
    assert {one["kind"] for one in report["warnings"]} == {
        *("cut-short", "never-leave", "identifier"),
    }
    assert report["check"]["off"] == ["mean_session_length"]


def test_twofold_is_off() -> None:
    from virtualtb_fast.fit import _is_off

    assert not _is_off(1.0, 1.9)
    assert not _is_off(1.0, 0.51)
    assert _is_off(1.0, 2.1)
    assert _is_off(1.0, 0.49)
    assert _is_off(0.0, 0.1)
    assert not _is_off(0.0, 0.0)


@pytest.mark.parametrize("stage", ["customers", "responses", "mail"])
def test_divergence_says_what_and_when_and_keeps_the_last_good(
    clicks: str, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtualtb_fast import _training
    from virtualtb_fast.customers import AutoregressiveConfig
    from virtualtb_fast.imitation.cloning import CloningConfig
    from virtualtb_fast.imitation.fitting import FitConfig
    from virtualtb_fast.imitation.mail import MailConfig

    monkeypatch.setattr(_training, "_EVERY", 0.0)
    arguments: dict[str, Any] = {"customers": "independent", "responses": "bc"}
    if stage == "customers":
        config = AutoregressiveConfig(steps=200, rate=1e30)
        arguments = {"customers": "ar", "responses": "bc", "customers_config": config}
    elif stage == "responses":
        arguments["responses_config"] = CloningConfig(fit=FitConfig(batch=64, rate=1e30))
    else:
        arguments["responses"] = "mail"
        arguments["responses_config"] = MailConfig(iterations=5, value_rate=1e30)
    out = tmp_path / "fit.safetensors"
    with pytest.raises(TrainingDivergedError) as caught:
        vtb.fit(clicks, out=out, **arguments)
    assert not out.exists()
    assert caught.value.quantity
    assert caught.value.step >= 0
    message = str(caught.value)
    assert caught.value.quantity.replace("_", " ") in message.replace("_", " ")
    assert "fit.safetensors.work" in message
    for kept in (tmp_path / "fit.safetensors.work").glob("*.checkpoint"):
        state = torch.load(kept, weights_only=True)["state"]
        for value in flat(state):
            assert bool(torch.isfinite(value.double()).all())


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        # Norms of the first step, in "centre", are not known before it.
        return [one for key, part in value.items() if key != "centre" for one in flat(part)]
    if isinstance(value, list | tuple):
        return [one for part in value for one in flat(part)]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("responses", ["bc", "bc+mail"])
def test_how_many_threads_torch_has_changes_nothing(clicks: str, responses: str) -> None:
    def tensors(threads: int) -> dict[str, bytes]:
        with torch_threads(threads):
            made = vtb.fit(clicks, customers="lca", responses=responses, effort=0.01, seed=2)
        return {name: tensor.tobytes() for name, tensor in made.tensors().items()}

    assert tensors(1) == tensors(2) == tensors(3)


def test_weights_to_begin_with_do_not_depend_on_threads() -> None:
    def begun(function: Callable[..., Any], threads: int) -> Any:
        with torch_threads(threads):
            return function(512, 256, torch.Generator().manual_seed(0))

    assert torch.equal(begun(_orthogonal, 1), begun(_orthogonal, 2))
    # Void guard: the decomposition by itself does, where this PyTorch splits it.
    bare = _orthogonal.__wrapped__  # type: ignore[attr-defined]
    if torch.equal(begun(bare, 1), begun(bare, 2)):
        pytest.skip("here no sum depends on threads, so that this and the above prove nothing")
