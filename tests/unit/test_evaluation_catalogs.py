"""What the benches say of our own catalogues: every answer is compared before it is timed."""

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.evaluation import catalogs, retrieval


def test_opening_tells_what_fresh_processes_wait_for() -> None:
    told = catalogs.opening(2_000, dimensions=5, k=3, rounds=2)
    assert (told["items"], told["rounds"]) == (2_000, 2)
    assert told["catalogue_mb"] > 2_000 * 5 * 4 / 1e6
    for name in ("open_ms", "first_answer_ms"):
        assert 0 < told[name] <= told[f"most_{name}"]


def test_processes_that_find_others_or_fail_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = catalogs._OPEN
    monkeypatch.setattr(catalogs, "_OPEN", right.replace("search(weights", "search(-weights"))
    with pytest.raises(vtb.StateError, match="expected the items that the builder finds"):
        catalogs.opening(500, dimensions=5, rounds=1)
    monkeypatch.setattr(catalogs, "_OPEN", right.replace("np.load", "np.lead"))
    with pytest.raises(vtb.StateError, match=r"opening: expected .* got 1: AttributeError"):
        catalogs.opening(500, dimensions=5, rounds=1)


def test_both_kinds_of_build_are_measured() -> None:
    pytest.importorskip("pyarrow")
    told = catalogs.builds(3_000, dimensions=4)
    assert set(told) == {"parquet", "numpy"}
    for row in told.values():
        assert row["items"] == 3_000
        assert row["items_per_second"] > 0
        assert row["peak_mb"] >= row["before_mb"] > 0


def test_our_own_ratios_come_with_checked_answers() -> None:
    items = np.random.default_rng(0).random((3_000, 6), np.float32)
    told = catalogs.ours_alone(items, rounds=1)
    assert all(value > 0 for value in told.values())
    assert {"two_threads_over_one", "filtered_over_unfiltered_time_tenth_single"} <= set(told)
    weights = np.ones((2, 6), np.float32)
    price = items[:, 0]
    scores = -np.sort(-(weights @ items[price <= 0.5].T), axis=1)[:, :4]
    catalogs._check_filtered(items, price, (0.0, 0.5), weights, scores)
    # Void guard: the best of all items are not those of half of them.
    wrong = -np.sort(-(weights @ items.T), axis=1)[:, :4]
    with pytest.raises(vtb.StateError, match="expected numpy's scores"):
        catalogs._check_filtered(items, price, (0.0, 0.5), weights, wrong)


def test_names_stay_where_they_were() -> None:
    for name in ("builds", "candidates", "contenders", "growth", "measure", "ours_alone"):
        assert callable(getattr(retrieval, name))
