"""Single, vector and rollout: three forms of the same sessions, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import virtualtb_fast as vtb

PERIOD = (7, 30)
"""The actions repeat after so many sessions and pages."""


@pytest.fixture(scope="module")
def plan(kit):
    return kit.table(*PERIOD, seed=5)


@pytest.fixture(scope="module")
def policy(plan):
    """A pure policy of session and page, as `rollout` takes it."""

    def actions(observation, session, page):
        return plan[session % PERIOD[0], page % PERIOD[1]]

    return actions


def by_steps(env, seed, sessions, policy):
    """Columns of a log, collected from the single environment."""
    schema, rows = env.simulator.schema, []
    for session in range(sessions):
        observation, _ = env.reset(seed=seed) if session == 0 else env.reset()
        terminated, page = False, 0
        while not terminated:
            action = policy(observation, np.array([session]), np.array([page]))[0]
            customer = schema.codes(observation)
            observation, _, terminated, _, info = env.step(action)
            executed = np.clip(action, *schema.action_range)
            rows.append((session, page, customer, executed, info["clicks"], info["deals"]))
            page += 1
    names = ("session", "page", "customer", "action", "clicks", "second")
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))


@pytest.mark.parametrize("seed", [0, 9 << 32 | 7, 2**64 - 1])
def test_a_rollout_is_the_single_environment(make, simulator, policy, seed):
    want = by_steps(make(), seed, 60, policy)
    for batch_size in (1, 13, 64):
        log = vtb.rollout(simulator, policy, sessions=60, seed=seed, batch_size=batch_size)
        for name, column in want.items():
            assert np.array_equal(log[name], column), name


def test_a_rollout_is_an_environment_of_a_batch(make_vec, simulator, policy):
    envs, steps = make_vec(num_envs=64, autoreset_mode="SameStep"), 120
    observations, _ = envs.reset(seed=21)
    sessions = np.zeros(64, np.int64)
    rows = []
    for _ in range(steps):
        pages = observations[:, -1].astype(np.int64)
        actions = policy(observations, sessions, pages)
        customers = envs.simulator.schema.codes(observations)
        observations, rewards, terminated, _, _ = envs.step(actions)
        rows.append((sessions.copy(), pages, customers, rewards))
        sessions += terminated
    session, page, customer, clicks = (np.array(column) for column in zip(*rows, strict=True))
    for index in (0, 1, 40, 63):
        log = vtb.rollout(simulator, policy, sessions=120, seed=21 + index)
        assert np.array_equal(log["session"][:steps], session[:, index])
        assert np.array_equal(log["page"][:steps], page[:, index])
        assert np.array_equal(log["customer"][:steps], customer[:, index])
        assert np.array_equal(log["clicks"][:steps], clicks[:, index])


def test_built_in_policies_can_be_replayed_in_the_environment(make, simulator):
    """What a native policy showed, shown again page by page, gets the same answers."""
    log = vtb.rollout(simulator, "random", sessions=50, seed=3)
    env, row = make(), 0
    for session in range(50):
        observation, _ = env.reset(seed=3) if session == 0 else env.reset()
        terminated = False
        while not terminated:
            assert log["session"][row] == session
            assert np.array_equal(log["customer"][row], simulator.schema.codes(observation))
            observation, _, terminated, _, info = env.step(log["action"][row].copy())
            assert (log["clicks"][row], log["second"][row]) == (info["clicks"], info["deals"])
            row += 1
    assert row == len(log)
