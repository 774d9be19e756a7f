"""Threads: one environment is one thread's at a time; what is frozen is everybody's."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.envs import (
    GroundTruthStoreEnv,
    GroundTruthStoreVector,
    VirtualTBV0,
    VirtualTBV1,
    VirtualTBV1Vector,
)

THREADS = 8


@pytest.fixture(scope="module")
def simulator() -> vtb.Simulator:
    return vtb.load_simulator()


def store(**more: Any) -> vtb.GroundTruthStore:
    return vtb.GroundTruthStore(7, calibrate=False, tau=1.0, b0=-4.0, items=400, **more)


def together(*works: Callable[[], Any]) -> list[Any]:
    """Runs them at once, each on a thread; what each gave or raised."""
    start, results = threading.Barrier(len(works)), [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        start.wait()
        try:
            results[number] = work()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=one) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# One environment


@pytest.mark.parametrize("many", [False, True])
def test_a_store_in_use_refuses_every_other_thread(many: bool) -> None:
    """The customers' own function holds a step up for as long as the others try."""
    entered, go_on = threading.Event(), threading.Event()

    def customers(pages: Any) -> Any:
        entered.set()
        assert go_on.wait(60)
        return np.ones((len(pages["page"]), 12))

    place = store(customers=customers)
    env: Any = GroundTruthStoreVector(3, place) if many else GroundTruthStoreEnv(place)
    env.reset(seed=1)
    state = env.get_state()
    action = np.zeros((3, 27) if many else 27, np.float32)
    stepping = threading.Thread(target=lambda: env.step(action))
    stepping.start()
    assert entered.wait(60)
    calls = (
        lambda: env.step(action),
        env.reset,
        lambda: env.reset(seed=2),
        env.get_state,
        lambda: env.set_state(state),
        env.observe,
        env.counters,
        env.reveal_archetypes,
    )
    try:
        for call in calls:
            with pytest.raises(vtb.StateError, match="expected an environment used by one thread"):
                call()
    finally:
        go_on.set()
        stepping.join()
    # Nothing of it stays: the step is made once, and the environment goes on.
    twin: Any = GroundTruthStoreVector(3, place) if many else GroundTruthStoreEnv(place)
    twin.set_state(state)
    twin.step(action)
    assert env.get_state() == twin.get_state()


def at_it(step: Callable[[], Any], seconds: float = 60.0) -> tuple[int, int]:
    """How many steps were made, and how many refused, by threads that go on until both happened.

    Raises whatever else a step raises.
    """
    happened, deadline = (threading.Event(), threading.Event()), time.monotonic() + seconds

    def steps() -> tuple[int, int]:
        made, refused = 0, 0
        while not all(one.is_set() for one in happened) and time.monotonic() < deadline:
            try:
                step()
                made += 1
                happened[0].set()
            except vtb.StateError:
                refused += 1
                happened[1].set()
        return made, refused

    counts = together(steps, steps)
    assert all(isinstance(one, tuple) for one in counts), counts
    return sum(one[0] for one in counts), sum(one[1] for one in counts)


@pytest.mark.parametrize("many", [False, True])
def test_steps_at_once_are_made_or_refused(simulator: vtb.Simulator, many: bool) -> None:
    """Two threads keep at one environment until one of them was refused."""
    env: Any
    if many:
        env, twin = (
            VirtualTBV1Vector(4000, simulator, num_threads=1, autoreset_mode="SameStep")
            for _ in range(2)
        )
    else:
        # An episode that nobody ends: as published, it can be stepped past its end.
        env, twin = VirtualTBV0(simulator), VirtualTBV0(simulator)
    env.reset(seed=1)
    state, action = env.get_state(), np.zeros((4000, 27) if many else 27, np.float32)
    made, refused = at_it(lambda: env.step(action))
    assert made > 0
    assert refused > 0
    # Whoever was refused moved nothing.
    twin.set_state(state)
    for _ in range(made):
        twin.step(action)
    assert env.get_state() == twin.get_state()


def test_threads_with_an_environment_each_are_never_refused(simulator: vtb.Simulator) -> None:
    """Void guard: it is the shared environment that is refused, not the second thread."""
    envs = threading.local()

    def step() -> None:
        if not hasattr(envs, "own"):
            envs.own = VirtualTBV0(simulator)
            envs.own.reset(seed=1)
        envs.own.step(np.zeros(27, np.float32))

    made, refused = at_it(step, seconds=0.5)
    assert made > 0
    assert refused == 0


@pytest.mark.parametrize("many", [False, True])
def test_threads_that_take_turns_are_not_refused(simulator: vtb.Simulator, many: bool) -> None:
    """Void guard: which thread it is does not matter."""
    env: Any = VirtualTBV1Vector(3, simulator) if many else VirtualTBV1(simulator)
    env.reset(seed=1)
    action, failed = np.zeros((3, 27) if many else 27, np.float32), []

    def turn() -> None:
        try:
            if many or not env.step(action)[2]:
                env.observe()
            env.reset()
        except Exception as error:
            failed.append(error)

    for _ in range(10):
        thread = threading.Thread(target=turn)
        thread.start()
        thread.join()
    assert failed == []


# What never changes


def test_eight_threads_share_everything_that_is_frozen(simulator: vtb.Simulator) -> None:
    rng = np.random.default_rng(0)
    attributes = rng.normal(size=(20_000, 8)).astype(np.float32)
    catalog = vtb.Catalog.build(attributes, category=rng.integers(0, 20, 20_000))
    place = store()
    codes = simulator.customers(500, 1)
    pages, actions = np.arange(500), np.zeros((500, 27), np.float32)

    def work() -> str:
        parts: list[Any] = []
        for number in range(12):
            ids, scores = catalog.search(attributes[:5], 5, category=[number, 3], num_threads=2)
            parts += [ids, scores, simulator.customers(3000, number, num_threads=2)]
            parts += list(simulator.response(codes, pages, actions, num_threads=2).values())
            parts.append(place.items(number, 50).attributes)
            played = vtb.rollout(simulator, sessions=300, seed=number, num_threads=2)
            parts += [played["clicks"], played["action"]]
            envs = VirtualTBV1Vector(20, simulator, num_threads=2)
            envs.reset(seed=number)
            parts.append(envs.step(np.zeros((20, 27), np.float32))[0])
        return hashlib.sha256(
            b"".join(np.ascontiguousarray(p).tobytes() for p in parts)
        ).hexdigest()

    alone = work()
    assert together(*[work] * THREADS) == [alone] * THREADS


def test_a_customer_model_may_play_in_another_store() -> None:
    inner = store()

    def customers(pages: Any) -> Any:
        envs = GroundTruthStoreVector(2, inner, num_threads=1)
        envs.reset(seed=1)
        envs.step(np.zeros((2, 27), np.float32))
        return np.ones((len(pages["page"]), 12))

    envs = GroundTruthStoreVector(3, store(customers=customers), num_threads=1)
    envs.reset(seed=1)
    assert np.isfinite(envs.step(np.zeros((3, 27), np.float32))[0]).all()
