"""What our catalogues do by themselves: filters, threads, lists of candidates, opening, builds.

Answers are compared with numpy's before anything is timed, and a ratio is the median over rounds in
which the two take turns.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.catalog import Catalog
from virtualtb_fast.errors import StateError
from virtualtb_fast.evaluation.rivals import Floats, installed, ours

__all__ = ["builds", "candidates", "opening", "ours_alone"]

BATCH: Final = 256


def medians(rounds: int, works: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
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
        seconds = medians(rounds, works)
        catalog.close()

    def over(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))

    return {
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
    seconds = medians(rounds, works)

    def over(kind: str) -> float:
        pairs = zip(seconds[f"numpy, {kind}"], seconds[f"ours, {kind}"], strict=True)
        return statistics.median(a / b for a, b in pairs)

    rates = {
        f"{name.replace(', ', '_')}_per_second": len(weights) / statistics.median(times)
        for name, times in seconds.items()
    }
    return {**rates, "shared_ours_over_numpy": over("shared"), "own_ours_over_numpy": over("own")}


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
        arrow = installed("pyarrow")
        parquet = installed("pyarrow.parquet")
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
            words = (kind, source, Path(folder) / "items.vtbcat", threads)
            built = _elsewhere(f"build from {kind}", _BUILD, *words)
            result[kind] = {"items": rows, "threads": threads, **built}
            source.unlink()
    return result


_OPEN = """
import json, sys, time
import numpy as np
from virtualtb_fast.catalog import Catalog
weights = np.load(sys.argv[2])
started = time.perf_counter()
catalog = Catalog.open(sys.argv[1])
opened = time.perf_counter()
ids, _ = catalog.search(weights, int(sys.argv[3]), num_threads=1)
answered = time.perf_counter()
json.dump({
    "open_ms": 1e3 * (opened - started),
    "first_answer_ms": 1e3 * (answered - opened),
    "ids": ids.tolist(),
}, sys.stdout)
"""


def opening(
    items: int, *, dimensions: int = 27, k: int = 10, rounds: int = 9, seed: int = 0
) -> dict[str, float]:
    """What a fresh process waits for: until a file is open, and then for one customer's items.

    Uniform items. The file has reached the disk before the first process opens it, so that none
    waits for pages on their way there, and it lies in the page cache, as that of a running shop
    does. Medians over as many processes as rounds, one thread.

    Raises:
        StateError: a process failed, or found other items than the one that built the file.
    """
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        catalog, _ = ours(generator.random((items, dimensions), np.float32), Path(folder), 1)
        with catalog:
            path, megabytes = catalog.path or "", catalog.info()["bytes"] / 1e6
            weights = generator.standard_normal(dimensions, np.float32)
            expected = catalog.search(weights, k)[0].tolist()
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)
        question = Path(folder) / "weights.npy"
        np.save(question, weights)
        told = [_elsewhere("opening", _OPEN, path, question, k) for _ in range(rounds)]
    if any(one["ids"] != expected for one in told):
        raise StateError("opening: expected the items that the builder finds, got others")
    spent = {name: [one[name] for one in told] for name in ("open_ms", "first_answer_ms")}
    return {
        "items": items,
        "catalogue_mb": megabytes,
        "rounds": rounds,
        **{name: statistics.median(each) for name, each in spent.items()},
        **{f"most_{name}": max(each) for name, each in spent.items()},
    }


def _elsewhere(what: str, code: str, *words: object) -> dict[str, Any]:
    """What a process of its own has to say, as JSON on its standard output."""
    command = [sys.executable, "-c", code, *map(str, words)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise StateError(f"{what}: expected an answer, got {child.returncode}: {reason}")
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer
