"""Ways to search a catalogue: ours, and every other library that is installed.

Rivals are whichever are installed of faiss (``IndexFlatIP``, IVF, HNSW), usearch (exact) and numpy
(matrix product and ``argpartition``). They are imported when asked for, by this module alone.
"""

from __future__ import annotations

import importlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.catalog import Catalog
from virtualtb_fast.evaluation.machine import resident

__all__ = ["Contender", "Floats", "Search", "contenders", "installed", "ours", "versions"]

RIVALS_LIMIT: Final = 1_000_000
"""Larger catalogues are for ours and IndexFlatIP: the others build, or answer, too slowly."""

Floats = NDArray[np.float32]
Search = Callable[[Floats, int], NDArray[Any]]
"""Takes weights (q, D) and k; returns rows (q, k), the best first."""


@dataclass
class Contender:
    """One way to search, built over some items."""

    name: str
    search: Search
    exact: bool
    build_seconds: float
    memory_mb: float
    """By how much the process grew; for ours the mapped file, which is no less."""
    rates: dict[str, list[float]] = field(default_factory=dict)


def installed(name: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def ours(items: Floats, folder: Path, threads: int, **columns: Any) -> tuple[Catalog, float]:
    """Our catalogue in a mapped file, and the seconds it took to build."""
    path = folder / f"items-{len(os.listdir(folder))}.vtbcat"
    started = time.perf_counter()
    Catalog.build(items, path, num_threads=threads, **columns).close()
    return Catalog.open(path), time.perf_counter() - started


def _numpy(items: Floats) -> Search:
    def search(weights: Floats, k: int) -> NDArray[Any]:
        found = []
        for some in np.array_split(weights, -(-len(weights) * len(items) // 2**26)):
            scores = some @ items.T
            rows = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(scores, rows, 1), axis=1, kind="stable")
            found.append(np.take_along_axis(rows, order, 1))
        return np.concatenate(found)

    return search


def _faiss(faiss: Any, kind: str, items: Floats) -> Search:
    dimensions = items.shape[1]
    if kind == "IndexFlatIP":
        index = faiss.IndexFlatIP(dimensions)
    elif kind == "IVF":
        lists = max(16, min(1024, len(items) // 100))
        coarse = faiss.IndexFlatIP(dimensions)
        index = faiss.IndexIVFFlat(coarse, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(items[: 64 * lists])
        index.nprobe = lists // 4
    else:
        index = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = 128
    index.add(items)

    def search(weights: Floats, k: int) -> NDArray[Any]:
        return np.asarray(index.search(weights, k)[1])

    return search


def _usearch(module: Any, items: Floats, threads: int) -> Search:
    def search(weights: Floats, k: int) -> NDArray[Any]:
        metric = module.MetricKind.IP
        found = module.search(items, weights, k, metric, exact=True, threads=threads)
        return np.asarray(found.keys).reshape(len(weights), k)

    return search


def contenders(
    items: Floats, folder: Path, threads: int, *, approximate: bool = True
) -> list[Contender]:
    """Ours and every rival that is installed, built over the items (N, D)."""
    catalog, seconds = ours(items, folder, threads)

    def search(weights: Floats, k: int) -> NDArray[Any]:
        one = weights[0] if len(weights) == 1 else weights
        return catalog.search(one, k, num_threads=threads)[0].reshape(len(weights), k)

    megabytes = catalog.info()["bytes"] / 1e6
    field_ = [Contender("virtualtb-fast", search, True, seconds, megabytes)]

    def add(name: str, exact: bool, build: Callable[[], Search]) -> None:
        before, started = resident() or 0.0, time.perf_counter()
        built = build()
        seconds = time.perf_counter() - started
        grown = max(0.0, (resident() or 0.0) - before)
        field_.append(Contender(name, built, exact, seconds, grown))

    faiss = installed("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(threads)
        add("faiss IndexFlatIP", True, lambda: _faiss(faiss, "IndexFlatIP", items))
    usearch = installed("usearch.index")
    if usearch is not None and len(items) <= RIVALS_LIMIT:
        add("usearch exact", True, lambda: _usearch(usearch, items, threads))
    if len(items) <= RIVALS_LIMIT:
        add("numpy", True, lambda: _numpy(items))
    if faiss is not None and approximate and len(items) <= RIVALS_LIMIT:
        add("faiss IVF, a quarter of the lists", False, lambda: _faiss(faiss, "IVF", items))
        add("faiss HNSW 32, efSearch 128", False, lambda: _faiss(faiss, "HNSW", items))
    return field_


def versions() -> dict[str, str]:
    """Versions of what took part."""
    names = {"faiss": "faiss", "usearch": "usearch"}
    modules = {name: installed(module) for name, module in names.items()}
    found = {name: str(module.__version__) for name, module in modules.items() if module}
    return {**found, "numpy": np.__version__, "python": platform.python_version()}
