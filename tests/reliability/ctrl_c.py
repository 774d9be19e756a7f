"""Ctrl-C at random moments of rollouts: it is answered, and nothing is lost."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.cases import Case, pure

import virtualtb_fast as vtb

MOST = 100.0
"""Milliseconds within which Ctrl-C is answered, 99 times of 100."""
MANY = 1_000
"""Presses from which on that is asserted: a quantile of few says little."""


class Sorting:
    """Void guard: work that does not look up."""

    name = "numpy.sort"
    reference = None
    seconds = 1.0

    def play(self, path: Path | None, resume: bool = False) -> None:
        """Sorts for a second or so."""
        np.random.default_rng(0).random(10_000_000).sort()


def interrupts(
    all_cases: list[Case], count: int, folder: Path, rng: np.random.Generator
) -> dict[str, Any]:
    """Presses Ctrl-C at random moments and measures how long the answer takes."""
    default = vtb.load_simulator("virtualtb-v0-refit")
    forever: dict[str, int] = {"sessions": 10**9}
    quiet = [
        Case("in memory", default, "random", forever, 1),
        Case("in memory, threads", default, "random", forever, 2),
        Case("in memory, function", all_cases[3].place, pure, forever, 1),
    ]
    to_files = [case for case in all_cases if case.name in ("native", "threads", "store")]
    both = [*quiet, *to_files]
    shares = [count // len(both) + (number < count % len(both)) for number in range(len(both))]
    answers: dict[str, list[float]] = {}
    for case, share in zip(both, shares, strict=True):
        path = folder / f"interrupted-{case.name}.parquet" if case.reference else None
        answers[case.name] = interrupted(case, path, share, rng)
    total = np.concatenate([np.array(one) for one in answers.values()])
    guard = interrupted(Sorting(), None, max(3, count // 100), rng)

    def figures(values: Any) -> dict[str, float]:
        p50, p99, most = np.quantile(values, [0.5, 0.99, 1.0])
        return {
            "count": len(values),
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "most_ms": round(float(most), 2),
            "within_100_ms": round(float(np.mean(np.asarray(values) <= 100)), 4),
        }

    found = figures(total)
    if count >= MANY:
        assert found["p99_ms"] <= MOST, f"p99: expected at most {MOST} ms, got {found['p99_ms']}"
        assert figures(guard)["p99_ms"] > MOST, f"the guard was answered in {guard} ms"
    cases = {name: figures(one) for name, one in answers.items()}
    return {**found, "cases": cases, "guard": {Sorting.name: figures(guard)}}


def interrupted(
    case: Case | Sorting, path: Path | None, count: int, rng: np.random.Generator
) -> list[float]:
    """Milliseconds from each SIGINT to its `KeyboardInterrupt`."""
    to_child, from_parent = os.pipe()[::-1]
    from_child, to_parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            answer_ctrl_c(case, path, from_parent, to_parent)
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(from_parent)
    os.close(to_parent)
    answers: list[float] = []
    longest = min(1.2 * case.seconds, 0.4) if path else 0.2
    with os.fdopen(from_child, "r") as said, os.fdopen(to_child, "w") as say:

        def tell(word: str) -> None:
            print(word, file=say, flush=True)

        while len(answers) < count:
            tell("go")
            assert said.readline() == "begun\n"
            over = select.select([said], [], [], rng.uniform(0, longest))[0]
            if over:
                assert said.readline() == "finished\n"
                check_finished(case, path)
                continue
            sent = time.monotonic_ns()
            os.kill(pid, signal.SIGINT)
            line = said.readline()
            if line == "finished\n":
                # It ended by itself while the signal was on its way, and answers it idle.
                check_finished(case, path)
                assert said.readline().startswith("interrupted")
                continue
            word, at = line.split()
            assert word == "interrupted"
            answers.append((int(at) - sent) / 1e6)
        if path:
            # Nothing is lost: the rest gives the same bytes.
            tell("go")
            assert said.readline() == "begun\n"
            assert said.readline() == "finished\n"
            check_finished(case, path)
        tell("end")
    _, status = os.waitpid(pid, 0)
    assert status == 0
    return answers


def check_finished(case: Case | Sorting, path: Path | None) -> None:
    assert path is not None
    assert path.read_bytes() == case.reference
    path.unlink()


def answer_ctrl_c(case: Case | Sorting, path: Path | None, commands: int, answers: int) -> None:
    """Plays when told to, and says when it was interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with os.fdopen(commands, "r") as heard, os.fdopen(answers, "w") as say:
        while heard.readline() == "go\n":
            try:
                print("begun", file=say, flush=True)
                case.play(path, resume=path is not None)
                print("finished", file=say, flush=True)
                # A signal that is still on its way comes here.
                select.select([heard], [], [])
            except KeyboardInterrupt:
                print(f"interrupted {time.monotonic_ns()}", file=say, flush=True)
