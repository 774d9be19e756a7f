"""Steps in the background: they bring what `step` does; and what may not be done meanwhile."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

import virtualtb_fast as vtb

MODES = ("NextStep", "SameStep", "Disabled")
LONG = 60.0
"""Seconds after which whoever waits has been forgotten."""


@pytest.fixture(scope="module")
def store() -> vtb.GroundTruthStore:
    return vtb.GroundTruthStore(7 << 32, calibrate=False, tau=1.0, b0=-4.0)


@pytest.fixture
def make_vec(kit, simulator, store) -> Callable[..., Any]:
    """Vector environments of a kind: v0, v1, store."""

    def make(kind: str = "v1", num_envs: int = 5, **arguments: Any) -> Any:
        name = "GroundTruthStore-v0" if kind == "store" else f"VirtualTB-{kind}"
        place = {"store": store} if kind == "store" else {"simulator": simulator}
        with kit.v0_is_not_outdated():
            made = gymnasium.make_vec(f"virtualtb_fast:{name}", num_envs, **(place | arguments))
        return made.unwrapped

    return make


class Held:
    """Customers who answer when they may; a store's step is as long as a test needs it."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), threading.Event()
        self.broken = False

    def __call__(self, pages: Any) -> np.ndarray:
        self.asked.set()
        assert self.go.wait(LONG), "nobody let the customers answer"
        if self.broken:
            raise ValueError("as planned")
        count = len(pages["customer"])
        return np.tile([0.02] * 10 + [0.5, 0.3], (count, 1))


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def slow(held) -> Any:
    """Three environments whose step goes on until the test lets it end."""
    store = vtb.GroundTruthStore(7 << 32, calibrate=False, tau=1.0, b0=-4.0, customers=held)
    envs = gymnasium.make_vec("virtualtb_fast:GroundTruthStore-v0", 3, store=store).unwrapped
    envs.reset(seed=1)
    yield envs
    held.go.set()


SLOW = np.zeros((3, 27), np.float32)

# The bytes


@pytest.mark.parametrize("kind", ["v0", "v1", "store"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("count", "threads"), [(1, 1), (7, 2), (64, 1), (64, 2)])
def test_it_brings_what_a_step_does(make_vec, kit, kind, mode, count, threads):
    settings = {"num_envs": count, "num_threads": threads, "autoreset_mode": mode}
    sent, stepped, other = (make_vec(kind, **settings) for _ in range(3))
    for envs in (sent, stepped, other):
        envs.reset(seed=3)
    ended, differs = 0, False
    for rows in kit.table(40, count, seed=count):
        sent.send(rows)
        want = stepped.step(rows)
        got = sent.recv()
        assert all(kit.equal(one, two) for one, two in zip(got, want, strict=True))
        # Other actions must not bring the same.
        others = other.step(np.roll(rows, 1, axis=1))
        differs |= not kit.equal(others[0], want[0])
        over = want[2] | want[3]
        ended += over.sum()
        if mode == "Disabled" and over.any():
            options = {"reset_mask": over}
            assert kit.equal(sent.reset(options=options)[0], stepped.reset(options=options)[0])
        if mode == "Disabled" and (others[2] | others[3]).any():
            other.reset(seed=3)
    assert ended > 0
    assert differs
    assert sent.get_state() == stepped.get_state()


def test_two_halves_are_the_whole(make_vec, kit):
    """The loop of `send`'s docstring, and that of the whole batch."""
    settings = {"autoreset_mode": "SameStep", "num_threads": 1}
    whole = make_vec(num_envs=100, **settings)
    one, two = make_vec(num_envs=50, **settings), make_vec(num_envs=50, **settings)
    weights = np.random.default_rng(0).normal(0, 0.1, (91, 27)).astype(np.float32)

    def policy(observations: np.ndarray) -> np.ndarray:
        # Row by row, so that the sums do not depend on the size of the batch.
        return np.stack([np.tanh(row @ weights) for row in observations])

    observations, _ = whole.reset(seed=9)
    want = [observations]
    for _ in range(30):
        observations, *_ = whole.step(policy(observations))
        want.append(observations)

    observations, _ = one.reset(seed=9)
    halves = [[observations], []]
    one.send(policy(observations))
    observations, _ = two.reset(seed=9 + one.num_envs)
    halves[1].append(observations)
    for _ in range(30):
        two.send(policy(observations))
        observations, *_ = one.recv()
        halves[0].append(observations)
        one.send(policy(observations))
        observations, *_ = two.recv()
        halves[1].append(observations)
    for left, right, both in zip(*halves, want, strict=True):
        assert kit.equal(np.concatenate([left, right]), both)
    assert not kit.equal(np.concatenate([halves[1][-1], halves[0][-1]]), want[-1])


def test_what_was_sent_may_be_overwritten(slow, held, kit):
    rows = SLOW.copy()
    slow.send(rows)
    assert held.asked.wait(LONG)
    rows[:] = np.nan
    held.go.set()
    observations, *_ = slow.recv()
    slow.send(SLOW)
    slow.recv()
    slow.reset(seed=1)
    assert kit.equal(slow.step(SLOW)[0], observations)


def test_a_page_is_rendered(make_vec, kit):
    sent, stepped = (make_vec(num_envs=4, render_mode="ansi") for _ in range(2))
    rows = kit.table(1, 4)[0]
    for envs in (sent, stepped):
        envs.reset(seed=3)
    sent.send(rows)
    sent.recv()
    stepped.step(rows)
    assert sent.render() == stepped.render()
    assert "action" in sent.render()[0]


# Meanwhile


@pytest.mark.parametrize("kind", ["v1", "store"])
def test_everything_else_waits_for_recv(make_vec, kit, kind):
    envs, twin = (make_vec(kind, render_mode="ansi") for _ in range(2))
    rows = kit.table(3, 5)
    for each in (envs, twin):
        each.reset(seed=4)
    state = envs.get_state()
    envs.send(rows[0])
    calls: dict[str, Callable[[], Any]] = {
        "send": lambda: envs.send(rows[1]),
        "step": lambda: envs.step(rows[1]),
        "reset": lambda: envs.reset(seed=5),
        "a masked reset": lambda: envs.reset(options={"reset_mask": np.ones(5, bool)}),
        "observe": envs.observe,
        "render": envs.render,
        "get_state": envs.get_state,
        "set_state": lambda: envs.set_state(state),
        "pickle": lambda: pickle.dumps(envs),
        "copy": lambda: copy.deepcopy(envs),
    }
    if kind == "store":
        calls |= {"counters": envs.counters, "reveal": envs.reveal_archetypes}
    for call in calls.values():
        with pytest.raises(vtb.StateError, match=r"expected no step under way, got .*call recv"):
            call()
    assert envs.num_threads == twin.num_threads
    assert envs.np_random_seed == 4
    for number, got in enumerate([envs.recv(), envs.step(rows[1])]):
        want = twin.step(rows[number])
        assert all(kit.equal(one, two) for one, two in zip(got, want, strict=True))
    again = pickle.loads(pickle.dumps(envs))
    again.send(rows[2])
    assert kit.equal(again.recv()[0], twin.step(rows[2])[0])


def test_recv_wants_a_send(make_vec, kit):
    envs = make_vec()
    message = "recv: expected a step under way, got none; call send first"
    for _ in range(2):
        with pytest.raises(vtb.StateError, match=message):
            envs.recv()
    envs.reset(seed=0)
    envs.send(kit.table(1, 5)[0])
    envs.recv()
    before = envs.get_state()
    with pytest.raises(vtb.StateError, match=message):
        envs.recv()
    assert envs.get_state() == before


def test_close_drops_what_is_under_way(slow, held):
    slow.send(SLOW)
    assert held.asked.wait(LONG)
    slow.close()
    for call in (slow.recv, lambda: slow.send(SLOW), lambda: slow.step(SLOW)):
        with pytest.raises(vtb.StateError, match="closed"):
            call()
    slow.close()


def test_nobody_need_receive(make_vec, kit):
    for _ in range(50):
        envs = make_vec(num_envs=64)
        envs.reset(seed=0)
        envs.send(kit.table(1, 64)[0])


# Errors


@pytest.mark.parametrize("kind", ["v1", "store"])
def test_an_error_of_the_step_arrives_and_nothing_moves(make_vec, kit, kind):
    envs = make_vec(kind)
    rows = kit.table(1, 5)[0]
    envs.send(rows)
    with pytest.raises(vtb.StateError, match="no reset yet"):
        envs.recv()
    envs.reset(seed=0)
    before = envs.get_state()
    with pytest.raises(vtb.InvalidActionError, match="expected a C-contiguous"):
        envs.send(rows[:4])
    poisoned = rows.copy()
    poisoned[3, 5] = np.nan
    envs.send(poisoned)
    with pytest.raises(vtb.InvalidActionError, match="environment 3"):
        envs.recv()
    assert envs.get_state() == before
    envs.send(rows)
    envs.recv()
    assert envs.get_state() != before


def test_the_older_version_takes_any_numbers(make_vec, kit):
    sent, stepped = make_vec("v0"), make_vec("v0")
    rows = kit.table(1, 5)[0].astype(np.float64).tolist()
    for envs in (sent, stepped):
        envs.reset(seed=0)
    sent.send(rows)
    assert kit.equal(sent.recv()[0], stepped.step(rows)[0])


def test_an_error_of_the_customers_arrives(slow, held):
    held.broken = True
    slow.send(SLOW)
    held.go.set()
    with pytest.raises(vtb.CustomerModelError) as caught:
        slow.recv()
    assert isinstance(caught.value.__cause__, ValueError)
    held.broken = False
    slow.reset(seed=1)
    slow.send(SLOW)
    assert slow.recv()[0].shape == (3, 91)


def test_a_step_that_failed_leaves_nothing_to_render(make_vec, kit):
    envs, stepped = (make_vec(num_envs=4, render_mode="ansi") for _ in range(2))
    rows = kit.table(2, 4)
    for each in (envs, stepped):
        each.reset(seed=3)
        each.step(rows[0])
    poisoned = rows[1].copy()
    poisoned[3, 5] = np.nan
    envs.send(poisoned)
    assert envs._sent is not None
    with pytest.raises(vtb.InvalidActionError, match="environment 3"):
        envs.recv()
    assert envs._sent is None
    assert envs.render() == stepped.render()
    for each in (envs, pickle.loads(pickle.dumps(envs))):
        each.send(rows[1])
        each.recv()
        assert each._sent is None
        assert each.render() != stepped.render()
    stepped.step(rows[1])
    assert envs.render() == stepped.render()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer of the system's")
def test_ctrl_c_ends_the_waiting_and_not_the_step(slow, held):
    slow.render_mode = "ansi"

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    slow.send(SLOW)
    assert held.asked.wait(LONG)
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            slow.recv()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert not held.go.is_set(), "the step had ended before Ctrl-C"
    with pytest.raises(vtb.StateError, match="call recv first"):
        slow.step(SLOW)
    held.go.set()
    assert slow.recv()[0].shape == (3, 91)
    # What was sent is rendered still.
    assert "action" in slow.render()[0]


# Forks


def in_a_child(work: Callable[[], bool]) -> bool:
    """Whether a forked process finds the work true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(int(LONG))
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_no_part_in_the_parents_step(make_vec, kit):
    envs, idle, twin = (make_vec(num_envs=100, num_threads=2) for _ in range(3))
    rows = kit.table(3, 100)
    for each in (envs, idle, twin):
        each.reset(seed=0)
        each.send(rows[0])
        each.recv()
    want = twin.step(rows[1])[0]
    envs.send(rows[1])

    def refused() -> bool:
        for call in (envs.recv, envs.observe, lambda: envs.send(rows[2]), envs.get_state):
            try:
                call()
            except vtb.StateError as error:
                if "forked" not in str(error):
                    return False
            else:
                return False
        envs.close()
        return True

    def sends() -> bool:
        idle.send(rows[1])
        return kit.equal(idle.recv()[0], want)

    assert in_a_child(refused)
    assert in_a_child(sends)
    assert kit.equal(envs.recv()[0], want)
    assert sends()
