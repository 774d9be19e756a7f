"""Metrics of generated customers, against figures worked out by hand."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from virtualtb_fast.errors import InvalidArgumentError, MissingExtraError
from virtualtb_fast.evaluation import metrics

SIZES = (2, 3)
CODES = np.array([[0, 0], [0, 1], [1, 1], [1, 2]], np.uint8)


def test_tables_are_counted() -> None:
    assert metrics.joint_table(CODES, SIZES, (0,)).tolist() == [0.5, 0.5]
    assert metrics.joint_table(CODES, SIZES, (1, 0)).tolist() == [
        [0.25, 0],
        [0.25, 0.25],
        [0, 0.25],
    ]


def test_tables_of_a_mixture_are_exact() -> None:
    mixture = metrics.Mixture(
        np.array([0.25, 0.75]), np.array([[1, 0, 0.5, 0.5, 0], [0.2, 0.8, 0, 0, 1]])
    )
    assert metrics.joint_table(mixture, SIZES, (0,)) == pytest.approx([0.4, 0.6])
    expected = [[0.125, 0.125, 0.15], [0, 0, 0.6]]
    assert metrics.joint_table(mixture, SIZES, (0, 1)) == pytest.approx(np.array(expected))
    three = metrics.Mixture(np.ones(1), np.array([[0.5, 0.5, 0.1, 0.9, 0.3, 0.7]]))
    assert metrics.joint_table(three, (2, 2, 2), (0, 1, 2))[1, 0, 1] == pytest.approx(0.035)


def test_divergences_are_those_of_the_formula() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert metrics.kl(p, q) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert metrics.kl(q, p) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert metrics.kl(p, p) == 0
    assert metrics.kl(np.array([1.0, 0.0]), p) == pytest.approx(math.log(2))
    assert metrics.kl(p, np.array([1.0, 0.0])) == math.inf
    # Half a customer of four a category: (0, 4) counts as (.5, 4.5) of 5.
    smoothed = metrics.kl(p, np.array([0.0, 1.0]), 1 / 8)
    assert smoothed == pytest.approx(0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9))
    with pytest.raises(InvalidArgumentError, match=r"one shape, got \(2,\) and \(3,\)"):
        metrics.kl(p, np.ones(3) / 3)


def test_marginal_divergences_go_both_ways() -> None:
    real = np.array([[0], [0], [0], [1]], np.uint8)
    generated = np.array([[0], [1], [1], [1]], np.uint8)
    forth, back = metrics.marginal_kl(real, generated, (2,))
    # Each divided-by table with half a customer added to each category.
    assert forth == pytest.approx([0.75 * math.log(0.75 / 0.3) + 0.25 * math.log(0.25 / 0.7)])
    assert back == pytest.approx([0.25 * math.log(0.25 / 0.7) + 0.75 * math.log(0.75 / 0.3)])
    exact = metrics.Mixture(np.ones(1), np.array([[0.75, 0.25]]))
    _, unsmoothed = metrics.marginal_kl(exact, generated, (2,))
    assert unsmoothed == pytest.approx([0.25 * math.log(1 / 3) + 0.75 * math.log(3)])


def test_joint_divergence_sees_what_marginals_cannot() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 2, 20_000)
    real = np.stack((first, first, 1 - first), 1).astype(np.uint8)
    shuffled = np.stack([random.permutation(column) for column in real.T], 1)
    sizes = (2, 2, 2)
    forth, _ = metrics.marginal_kl(real, shuffled, sizes)
    assert forth.max() < 1e-6
    # Each pair: two cells of a half against four of a quarter.
    found = metrics.joint_divergence(real, shuffled, sizes, metrics.pairs(3))
    assert found == pytest.approx(3 * math.log(2), rel=0.02)
    found = metrics.joint_divergence(real, shuffled, sizes, metrics.triples(3, 5, 0))
    assert found == pytest.approx(math.log(4), rel=0.02)
    assert metrics.joint_divergence(real, real, sizes, metrics.pairs(3)) < 1e-3


def test_sets_of_fields() -> None:
    assert metrics.pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert len(metrics.pairs(11)) == 55
    assert metrics.triples(3, 100, 0) == [(0, 1, 2)]
    drawn = metrics.triples(11, 100, 4)
    assert len(set(drawn)) == 100
    assert all(len(set(one)) == 3 for one in drawn)
    assert drawn == metrics.triples(11, 100, 4)
    assert drawn != metrics.triples(11, 100, 5)


def test_novelty_counts_unique_customers_and_rows() -> None:
    train = np.array([[0, 0], [0, 1]], np.uint8)
    generated = np.array([[0, 0], [0, 0], [1, 1], [1, 1], [1, 1], [1, 0]], np.uint8)
    unique, rows = metrics.novelty(generated, train)
    assert unique == pytest.approx(2 / 3)
    assert rows == pytest.approx(4 / 6)
    assert metrics.novelty(train, train) == (0, 0)


def test_entropy() -> None:
    assert metrics.entropy(np.array([0.25, 0.75, 0])) == pytest.approx(
        -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    )


def test_noise_information_of_a_known_channel() -> None:
    # Noise of four values, each of which fixes the customer of two fields: I = log 4.
    sure = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]], float)
    bound, alone = metrics.noise_information(np.tile(sure, (500, 1)), (2, 2))
    assert bound == pytest.approx(math.log(4), abs=0.01)
    assert alone == pytest.approx([math.log(2)] * 2)
    # A channel that is right three times in four, of two equal inputs.
    noisy = np.tile([[0.75, 0.25], [0.25, 0.75]], (1000, 1))
    exact = math.log(2) - metrics.entropy(np.array([0.25, 0.75]))
    bound, alone = metrics.noise_information(noisy, (2,))
    assert alone == pytest.approx([exact])
    assert bound == pytest.approx(exact, abs=0.05)
    # Void guard: a generator that ignores its noise.
    bound, alone = metrics.noise_information(np.tile([[0.3, 0.7, 0.5, 0.5]], (500, 1)), (2, 2))
    assert abs(bound) < 1e-9
    assert abs(alone).max() < 1e-12


def test_a_classifier_tells_what_can_be_told() -> None:
    pytest.importorskip("sklearn", reason="the classifier is scikit-learn's")
    random = np.random.default_rng(1)

    def copies(count: int) -> np.ndarray:
        first = random.integers(0, 3, count)
        return np.stack((first, first), 1).astype(np.uint8)

    real = copies(4000)
    same = metrics.classifier_two_sample(real, copies(4000), seed=3)
    low, high = same.null
    assert low < same.auc < high
    assert same.held_out == 2000
    assert high - 0.5 == pytest.approx(1.96 * math.sqrt(4001 / (12 * 2000**2)))
    # Void guard: fields of the right marginals, drawn independently. A third looks real.
    independent = random.integers(0, 3, (4000, 2)).astype(np.uint8)
    told = metrics.classifier_two_sample(real, independent, seed=3)
    assert told.auc == pytest.approx(1 - 1 / 3 / 2, abs=0.03)
    assert metrics.classifier_two_sample(real, independent, seed=3) == told
    with pytest.raises(InvalidArgumentError, match="20 customers"):
        metrics.classifier_two_sample(real[:10], independent[:10])


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.ensemble", "sklearn.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=r"scikit-learn: pip install virtualtb-fast\[report\]"
    ):
        metrics.classifier_two_sample(np.zeros((20, 1), np.uint8), np.zeros((20, 1), np.uint8))


def test_no_customers() -> None:
    with pytest.raises(InvalidArgumentError, match="got none"):
        metrics.joint_table(np.zeros((0, 2), np.uint8), SIZES, (0,))
