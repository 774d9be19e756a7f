"""How far generated customers are from real ones: marginals, joint structure, novelty, classifiers.

Marginals alone say little: fields drawn independently of one another have them right. What tells
samplers apart are pairs and triples of fields, the likelihood under the truth where that is known,
and a classifier that tries to tell real from generated. Whoever uses one of these should report
the independent sampler beside it.

Tables are exact where the truth is a mixture that is known (`Mixture`), and counted otherwise.
All divergences are in nat.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._extras import sklearn_for
from virtualtb_fast.errors import InvalidArgumentError

__all__ = [
    "Mixture",
    "TwoSample",
    "classifier_two_sample",
    "entropy",
    "joint_divergence",
    "joint_divergences",
    "joint_table",
    "kl",
    "marginal_kl",
    "noise_information",
    "novelty",
    "pairs",
    "pearson",
    "spearman",
    "triples",
]

Codes = NDArray[np.uint8]
"""Category codes of customers, (n, F)."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A known density: shares of components, and independent fields within each."""

    shares: NDArray[np.float64]
    """(K,)."""
    columns: NDArray[np.float64]
    """(K, W): P(category | component), the fields' blocks side by side."""


def pairs(fields: int) -> list[tuple[int, ...]]:
    """All pairs of field numbers."""
    return list(combinations(range(fields), 2))


def triples(fields: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """``count`` different triples of field numbers, or all if there are no more, by a seed."""
    every: list[tuple[int, ...]] = list(combinations(range(fields), 3))
    if len(every) <= count:
        return every
    picked = np.random.default_rng(seed).choice(len(every), count, replace=False)
    return [every[index] for index in np.sort(picked)]


def joint_table(
    truth: Codes | Mixture, sizes: Sequence[int], fields: Sequence[int]
) -> NDArray[np.float64]:
    """The joint distribution of some fields, of shape (size of each).

    Args:
        truth: Customers, which are counted, or a mixture, whose table is exact.
        sizes: Categories of every field.
        fields: Numbers of the fields of the table, at most eight.

    Raises:
        InvalidArgumentError: no customers.
    """
    shape = tuple(sizes[number] for number in fields)
    if isinstance(truth, Mixture):
        starts = np.concatenate(([0], np.cumsum(sizes)))
        blocks = [truth.columns[:, starts[number] : starts[number + 1]] for number in fields]
        letters = "abcdefgh"[: len(shape)]
        terms = ",".join(f"z{letter}" for letter in letters)
        table: NDArray[np.float64] = np.einsum(f"z,{terms}->{letters}", truth.shares, *blocks)
        return table
    if not len(truth):
        raise InvalidArgumentError("customers: expected at least one, got none")
    flat = np.ravel_multi_index(tuple(truth[:, number] for number in fields), shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape) / len(truth)


def kl(p: NDArray[np.float64], q: NDArray[np.float64], smoothing: float = 0.0) -> float:
    """KL(p || q) of two tables of one shape.

    ``smoothing`` is added to every cell of q, which is then normalised: a cell of q that was
    counted as 0 in n customers is no proof of impossibility, so ``1 / (2 n)`` is usual. Cells where
    p is 0 add nothing; where q is 0 and p is not, the answer is infinite.
    """
    if p.shape != q.shape:
        raise InvalidArgumentError(f"tables: expected one shape, got {p.shape} and {q.shape}")
    smooth = (q + smoothing) / (q.sum() + smoothing * q.size)
    inside = p > 0
    with np.errstate(divide="ignore"):
        return float((p[inside] * (np.log(p[inside]) - np.log(smooth[inside]))).sum())


def entropy(p: NDArray[np.float64]) -> float:
    """-sum p log p."""
    inside = p[p > 0]
    return float(-(inside * np.log(inside)).sum())


def marginal_kl(
    real: Codes | Mixture, generated: Codes, sizes: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """KL(real || generated) and KL(generated || real) of each field, each (F,).

    Counted tables that are divided by are smoothed by half a customer a category.
    """
    behind = 0.0 if isinstance(real, Mixture) else 1 / (2 * len(real))
    forth, back = [], []
    for number in range(len(sizes)):
        p = joint_table(real, sizes, (number,))
        q = joint_table(generated, sizes, (number,))
        forth.append(kl(p, q, 1 / (2 * len(generated))))
        back.append(kl(q, p, behind))
    return np.array(forth), np.array(back)


def joint_divergence(
    real: Codes | Mixture,
    generated: Codes,
    sizes: Sequence[int],
    sets: Sequence[tuple[int, ...]],
) -> float:
    """The sum over sets of fields (`pairs`, `triples`) of KL(real || generated) of their tables.

    Counting n customers adds about (cells - 1) / (2 n) to each: compare with fresh real ones.
    """
    return sum(joint_divergences(real, generated, sizes, sets))


def joint_divergences(
    real: Codes | Mixture,
    generated: Codes,
    sizes: Sequence[int],
    sets: Sequence[tuple[int, ...]],
) -> list[float]:
    """KL(real || generated) of the tables of each set of fields: what `joint_divergence` sums."""
    smoothing = 1 / (2 * len(generated))
    return [
        kl(joint_table(real, sizes, one), joint_table(generated, sizes, one), smoothing)
        for one in sets
    ]


def novelty(generated: Codes, train: Codes) -> tuple[float, float]:
    """Share of the unique generated customers that are not among the training ones; of all rows."""
    width = generated.shape[1]
    keys = np.dtype((np.void, width))
    known = np.unique(np.ascontiguousarray(train).view(keys).ravel())
    unique, counts = np.unique(
        np.ascontiguousarray(generated).view(keys).ravel(), return_counts=True
    )
    fresh = ~np.isin(unique, known)
    return float(fresh.mean()), float(counts[fresh].sum() / counts.sum())


def noise_information(
    probabilities: NDArray[np.float64], sizes: Sequence[int], seed: int = 0
) -> tuple[float, NDArray[np.float64]]:
    """How much a generator's customers tell of its noise z: I(z; x) in all, and a field.

    A generator that ignores its noise has 0, and then its fields are independent.

    Args:
        probabilities: P(category | z) for m draws of z, (m, W).
        sizes: Categories of every field; given z, fields are independent.
        seed: Of the customers that are drawn for the estimate.

    Returns:
        A lower bound of I(z; x), which cannot exceed log m (van den Oord et al., 2018: one customer
        a z, against all m); and I(z; x_f) of each field (F,).
    """
    random = np.random.default_rng(seed)
    m, first, alone = len(probabilities), 0, []
    logs = np.log(np.maximum(probabilities, 1e-30))
    chosen = np.zeros((m, len(sizes)), np.int64)
    for number, size in enumerate(sizes):
        block = probabilities[:, first : first + size]
        within = -(block * np.log(np.maximum(block, 1e-300))).sum(1).mean()
        alone.append(entropy(block.mean(0)) - within)
        drawn = (np.cumsum(block, 1) <= random.random((m, 1))).sum(1)
        chosen[:, number] = first + np.minimum(drawn, size - 1)
        first += size
    gains = np.empty(m)
    for start in range(0, m, 512):
        some = slice(start, min(start + 512, m))
        rows = np.zeros((chosen[some].shape[0], first))
        np.put_along_axis(rows, chosen[some], 1.0, axis=1)
        joint = rows @ logs.T
        own = joint[np.arange(len(rows)), np.arange(start, start + len(rows))]
        top = joint.max(1)
        gains[some] = own - top - np.log(np.exp(joint - top[:, None]).mean(1))
    return float(gains.mean()), np.array(alone)


def pearson(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation of two rows of figures; 0 if one of them does not vary."""
    if len(one) < 2 or np.ptp(one) < 1e-12 or np.ptp(other) < 1e-12:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Rank correlation of two rows of figures, equal ones sharing their rank; 0 without any."""
    if not len(one):
        return 0.0
    ranks = []
    for figures in (one, other):
        _, inverse, counts = np.unique(figures, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    return pearson(ranks[0], ranks[1])


@dataclass(frozen=True, slots=True)
class TwoSample:
    """A classifier's try to tell real customers from generated ones."""

    auc: float
    """Area under the curve on held-out customers: .5 if it cannot."""
    null: tuple[float, float]
    """Where 95 % of such areas fall if there is nothing to tell."""
    held_out: int
    """Real, and as many generated, customers that it was judged on."""


def classifier_two_sample(real: Codes, generated: Codes, *, seed: int = 0) -> TwoSample:
    """Classifier two-sample test: boosted trees on half of the customers, judged on the other.

    Args:
        real: Customers that no sampler was fitted to, (n, F).
        generated: As many generated ones.
        seed: Of the split and the trees.

    Raises:
        InvalidArgumentError: tables of different shapes, or of fewer than 20 customers.
        MissingExtraError: scikit-learn is not installed.
    """
    if real.shape != generated.shape or len(real) < 20:
        got = f"{real.shape} and {generated.shape}"
        expected = "two tables of one shape with 20 customers or more"
        raise InvalidArgumentError(f"customers: expected {expected}, got {got}")
    ensemble = sklearn_for("classifier_two_sample", "ensemble")
    metrics = sklearn_for("classifier_two_sample", "metrics")
    # scikit-learn itself needs it.
    threads = importlib.import_module("threadpoolctl")
    random = np.random.default_rng(seed)
    half, count = len(real) // 2, len(real)
    left, right = random.permutation(count), random.permutation(count)
    shown = np.concatenate((real[left[:half]], generated[right[:half]])).astype(np.float64)
    asked = np.concatenate((real[left[half:]], generated[right[half:]])).astype(np.float64)
    trees: Any = ensemble.HistGradientBoostingClassifier(
        max_iter=200,
        learning_rate=0.1,
        # scikit-learn takes categories up to 254; larger fields are ordered by code.
        categorical_features=np.maximum(shown.max(0), asked.max(0)) < 255,
        early_stopping=False,
        random_state=int(random.integers(1 << 31)),
    )
    n = count - half
    # One thread: the trees then depend on nothing but the seed, and small tables are quicker.
    with threads.threadpool_limits(1):
        trees.fit(shown, np.repeat([0, 1], half))
        chances = trees.predict_proba(asked)[:, 1]
    area = metrics.roc_auc_score(np.repeat([0, 1], n), chances)
    # The Mann-Whitney statistic's deviation without a difference: (2 n + 1) / (12 n^2).
    width = 1.96 * np.sqrt((2 * n + 1) / (12 * n * n))
    return TwoSample(float(area), (0.5 - float(width), 0.5 + float(width)), n)
