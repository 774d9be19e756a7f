"""Catalogue search against other libraries: speed, recall, build time and memory of one run.

Rivals are whichever are installed of faiss (``IndexFlatIP``, IVF, HNSW), usearch (exact) and numpy
(matrix product and ``argpartition``). They are imported when asked for, by this module alone.

Answers are compared with double precision before anything is timed. Contenders take turns, and a
ratio is the median over rounds of the ratio within a round, so that a drift of the machine's speed
does not enter it. Threads of BLAS and OpenMP are counted when those libraries load: set
``OPENBLAS_NUM_THREADS`` and ``OMP_NUM_THREADS`` before numpy is imported (the command line does).
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.catalog import Catalog
from virtualtb_fast.errors import InvalidArgumentError, StateError

__all__ = [
    "Contender",
    "builds",
    "candidates",
    "contenders",
    "double_precision",
    "growth",
    "measure",
]

BATCH: Final = 256
SINGLES: Final = 24
"""Queries asked one at a time in a round."""
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


def _memory() -> float:
    """Resident memory in MB."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _installed(name: str) -> Any:
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
        before, started = _memory(), time.perf_counter()
        built = build()
        seconds = time.perf_counter() - started
        field_.append(Contender(name, built, exact, seconds, max(0.0, _memory() - before)))

    faiss = _installed("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(threads)
        add("faiss IndexFlatIP", True, lambda: _faiss(faiss, "IndexFlatIP", items))
    usearch = _installed("usearch.index")
    if usearch is not None and len(items) <= RIVALS_LIMIT:
        add("usearch exact", True, lambda: _usearch(usearch, items, threads))
    if len(items) <= RIVALS_LIMIT:
        add("numpy", True, lambda: _numpy(items))
    if faiss is not None and approximate and len(items) <= RIVALS_LIMIT:
        add("faiss IVF, a quarter of the lists", False, lambda: _faiss(faiss, "IVF", items))
        add("faiss HNSW 32, efSearch 128", False, lambda: _faiss(faiss, "HNSW", items))
    return field_


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


def _medians(rounds: int, works: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each work in each round, in turns."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ours_alone(items: Floats, *, k: int = 10, rounds: int = 9, seed: int = 0) -> dict[str, float]:
    """Our own ratios: filtered over unfiltered time, and two threads over one in queries a second.

    The filters are ranges of a price that hold a half, a tenth, a hundredth and a thousandth of all
    items. Each search has another range, so that none is answered from the cache of filters; of a
    batch and of a single query the time includes making the filter. One of each is compared with
    numpy.

    Raises:
        StateError: a filtered search found other items than numpy.
    """
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((BATCH, items.shape[1]), np.float32)
    shares = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
    price = generator.random(len(items), np.float32)
    # A range of prices starts anywhere that leaves room for its share, never twice at one place.
    starts = {name: iter(generator.random(2 * rounds + 8).tolist()) for name in shares}

    with tempfile.TemporaryDirectory() as folder:
        catalog, _ = ours(items, Path(folder), 1, price=price)
        started = time.perf_counter()
        Catalog.open(catalog.path or "").search(weights[0], k)
        opened = time.perf_counter() - started

        def fresh(name: str) -> tuple[float, float]:
            low = next(starts[name]) * (1 - shares[name])
            return low, low + shares[name]

        def search(threads: int = 1, weights: Floats = weights, **filters: Any) -> Any:
            return catalog.search(weights, k, num_threads=threads, **filters)

        def filtered(name: str, weights: Floats) -> Any:
            return search(weights=weights, price=fresh(name))

        for name in shares:
            bounds = fresh(name)
            _check_filtered(items, price, bounds, weights[:8], search(price=bounds)[1][:8])
        works: dict[str, Callable[[], Any]] = {
            "all": search,
            "single all": lambda: search(weights=weights[0]),
            "two threads": lambda: search(2),
        }
        for name in shares:
            works[name] = functools.partial(filtered, name, weights)
            works[f"single {name}"] = functools.partial(filtered, name, weights[0])
        seconds = _medians(rounds, works)
        catalog.close()

    def over(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))

    return {
        "open_and_first_answer_ms": 1e3 * opened,
        "two_threads_over_one": over("all", "two threads"),
        **{f"filtered_over_unfiltered_time_{name}": over(name, "all") for name in shares},
        **{
            f"filtered_over_unfiltered_time_{name}_single": over(f"single {name}", "single all")
            for name in shares
        },
    }


def _check_filtered(
    items: Floats,
    price: Floats,
    bounds: tuple[float, float],
    weights: Floats,
    scores: Floats,
) -> None:
    """Compares the best scores (q, k) of a search by price with numpy's."""
    low, high = np.float32(bounds[0]), np.float32(bounds[1])
    inside = items[(price >= low) & (price <= high)]
    k = min(scores.shape[1], len(inside))
    wanted = -np.sort(-(weights.astype(np.float64) @ inside.T.astype(np.float64)), axis=1)[:, :k]
    size = np.linalg.norm(weights, axis=1) * np.linalg.norm(items, axis=1).max()
    allowed = items.shape[1] * 2.0**-23 * size[:, None]
    there = np.isfinite(scores).sum(axis=1)
    if (there != k).any() or (np.abs(scores[:, :k] - wanted) > allowed).any():
        raise StateError(f"price in {bounds}: expected numpy's scores, got others")


_BUILD = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from virtualtb_fast.catalog import Catalog
kind, source, out, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
given = np.load(source) if kind == "numpy" else source

def megabytes(field):
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith(field + ":"))
        return int(line.split()[1]) / 1e3
    # The peak stands for both; macOS counts bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)

before = megabytes("VmRSS")
started = time.perf_counter()
catalog = Catalog.build(given, None if kind == "numpy" else out, num_threads=threads)
seconds = time.perf_counter() - started
json.dump({
    "seconds": seconds,
    "items_per_second": len(catalog) / seconds,
    "catalogue_mb": catalog.info()["bytes"] / 1e6,
    "before_mb": before,
    "peak_mb": megabytes("VmHWM"),
}, sys.stdout)
"""


def builds(
    rows: int, *, dimensions: int = 27, threads: int = 1, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Rate and peak memory of builds over uniform items, each in a process of its own.

    "parquet": streamed from a Parquet file to a catalogue's file (needs pyarrow; left out without
    it). "numpy": an array in memory, to a catalogue in memory. ``before_mb`` is the resident memory
    when the build starts (of "numpy" with the array), ``peak_mb`` the most there ever was.

    Raises:
        StateError: a build failed.
    """
    generator = np.random.default_rng(seed)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        arrow = _installed("pyarrow")
        parquet = _installed("pyarrow.parquet")
        sources = {}
        if arrow is not None and parquet is not None:
            sources["parquet"] = Path(folder) / "items.parquet"
            names = [f"a{d}" for d in range(dimensions)]
            schema = arrow.schema([(name, arrow.float32()) for name in names])
            with parquet.ParquetWriter(sources["parquet"], schema) as writer:
                for first in range(0, rows, 100_000):
                    some = generator.random((dimensions, min(100_000, rows - first)), np.float32)
                    writer.write_table(arrow.table(list(some), schema=schema))
        sources["numpy"] = Path(folder) / "items.npy"
        np.save(sources["numpy"], generator.random((rows, dimensions), np.float32))
        for kind, source in sources.items():
            words = [kind, str(source), str(Path(folder) / "items.vtbcat"), str(threads)]
            child = subprocess.run(
                [sys.executable, "-c", _BUILD, *words], capture_output=True, text=True, check=False
            )
            if child.returncode != 0:
                reason = (child.stderr.strip().splitlines() or ["nothing said"])[-1]
                raise StateError(f"{kind}: expected a build, got {child.returncode}: {reason}")
            result[kind] = {"items": rows, "threads": threads, **json.loads(child.stdout)}
            source.unlink()
    return result


def candidates(
    items: int = 5_000, each: int = 200, *, dimensions: int = 27, rounds: int = 9, seed: int = 0
) -> dict[str, float]:
    """Queries with a list of candidates, against the same in batched numpy, one thread.

    "shared": one list for all queries. "own": one list for each. numpy's answers are asserted.
    """
    generator = np.random.default_rng(seed)
    table = generator.standard_normal((items, dimensions), np.float32)
    weights = generator.standard_normal((1024, dimensions), np.float32)
    catalog = Catalog.build(table)
    shared = np.sort(generator.choice(items, each, replace=False))
    own = np.stack([np.sort(generator.choice(items, each, replace=False)) for _ in weights])

    def best(scores: Floats, rows: NDArray[Any]) -> NDArray[Any]:
        places = np.argpartition(-scores, 9, axis=1)[:, :10]
        order = np.argsort(-np.take_along_axis(scores, places, 1), axis=1, kind="stable")
        places = np.take_along_axis(places, order, 1)
        return np.take_along_axis(np.broadcast_to(rows, scores.shape), places, 1)

    works: dict[str, Callable[[], Any]] = {
        "ours, shared": lambda: catalog.search(weights, rows=shared, num_threads=1)[0],
        "numpy, shared": lambda: best(weights @ table[shared].T, shared),
        "ours, own": lambda: catalog.search(weights, rows=own, num_threads=1)[0],
        "numpy, own": lambda: best(np.einsum("qd,qcd->qc", weights, table[own]), own),
    }
    for kind in ("shared", "own"):
        same = works[f"ours, {kind}"]() == works[f"numpy, {kind}"]()
        if same.mean() < 0.999:
            raise StateError(f"{kind} candidates: expected numpy's answers, got others")
    seconds = _medians(rounds, works)

    def over(kind: str) -> float:
        pairs = zip(seconds[f"numpy, {kind}"], seconds[f"ours, {kind}"], strict=True)
        return statistics.median(a / b for a, b in pairs)

    rates = {
        f"{name.replace(', ', '_')}_per_second": len(weights) / statistics.median(times)
        for name, times in seconds.items()
    }
    return {**rates, "shared_ours_over_numpy": over("shared"), "own_ours_over_numpy": over("own")}


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


def versions() -> dict[str, str]:
    """Versions of what took part."""
    names = {"faiss": "faiss", "usearch": "usearch"}
    modules = {name: _installed(module) for name, module in names.items()}
    found = {name: str(module.__version__) for name, module in modules.items() if module}
    return {**found, "numpy": np.__version__, "python": platform.python_version()}
