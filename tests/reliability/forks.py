"""Forks at bad moments: the child works at once or raises a typed error; it never hangs.

``python -m tests.reliability.forks --forks 500 --json FILE``

While threads of this process are at work natively (stepping on a pool of threads, searching with
filters, building stores and pools, writing a rollout to a file), it forks. Each child does what
workers do, with what it inherited and with what it makes: steps vector environments on threads of
its own, plays rollouts in memory and to a file, samples customers, searches catalogues, opens
mapped ones, builds stores. Results are compared with those of an undisturbed process.

| way | who forks |
|---|---|
| ``os.fork`` | the main thread, by itself |
| ``process``, ``pool`` | ``multiprocessing``, with fork |
| ``spawn``, ``forkserver`` | ``multiprocessing``, with those: the work is sent pickled |
| ``thread`` | a thread that is none of the busy ones |
| ``fork in fork`` | a child forks in its turn, three deep, each with a pool of threads |
| ``in a call`` | a policy, a progress function, a customer model: in the middle of a native call |
| ``async`` | Gymnasium's ``AsyncVectorEnv`` |
| ``loader`` | PyTorch's ``DataLoader`` with workers, if it is installed |

An environment that a busy thread was stepping at the fork is half stepped in the child: there every
use of it is a `StateError`.

A child that is not done within `GRACE` seconds is a hang: it is made to say where, by
``faulthandler``, and ended, and everything fails. Void guards, in the same run: a child that waits
for a lock that another thread held at the fork is found to hang; wrong results are found to be
wrong.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib.util
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tests.reliability.cases import report, small_simulator

import virtualtb_fast as vtb
from virtualtb_fast.envs.virtualtb import VirtualTBV1
from virtualtb_fast.evaluation.machine import machine

GRACE = 120.0
"""Seconds after which a child is taken to hang."""
LONG = 500
"""Forks from which on some must have come in the middle of a step."""


class Place:
    """What children inherit, and what they have to give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.simulator = small_simulator()
        self.store = vtb.GroundTruthStore(7, calibrate=False, tau=1.0, b0=-4.0, items=400)
        rng = np.random.default_rng(0)
        attributes = rng.normal(size=(30_000, 8)).astype(np.float32)
        columns = {"brand": rng.integers(0, 20, 30_000), "year": rng.integers(0, 9, 30_000)}
        self.path = str(folder / "items.vtbcat")
        self.catalog = vtb.Catalog.build(attributes, self.path, category=columns)
        self.weights = attributes[:64].copy()
        self.envs = self.vector(2)
        self.want = {name: work() for name, work in self.works().items()}

    def vector(self, threads: int) -> Any:
        """Environments that have not been touched by anybody."""
        envs = gymnasium.make_vec(
            "virtualtb_fast:VirtualTB-v1",
            num_envs=600,
            num_threads=threads,
            simulator=self.simulator,
            autoreset_mode="SameStep",
        )
        envs.reset(seed=3)
        return envs

    def steps(self, envs: Any) -> str:
        """A digest of some steps."""
        envs.reset(seed=3)
        actions = np.full((envs.num_envs, 6), 0.25, np.float32)
        parts = [envs.step(actions)[0].tobytes() for _ in range(3)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def works(self) -> dict[str, Callable[[], str]]:
        """What a child does, by name: each gives the same digest wherever it is done."""

        def rollout(**more: Any) -> str:
            played = vtb.rollout(
                self.simulator, "random", sessions=20_000, seed=1, num_threads=3, **more
            )
            return played.digest() if played.path or more.get("keep", True) else repr(played.ctr)

        def to_file() -> str:
            path = self.folder / f"{os.getpid()}-{threading.get_ident()}.parquet"
            digest = rollout(out=path)
            path.unlink()
            return digest

        def search(catalog: Any) -> str:
            ids, scores = catalog.search(
                self.weights, k=7, category={"brand": [1, 2, 3], "year": [4, 5]}, num_threads=2
            )
            return hashlib.sha256(ids.tobytes() + scores.tobytes()).hexdigest()

        def opened() -> str:
            with vtb.Catalog.open(self.path) as catalog:
                return search(catalog)

        def customers() -> str:
            codes = self.simulator.customers(40_000, 5, num_threads=2)
            return hashlib.sha256(codes.tobytes()).hexdigest()

        def store() -> str:
            made = vtb.GroundTruthStore(
                7, calibrate=False, tau=1.0, b0=-4.0, items=140_000, num_threads=2
            )
            return made.digest + repr(vtb.rollout(made, "zero", sessions=100, keep=False).ctr)

        return {
            "inherited environments": lambda: self.steps(self.envs),
            "new environments": lambda: self.steps(self.vector(3)),
            "pickled environments": lambda: self.steps(pickle.loads(pickle.dumps(self.envs))),
            "rollout": rollout,
            "rollout to a file": to_file,
            "search": lambda: search(self.catalog),
            "opened catalogue": opened,
            "customers": customers,
            "store": store,
        }

    def check(self, name: str) -> None:
        """Does one thing and compares."""
        got = self.works()[name]()
        assert got == self.want[name], f"{name}: another result in a forked child"


class Busy:
    """Threads that are at work natively for as long as this is entered."""

    def __init__(self, place: Place) -> None:
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self.stepped = place.vector(2)
        self.found = Counter[str]()
        """What children found of these environments: see `torn`."""
        small = place.simulator
        actions = np.zeros((600, 6), np.float32)
        sizes, numbers = itertools.cycle(range(2, 40)), itertools.count()

        def filters() -> None:
            place.catalog.count(category={"brand": [next(numbers) % 20]})

        def rollout() -> None:
            path = place.folder / "busy.parquet"
            vtb.rollout(small, sessions=20_000, num_threads=2, out=path, overwrite=True)

        works = (
            lambda: self.stepped.step(actions),
            lambda: small.customers(200_000, 1, num_threads=next(sizes)),
            filters,
            rollout,
            lambda: vtb.Catalog.open(place.path).close(),
        )
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            while not self._stop.is_set():
                work()
        except BaseException as error:
            self._failed.append(error)

    def __enter__(self) -> Busy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._failed, self._failed


def where(pid: int, text: Any) -> str:
    """Ends a child that hangs; where it stood."""
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1)
    os.kill(pid, signal.SIGKILL)
    text.seek(0)
    return str(text.read())


def ended(pid: int, grace: float) -> int | None:
    """How a child ended, as `os.waitpid` says it; None if it is at work after so many seconds."""
    # Not every system can wait for a process and a clock at once.
    deadline, pause = time.monotonic() + grace, 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def forked(work: Callable[[], Any], grace: float = GRACE) -> str | None:
    """Does it in a forked child; None, or what went wrong."""
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                # All threads' stacks, of which there is one.
                faulthandler.register(signal.SIGUSR1, said, all_threads=True)
                work()
                status = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=said, flush=True)
            finally:
                os._exit(status)
        status = ended(pid, grace)
        if status is None:
            told = where(pid, said)
            os.waitpid(pid, 0)
            return f"a child hangs:\n{told}"
        if status:
            said.seek(0)
            return f"a child failed ({status}): {said.read()}"
    return None


def good(wrong: str | None) -> None:
    assert wrong is None, wrong


def finished(process: Any) -> None:
    """Waits for a process of `multiprocessing`."""
    process.join(GRACE)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"a child hangs: {process.name}")
    assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}"


_place: Place
"""For children that are forked: what they inherit."""


def inherited(name: str) -> bool:
    """A task of a forked worker."""
    _place.check(name)
    return True


def sent(envs: Any, catalog: Any, want: tuple[str, str]) -> None:
    """A task of a process that shares nothing."""
    envs.reset(seed=3)
    actions = np.full((envs.num_envs, 6), 0.25, np.float32)
    parts = [envs.step(actions)[0].tobytes() for _ in range(3)]
    got = hashlib.sha256(b"".join(parts)).hexdigest()
    count = catalog.count(category={"brand": [1, 2, 3], "year": [4, 5]})
    assert (got, str(count)) == want


def deep(place: Place, name: str, levels: int) -> None:
    place.check(name)
    if levels:
        good(forked(lambda: deep(place, name, levels - 1)))


def in_a_call(place: Place, name: str, number: int) -> None:
    """Forks where native code calls back."""
    left, wrong = [1], []

    def fork() -> None:
        if left and left.pop():
            wrong.append(forked(lambda: place.check(name)))

    def policy(observation: Any, session: Any, page: Any) -> Any:
        fork()
        return np.zeros((len(session), 6), np.float32)

    def customers(pages: Any) -> Any:
        fork()
        return np.ones((len(pages["page"]), 12))

    if number % 3 == 0:
        vtb.rollout(place.simulator, policy, sessions=500, keep=False)
    elif number % 3 == 1:
        tell: Any = lambda *told: fork()  # noqa: E731
        vtb.rollout(place.simulator, sessions=300_000, num_threads=2, keep=False, progress=tell)
    else:
        own = vtb.GroundTruthStore(
            7, calibrate=False, tau=1.0, b0=-4.0, items=400, customers=customers
        )
        # The function is called on a thread of the pool.
        vtb.rollout(own, sessions=20_000, pages=None, num_threads=2, keep=False)
    assert wrong, "nobody forked"
    good(wrong[0])


def asynchronous(place: Place, number: int) -> None:
    envs = gymnasium.vector.AsyncVectorEnv(
        [lambda: VirtualTBV1(place.simulator)] * 2, shared_memory=bool(number % 2)
    )
    try:
        envs.reset_async(seed=3)
        envs.reset_wait(timeout=GRACE)
        envs.step_async(np.full((2, 6), 0.25, np.float32))
        observations = envs.step_wait(timeout=GRACE)[0]
    finally:
        envs.close(terminate=True)
    native = gymnasium.make_vec("virtualtb_fast:VirtualTB-v1", 2, simulator=place.simulator)
    native.reset(seed=3)
    assert np.array_equal(observations, native.step(np.full((2, 6), 0.25, np.float32))[0])


class Items:
    """A data set of results of the works, for a `DataLoader`."""

    def __init__(self, place: Place, names: list[str]) -> None:
        self._place, self._names = place, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> int:
        self._place.check(self._names[index])
        return index


def loader(place: Place, names: list[str]) -> None:
    from torch.utils.data import DataLoader

    items: Any = Items(place, names)
    read = DataLoader(items, batch_size=None, num_workers=2, timeout=GRACE)
    assert sorted(int(index) for index in read) == [0, 1]


def torn(busy: Busy) -> str:
    """What an environment does that a busy thread may have been stepping at the fork."""
    try:
        busy.stepped.observe()
    except vtb.StateError:
        return "refused"
    return "worked"


def one(place: Place, busy: Busy, way: str, name: str, number: int) -> int:
    """Forks in one way; how many processes that were."""
    if way == "os.fork":
        read, write = os.pipe()

        def work() -> None:
            os.write(write, torn(busy).encode())
            place.check(name)

        with os.fdopen(read) as word:
            try:
                good(forked(work))
            finally:
                os.close(write)
            busy.found[word.read()] += 1
        return 1
    if way == "thread":
        wrong: list[str | None] = []
        thread = threading.Thread(target=lambda: wrong.append(forked(lambda: place.check(name))))
        thread.start()
        thread.join()
        good(wrong[0])
        return 1
    if way == "fork in fork":
        good(forked(lambda: deep(place, name, 2)))
        return 3
    if way == "in a call":
        in_a_call(place, name, number)
        return 1
    if way == "process":
        process = multiprocessing.get_context("fork").Process(target=place.check, args=(name,))
        process.start()
        finished(process)
        return 1
    if way == "pool":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(inherited, [name, "rollout"]).get(GRACE) == [True, True]
        return 2
    if way in ("spawn", "forkserver"):
        count = place.catalog.count(category={"brand": [1, 2, 3], "year": [4, 5]})
        want = (place.want["inherited environments"], str(count))
        arguments = (place.vector(2), place.catalog, want)
        process = multiprocessing.get_context(way).Process(target=sent, args=arguments)  # type: ignore[attr-defined]
        process.start()
        finished(process)
        return 1
    if way == "async":
        asynchronous(place, number)
        return 2
    assert way == "loader"
    loader(place, [name, "new environments"])
    return 2


def ways() -> Iterator[str]:
    """All ways in turn, the slow ones seldom."""
    quick = ["os.fork", "thread", "os.fork", "process", "in a call", "fork in fork", "pool"]
    slow = ["async", "spawn", "forkserver"]
    if importlib.util.find_spec("torch"):
        slow.append("loader")
    for turn in itertools.count():
        yield from quick
        yield slow[turn % len(slow)]


def guards(place: Place) -> dict[str, str]:
    """What is trivially wrong is found to be."""
    lock, held, release = threading.Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    hangs = forked(lock.acquire, grace=2.0)
    release.set()
    thread.join()
    assert hangs is not None
    assert hangs.startswith("a child hangs")
    assert "forks.py" in hangs, hangs
    place.want["customers"], right = "another", place.want["customers"]
    differs = forked(lambda: place.check("customers"))
    place.want["customers"] = right
    assert differs is not None
    assert "another result" in differs, differs
    return {"a lock held at the fork": "found to hang", "a wrong result": "found to differ"}


def main() -> None:
    """Runs it all and writes what came of it."""
    global _place
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--forks", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # That a process with threads forks is what this is about.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    began, load = time.perf_counter(), os.getloadavg()[0]
    done, works = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="virtualtb-") as name:
        _place = place = Place(Path(name))
        found = guards(place)
        names = itertools.cycle(place.want)
        with Busy(place) as busy:
            for number, way in enumerate(ways()):
                if done.total() >= options.forks:
                    break
                work = next(names)
                try:
                    done[way] += one(place, busy, way, work, number)
                except BaseException as error:
                    # The busy threads are ended by leaving; this says where it went wrong.
                    error.add_note(f"fork {number}: {way}, {work}")
                    raise
                works[work] += 1
    # Few forks may all come between two steps.
    assert options.forks < LONG or busy.found["refused"], busy.found
    results = {
        "machine": machine(),
        "forks": done.total(),
        "ways": dict(done),
        "works": dict(works),
        "half_stepped": dict(busy.found),
        "guards": found,
    }
    report(results, began, load, options.json)


if __name__ == "__main__":
    sys.exit(main())
