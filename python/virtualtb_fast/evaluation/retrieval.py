"""Catalogue search against other libraries: speed, recall, build time and memory of one run.

The contenders are those of `rivals`; `catalogs` measures what our catalogues do by themselves.

Answers are compared with double precision before anything is timed. Contenders take turns, and a
ratio is the median over rounds of the ratio within a round, so that a drift of the machine's speed
does not enter it. Threads of BLAS and OpenMP are counted when those libraries load: set
``OPENBLAS_NUM_THREADS`` and ``OMP_NUM_THREADS`` before numpy is imported (the command line does).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import InvalidArgumentError, StateError
from virtualtb_fast.evaluation.catalogs import builds, candidates, opening, ours_alone
from virtualtb_fast.evaluation.rivals import Contender, Floats, Search, contenders, versions

__all__ = [
    "Contender",
    "builds",
    "candidates",
    "contenders",
    "double_precision",
    "growth",
    "measure",
    "opening",
    "ours_alone",
    "recall",
    "versions",
]

BATCH: Final = 256
SINGLES: Final = 24
"""Queries asked one at a time in a round."""


def double_precision(
    items: Floats, weights: Floats, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The best rows and their scores by plain products in float64, each (q, k)."""
    rows = np.empty((len(weights), 0), np.int64)
    scores = np.empty((len(weights), 0))
    stride = max(k, 2**24 // max(1, len(weights)))
    for first in range(0, len(items), stride):
        some = weights.astype(np.float64) @ items[first : first + stride].T.astype(np.float64)
        numbers = np.broadcast_to(np.arange(first, first + some.shape[1]), some.shape)
        scores = np.concatenate([scores, some], axis=1)
        rows = np.concatenate([rows, numbers], axis=1)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows, scores


def recall(
    contender: Contender, items: Floats, weights: Floats, truth: NDArray[np.float64]
) -> float:
    """The share of the true best that a contender finds; rows of equal score are as good.

    Raises:
        StateError: it claims to be exact and is not, within the rounding of float32.
    """
    k = truth.shape[1]
    rows = contender.search(weights, k).astype(np.int64)
    if any(len(set(row)) != k for row in rows[:, :].tolist() if -1 not in row):
        raise StateError(f"{contender.name}: expected {k} different rows")
    found = np.einsum("qd,qkd->qk", weights.astype(np.float64), items[rows].astype(np.float64))
    size = np.linalg.norm(weights, axis=1) * np.linalg.norm(items, axis=1).max()
    allowed = 2 * items.shape[1] * 2.0**-23 * size[:, None]
    good = (found >= truth[:, -1:] - allowed) & (rows >= 0)
    if contender.exact and not (good.all() and (np.abs(found - truth) <= allowed).all()):
        raise StateError(f"{contender.name}: expected the true best rows, got others")
    return float(good.mean())


def _rate(search: Search, weights: Floats, k: int, *, single: bool) -> float:
    """Queries a second."""
    queries = [weights[i : i + 1] for i in range(len(weights))] if single else [weights]
    started = time.perf_counter()
    for query in queries:
        search(query, k)
    return len(weights) / (time.perf_counter() - started)


def measure(
    items: Floats,
    *,
    k: int = 10,
    threads: int = 1,
    rounds: int = 5,
    seed: int = 0,
    approximate: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Every contender over the items (N, D): rates of a batch and of single queries, and ratios.

    Raises:
        InvalidArgumentError: there are fewer than ``k`` items.
        StateError: a contender that should be exact gave wrong answers.
    """
    if not 1 <= k <= len(items):
        raise InvalidArgumentError(f"k: expected 1 to {len(items)}, the number of items, got {k}")
    weights = np.random.default_rng(seed).standard_normal((BATCH, items.shape[1]), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        progress(f"building over {len(items):,} items")
        field_ = contenders(items, Path(folder), threads, approximate=approximate)
        _, truth = double_precision(items, weights[:32], k)
        recalls = {one.name: recall(one, items, weights[:32], truth) for one in field_}
        for number in range(rounds):
            progress(f"{len(items):,} items: round {number + 1} of {rounds}")
            for one in field_:
                batch = _rate(one.search, weights, k, single=False)
                one.rates.setdefault("batch", []).append(batch)
                some = weights[(np.arange(SINGLES) * 5 + number) % BATCH]
                single = _rate(one.search, some, k, single=True)
                one.rates.setdefault("single", []).append(single)
        ours = field_[0]
        return {
            "items": len(items),
            "dimensions": items.shape[1],
            "k": k,
            "threads": threads,
            "rounds": rounds,
            "contenders": {
                one.name: {
                    "batch_per_second": statistics.median(one.rates["batch"]),
                    "single_per_second": statistics.median(one.rates["single"]),
                    "ours_over_it_batch": _ratio(ours, one, "batch"),
                    "ours_over_it_single": _ratio(ours, one, "single"),
                    "recall": recalls[one.name],
                    "build_seconds": one.build_seconds,
                    "memory_mb": one.memory_mb,
                }
                for one in field_
            },
        }


def _ratio(ours: Contender, rival: Contender, what: str) -> float:
    pairs = zip(ours.rates[what], rival.rates[what], strict=True)
    return statistics.median(a / b for a, b in pairs)


def growth(
    sizes: Sequence[int],
    *,
    dimensions: int = 27,
    threads: int = 1,
    rounds: int = 3,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """`measure` over uniform catalogues of growing size."""
    generator = np.random.default_rng(seed)
    return [
        measure(
            generator.random((size, dimensions), np.float32),
            threads=threads,
            rounds=rounds,
            seed=seed + 1,
            approximate=size <= 100_000,
            progress=progress,
        )
        for size in sizes
    ]
