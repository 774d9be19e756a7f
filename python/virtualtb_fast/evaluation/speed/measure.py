"""One run: check every contender, time them in turns, then ask how long a step takes.

1. Each contender plays whole sessions and is refused if they are not what they should be.
2. It plays until its rate is known, so that a turn lasts about as long as it was told to.
3. In every round numpy multiplies matrices, then each contender has its turn. A ratio is the median
   over rounds of the ratio within a round, so that a drift of the machine's speed does not enter.
4. The clicks of all that was timed must be those of the reference too.
5. Steps are timed one by one, for their quantiles.

BLAS must have one thread (``OPENBLAS_NUM_THREADS`` and so on, before numpy is loaded): the command
line sees to that. Where more are compared, several products run side by side.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import virtualtb_fast as vtb
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.evaluation.machine import load, machine
from virtualtb_fast.evaluation.speed.contenders import BATCHES, Contender, Key, contenders
from virtualtb_fast.evaluation.speed.outcomes import LONG, SIGMAS, Plan, Reference
from virtualtb_fast.evaluation.speed.players import Player, Stepped, Vector
from virtualtb_fast.simulator import Simulator

__all__ = ["Yardstick", "flop_a_page", "measure", "ratios"]

Progress = Callable[[str, int, int], None]
"""What is going on, how much of it is done, and of how much."""

_REFERENCE = 50_000
"""Sessions of the reference."""


def flop_a_page(simulator: Simulator, pages_a_session: float) -> float:
    """Floating-point operations of a page's matrix products, with its share of a new customer.

    One-hot customers enter a network as sums of rows, once a session, which are not counted. Of the
    published networks and 7.8 pages: 2 (28 128 + 128 256 + 256 21 + 86,272 / 7.8) = 106 thousand.
    """
    page = customer = 0
    for network, sizes in simulator.config.layers(simulator.schema).items():
        products = [one * other for one, other in itertools.pairwise(sizes)]
        if network == "action":
            page += sum(products) - simulator.schema.customer_width * sizes[1]
        else:
            customer += sum(products if network == "generator" else products[1:])
    return 2 * (page + customer / pages_a_session)


class Yardstick:
    """The rate of numpy's single-precision matrix product (sgemm)."""

    SHAPES = ((2048, 2048, 2048), (1024, 1024, 1024), (4096, 128, 256))

    def __init__(self, threads: int) -> None:
        """``threads`` products side by side, each of one thread."""
        draw = np.random.default_rng(0)
        self.pairs = [
            [(draw.random((m, k), np.float32), draw.random((k, n), np.float32))] * threads
            for m, k, n in self.SHAPES
        ]
        self.pool = ThreadPoolExecutor(threads)
        self.threads = threads

    def flops(self, seconds: float) -> float:
        """The best of some seconds: FLOP a second of all threads together."""
        best = 0.0
        for pairs in self.pairs:
            (m, k), n = pairs[0][0].shape, pairs[0][1].shape[1]
            until = time.perf_counter() + seconds / len(self.pairs)
            while True:
                started = time.perf_counter()
                if self.threads == 1:
                    _ = pairs[0][0] @ pairs[0][1]
                else:
                    list(self.pool.map(lambda pair: pair[0] @ pair[1], pairs))
                now = time.perf_counter()
                best = max(best, 2 * m * k * n * self.threads / (now - started))
                if now > until:
                    break
        return best

    def close(self) -> None:
        """Ends its threads."""
        self.pool.shutdown()


class _Turns:
    """A contender that was made and checked: its turns and what they brought."""

    def __init__(self, contender: Contender, player: Player) -> None:
        self.contender, self.player = contender, player
        self.rates: list[float] = []
        self.pages = self.clicks = self.each = 0
        self.digest: str | None = None
        self.checked: dict[str, float] = {}
        self.timed: dict[str, float] = {}

    def check(self, plan: Plan, reference: Reference) -> None:
        """Refuses other sessions than it should play."""
        name, same = self.contender.name, self.contender.same_sessions
        self.player.prepare()
        outcome = self.player.check(plan)
        reference.refuse_others(name, outcome)
        if same:
            self.digest = outcome.digest()
            reference.refuse_digest(name, self.digest, reference.digest)
            again = self.player.again(reference.seed, LONG)
            if again is not None:
                reference.refuse_digest(name, again.digest(), reference.long_digest)
        self.checked = {
            "sessions": outcome.sessions,
            "ctr": reference.ctr(outcome.clicks, outcome.pages),
            "ctr_band": reference.ctr_band(outcome.sessions),
            "pages_a_session": outcome.length,
            "pages_a_session_band": reference.length_band(outcome.sessions),
        }

    def check_timed(self, reference: Reference) -> None:
        """Refuses other clicks than those of the sessions that it should have played."""
        sessions = self.pages / reference.summary.mean_session_length
        reference.refuse_rate(self.contender.name, self.clicks, self.pages, sessions)
        self.timed = {
            "pages": self.pages,
            "ctr": reference.ctr(self.clicks, self.pages),
            "ctr_band": reference.ctr_band(sessions),
        }

    def calibrate(self, seconds: float) -> None:
        """Pages that take about so many seconds."""
        pages = self.contender.batch or 1024
        # Whoever plays so many pages in no time has not played them, which is found out below.
        for _ in range(30):
            started = time.perf_counter()
            played, _ = self.player.work(pages)
            took = max(time.perf_counter() - started, 1e-9)
            self.each, pages = max(1, round(played / took * seconds)), 2 * pages
            if took >= seconds / 8:
                break

    def turn(self) -> None:
        """One timed turn."""
        self.player.prepare()
        started = time.perf_counter()
        pages, clicks = self.player.work(self.each)
        self.rates.append(pages / (time.perf_counter() - started))
        self.pages += pages
        self.clicks += clicks

    def latency(self, seconds: float) -> dict[str, float] | None:
        """Quantiles of a step's time in microseconds; None for what has no steps."""
        if not isinstance(self.player, Stepped):
            return None
        self.player.prepare()
        step = self.player.step
        times: list[tuple[float, float]] = []
        until = time.perf_counter() + seconds
        while len(times) < 20 or times[-1][1] < until:
            started = time.perf_counter()
            step()
            times.append((started, time.perf_counter()))
        took = np.diff(np.array(times), axis=1) * 1e6
        return {
            "p50": float(np.quantile(took, 0.5)),
            "p99": float(np.quantile(took, 0.99)),
            "steps": len(times),
        }


def measure(
    simulator: Simulator,
    *,
    threads: int,
    rounds: int = 5,
    seconds: float = 0.15,
    batches: Sequence[int] = BATCHES,
    seed: int = 0,
    field: Sequence[Contender] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Rates, ratios, outcomes and latencies of one run, as JSON can hold them.

    Args:
        simulator: Whose customers are played.
        threads: What "all threads" means.
        rounds: Rounds of which figures are medians.
        seconds: How long a turn lasts, about.
        batches: Customers a step.
        seed: Of the sessions that are checked.
        field: Other contenders than `contenders`.
        progress: Called as work goes on.

    Raises:
        InvalidArgumentError: nobody to measure.
        StateError: a contender played other sessions than it should.
    """
    absent: list[str] = []
    if field is None:
        field, absent = contenders(simulator, threads, batches)
    if not field:
        raise InvalidArgumentError("contenders: expected at least one, got none")
    busy = load()
    plan = Plan.of(simulator, seed)
    progress("the reference", 0, 0)
    reference = Reference(simulator, plan, seed, _REFERENCE)
    flop = flop_a_page(simulator, reference.summary.mean_session_length)
    _seed_torch(seed)

    with contextlib.ExitStack() as stack:
        running = []
        for number, contender in enumerate(field):
            progress(f"checking {contender.name}", number, len(field))
            player = contender.make()
            stack.callback(player.close)
            running.append(_Turns(contender, player))
            running[-1].check(plan, reference)
            running[-1].calibrate(seconds)

        counts = sorted({1, *(contender.threads for contender in field)})
        yardsticks = {count: Yardstick(count) for count in counts}
        for yardstick in yardsticks.values():
            stack.callback(yardstick.close)
            yardstick.flops(0)
        gemm: dict[int, list[float]] = {count: [] for count in counts}
        for number in range(rounds):
            for count, yardstick in yardsticks.items():
                gemm[count].append(yardstick.flops(seconds))
            for place, one in enumerate(running):
                done = number * len(running) + place
                progress(f"round {number + 1}: {one.contender.name}", done, rounds * len(running))
                one.turn()

        for one in running:
            one.check_timed(reference)

        rows, overheads = [], []
        for number, one in enumerate(running):
            progress(f"steps of {one.contender.name}", number, len(running))
            contender, rate = one.contender, statistics.median(one.rates)
            share = [r * flop / g for r, g in zip(one.rates, gemm[contender.threads], strict=True)]
            rows.append(
                {
                    "what": contender.what,
                    "batch": contender.batch,
                    "threads": contender.threads,
                    "ours": contender.ours,
                    "pages_per_second": rate,
                    "gflops": rate * flop / 1e9,
                    "share_of_sgemm": statistics.median(share),
                    "latency_us": one.latency(seconds),
                    "outcome": one.digest,
                    "checked": one.checked,
                    "timed": one.timed,
                }
            )
            if (contender.what, contender.threads) == ("vector env", 1):
                overheads.append(_overhead(one, running))
    return {
        "machine": machine(),
        "load": busy,
        "versions": _versions(),
        "simulator": {"name": simulator.name, "digest": simulator.digest},
        "threads": threads,
        "rounds": rounds,
        "seconds": seconds,
        "seed": seed,
        "flop_a_page": flop,
        "sgemm_gflops": {str(n): statistics.median(values) / 1e9 for n, values in gemm.items()},
        "reference": {
            "policy": "zero",
            "sessions": reference.summary.sessions,
            "ctr": reference.summary.ctr,
            "pages_a_session": reference.summary.mean_session_length,
            "outcome": reference.digest,
            "sigmas": SIGMAS,
        },
        "contenders": rows,
        "overhead": overheads,
        "ratios": ratios({one.contender.key: one.rates for one in running}, gemm[1], flop),
        "left_out": absent,
    }


def _overhead(stepped: _Turns, field: Sequence[_Turns]) -> dict[str, Any]:
    """What a step from Python takes beside the same pages in a rollout, in microseconds.

    The floor of the difference is a copy of the observations, which no rollout writes.
    """
    player, batch = stepped.player, stepped.contender.batch
    assert isinstance(player, Vector)
    assert batch is not None
    rollouts = {
        one.contender.batch: statistics.median(one.rates)
        for one in field
        if (one.contender.what, one.contender.threads) == ("rollout, counts only", 1)
    }
    observations, took = player.envs.observe(), []
    for _ in range(200):
        started = time.perf_counter()
        _ = observations.copy()
        took.append(time.perf_counter() - started)
    # Beyond a few hundred customers a rollout plays them as it does with no batch stated.
    rate = rollouts.get(batch, rollouts.get(None))
    return {
        "batch": batch,
        "step_us": batch / statistics.median(stepped.rates) * 1e6,
        "rollout_us": None if rate is None else batch / rate * 1e6,
        "copy_us": statistics.median(took) * 1e6,
    }


def ratios(
    rates: dict[Key, list[float]], gemm: list[float], flop: float
) -> dict[str, dict[str, float | None]]:
    """The figures that the project promises, each with what it aims for.

    Those of contenders that took part. Aims are for batches of 4,096, and two threads.
    """
    most = max((n for what, n, _ in rates if what == "vector env" and n), default=0)
    threads = max(t for _, _, t in rates)
    counts, memory = "rollout, counts only", "rollout in memory"
    loop, batched, tuned = (
        ("PyTorch", 1, 1),
        ("PyTorch", most, 1),
        ("PyTorch, tuned draws", most, 1),
    )
    vector, all_vector = ("vector env", most, 1), ("vector env", most, threads)
    big, two = most == 4096, threads == 2
    rows: list[tuple[str, Key, Key, float | None]] = [
        ("vector env / batched PyTorch", vector, batched, 3.5 if big else None),
        ("vector env / batched PyTorch with tuned draws", vector, tuned, None),
        ("vector env / one-at-a-time PyTorch", vector, loop, 180 if big else None),
    ]
    if threads > 1:
        aim = 1.8 if two else None
        rows += [
            (f"{counts}: all threads / one", (counts, None, threads), (counts, None, 1), aim),
            ("vector env: all threads / one", all_vector, vector, aim if big else None),
            (f"{memory}: all threads / one", (memory, None, threads), (memory, None, 1), aim),
        ]
    for what, batch in ((counts, None), ("vector env", most)):
        aim = 1.6 if batch is None else None
        fast, exact = (f"{what}, reduced", batch, 1), (what, batch, 1)
        rows.append((f"{what}: reduced / exact", fast, exact, aim))
    rows += [
        (
            "rollout: to Parquet / in memory",
            ("rollout to Parquet", None, 1),
            (memory, None, 1),
            0.6,
        ),
        ("one customer in a rollout / one-at-a-time PyTorch", (counts, 1, 1), loop, 50),
        ("one customer through env.step / one-at-a-time PyTorch", ("env.step", 1, 1), loop, 15),
    ]
    found: dict[str, dict[str, float | None]] = {}
    if (counts, None, 1) in rates:
        pairs = zip(rates[counts, None, 1], gemm, strict=True)
        share = statistics.median(rate * flop / flops for rate, flops in pairs)
        found["native kernel: share of numpy's sgemm rate"] = {"ratio": share, "aim": 0.85}
    for name, one, other, aim in rows:
        if one in rates and other in rates:
            pairs = zip(rates[one], rates[other], strict=True)
            found[name] = {"ratio": statistics.median(a / b for a, b in pairs), "aim": aim}
    return found


def _seed_torch(seed: int) -> None:
    """The rivals' draws, if they can be made: torch has one generator for all."""
    with contextlib.suppress(ImportError):
        import torch

        torch.manual_seed(seed)


def _versions() -> dict[str, str]:
    found = {"virtualtb_fast": vtb.__version__, "python": platform.python_version()}
    for name in ("numpy", "gymnasium", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
