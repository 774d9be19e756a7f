"""How long native calls work between two looks at signals: ``python -m tests.reliability.gaps``.

A timer ticks all the time; the system's signal waits until the call looks up, and is noted then.
Between two notes is what a Ctrl-C has to wait for at most. It is counted in CPU time of the thread
that called, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.cases import report
from tests.reliability.test_signals import LONG, Kit

from virtualtb_fast.evaluation.machine import machine

MOST = 50.0
"""Milliseconds."""
ENOUGH = 1.0
"""Seconds of work that are looked at."""


def longest_gap(work: Callable[[], Any]) -> float:
    """Milliseconds of this thread's work between two looks at signals, at most.

    What it takes to free the memory of what a call has made comes after it.
    """
    looks: list[float] = []
    began, over = time.process_time(), False

    def note(number: int, frame: Any) -> None:
        nonlocal over
        if not over:
            looks.append(time.thread_time())
            # Where threads work, this one may only wait.
            over = time.process_time() - began > ENOUGH
            if over:
                raise KeyboardInterrupt

    before = signal.signal(signal.SIGPROF, note)
    looks.append(time.thread_time())
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        made = work()
        over = True
        looks.append(time.thread_time())
        del made
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return 1e3 * float(np.diff(looks).max())


def gaps(tries: int) -> dict[str, Any]:
    """Of every long call: the longest of its gaps, and the guard's."""
    found = dict.fromkeys(LONG, 0.0)
    with tempfile.TemporaryDirectory(prefix="virtualtb-") as folder:
        kit = Kit(Path(folder))
        for name, (call, _) in LONG.items():
            for _ in range(tries):
                gap = longest_gap(lambda call=call: call(kit))  # type: ignore[misc]
                found[name] = max(found[name], round(gap, 2))
                for written in kit.folder.glob("new.*"):
                    written.unlink()
        kit.close()
    numbers = np.random.default_rng(0).random(2_000_000)
    return {"longest_ms": found, "guard": {"numpy.sort": round(longest_gap(numbers.sort), 2)}}


def main() -> None:
    """Measures, holds it to `MOST`, writes it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began, load = time.perf_counter(), os.getloadavg()[0]
    result = gaps(options.tries)
    slow = {name: gap for name, gap in result["longest_ms"].items() if gap > MOST}
    report({"machine": machine(), "most_ms": MOST, **result}, began, load, options.json)
    assert not slow, f"expected at most {MOST} ms between two looks at signals, got {slow}"
    assert result["guard"]["numpy.sort"] > MOST, "the guard passed"


if __name__ == "__main__":
    main()
