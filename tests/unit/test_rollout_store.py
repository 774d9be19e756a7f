"""Rollouts of a store: the same logs, with items, prices and hours."""

from __future__ import annotations

import json
import threading
from dataclasses import fields
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast._core import BLOCK
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.logs import OUTCOMES, STORE_COLUMNS, read_log
from virtualtb_fast.policies import Policy
from virtualtb_fast.rollout import Rollout, Summary
from virtualtb_fast.store import Counters, GroundTruthStore

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def store() -> GroundTruthStore:
    """Every switch that changes customers within a session, and two remembered actions."""
    return GroundTruthStore(
        3 << 32,
        hour="uniform",
        memory=3,
        repeat=False,
        leave="respawn",
        new_request=0.2,
        calibrate=False,
        tau=0.6,
        b0=-4.5,
    )


def varied(observation: np.ndarray, session: np.ndarray, page: np.ndarray) -> np.ndarray:
    """A pure policy whose action tells the page that it was chosen for."""
    angle = np.arange(27) + session[:, None] + 3 * page[:, None]
    return (0.05 * np.sin(angle)).astype(np.float32)


def test_columns_are_what_was_shown(store: GroundTruthStore) -> None:
    played = vtb.rollout(store, varied, sessions=200, seed=5)
    assert played.keys() == STORE_COLUMNS == tuple(dict(played.log))
    rows = len(played)
    assert played["items"].shape == (rows, 10)
    assert played["value"].dtype == played["hour"].dtype == np.float32
    # Only the first page of a session is sure to exclude nothing: it is the ten best.
    first = played["page"] == 0
    queries = np.ascontiguousarray(played["customer"][first, 9])
    shown = store.pages(np.ascontiguousarray(played["action"][first]), queries)
    np.testing.assert_array_equal(played["items"][first], shown)
    bought = played["outcome"] == OUTCOMES.index("buy")
    assert bought.any()
    np.testing.assert_array_equal(played["units"], bought)
    np.testing.assert_array_equal(played["clicks"], bought)
    prices = store.items().price
    on_page = prices[played["items"][bought]]
    value = np.round(100 * played["value"][bought].astype(np.float64)) / 100
    assert (on_page == value[:, None]).any(axis=1).all()
    assert not played["value"][~bought].any()


def test_items_are_shown_once_a_customer_unless_repeated(store: GroundTruthStore) -> None:
    played = vtb.rollout(store, "zero", sessions=300, seed=1)
    fresh = (played["page"] == 0) | np.roll(played["outcome"] != OUTCOMES.index("turn"), 1)
    customer = np.cumsum(fresh)
    pairs = np.stack([np.repeat(customer, 10), played["items"].ravel()], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    # Void guard: a store that repeats fails the same check.
    repeating = GroundTruthStore(3 << 32, calibrate=False, tau=0.6, b0=-4.5)
    played = vtb.rollout(repeating, "zero", sessions=300, seed=1)
    pairs = np.stack([np.repeat(played["session"], 10), played["items"].ravel()], axis=1)
    assert len(np.unique(pairs, axis=0)) < len(pairs)


def test_observations_are_those_that_the_policy_saw(store: GroundTruthStore) -> None:
    seen: dict[tuple[int, int], np.ndarray] = {}

    def watched(observation: np.ndarray, session: np.ndarray, page: np.ndarray) -> np.ndarray:
        for row, key in enumerate(zip(session.tolist(), page.tolist(), strict=True)):
            seen[key] = observation[row].copy()
        return varied(observation, session, page)

    played = vtb.rollout(store, watched, sessions=200, seed=2)
    want = np.array([seen[key] for key in sorted(seen)])
    assert want.shape == (len(played), store.observation_width)
    np.testing.assert_array_equal(played.log.observations(), want)
    np.testing.assert_array_equal(played.log.observations(slice(7, 31)), want[7:31])
    # Customers who left made room for others, whose pages count from 0 again.
    assert (want[:, 90] < played["page"]).any()


def test_the_summary_is_that_of_the_log(store: GroundTruthStore) -> None:
    played = vtb.rollout(store, "gaussian:0.02", sessions=2_000, seed=9)
    units, pages = int(played["units"].sum()), len(played)
    cents = sum(round(100 * float(value)) for value in played["value"])
    assert (played.tv, played.summary.pages, played.summary.cents) == (units, pages, cents)
    assert played.tt == cents / 100
    assert played.r2p == np.count_nonzero(played["units"]) / pages == 10 * played.ctr
    low, high = played.r2p_interval
    sessions = np.bincount(played["session"], played["units"])
    lengths = np.bincount(played["session"])
    rng = np.random.default_rng(0)
    draws = rng.integers(len(lengths), size=(400, len(lengths)))
    bootstrap = sessions[draws].sum(1) / lengths[draws].sum(1)
    assert high - low == pytest.approx(2 * 1.96 * bootstrap.std(), rel=0.2)
    assert "R2P" in str(played.summary)
    assert "TT, TV" in str(played.summary)
    report = played.summary.to_dict()
    assert (report["r2p"], report["tv"], report["tt"]) == (played.r2p, units, cents / 100)


def test_files_are_the_same_log(store: GroundTruthStore, tmp_path: Path) -> None:
    kept = vtb.rollout(store, "logger:query", sessions=9_000, seed=4)
    path = tmp_path / "store.parquet"
    written = vtb.rollout(store, "logger:query", sessions=9_000, seed=4, out=path, num_threads=1)
    assert written.digest() == kept.digest()
    back = read_log(path)
    assert back.metadata == kept.metadata
    assert back.metadata["store_digest"] == store.digest
    config = json.loads(back.metadata["store_config"])
    assert (config["seed"], config["items"], config["repeat"]) == (3 << 32, 5_000, False)
    assert config["strength"] is None
    for name in STORE_COLUMNS:
        np.testing.assert_array_equal(back[name], kept[name])
    table = pyarrow.table(kept)
    names = ["session", "page", "day", "customer", "action", "action_logp"]
    names += ["clicks", "second", "outcome", "units", "value", "hour", "items"]
    assert table.column_names == names
    assert pyarrow.types.is_fixed_size_list(table.schema.field("items").type)
    from_file = parquet.read_table(path)
    assert from_file.schema.equals(table.schema)
    for name in names:
        assert from_file[name].to_pylist() == table[name].to_pylist(), name


def test_a_store_without_hours_has_none(tmp_path: Path) -> None:
    timeless = GroundTruthStore(3 << 32, calibrate=False, tau=0.6, b0=-4.5)
    path = tmp_path / "timeless.parquet"
    played = vtb.rollout(timeless, "logger", sessions=50, out=path)
    assert np.isnan(played["hour"]).all()
    assert pyarrow.table(played.log)["hour"].null_count == len(played)
    assert not played["day"].any()
    later = GroundTruthStore(3 << 32, day=7, calibrate=False, tau=0.6, b0=-4.5)
    assert (vtb.rollout(later, "logger", sessions=50)["day"] == 7).all()


def test_what_cannot_be_rolled_out_is_refused(shop: vtb.Simulator) -> None:
    endless = GroundTruthStore(3 << 32, continuing=True, calibrate=False, tau=0.6, b0=-4.5)
    with pytest.raises(InvalidArgumentError, match="expected one whose sessions end"):
        vtb.rollout(endless, sessions=1)
    with pytest.raises(InvalidArgumentError, match="which has no logger"):
        vtb.rollout(shop, "logger", sessions=1)
    plain = GroundTruthStore(3 << 32, calibrate=False, tau=0.6, b0=-4.5)
    with pytest.raises(InvalidArgumentError, match="27 numbers"):
        vtb.rollout(plain, Policy.constant(np.zeros(5)), sessions=1)


def test_rollouts_and_environments_count_alike() -> None:
    """What both count goes by the same names, and comes to the same."""
    # Customers who leave without a purchase: sums over sessions differ from stream to stream.
    store = GroundTruthStore(3 << 32, calibrate=False, tau=0.6, b0=-4.5)
    envs = gymnasium.make_vec(
        "virtualtb_fast:GroundTruthStore-v0", num_envs=1, store=store, autoreset_mode="SameStep"
    )
    envs.reset(seed=11)
    while envs.counters().sessions < 40:
        envs.step(np.zeros((1, 27), np.float32))
    counters = envs.counters()
    summary = vtb.rollout(store, "zero", sessions=40, seed=11).summary
    other = vtb.rollout(store, "zero", sessions=40, seed=12).summary
    names = {one.name for one in fields(Counters)} - {"outcomes"}
    assert names <= {one.name for one in fields(Summary)}
    for name in names:
        counted = getattr(counters, name)
        assert np.array_equal(counted, getattr(summary, name)), name
        assert name == "sessions" or not np.array_equal(counted, getattr(other, name)), name


def test_a_rollout_with_customers_of_ones_own() -> None:
    def pages_are_turned_once(batch: dict[str, np.ndarray]) -> np.ndarray:
        weights = np.zeros((len(batch["page"]), 12))
        weights[batch["page"] == 0, 10] = 1.0
        weights[batch["page"] > 0, 11] = 1.0
        return weights

    own = GroundTruthStore(
        3 << 32, calibrate=False, tau=0.6, b0=-4.5, customers=pages_are_turned_once
    )
    played = vtb.rollout(own, sessions=500, num_threads=2)
    assert (played.pages, played.units, played.sessions) == (1_000, 0, 500)
    assert played.log.metadata["customers"] != "referee"


# Work within work


def ordinary(batch: dict[str, np.ndarray]) -> np.ndarray:
    return np.tile([0.02] * 10 + [0.5, 0.3], (len(batch["page"]), 1))


@pytest.mark.timeout(300)
def test_customers_of_ones_own_may_play_rollouts(shop: vtb.Simulator) -> None:
    """On a thread of a pool. A rollout of one block has no use for others: these have more."""

    def play(threads: int) -> Rollout:
        return vtb.rollout(shop, sessions=BLOCK + 100, seed=2, num_threads=threads)

    alone = play(1)
    inner: list[tuple[str, bool]] = []

    def customers(batch: dict[str, np.ndarray]) -> np.ndarray:
        weights = ordinary(batch)
        weights[:, 10] += alone.ctr
        # More of them take longer, and show no more.
        if len(inner) < 6:
            played = play(2)
            inner.append((played.digest(), threading.current_thread() is caller))
        return weights

    caller = threading.current_thread()

    def outer(threads: int) -> str:
        store = GroundTruthStore(
            3 << 32, calibrate=False, tau=0.6, b0=-4.5, items=400, customers=customers
        )
        inner.clear()
        played = vtb.rollout(store, sessions=2 * BLOCK + 100, seed=1, num_threads=threads)
        assert {digest for digest, _ in inner} == {alone.digest()}
        # One thread calls from where the rollout was asked for, two do not.
        assert any(same for _, same in inner) == (threads == 1)
        return played.digest()

    assert outer(2) == outer(1)


@pytest.mark.timeout(300)
def test_an_environment_does_not_wait_for_another_ones_customers(shop: vtb.Simulator) -> None:
    from virtualtb_fast.envs import GroundTruthStoreVector, VirtualTBV1Vector

    both, go = threading.Barrier(3), threading.Event()

    def slow(batch: dict[str, np.ndarray]) -> np.ndarray:
        if not go.is_set():
            both.wait(120)
        assert go.wait(120), "nobody let the customers answer"
        return ordinary(batch)

    own = GroundTruthStore(3 << 32, calibrate=False, tau=0.6, b0=-4.5, items=400, customers=slow)
    one = GroundTruthStoreVector(600, own, num_threads=2)
    two = VirtualTBV1Vector(600, shop, num_threads=2)
    one.reset(seed=1)
    two.reset(seed=1)
    actions = np.zeros((600, 6), np.float32)
    want = VirtualTBV1Vector(600, shop, num_threads=1)
    want.reset(seed=1)
    one.send(np.zeros((600, 27), np.float32))
    try:
        # Both of its threads ask, and wait.
        both.wait(120)
        assert two.num_threads == 2
        for _ in range(3):
            np.testing.assert_array_equal(two.step(actions)[0], want.step(actions)[0])
        # The customers of the first are at work still.
        assert not go.is_set()
        with pytest.raises(vtb.StateError, match="call recv first"):
            one.observe()
    finally:
        go.set()
    assert one.recv()[0].shape == (600, 91)
