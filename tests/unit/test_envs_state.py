"""Snapshots, pickles, copies and other processes."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import pickle
import select
import signal
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import virtualtb_fast as vtb

ANY = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
MODES = ("NextStep", "SameStep", "Disabled")


def table(steps, envs, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.2, 1.2, (steps, envs, 27)).astype(np.float32)


def play(envs, actions):
    """Everything that steps return, as bytes; with Disabled, resets what has ended."""
    out = []
    for rows in actions:
        observations, rewards, terminated, _, infos = envs.step(rows)
        out += [observations.tobytes(), rewards.tobytes(), terminated.tobytes()]
        out += [repr(infos)]
        if envs.autoreset_mode.value == "Disabled" and terminated.any() and not envs._quirks:
            out.append(envs.reset(options={"reset_mask": terminated})[0].tobytes())
    return out


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("mode", MODES)
def test_a_snapshot_replays_the_whole_batch(make_vec, version, mode):
    envs = make_vec(version, num_envs=70, autoreset_mode=mode, num_threads=2)
    envs.reset(seed=1)
    play(envs, table(7, 70))
    state, seen = envs.get_state(), envs.observe()
    actions = table(20, 70, seed=1)
    first = play(envs, actions)
    play(envs, table(3, 70, seed=2))
    envs.set_state(state)
    assert envs.observe().tobytes() == seen.tobytes()
    assert play(envs, actions) == first
    envs.set_state(state)
    assert play(envs, table(20, 70, seed=3)) != first
    other = make_vec(version, num_envs=70, autoreset_mode=mode, num_threads=1)
    other.set_state(state)
    assert play(other, actions) == first


def test_the_same_customer_can_be_shown_two_pages(make):
    env = make()
    env.reset(seed=2)
    state = env.get_state()
    answers = {}
    for norm in (0.0, 0.03, 0.1, 1.0):
        env.set_state(state)
        observation, _, _, _, info = env.step(np.full(27, norm, np.float32))
        answers[norm] = (observation[:88].tobytes(), info["clicks"], info["deals"])
    assert len({answer[0] for answer in answers.values()}) == 1
    assert len({answer[1:] for answer in answers.values()}) > 1


def test_a_snapshot_of_the_end_keeps_the_end(make):
    env = make()
    env.reset(seed=0)
    action = np.zeros(27, np.float32)
    while not env.step(action)[2]:
        pass
    state = env.get_state()
    env.reset()
    env.set_state(state)
    with pytest.raises(vtb.StateError, match="over"):
        env.step(action)
    twin = make()
    twin.set_state(state)
    assert twin.reset()[0].tobytes() == env.reset()[0].tobytes()


def test_a_snapshot_of_environments_that_were_never_reset(make_vec):
    envs, other = make_vec(num_envs=9), make_vec(num_envs=9)
    mask = np.arange(9) < 4
    envs.reset(seed=1, options={"reset_mask": mask})
    other.reset(seed=5)
    other.set_state(envs.get_state())
    with pytest.raises(vtb.StateError, match="environment 4"):
        other.step(table(1, 9)[0])
    other.reset(options={"reset_mask": ~mask})
    other.step(table(1, 9)[0])
    assert other.observe()[:4, :88].tobytes() == envs.observe()[:4, :88].tobytes()


def test_snapshots_of_another_size_or_simulator_are_refused(make_vec, simulator):
    envs = make_vec(num_envs=5)
    envs.reset(seed=0)
    before = envs.get_state()
    size = make_vec(num_envs=6)
    size.reset(seed=0)
    another = make_vec(num_envs=5, page_base=1)
    another.reset(seed=0)
    for state in (size.get_state(), another.get_state()):
        with pytest.raises(vtb.FileFormatError, match=r"expected .* got"):
            envs.set_state(state)
        assert envs.get_state() == before


def test_every_truncation_and_what_is_no_snapshot_are_refused(make_vec):
    envs = make_vec(num_envs=3)
    envs.reset(seed=0)
    before = envs.get_state()
    wrong = [before[:length] for length in range(len(before))]
    wrong += [before + b"\0", b"vtbstat1", None, "state", 3, np.zeros(9, np.uint8)]
    for state in wrong:
        with pytest.raises(vtb.FileFormatError):
            envs.set_state(state)
        assert envs.get_state() == before


def test_an_altered_snapshot_is_refused_or_plays_on(make_vec):
    """A flipped bit may name another session, but never one that could not be."""
    envs = make_vec("v1", num_envs=2, autoreset_mode="SameStep")
    envs.reset(seed=0)
    envs.step(table(1, 2)[0])
    before = envs.get_state()
    refused = 0
    for bit in range(8 * len(before)):
        altered = bytearray(before)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            envs.set_state(bytes(altered))
        except vtb.FileFormatError:
            refused += 1
            assert envs.get_state() == before
            continue
        observations = envs.observe()
        assert (observations[:, :88].sum(1) == 11).all()
        with contextlib.suppress(vtb.StateError):
            envs.step(table(1, 2)[0])
        envs.set_state(before)
    assert refused > 500


@ANY
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(make, state):
    env = make()
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(vtb.FileFormatError):
        env.set_state(state)
    assert env.get_state() == before


# Pickles and copies


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_carry_the_state_and_then_go_their_own_way(make, make_vec, version, way):
    single = make(version, reward="deals", anc=(1.0, 0.1), page_base=1)
    batch = make_vec(version, num_envs=12, autoreset_mode="SameStep", reward="buy")
    for env, actions in ((single, table(6, 1)[:, 0]), (batch, table(6, 12))):
        env.reset(seed=4)
        state = env.get_state()
        other = way(env)
        assert other.simulator == env.simulator
        assert other.observation_space == env.observation_space
        assert other.spec.id == env.spec.id
        assert other.np_random_seed == env.np_random_seed
        for action in actions:
            one, two = env.step(action), other.step(action)
            assert repr(one) == repr(two)
            if env is single and one[2]:
                assert env.reset()[0].tobytes() == other.reset()[0].tobytes()
        other.reset()
        env.set_state(state)
        assert repr(env.step(actions[0])) != repr(other.step(actions[0]))


def test_copies_of_new_and_of_closed_environments(make):
    new = pickle.loads(pickle.dumps(make()))
    with pytest.raises(vtb.StateError, match="no reset yet"):
        new.step(np.zeros(27, np.float32))
    closed = make()
    closed.reset(seed=0)
    closed.close()
    with pytest.raises(vtb.StateError, match="closed"):
        copy.deepcopy(closed).reset()


def test_a_thousand_copies_share_one_simulator(make):
    env = make()
    env.reset(seed=0)
    copies = pickle.loads(pickle.dumps([env] + [copy.deepcopy(env) for _ in range(999)]))
    assert len({id(one.simulator) for one in copies}) == 1
    assert len(pickle.dumps(env)) < 1 << 20


CHILD = """
import pickle, sys
envs, actions = pickle.load(sys.stdin.buffer)
out = [part.tobytes() for rows in actions for part in envs.step(rows)[:3]]
sys.stdout.buffer.write(pickle.dumps(out))
"""


def steps(envs, actions):
    return [part.tobytes() for rows in actions for part in envs.step(rows)[:3]]


@pytest.fixture
def busy(make_vec):
    """A batch whose threads have been at work."""
    envs = make_vec(num_envs=200, num_threads=2, autoreset_mode="SameStep")
    envs.reset(seed=3)
    steps(envs, table(3, 200))
    return envs


def test_a_new_process_plays_on(busy):
    actions = table(10, 200, seed=1)
    command = [sys.executable, "-c", CHILD]
    data = pickle.dumps((busy, actions))
    run = subprocess.run(command, input=data, capture_output=True, check=True, timeout=120)
    assert pickle.loads(run.stdout) == steps(busy, actions)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_plays_on(busy):
    """A thread pool does not survive a fork: the child must not wait for it."""
    actions = table(10, 200, seed=1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, hashlib.sha256(b"".join(steps(busy, actions))).digest())
        finally:
            os._exit(0)
    os.close(writer)
    want = hashlib.sha256(b"".join(steps(busy, actions))).digest()
    ready, _, _ = select.select([reader], [], [], 60)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ready, "the child hangs"
    assert os.read(reader, 64) == want
    os.close(reader)


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_async_vector_environments(make_vec, simulator, shared_memory):
    from virtualtb_fast.envs.virtualtb import VirtualTBV1

    envs = AsyncVectorEnv([lambda: VirtualTBV1(simulator)] * 3, shared_memory=shared_memory)
    native = make_vec(num_envs=3)
    try:
        assert np.array_equal(envs.reset(seed=8)[0], native.reset(seed=8)[0])
        for rows in table(30, 3):
            got, want = envs.step(rows), native.step(rows)
            for one, other in zip(got[:4], want[:4], strict=True):
                assert np.array_equal(one, other)
    finally:
        envs.close()
