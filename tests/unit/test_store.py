"""`GroundTruthStore`: its arguments, its catalogue, its copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.store import ConstantCustomer, Counters, GroundTruthStore


def quick(**arguments: Any) -> GroundTruthStore:
    return GroundTruthStore(**{"seed": 3, "calibrate": False, "tau": 1.0, "b0": -5.5, **arguments})


@pytest.fixture(scope="module")
def store() -> GroundTruthStore:
    return quick()


def test_the_same_arguments_are_the_same_store(store: GroundTruthStore) -> None:
    assert quick().digest == store.digest
    for change in (
        {"seed": 4}, {"day": 3}, {"hour": 5.0}, {"memory": 2}, {"items": 6000}, {"tau": 1.1},
        {"repeat": False}, {"categories": "long-tail"}, {"customers": ConstantCustomer(0.1, 0.5)},
    ):  # fmt: skip
        assert quick(**change).digest != store.digest, change


def test_pages_are_the_ten_best_candidates(store: GroundTruthStore) -> None:
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 0.02, (200, 27)).astype(np.float32)
    queries = rng.integers(0, 18, 200).astype(np.uint8)
    pages = store.pages(actions, queries)
    everything = store.items()
    assert everything.attributes.shape == (5000, 27) == (len(store), 27)
    for action, query, page in zip(actions, queries, pages, strict=True):
        rows = store.candidates(int(query))
        assert np.array_equal(rows, np.flatnonzero(np.arange(5000) % 18 == query)[:200])
        assert (everything.category[rows] == query).all()
        weights = (store.production + action).astype(np.float64)
        scores = everything.attributes[rows].astype(np.float64) @ weights
        best = np.sort(scores)[::-1]
        shown = scores[np.searchsorted(rows, page)]
        np.testing.assert_allclose(shown, best[:10], rtol=0, atol=1e-6)
        # Void guard: the next ten are not as good.
        assert best[19] < best[9] - 1e-6


def test_items_of_any_part_are_those_of_the_whole(store: GroundTruthStore) -> None:
    whole, part = store.items(), store.items(1234, 10)
    assert np.array_equal(whole.attributes[1234:1244], part.attributes)
    assert np.array_equal(whole.price[1234:1244], part.price)
    np.testing.assert_allclose(whole.attributes.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(whole.attributes.std(0), 1, atol=1e-5)
    assert np.corrcoef(np.log(whole.price), whole.attributes[:, 0])[0, 1] > 0.999
    assert np.array_equal(np.round(whole.price * 100) / 100, whole.price)


def test_copies_and_pickles_are_cheap_and_equal() -> None:
    calibrated = GroundTruthStore(100 << 32, memory=2, customers=ConstantCustomer(0.1, 0.6))
    data = pickle.dumps(calibrated)
    assert len(data) < 2500
    again = pickle.loads(data)
    assert again == calibrated
    assert again.digest == calibrated.digest
    assert again.reveal().tau == calibrated.reveal().tau
    figures, expected = again.reveal().calibration, calibrated.reveal().calibration
    assert figures is not None
    assert expected is not None
    assert figures.keys() == expected.keys()
    assert all(np.array_equal(figures[name], expected[name]) for name in expected)
    assert again._num_threads == calibrated._num_threads
    assert copy.deepcopy(calibrated) is calibrated
    assert "seed=429496729600" in repr(again)


def test_a_world_that_is_no_fair_test_is_refused() -> None:
    with pytest.raises(vtb.DegenerateWorldError, match="expected"):
        GroundTruthStore(0, candidates=10)


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1}, {"seed": 1 << 64}, {"seed": "a"}, {"items": 179}, {"items": 1 << 40},
        {"candidates": 9}, {"candidates": 1 << 20}, {"categories": "odd"}, {"categories": 3},
        {"day": -1}, {"day": 31}, {"hour": 24.0}, {"hour": float("nan")}, {"hour": "noon"},
        {"hour": []}, {"memory": 0}, {"memory": 65}, {"max_index": -1}, {"max_index": 40_000},
        {"leave": "stay"}, {"new_request": 1.5}, {"new_request": float("nan")}, {"tau": -1.0},
        {"tau": float("inf")}, {"b0": float("nan")}, {"b0": None}, {"calibrate": True},
        {"customers": 3}, {"customers": ConstantCustomer(0.7, 0.7)}, {"num_threads": 0},
        {"customers": ConstantCustomer}, {"repeat": "no"}, {"continuing": 1}, {"calibrate": 0},
        {"observe_page": None}, {"observe_feedback": "False"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(vtb.InvalidArgumentError):
        quick(**arguments)


def test_bad_calls_are_refused(store: GroundTruthStore) -> None:
    zeros, query = np.zeros((1, 27), np.float32), np.zeros(1, np.uint8)
    with pytest.raises(vtb.InvalidActionError):
        store.pages(zeros.astype(np.float64), query)
    with pytest.raises(vtb.InvalidArgumentError):
        store.pages(zeros, query + np.uint8(18))
    for value in (np.inf, np.nan, 2e6):
        action = np.full(27, value, np.float32)
        with pytest.raises(vtb.InvalidActionError):
            store.pages(action[None], query)
        with pytest.raises(vtb.InvalidActionError):
            store.expected(action)
    hidden = store.reveal()
    with pytest.raises(vtb.InvalidArgumentError, match="below 0, got -1"):
        hidden.log_density([[-1] * 11])
    with pytest.raises(vtb.InvalidArgumentError, match=r"got \[9, .*\] in row 0"):
        hidden.log_density([[9] * 11])
    for call in (
        lambda: store.pages(zeros, 3),  # type: ignore[arg-type]
        lambda: hidden.best_responses([-1]),
        lambda: hidden.best_responses([16]),
        lambda: hidden.best_responses([0.5]),
        lambda: store.candidates(18),
        lambda: store.items(4999, 2),
        lambda: store.reveal().log_density([[0] * 10]),
        lambda: store.reveal().log_density([[9] * 11]),
        lambda: store.reveal().log_density([[-1] * 11]),
        lambda: store.expected("best"),
    ):
        with pytest.raises(vtb.InvalidArgumentError):
            call()
    with pytest.raises(vtb.StateError):
        quick(leave="respawn").expected("zero")


def test_actions_are_clipped_as_environments_do(store: GroundTruthStore) -> None:
    outside = np.linspace(-5, 5, 27).astype(np.float32)
    inside = np.clip(outside, -1, 1)
    queries = np.arange(18, dtype=np.uint8)
    pages = [store.pages(np.tile(action, (18, 1)), queries) for action in (outside, inside)]
    assert np.array_equal(*pages)
    assert store.expected(outside).r2p == store.expected(inside).r2p
    # Void guard: without clipping, the pages were others.
    everything = store.items().attributes
    rows = store.candidates(0)
    best = rows[np.argsort(-(everything[rows] @ (store.production + outside)))[:10]]
    assert not np.array_equal(best, pages[1][0])


def test_stores_whose_customers_share_a_name_are_told_apart(store: GroundTruthStore) -> None:
    def customers(level: float) -> Any:
        return lambda pages: np.full((len(pages["page"]), 12), level)

    low, high = customers(1.0), customers(2.0)
    assert quick(customers=low).digest == quick(customers=high).digest
    assert quick(customers=low) == quick(customers=low)
    assert quick(customers=low) != quick(customers=high)
    assert quick(customers=low) != store


def test_a_failing_customer_model_is_named() -> None:
    from virtualtb_fast.envs.store import GroundTruthStoreVector

    def broken(pages: dict[str, np.ndarray]) -> np.ndarray:
        raise KeyError("nothing here")

    def wrong(pages: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros((len(pages["page"]), 3))

    def zero(pages: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros((len(pages["page"]), 12))

    def negative(pages: dict[str, np.ndarray]) -> np.ndarray:
        return np.full((len(pages["page"]), 12), -1.0)

    def stopped(pages: dict[str, np.ndarray]) -> np.ndarray:
        raise KeyboardInterrupt("stop")

    def play(model: Any) -> None:
        vtb.rollout(quick(customers=model), "zero", sessions=50, seed=1)

    for model in (broken, wrong, zero, negative):
        with pytest.raises(vtb.CustomerModelError) as played:
            play(model)
        assert isinstance(played.value.__cause__, KeyError if model is broken else type(None))
    with pytest.raises(KeyboardInterrupt, match="stop"):
        play(stopped)
    envs = GroundTruthStoreVector(3, quick(customers=stopped))
    envs.reset(seed=1)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        envs.step(np.zeros((3, 27), np.float32))
    for model in (broken, wrong, zero, negative):
        envs = GroundTruthStoreVector(3, quick(customers=model))
        envs.reset(seed=1)
        reason = "nothing here" if model is broken else "expected"
        with pytest.raises(vtb.CustomerModelError, match=reason) as played:
            envs.step(np.zeros((3, 27), np.float32))
        assert isinstance(played.value.__cause__, KeyError if model is broken else type(None))
        with pytest.raises(vtb.StateError):
            envs.step(np.zeros((3, 27), np.float32))
        envs.reset(seed=1)


def test_customers_of_ones_own_are_shown_what_is_documented() -> None:
    from virtualtb_fast.envs.store import GroundTruthStoreVector

    seen: list[dict[str, np.ndarray]] = []

    def watching(pages: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(pages)
        weights = np.zeros((len(pages["page"]), 12))
        weights[:, 10] = 1
        return weights

    store = quick(customers=watching, memory=2, hour=7.5)
    envs = GroundTruthStoreVector(64, store)
    envs.reset(seed=1)
    everything = store.items()
    actions = np.random.default_rng(0).normal(0, 0.1, (2, 64, 27)).astype(np.float32)
    for step in range(2):
        seen.clear()
        infos = envs.step(actions[step])[-1]
        assert sum(len(pages["page"]) for pages in seen) == 64
        assert len(seen) <= 18
        for pages in seen:
            assert (pages["page"] == step).all()
            assert (pages["hour"] == 7.5).all()
            assert len(set(pages["customer"][:, 9])) == 1
            assert np.array_equal(everything.attributes[pages["items"]], pages["attributes"])
            for row, items in enumerate(pages["items"]):
                shown = pages["actions"][row]
                env = int(np.flatnonzero((actions[step] == shown[0]).all(1))[0])
                assert np.array_equal(infos["items"][env], items)
                before = actions[0, env] if step else np.zeros(27)
                assert np.array_equal(shown[1], before)


def test_counters_of_workers_add_up() -> None:
    none = Counters()
    assert np.isnan(none.r2p)
    assert np.isnan(none.ctr)
    one = Counters(pages=10, buy_pages=2, units=2, cents=999, sessions_by_length=(0, 1, 2))
    two = Counters(pages=30, buy_pages=2, units=2, cents=1, sessions_by_length=(0, 5))
    total = sum([none, one, two])
    assert isinstance(total, Counters)
    assert (total.r2p, total.tv, total.tt, total.ctr) == (0.1, 4, 10.0, 0.01)
    assert total.sessions_by_length == (0, 6, 2)
