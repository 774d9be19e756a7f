"""Rollouts to files under kills, failed writes and Ctrl-C: resumed, they are what they would be.

``python -m tests.reliability.rollouts --kills 500 --failures 200 --interrupts 1000 --json FILE``

Every rollout is played in a process of its own, forked off, so that hundreds of kills take minutes:

- **kills**: SIGKILL at a random moment between the start and a little after the end, up to five
  times a rollout, then the rest; the file must be, byte for byte, that of an undisturbed run, and
  so must the counts.
- **failed writes**: the system refuses to write past a random byte (``RLIMIT_FSIZE``), or the disk
  is full (a file system of that size in memory, where one may be mounted). All row groups that fit
  must be kept, the error must say that the rollout can be resumed, and resuming must give the same
  bytes.
- **Ctrl-C**: SIGINT at a random moment; how long until ``KeyboardInterrupt`` is there.

Void guards, which must fail in the same run: what a kill leaves is not the file; a journal with a
digit changed is refused. Everything that goes wrong is an `AssertionError`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.cases import Case, Child, cases, counted, report
from tests.reliability.ctrl_c import interrupts

import virtualtb_fast as vtb
from virtualtb_fast.evaluation.machine import machine

MOST_KILLS = 5
"""Of one rollout, before it may end."""


def kills(
    all_cases: list[Case], count: int, folder: Path, rng: np.random.Generator
) -> dict[str, Any]:
    """Kills rollouts at random moments."""
    done, runs, guards = 0, 0, Counter[str]()
    found = Counter[str]()
    while done < count:
        case = all_cases[runs % len(all_cases)]
        path = folder / f"{case.name}-{runs}.parquet"
        runs += 1
        for turn in range(MOST_KILLS + 1):
            child = Child(lambda case=case, path=path: counted(case.play(path)))
            if turn < MOST_KILLS and done < count:
                time.sleep(rng.uniform(0, 1.2 * case.seconds))
                if child.kill():
                    done += 1
                    what = left(case, path)
                    found[what] += 1
                    if what == "some blocks":
                        guard(case, path, guards)
                    continue
            said = child.result()
            case.check(path, said)
            break
        path.unlink()
    assert guards["refused"] == guards["tampered"] > 0
    assert guards["unlike"] == guards["compared"] > 0
    return {
        "kills": done,
        "rollouts": runs,
        "equal": runs,
        "left": dict(found),
        "guards": dict(guards),
    }


def left(case: Case, path: Path) -> str:
    """What a kill left, in words; the final name must be that of the whole file or of nothing."""
    journal, partial = Path(f"{path}.journal"), Path(f"{path}.partial")
    if path.exists():
        assert path.read_bytes() == case.reference
        assert not partial.exists()
        return "complete, journal left" if journal.exists() else "complete"
    if not journal.exists():
        assert not partial.exists()
        return "nothing"
    lines = journal.read_bytes().count(b"\n")
    if lines < 2:
        return "no block"
    return "some blocks" if lines <= len(case.ends) else "all blocks"


def guard(case: Case, path: Path, guards: Counter[str]) -> None:
    """What is trivially wrong: to take the rest for the file, and to trust a journal."""
    journal, partial = Path(f"{path}.journal"), Path(f"{path}.partial")
    guards["compared"] += 1
    guards["unlike"] += partial.read_bytes() != case.reference
    text = journal.read_bytes()
    if guards["tampered"] >= 10:
        return
    copy = path.with_name("tampered.parquet")
    shutil.copyfile(partial, f"{copy}.partial")
    at = text.index(b'"pages":', text.index(b"\n")) + len(b'"pages":')
    other = b"7" if text[at : at + 1] != b"7" else b"8"
    Path(f"{copy}.journal").write_bytes(text[:at] + other + text[at + 1 :])
    said = Child(lambda: counted(case.play(copy))).result()
    guards["tampered"] += 1
    guards["refused"] += said["how"] == "FileFormatError"
    Path(f"{copy}.journal").unlink()
    Path(f"{copy}.partial").unlink()


def failures(
    all_cases: list[Case], count: int, folder: Path, rng: np.random.Generator
) -> dict[str, Any]:
    """Lets writes fail at random places."""
    kinds = (
        ["limit", "full disk"] if Child(lambda: can_mount(folder)).result()["can"] else ["limit"]
    )
    done, errors = Counter[str](), Counter[str]()
    for number in range(count):
        case, kind = all_cases[number % len(all_cases)], kinds[number % len(kinds)]
        # All sizes, half of them within the first blocks and the journal.
        most = len(case.reference)
        bytes_ = int(rng.integers(0, most) if number % 4 else rng.integers(0, 2 * case.ends[0]))
        path = folder / f"failed-{number}.parquet"
        if kind == "limit":
            failed = Child(lambda c=case, p=path, b=bytes_: limited(c, p, b)).result()
            said = Child(lambda c=case, p=path: counted(c.play(p))).result()
            fits = [
                pages for pages, end in zip(case.pages, case.ends, strict=True) if end <= bytes_
            ]
            assert said.get("resumed") == sum(fits), (case.name, bytes_, said, sum(fits))
            case.check(path, said)
            path.unlink()
        else:
            both = Child(lambda c=case, b=bytes_: on_full_disk(c, folder, b)).result()
            failed, said = both["failed"], both["said"]
            assert both["equal"], case.name
            assert said["counts"] == case.counts
        assert failed["how"] == "OutputError", failed
        assert "resume=True" in failed["says"] or not said["resumed"], failed
        done[kind] += 1
        errors[os.strerror(failed["errno"])] += 1
    return {"failed_writes": count, "kinds": dict(done), "errors": dict(errors), "equal": count}


def limited(case: Case, path: Path, most: int) -> dict[str, Any]:
    """A system that refuses to write past so many bytes of any file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    return counted(case.play(path))


_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MS_REMOUNT = 0x20000, 16384, 1 << 18, 32


def mount(folder: Path, size: int, flags: int = 0) -> bool:
    """Mounts a file system of so many bytes, in memory, seen by this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not flags:
        private = (b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        if libc.unshare(_CLONE_NEWNS) or libc.mount(*private):
            return False
    target, options = os.fsencode(folder), f"size={size}".encode()
    return libc.mount(b"tmpfs", target, b"tmpfs", flags, options) == 0


def can_mount(folder: Path) -> dict[str, Any]:
    """Whether this process may."""
    return {"can": hasattr(ctypes.CDLL(None), "unshare") and mount(folder, 1 << 20)}


def on_full_disk(case: Case, folder: Path, size: int) -> dict[str, Any]:
    """Plays on a disk of so many bytes, then on a larger one."""
    # 0 is no limit; a file system counts in pages.
    size = max(size, 8192)
    assert mount(folder, size)
    path = folder / "full.parquet"
    try:
        failed = counted(case.play(path))
    except vtb.OutputError as error:
        failed = {"how": "OutputError", "says": str(error), "errno": error.errno}
    assert mount(folder, 1 << 30, _MS_REMOUNT)
    said = counted(case.play(path))
    equal = path.read_bytes() == case.reference and os.listdir(folder) == [path.name]
    return {"failed": failed, "said": said, "equal": equal}


def main() -> None:
    """Runs it all and writes what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--failures", type=int, default=200)
    parser.add_argument("--interrupts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    began, load = time.perf_counter(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="virtualtb-") as name:
        folder = Path(name)
        all_cases = cases()
        for case in all_cases:
            case.measure(folder)
        results = {
            "machine": machine(),
            "cases": {
                case.name: {
                    "bytes": len(case.reference),
                    "blocks": len(case.ends),
                    "seconds": round(case.seconds, 3),
                }
                for case in all_cases
            },
            "kills": kills(all_cases, options.kills, folder, rng),
            "failed_writes": failures(all_cases, options.failures, folder, rng),
            "ctrl_c": interrupts(all_cases, options.interrupts, folder, rng),
        }
    report(results, began, load, options.json)


if __name__ == "__main__":
    main()
