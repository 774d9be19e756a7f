"""Exact search against plain float64 numpy, on the real catalogue and on made ones."""

import os
from pathlib import Path

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.evaluation import retrieval


def real_items():
    folder = os.environ.get("VIRTUALTB_DATA")
    path = Path(folder or "") / "item_catalogues" / "glove6b_pca27_400k.npz"
    if not folder or not path.exists():
        pytest.skip("set VIRTUALTB_DATA to the folder that holds item_catalogues")
    return np.load(path)["items"].astype(np.float32)


def agrees(items, weights, truth, rows, scores, shift=0.0):
    """Whether rows are the best in float64 within the rounding of float32, order included."""
    k = rows.shape[1]
    found = np.einsum("qd,qkd->qk", weights.astype(float), items[rows].astype(float)) + shift
    size = np.linalg.norm(weights, axis=1) * np.linalg.norm(items, axis=1).max()
    rounding = items.shape[1] * 2.0**-24 * 1.001 * size[:, None]
    return (
        (np.abs(scores - found) <= rounding).all()
        and (found >= truth - 2 * rounding).all()
        and all(len(set(row)) == k for row in rows.tolist())
    )


def test_a_thousand_queries_of_the_real_catalogue():
    items = real_items()
    weights = np.random.default_rng(3).standard_normal((1_000, 27)).astype(np.float32)
    catalog = vtb.Catalog.build(items)
    rows, scores = catalog.search(weights, 10)
    _, truth = retrieval.double_precision(items, weights, 10)
    assert agrees(items, weights, truth, rows, scores)
    # Void guards: worse rows, and scores a little off, are noticed.
    assert not agrees(items, weights, truth, (rows + 1) % len(items), scores)
    assert not agrees(items, weights, truth, rows, scores, shift=1e-3)
    # One at a time, other threads, other batches: the same.
    for number in range(0, 1_000, 97):
        alone, alone_scores = catalog.search(weights[number], 10, num_threads=2)
        np.testing.assert_array_equal(alone, rows[number])
        np.testing.assert_array_equal(alone_scores, scores[number])


def test_the_bench_refuses_wrong_answers():
    items = np.random.default_rng(0).random((3_000, 27), np.float32)
    weights = np.random.default_rng(1).standard_normal((8, 27)).astype(np.float32)
    true_rows, truth = retrieval.double_precision(items, weights, 10)
    right = retrieval.Contender("right", lambda w, k: true_rows, True, 0, 0)
    assert retrieval.recall(right, items, weights, truth) == 1
    wrong_rows = true_rows.copy()
    wrong_rows[3, 9] = 7
    wrong = retrieval.Contender("wrong", lambda w, k: wrong_rows, True, 0, 0)
    with pytest.raises(vtb.StateError, match="wrong: expected"):
        retrieval.recall(wrong, items, weights, truth)
    approximate = retrieval.Contender("approximate", lambda w, k: wrong_rows, False, 0, 0)
    assert 0.9 < retrieval.recall(approximate, items, weights, truth) < 1
