"""Pages a second of every form of ours against PyTorch and numpy, as ratios within one run.

``python -m benches.environments [--published DIR] [--json FILE] [--repeats N]``

Every contender's outcome (clicks over slots under the zero action) is asserted before it is
timed. Contenders take turns, ``--repeats`` rounds of them; a ratio is the median over rounds of
the ratio within a round, so that a drift of the machine's speed does not enter it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import virtualtb_fast as vtb
from benches.machine import machine
from benches.rivals import (
    FLOP_A_PAGE,
    BatchedTorch,
    Draw,
    inverse_cdf,
    multinomial,
    sgemm_flops,
)

BATCH = 4096
Work = Callable[[int], tuple[int, int]]
"""Simulates at least so many pages; returns pages and clicks."""


def _vector(simulator: vtb.Simulator, n: int, threads: int) -> Work:
    envs = gymnasium.make_vec(
        "virtualtb_fast:VirtualTB-v1",
        num_envs=n,
        num_threads=threads,
        simulator=simulator,
        autoreset_mode="SameStep",
    )
    envs.reset(seed=[index << 32 for index in range(n)])
    actions = np.zeros((n, 27), np.float32)

    def work(pages: int) -> tuple[int, int]:
        steps = -(-pages // n)
        return steps * n, sum(int(envs.step(actions)[1].sum()) for _ in range(steps))

    return work


def _single(simulator: vtb.Simulator) -> Work:
    env = gymnasium.make("virtualtb_fast:VirtualTB-v1", simulator=simulator).unwrapped
    env.reset(seed=0)
    action = np.zeros(27, np.float32)

    def work(pages: int) -> tuple[int, int]:
        clicks = 0.0
        for _ in range(pages):
            _, reward, terminated, _, _ = env.step(action)
            clicks += reward
            if terminated:
                env.reset()
        return pages, int(clicks)

    return work


def _rollout(
    simulator: vtb.Simulator,
    threads: int = 1,
    batch_size: int | None = None,
    *,
    file: bool = False,
    keep: bool = True,
) -> Work:
    def work(pages: int) -> tuple[int, int]:
        with tempfile.TemporaryDirectory() as folder:
            out = vtb.rollout(
                simulator,
                policy="zero",
                sessions=max(1, pages // 8),
                seed=1 << 32,
                num_threads=threads,
                batch_size=batch_size,
                out=Path(folder) / "logs.parquet" if file else None,
                keep=keep,
            )
        return out.summary.pages, out.summary.clicks

    return work


def _torch(simulator: vtb.Simulator, n: int, draw: Draw) -> Work:
    rival = BatchedTorch(simulator, n, draw)
    actions = torch.zeros(n, 27)

    def work(pages: int) -> tuple[int, int]:
        steps = -(-pages // n)
        return steps * n, sum(int(rival.step(actions)[1].sum()) for _ in range(steps))

    return work


def contenders(simulator: vtb.Simulator) -> dict[str, tuple[Work, int]]:
    """Name -> work, and the pages of one round."""
    return {
        "one-at-a-time PyTorch": (_torch(simulator, 1, multinomial), 1_500),
        "one-at-a-time PyTorch, tuned draws": (_torch(simulator, 1, inverse_cdf), 1_500),
        "batched PyTorch, 4,096": (_torch(simulator, BATCH, multinomial), 20 * BATCH),
        "batched PyTorch, 4,096, tuned draws": (_torch(simulator, BATCH, inverse_cdf), 20 * BATCH),
        "env.step, one customer": (_single(simulator), 30_000),
        "rollout, one customer at a time": (_rollout(simulator, batch_size=1), 100_000),
        "vector env, 4,096": (_vector(simulator, BATCH, 1), 60 * BATCH),
        "vector env, 4,096, two threads": (_vector(simulator, BATCH, 2), 100 * BATCH),
        "rollout, counts only": (_rollout(simulator, keep=False), 400_000),
        "rollout, counts only, two threads": (_rollout(simulator, 2, keep=False), 800_000),
        "rollout in memory": (_rollout(simulator), 400_000),
        "rollout in memory, two threads": (_rollout(simulator, 2), 800_000),
        "rollout to Parquet": (_rollout(simulator, file=True), 400_000),
    }


def latency(simulator: vtb.Simulator, n: int, steps: int) -> dict[str, float]:
    """Quantiles of the time of one vector step, in microseconds."""
    work = _vector(simulator, n, 1)
    work(20 * n)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        work(n)
        times.append(1e6 * (time.perf_counter() - start))
    return {"p50": float(np.quantile(times, 0.5)), "p99": float(np.quantile(times, 0.99))}


def measure(simulator: vtb.Simulator, repeats: int) -> dict[str, object]:
    """Rates, ratios and latencies of one run."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console = Console(stderr=True)
    field = contenders(simulator)
    reference = vtb.rollout(simulator, policy="zero", sessions=100_000, seed=0).summary.ctr
    for name, (work, pages) in field.items():
        # Batches start with every customer on the first page; some 40 pages mix them.
        work(40 * BATCH if "4,096" in name else 100)
        lone = "one-at-a-time" in name
        shown, clicks = work(20_000 if lone else max(pages, 40 * BATCH))
        ctr, allowed = clicks / shown / 10, 0.008 if lone else 0.003
        if abs(ctr - reference) > allowed:
            raise SystemExit(f"{name}: CTR {ctr:.4f}, expected {reference:.4f} +- {allowed}")
    rates: dict[str, list[float]] = {name: [] for name in field}
    gemm = []
    for repeat in range(repeats):
        console.print(f"round {repeat + 1} of {repeats}")
        gemm.append(sgemm_flops())
        for name, (work, pages) in field.items():
            start = time.perf_counter()
            shown, _ = work(pages)
            rates[name].append(shown / (time.perf_counter() - start))
    return {
        "machine": machine(),
        "versions": {
            "virtualtb_fast": vtb.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
            "gymnasium": gymnasium.__version__,
            "python": platform.python_version(),
        },
        "simulator": {"name": simulator.name, "digest": simulator.digest},
        "zero_action_ctr": reference,
        "sgemm_gflops": statistics.median(gemm) / 1e9,
        "pages_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "ratios": ratios(rates, gemm),
        "latency_us": {
            str(n): latency(simulator, n, 3_000_000 // (n + 2_000)) for n in (1, 64, BATCH)
        },
        "rounds": repeats,
    }


def ratios(rates: dict[str, list[float]], gemm: list[float]) -> dict[str, dict[str, float | None]]:
    """The figures that the project promises, each with what it aims for."""

    def of(ours: str, rival: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[ours], rates[rival], strict=True))

    def share(ours: str) -> float:
        pairs = zip(rates[ours], gemm, strict=True)
        return statistics.median(rate * FLOP_A_PAGE / flops for rate, flops in pairs)

    loop, batched = "one-at-a-time PyTorch", "batched PyTorch, 4,096"
    counts, memory = "rollout, counts only", "rollout in memory"
    rows = {
        "vector env / batched PyTorch": (of("vector env, 4,096", batched), 3.5),
        "vector env / batched PyTorch with tuned draws": (
            of("vector env, 4,096", f"{batched}, tuned draws"),
            None,
        ),
        "vector env / one-at-a-time PyTorch": (of("vector env, 4,096", loop), 180),
        "native kernel: share of numpy's sgemm rate": (share(counts), 0.85),
        "native kernel: two threads / one": (of(f"{counts}, two threads", counts), 1.8),
        "vector env: two threads / one": (
            of("vector env, 4,096, two threads", "vector env, 4,096"),
            1.8,
        ),
        "rollout in memory: two threads / one": (of(f"{memory}, two threads", memory), 1.8),
        "rollout: to Parquet / in memory": (of("rollout to Parquet", memory), 0.6),
        "one customer in a rollout / one-at-a-time PyTorch": (
            of("rollout, one customer at a time", loop),
            50,
        ),
        "one customer through env.step / one-at-a-time PyTorch": (
            of("env.step, one customer", loop),
            15,
        ),
    }
    return {name: {"ratio": ratio, "aim": aim} for name, (ratio, aim) in rows.items()}


def show(result: dict[str, object]) -> None:
    """Prints the run as tables."""
    console = Console()
    table = Table(title=f"Pages a second ({result['rounds']} rounds, median)")
    table.add_column("contender")
    table.add_column("pages/s", justify="right")
    for name, rate in result["pages_per_second"].items():
        table.add_row(name, f"{rate:,.0f}")
    console.print(table)
    table = Table(title="Ratios within a round (median)")
    for column in ("figure", "measured", "aim"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, row in result["ratios"].items():
        table.add_row(name, f"{row['ratio']:.2f}", "" if row["aim"] is None else f"{row['aim']:g}")
    console.print(table)
    for n, row in result["latency_us"].items():
        console.print(f"vector step of {n:>4}: p50 {row['p50']:,.0f} us, p99 {row['p99']:,.0f} us")
    console.print(f"numpy sgemm, one thread: {result['sgemm_gflops']:.1f} GFLOP/s")


def main() -> None:
    """Runs the bench."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", help="directory of the published networks to run instead")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default 7)")
    arguments = parser.parse_args()
    if arguments.published:
        simulator = vtb.import_published(arguments.published)
    else:
        simulator = vtb.load_simulator()
    result = measure(simulator, arguments.repeats)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
