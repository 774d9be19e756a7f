"""Rollouts to files that are quick to play, and processes that play them and can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.policies import Policy
from virtualtb_fast.rollout import Rollout, rollout
from virtualtb_fast.schema import Config, Customers, Field, Leave, Response, Schema

SCHEMA = Schema(customer=(Field("region", 5), Field("age", 4)), action=6, action_range=(-1.0, 1.0))
CONFIG = Config(
    customers=Customers(latent=4, hidden=(6,)),
    response=Response(page_scale=0.25, clicks=5, second=3, hidden=(8,)),
    leave=Leave(classes=9, hidden=(6,)),
)
GRACE = 120.0
"""Seconds after which a process is taken to hang."""


def small_simulator() -> vtb.Simulator:
    """Random weights of a shop so small that writing takes most of the time."""
    rng = np.random.default_rng(1)
    tensors = {
        name: rng.normal(0, 0.7, shape).astype(np.float32)
        for name, shape in CONFIG.shapes(SCHEMA).items()
    }
    return vtb.Simulator.from_tensors(tensors, name="small", schema=SCHEMA, config=CONFIG)


def pure(observation: Any, session: Any, page: Any) -> Any:
    """A policy in Python that depends on nothing but what it is shown."""
    return 0.25 * np.sin(session[:, None] + page[:, None] + np.arange(6.0))


@dataclass
class Case:
    """A rollout, and what an undisturbed run of it gives."""

    name: str
    place: Any
    policy: Any
    target: dict[str, int]
    threads: int | None
    reference: bytes = b""
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    ends: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)

    def play(self, out: Path | None, resume: bool = True, **more: Any) -> Rollout:
        """Plays it."""
        return rollout(
            self.place,
            self.policy,
            seed=7,
            num_threads=self.threads,
            out=out,
            resume=resume,
            keep=False,
            **self.target,
            **more,
        )

    def measure(self, folder: Path) -> None:
        """Plays it undisturbed."""
        from pyarrow import parquet

        path = folder / f"{self.name}.parquet"
        began = time.perf_counter()
        said = Child(lambda: counted(self.play(path, resume=False))).result()
        self.seconds = time.perf_counter() - began
        assert said["how"] == "played", said
        self.reference, self.counts = path.read_bytes(), said["counts"]
        groups = parquet.ParquetFile(path).metadata
        starts = []
        for number in range(groups.num_row_groups):
            column = groups.row_group(number).column(0)
            starts.append(column.dictionary_page_offset or column.data_page_offset)
            self.pages.append(groups.row_group(number).num_rows)
        footer = int.from_bytes(self.reference[-8:-4], "little")
        self.ends = [*starts[1:], len(self.reference) - 8 - footer]
        path.unlink()

    def check(self, path: Path, said: dict[str, Any]) -> None:
        """The file and the counts are those of the undisturbed run, and nothing else is left."""
        assert said["how"] == "played", said
        assert path.read_bytes() == self.reference, f"{self.name}: another file"
        assert said["counts"] == self.counts, f"{self.name}: other counts"
        assert sorted(path.parent.glob(f"{path.name}*")) == [path]


def cases() -> list[Case]:
    """Rollouts of every kind: native and called, short and long rows, sessions and pages."""
    small = small_simulator()
    store = vtb.GroundTruthStore(seed=100 << 32)
    block = _core.BLOCK
    return [
        Case("native", small, "random", {"sessions": 14 * block + 17}, 1),
        Case("threads", small, "gaussian:0.2", {"sessions": 14 * block + 17}, 2),
        Case("pages", small, Policy.constant(np.full(6, 0.5)), {"pages": 200_000}, 2),
        Case("function", small, pure, {"sessions": 8 * block}, 1),
        Case("store", store, "logger", {"sessions": 3 * block}, 2),
    ]


def counted(played: Any) -> dict[str, Any]:
    """The counts of a rollout as JSON."""
    counts = played.summary.to_dict()
    resumed = counts.pop("resumed")
    for name in ("seconds", "pages_per_second"):
        counts.pop(name)
    return {"how": "played", "counts": counts, "resumed": resumed}


class Child:
    """A forked process that does one thing and says how it went."""

    def __init__(self, work: Callable[[], dict[str, Any]]) -> None:
        read, write = os.pipe()
        self._pipe = os.fdopen(read, "rb")
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        status = 1
        try:
            self._pipe.close()
            try:
                said = work()
            except vtb.VirtualTBError as error:
                said = {"how": type(error).__name__, "says": str(error)}
                said["errno"] = getattr(error, "errno", None)
            os.write(write, json.dumps(said).encode())
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)

    def kill(self) -> bool:
        """Kills it; says whether it was still at work."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            self._pipe.close()
            return True
        return False

    def result(self, grace: float = GRACE) -> dict[str, Any]:
        """What it said at its end."""
        with self._pipe:
            if not select.select([self._pipe], [], [], grace)[0]:
                self.kill()
                raise AssertionError("a process hangs")
            said = self._pipe.read()
        # Unless it was waited for when it was found to have ended by itself.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        assert said, "a process died"
        return json.loads(said)


def report(results: dict[str, Any], began: float, load: float, path: Path | None) -> None:
    """Prints what a long form came to, with its load and seconds, and writes it if asked."""
    results["load_average"] = [round(load, 2), round(os.getloadavg()[0], 2)]
    results["seconds"] = round(time.perf_counter() - began, 1)
    text = json.dumps(results, indent=2) + "\n"
    print(text, end="")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
