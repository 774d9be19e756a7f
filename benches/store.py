"""Pages a second in a ground-truth store against a batched NumPy version, in one run.

``python -m benches.store [--json FILE] [--repeats N] [--items N ...]``

The rival plays the same world with the same tables, one thread, as well as NumPy allows: lanes of
one query share a matrix product, ``argpartition`` finds the page, answers and new customers are
drawn by inverting cumulative sums, and the same observations and infos come out. Before anything is
timed both play the same customers with the same uniforms, page for page: rows of the items,
answers, prices. Ratios are medians over rounds in which the contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
from rich.console import Console

import virtualtb_fast as vtb
from virtualtb_fast.evaluation.machine import machine
from virtualtb_fast.store import LOGGED_SD

BATCH = 4096
QUERY_FIELD = 9
CUSTOMER, ANSWER = 8, 9
"""Purposes of the two kinds of draws (rust/rng.rs)."""
Uniforms = Callable[[int, int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(purpose, draws, streams, sessions, pages) to uniforms (n, draws)."""


def philox(purpose: int, draws: int, streams: np.ndarray, sessions: np.ndarray, pages: np.ndarray):
    """The store's own uniforms in plain NumPy: for the check, too slow to compete.

    53 bits for a customer; 48 bits for an answer.
    """
    n, low = len(streams), np.uint64(0xFFFFFFFF)
    blocks = -(-2 * draws // 4)
    words = np.empty((n, blocks, 4), np.uint64)
    streams, sessions = streams.astype(np.uint64), sessions.astype(np.uint64)
    for block in range(blocks):
        x = [
            np.full(n, purpose << 24 | block, np.uint64),
            pages.astype(np.uint64),
            sessions & low,
            sessions >> np.uint64(32),
        ]
        key = [streams & low, streams >> np.uint64(32)]
        for _ in range(10):
            a, b = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
            x = [
                (b >> np.uint64(32)) ^ x[1] ^ key[0],
                b & low,
                (a >> np.uint64(32)) ^ x[3] ^ key[1],
            ]
            x.append(a & low)
            key = [(key[0] + np.uint64(0x9E3779B9)) & low, (key[1] + np.uint64(0xBB67AE85)) & low]
        words[:, block] = np.stack(x, axis=1)
    words = words.reshape(n, -1)[:, : 2 * draws]
    if purpose == ANSWER:
        high, rest = words[:, 0] >> np.uint64(8), words[:, 1] >> np.uint64(8)
        return (high / 2.0**24 + rest / 2.0**48)[:, None]
    bits = words[:, 0::2] << np.uint64(32) | words[:, 1::2]
    return (bits >> np.uint64(11)) / 2.0**53


def generator(seed: int) -> Uniforms:
    """NumPy's own uniforms: what the rival draws when it is timed."""
    rng = np.random.default_rng(seed)
    return lambda purpose, draws, streams, sessions, pages: rng.random((len(streams), draws))


class BatchedNumPy:
    """The page loop of a store in NumPy, with SAME_STEP autoreset and the environments' outputs."""

    def __init__(
        self, store: vtb.GroundTruthStore, n: int, uniforms: Uniforms, *, gather: bool = False
    ) -> None:
        hidden = store.reveal()
        sizes = [field.size for field in store.schema.customer]
        self.n, self.uniforms, self.production = n, uniforms, store.production
        self.shares = np.cumsum(hidden.shares)[:-1]
        starts = np.cumsum([0, *sizes])
        self.fields = [
            np.cumsum(hidden.fields[:, a:b], axis=1)[:, :-1] for a, b in pairwise(starts)
        ]
        self.starts = starts[:-1]
        self.rows = [store.candidates(query) for query in range(sizes[QUERY_FIELD])]
        everything = [self._gather(store, rows) for rows in self.rows]
        self.attributes = [np.ascontiguousarray(x.T) for x, _ in everything]
        self.price = [price for _, price in everything]
        self.appeal = [np.exp(hidden.theta @ x.astype(np.float64).T) for x, _ in everything]
        if gather:
            # Every customer's candidates side by side, without the grouping by query.
            self.stacked = np.stack([x for x, _ in everything])
            self.all_rows, self.all_prices = np.stack(self.rows), np.stack(self.price)
            self.all_appeal = np.stack(self.appeal)
        self.gather = gather
        pages = np.arange(101)
        self.buy = np.exp(hidden.b0 - 0.03 * pages)
        self.others = np.stack((np.exp(-0.02 * pages), np.exp(-2.3 + 0.05 * pages)), axis=1)

    @staticmethod
    def _gather(store: vtb.GroundTruthStore, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        items = store.items(0, int(rows[-1]) + 1)
        return items.attributes[rows], items.price[rows]

    def reset(self, streams: np.ndarray) -> np.ndarray:
        """Session 0 of each stream; observations."""
        self.streams, self.sessions = streams, np.zeros(self.n, np.int64)
        self.page, self.bought = np.zeros(self.n, np.int64), np.zeros(self.n)
        self.codes, self.kind = np.zeros((self.n, 11), np.int64), np.zeros(self.n, np.int64)
        self._arrive(np.arange(self.n))
        return self._observe()

    def _arrive(self, lanes: np.ndarray) -> None:
        zeros = np.zeros(len(lanes), np.int64)
        # The first draw is the hour's.
        u = self.uniforms(CUSTOMER, 13, self.streams[lanes], self.sessions[lanes], zeros)
        kind = np.searchsorted(self.shares, u[:, 1], side="right")
        self.kind[lanes] = kind
        for index, field in enumerate(self.fields):
            self.codes[lanes, index] = (field[kind] <= u[:, index + 2 : index + 3]).sum(1)
        self.page[lanes] = 0

    def _observe(self) -> np.ndarray:
        out = np.zeros((self.n, 91), np.float32)
        out[np.arange(self.n)[:, None], self.codes + self.starts] = 1
        out[:, 89] = self.page > 0
        out[:, 90] = self.page
        return out

    @staticmethod
    def _best(scores: np.ndarray) -> np.ndarray:
        best = np.argpartition(scores, -10, axis=1)[:, -10:]
        ranks = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        return np.take_along_axis(best, ranks, axis=1)

    def step(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Shows every customer one page."""
        n = self.n
        weights = self.production + actions
        query = self.codes[:, QUERY_FIELD]
        items, mass = np.empty((n, 10), np.int64), np.empty((n, 12))
        prices = np.empty((n, 10))
        if self.gather:
            scores = np.matmul(self.stacked[query], weights[:, :, None])[:, :, 0]
            best = self._best(scores)
            lanes = np.arange(n)[:, None]
            items[:] = self.all_rows[query][lanes, best]
            prices[:] = self.all_prices[query][lanes, best]
            mass[:, :10] = self.all_appeal[query[:, None], self.kind[:, None], best]
        else:
            order = np.argsort(query, kind="stable")
            ends = np.searchsorted(query[order], np.arange(len(self.rows) + 1))
            for q in np.flatnonzero(np.diff(ends)):
                lanes = order[ends[q] : ends[q + 1]]
                best = self._best(weights[lanes] @ self.attributes[q])
                items[lanes], prices[lanes] = self.rows[q][best], self.price[q][best]
                mass[lanes, :10] = self.appeal[q][self.kind[lanes, None], best]
        mass[:, :10] *= self.buy[self.page, None]
        mass[:, 10:] = self.others[self.page]
        cumulative = np.cumsum(mass, axis=1)
        u = self.uniforms(ANSWER, 1, self.streams, self.sessions, self.page)
        choice = (cumulative[:, :-1] <= u * cumulative[:, -1:]).sum(1)
        buys = choice < 10
        values = np.where(
            buys, np.take_along_axis(prices, np.minimum(choice, 9)[:, None], 1)[:, 0], 0
        )
        self.page += 1
        truncated = (choice == 10) & (self.page > 100)
        ended = (choice != 10) | truncated
        final = self._observe()[ended] if ended.any() else None
        lanes = np.flatnonzero(ended)
        pages = self.page.copy()
        self.sessions[lanes] += 1
        self._arrive(lanes)
        return {
            "observations": self._observe(), "final": final, "reward": buys.astype(np.float64),
            "items": items, "choice": choice, "value": values, "truncated": truncated,
            "terminated": choice != 10, "page": pages,
        }  # fmt: skip


def environments(store: vtb.GroundTruthStore, n: int) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec(
        "virtualtb_fast:GroundTruthStore-v0",
        num_envs=n, store=store, num_threads=1, autoreset_mode="SameStep",
    )  # fmt: skip


def logged(count: int, n: int) -> list[np.ndarray]:
    """Actions of the logging policy."""
    rng = np.random.default_rng(1)
    return [rng.normal(0, LOGGED_SD, (n, 27)).astype(np.float32) for _ in range(count)]


def check(store: vtb.GroundTruthStore, n: int = 2048, steps: int = 12) -> dict[str, float]:
    """Asserts that both give the same answers to the same customers."""
    envs, rival = environments(store, n), BatchedNumPy(store, n, philox)
    streams = np.arange(n) + (9 << 32)
    assert np.array_equal(envs.reset(seed=streams.tolist())[0], rival.reset(streams))
    same = np.ones(n, bool)
    pages = 0
    for actions in logged(steps, n):
        observations, rewards, *_, infos = envs.step(actions)
        theirs = rival.step(actions)
        final = infos.get("final_info", {})
        ended = infos.get("_final_obs", np.zeros(n, bool))
        items = np.where(ended[:, None], final.get("items", 0), infos["items"])
        # A near tie may fall the other way in another order of summation; such a lane is left out
        # from there on, and there must be next to none.
        same &= (items == theirs["items"]).all(1)
        value = np.where(ended, final.get("value", 0), infos["value"])
        assert np.array_equal(rewards[same], theirs["reward"][same])
        assert np.array_equal(value[same], theirs["value"][same])
        assert np.array_equal(observations[same], theirs["observations"][same])
        pages += int(same.sum())
    envs.close()
    assert same.mean() > 0.999, same.mean()
    return {"pages": pages, "lanes_with_a_near_tie": int((~same).sum())}


def measure(items: list[int], repeats: int) -> dict[str, object]:
    """Plays the contenders in turn in worlds of different sizes."""
    results = {f"{count:,} items": contest(count, repeats) for count in items}
    return {"machine": machine(), "batch": BATCH, "rounds": repeats, "stores": results}


def contest(items: int, repeats: int) -> dict[str, object]:
    """Plays the contenders in turn in one world."""
    start = time.process_time()
    store = vtb.GroundTruthStore(100 << 32, items=items, num_threads=1)
    construction = time.process_time() - start
    checked = check(store)
    actions = logged(8, BATCH)
    ours = environments(store, BATCH)
    ours.reset(seed=0)
    contenders = {"ours": (ours.step, 8)}
    for name, gather in (("numpy", False), ("numpy, ungrouped", True)):
        rival = BatchedNumPy(store, BATCH, generator(0), gather=gather)
        rival.reset(np.arange(BATCH))
        contenders[name] = (rival.step, 1)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, (step, times) in contenders.items():
            start = time.process_time()
            for _ in range(times):
                for action in actions:
                    step(action)
            took = time.process_time() - start
            rates[name].append(times * len(actions) * BATCH / took)

    def ratios(rival: str) -> dict[str, float]:
        each = [a / b for a, b in zip(rates["ours"], rates[rival], strict=True)]
        return {"median": statistics.median(each), "least": min(each), "most": max(each)}

    return {
        "construction_seconds": construction,
        "checked": checked,
        "pages_per_second": {name: statistics.median(rate) for name, rate in rates.items()},
        "ratios": {name: ratios(name) for name in contenders if name != "ours"},
    }


def main() -> None:
    """Runs the bench."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--items", type=int, nargs="+", default=[5_000, 1_000_000, 10_000_000])
    arguments = parser.parse_args()
    result = measure(arguments.items, arguments.repeats)
    console = Console()
    for name, row in result["stores"].items():
        rates = ", ".join(f"{who} {rate:,.0f}" for who, rate in row["pages_per_second"].items())
        ratios = ", ".join(
            f"{row['median']:.1f} x {who} ({row['least']:.1f} to {row['most']:.1f})"
            for who, row in row["ratios"].items()
        )
        console.print(f"{name}: {rates} pages/s; {ratios}")
        seconds, checked = row["construction_seconds"], row["checked"]
        console.print(f"    made in {seconds:.1f} CPU seconds; checked: {checked}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
