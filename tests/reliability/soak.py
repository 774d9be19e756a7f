"""A long run: one digest whatever the configuration, steady memory, and at what rate.

``python -m tests.reliability.soak --pages 100_000_000 --json FILE``

Rounds of new seeds are played by every configuration, in a process for each instruction set:

- **rollouts**: batch sizes 1, 3, 64, 257, 1024 x 1, 2, 4 threads, compared by the log's digest;
- **vector environments**: the same batch sizes x the three autoreset modes (threads in turn), with
  actions that depend on the observation, compared by a sum over all pages of what was shown and
  answered, in which the order of the pages does not matter.

A round in which two configurations differ is an `AssertionError`. The scalar kernels, which say
what the others have to give, are some forty times slower and play the first rounds alone. Memory
is read after every round: it must not grow from the first third of the rounds to the last. The
rate is in pages a second of CPU time; in the long form the last third's must be at least `STEADY`
of the first's.

Void guards, which must fail in the same run: another seed has another digest in both forms, and a
process that keeps its logs is found to grow.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, TypeAlias

import gymnasium
import numpy as np
from numpy.typing import NDArray
from tests.reliability.cases import report

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.evaluation.machine import machine, resident

BATCHES: Final = (1, 3, 64, 257, 1024)
THREADS: Final = (1, 2, 4)
MODES: Final = ("NextStep", "SameStep", "Disabled")
GROWTH: Final = 8.0
"""MB by which the median memory of the last third of the rounds may exceed that of the first."""
STEADY: Final = 0.8
"""Share of the first rounds' rate that the last rounds keep."""
LONG: Final = 10_000_000
"""Pages from which on rates are held to that: short runs on shared machines vary more."""
HOARD: Final = 2_000_000
"""Pages that the process keeps that is to be found to grow: 30 bytes each, and more."""

Numbers: TypeAlias = NDArray[np.uint64]


def mixed(words: Numbers) -> Numbers:
    """The words, each mixed with itself (the finaliser of SplitMix64; Steele et al., 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def actions_for(observations: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Actions that depend on the observation, without rounding and so without an order."""
    return observations[:, :size] * np.float32(0.5) - np.float32(0.25)


class Sum:
    """A sum over pages, to which it does not matter in which order they come."""

    def __init__(self, width: int) -> None:
        self.total, self.pages = 0, 0
        self._weights = mixed(np.arange(1, width + 5, dtype=np.uint64)) | np.uint64(1)
        self._waiting: list[tuple[Any, ...]] = []
        self._rows = 0

    def add(
        self, counted: Any, seeds: Any, sessions: Any, observations: Any, clicks: Any, over: Any
    ) -> None:
        """Adds the pages of a step that count: who was shown what, and how it was answered."""
        self._waiting.append((counted, seeds, sessions, clicks, over, observations))
        self._rows += len(counted)
        if self._rows >= 4096:
            self._settle()

    def _settle(self) -> None:
        counted, *parts = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        *columns, observations = (part[counted] for part in parts)
        words = np.stack([column.astype(np.uint64) for column in columns], axis=1)
        own, shown = self._weights[:4], self._weights[4:]
        sums = (words * own).sum(axis=1) + observations.view(np.uint32).astype(np.uint64) @ shown
        self.total += int(mixed(sums).sum())
        self.pages += len(sums)
        self._waiting, self._rows = [], 0

    def digest(self) -> str:
        """The sum and the number of pages as text."""
        if self._waiting:
            self._settle()
        return f"{self.total % 2**64:016x}-{self.pages}"


def of_envs(
    seed: int, lanes: int, pages: int, *, batch: int, mode: str, threads: int
) -> tuple[str, int]:
    """The digest of the first ``pages`` pages of each of ``lanes`` seeds, and how many in all."""
    envs: Any = gymnasium.make_vec(
        "virtualtb_fast:VirtualTB-v1", num_envs=batch, autoreset_mode=mode, num_threads=threads
    )
    size = envs.single_action_space.shape[0]
    seen = Sum(envs.single_observation_space.shape[0])
    for start in range(0, lanes, batch):
        lane = seed + start + np.arange(batch)
        left = np.where(start + np.arange(batch) < lanes, pages, 0)
        session, waits = np.zeros(batch, np.int64), np.zeros(batch, bool)
        observations, _ = envs.reset(seed=seed + start)
        while (left > 0).any():
            shown = observations
            observations, clicks, over, _, _ = envs.step(actions_for(shown, size))
            counted = (left > 0) & ~waits
            seen.add(counted, lane, session, shown, clicks, over)
            session, left = session + over, left - counted
            if mode == "NextStep":
                waits = over
            elif mode == "Disabled" and over.any():
                observations, _ = envs.reset(options={"reset_mask": over})
    envs.close()
    digest = seen.digest()
    return digest, seen.pages


def of_rollout(seed: int, sessions: int, *, batch: int, threads: int) -> tuple[str, int]:
    """The digest of a rollout's log, and its pages."""
    log = vtb.rollout(
        vtb.load_simulator(), "random", sessions=sessions, seed=seed,
        batch_size=batch, num_threads=threads,
    ).log  # fmt: skip
    assert log is not None
    return log.digest(), len(log)


def one_round(number: int, pages: int) -> tuple[dict[str, str], int]:
    """Plays a round in every configuration: the digest of each form, and all pages played."""
    seed, lanes = (500 + number) << 32, max(BATCHES)
    found: dict[str, set[str]] = {"rollout": set(), "envs": set()}
    played = 0
    for index, batch in enumerate(BATCHES):
        for threads in THREADS:
            digest, count = of_rollout(seed, pages // 8, batch=batch, threads=threads)
            found["rollout"].add(digest)
            played += count
        for turn, mode in enumerate(MODES):
            # Three rounds play every mode with every number of threads.
            threads = THREADS[(index + turn + number) % len(THREADS)]
            digest, count = of_envs(
                seed, lanes, pages // lanes, batch=batch, mode=mode, threads=threads
            )
            found["envs"].add(digest)
            played += count
    for form, digests in found.items():
        assert len(digests) == 1, f"round {number}: {form} gave {sorted(digests)}"
    return {form: digests.pop() for form, digests in found.items()}, played


def play(rounds: int, pages: int) -> None:
    """What the process of an instruction set does: a line of JSON after every round."""
    for number in range(rounds):
        began = time.process_time()
        digests, played = one_round(number, pages)
        seconds = time.process_time() - began
        tidy()
        line = {"digests": digests, "pages": played, "rate": played / seconds, "mb": resident()}
        print(json.dumps(line), flush=True)


def of_child(isa: str, rounds: int, pages: int) -> list[dict[str, Any]]:
    """The lines of a process with this instruction set."""
    words = ["--child", str(rounds), "--round", str(pages)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.soak", *words],
        env=os.environ | {"VIRTUALTB_FAST_ISA": isa}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for text in process.stdout:
        lines.append(json.loads(text))
        now = lines[-1]
        print(
            f"{isa}: round {len(lines)} of {rounds}, {now['rate']:,.0f} pages a CPU second, "
            f"{now['mb']:.0f} MB", file=sys.stderr, flush=True,
        )  # fmt: skip
    assert process.wait() == 0, f"{isa}: the process failed"
    return lines


def tidy() -> None:
    """Gives back what is free, so that what is left is in use."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def thirds(numbers: list[float]) -> tuple[float, float]:
    """Medians of the first third and of the last."""
    third = max(1, len(numbers) // 3)
    return statistics.median(numbers[:third]), statistics.median(numbers[-third:])


def steady(pair: tuple[float, float]) -> bool:
    """Whether the last rounds are about as fast as the first."""
    return pair[1] >= STEADY * pair[0]


def guards(pages: int) -> dict[str, str]:
    """What must differ differs, and what grows is seen to."""
    for form in (
        lambda seed: of_rollout(seed, pages // 8, batch=64, threads=1),
        lambda seed: of_envs(seed, 64, pages // 64, batch=64, mode="SameStep", threads=1),
    ):
        assert form(1 << 40)[0] != form(1 << 41)[0], "another seed has the same digest"
    kept, sizes = [], []
    for seed in range(9):
        played = vtb.rollout(vtb.load_simulator(), "random", pages=HOARD // 9, seed=seed)
        kept.append(played)
        sizes.append(resident() or math.nan)
    first, last = thirds(sizes)
    assert last - first > GROWTH, f"kept {len(kept)} logs, found {last - first} MB"
    slower = [1e6 / (1 + number / 30) for number in range(30)]
    assert not steady(thirds(slower)), "a rate that halves is steady"
    return {
        "another seed": "found to differ",
        "logs kept": "found to grow",
        "a rate that halves": "found to fall",
    }


def main() -> None:
    """Plays it all, and says what came of it."""
    parser = argparse.ArgumentParser(description="A long run of every configuration.")
    parser.add_argument("--pages", type=int, default=100_000_000, help="at least, in all")
    parser.add_argument(
        "--round", type=int, default=50_000, help="pages of each configuration, in 1,024 lanes"
    )
    parser.add_argument("--scalar-rounds", type=int, default=1)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.child is not None:
        return play(options.child, options.round)
    began, load = time.perf_counter(), os.getloadavg()[0]
    configurations = len(BATCHES) * (len(THREADS) + len(MODES))
    fast = [isa for isa in _core.cpu_info()["available"] if isa != "scalar"] or ["scalar"]
    rounds = max(3, math.ceil(options.pages / configurations / options.round / len(fast)))
    plan = {"scalar": options.scalar_rounds} | dict.fromkeys(fast, rounds)
    found = {isa: of_child(isa, count, options.round) for isa, count in plan.items()}

    digests = [line["digests"] for line in found[fast[0]]]
    for isa, lines in found.items():
        assert [line["digests"] for line in lines] == digests[: len(lines)], f"{isa} differs"
    memory = {isa: thirds([line["mb"] for line in found[isa]]) for isa in fast}
    for isa, (first, last) in memory.items():
        assert last - first <= GROWTH, f"{isa}: memory went from {first} to {last} MB"
    rates = {isa: thirds([line["rate"] for line in found[isa]]) for isa in fast}
    for isa, pair in rates.items():
        assert options.pages < LONG or steady(pair), f"{isa}: the rate went from {pair}"
    text = json.dumps(digests, sort_keys=True).encode()
    lines = list(itertools.chain.from_iterable(found.values()))
    report(
        {
            "machine": machine(),
            "pages": sum(line["pages"] for line in lines),
            "rounds": {isa: len(lines) for isa, lines in found.items()},
            "configurations": {
                "batch sizes": BATCHES, "threads": THREADS, "autoreset modes": MODES,
                "instruction sets": list(found),
            },
            "digest": hashlib.sha256(text).hexdigest(),
            "memory_mb": {isa: [round(one, 1) for one in pair] for isa, pair in memory.items()},
            "memory_by_round_mb": {
                isa: [round(line["mb"], 1) for line in found[isa]] for isa in fast
            },
            "pages_per_cpu_second": {isa: [round(one) for one in rates[isa]] for isa in fast},
            "guards": guards(options.round),
        },
        began, load, options.json,
    )  # fmt: skip
    return None


if __name__ == "__main__":
    main()
