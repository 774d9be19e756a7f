"""Searches among candidates: one list for all queries, or one for each.

Attributes and weights are small whole numbers, so that scores are exact, and ties are everywhere.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtualtb_fast as vtb
from virtualtb_fast.catalog import Catalog
from virtualtb_fast.errors import InvalidArgumentError

ITEMS, WIDTH = 9_000, 5


@pytest.fixture(scope="module")
def attributes() -> np.ndarray:
    return np.random.default_rng(3).integers(-4, 5, (ITEMS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def catalog(attributes: np.ndarray) -> Catalog:
    return vtb.Catalog.build(attributes)


def best(
    attributes: np.ndarray, weights: np.ndarray, rows: np.ndarray, k: int, *, upward: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The definition: every candidate once, the highest scores first, then the lower rows."""
    rows = np.unique(rows)
    scores = attributes[rows].astype(np.int64) @ weights.astype(np.int64)
    order = np.lexsort((rows if upward else -rows, -scores))[:k]
    found = np.full(k, -1, np.int64)
    values = np.full(k, -np.inf, np.float32)
    found[: len(order)], values[: len(order)] = rows[order], scores[order]
    return found, values


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 20),
    longest=st.sampled_from([0, 1, 9, 16, 17, 200, 4_096, 4_097, 6_000]),
    k=st.sampled_from([1, 3, 10, 16, 17, 64, 300]),
    threads=st.sampled_from([1, 2]),
)
def test_answers_are_the_definitions(
    catalog: Catalog,
    attributes: np.ndarray,
    seed: int,
    queries: int,
    longest: int,
    k: int,
    threads: int,
) -> None:
    draw = np.random.default_rng(seed)
    weights = draw.integers(-3, 4, (queries, WIDTH)).astype(np.float32)
    # In no order, and some of them twice.
    lists = [draw.integers(0, ITEMS, draw.integers(0, longest + 1)) for _ in range(queries)]
    found, scores = catalog.search(weights, k, rows=lists, num_threads=threads)
    for query in range(queries):
        want = best(attributes, weights[query], lists[query], k)
        np.testing.assert_array_equal(found[query], want[0])
        np.testing.assert_array_equal(scores[query], want[1])
    shared, scores = catalog.search(weights, k, rows=lists[0], num_threads=threads)
    for query in range(queries):
        want = best(attributes, weights[query], lists[0], k)
        np.testing.assert_array_equal(shared[query], want[0])
        np.testing.assert_array_equal(scores[query], want[1])


def test_the_comparison_sees_ties_the_wrong_way_round(
    catalog: Catalog, attributes: np.ndarray
) -> None:
    weights = np.array([1, 0, 0, 0, 0], np.float32)
    rows = np.arange(0, ITEMS, 40)
    found, _ = catalog.search(weights, rows=rows)
    np.testing.assert_array_equal(found, best(attributes, weights, rows, 10)[0])
    wrong, _ = best(attributes, weights, rows, 10, upward=False)
    assert (found != wrong).any()


def test_an_overflow_among_candidates_is_named(attributes: np.ndarray) -> None:
    large = attributes.copy()
    large[70] = 3e38
    catalog = vtb.Catalog.build(large)
    weights = np.ones((12, WIDTH), np.float32)
    safe, bad = np.arange(60), np.arange(60, 90)
    assert (catalog.search(weights, rows=[safe] * 12)[0] < 60).all()
    for rows in (bad, [*[safe] * 3, *[bad] * 9]):
        with pytest.raises(InvalidArgumentError, match="overflow with item row 70"):
            catalog.search(weights, rows=rows)


@pytest.mark.parametrize("ends", [[3], [2, 1, 3], [1, 2, 9], []])
def test_lists_that_do_not_fit_are_refused_by_the_native_module(
    catalog: Catalog, ends: list[int]
) -> None:
    rows, weights = np.arange(3, dtype=np.uint32), np.ones((3, WIDTH), np.float32)
    search = catalog._open().search
    assert search(weights, 1, filters=[], rows=rows, ends=[1, 2, 3], num_threads=1)[0].size == 3
    with pytest.raises(InvalidArgumentError, match="ends: expected"):
        search(weights, 1, filters=[], rows=rows, ends=ends, num_threads=1)


def test_an_overflow_names_its_query_whatever_limits_the_rows() -> None:
    draw = np.random.default_rng(5)
    catalog = vtb.Catalog.build(draw.standard_normal((500, WIDTH)), category=[1] * 499 + [2])
    weights = draw.standard_normal((20, WIDTH)).astype(np.float32)
    weights[12] = weights[17] = 3e38
    lists: list[dict[str, object]] = [{}, {"rows": range(200)}, {"rows": [list(range(200))] * 20}]
    for chosen in lists:
        for filters in ({}, {"category": 1}):
            for threads in (1, 3):
                with pytest.raises(InvalidArgumentError, match=r"weights\[12\]: expected scores"):
                    catalog.search(weights, 3, num_threads=threads, **chosen, **filters)  # type: ignore[arg-type]
