"""Single, vector and rollout of a store: three forms of the same sessions, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.store import GroundTruthStore

RULES = {
    "plain": {},
    "changing": {"hour": "uniform", "leave": "respawn", "repeat": False, "new_request": 0.3},
    "remembering": {"memory": 3, "max_index": 4, "day": 7, "categories": "long-tail"},
}

# Digest of a rollout of 60,000 sessions of stream 7 under the logger, by world.
PINNED = {
    0: "842e2e50c3dba61b50dbd415177487de202df17988e402dd1499f2c2f5621ad9",
    100: "d3468cffa9b410093205340d8778fc837fac8ff6e9f83d3ae6b5166fab14ee5c",
}


def policy(observation: np.ndarray, session: np.ndarray, page: np.ndarray) -> np.ndarray:
    """Pure, and different from page to page."""
    phase = np.arange(27) + 5 * session[:, None] + 3 * page[:, None]
    return (0.04 * np.sin(phase)).astype(np.float32)


@pytest.fixture(scope="module", params=RULES)
def store(request: pytest.FixtureRequest) -> GroundTruthStore:
    rules = RULES[request.param]
    return GroundTruthStore(4 << 32, calibrate=False, tau=0.6, b0=-4.5, **rules)


def test_a_rollout_is_the_single_environment(store: GroundTruthStore) -> None:
    log = vtb.rollout(store, policy, sessions=60, seed=11)
    env = gymnasium.make("virtualtb_fast:GroundTruthStore-v0", store=store).unwrapped
    row = 0
    for session in range(60):
        observation, _ = env.reset(seed=11) if session == 0 else env.reset()
        over, page = False, 0
        while not over:
            action = policy(observation, np.array([session]), np.array([page]))[0]
            customer = store.schema.codes(observation[:91])
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
            assert (log["session"][row], log["page"][row]) == (session, page)
            assert np.array_equal(log["customer"][row], customer)
            assert np.array_equal(log["items"][row], info["items"])
            assert log["outcome"][row] == info["outcome"]
            assert log["units"][row] == info["units"]
            assert log["value"][row] == np.float32(info["value"])
            page, row = page + 1, row + 1
    assert row == len(log)


@pytest.mark.parametrize("count", [1, 7, 64])
def test_environment_i_is_a_rollout_of_its_seed(store: GroundTruthStore, count: int) -> None:
    envs = gymnasium.make_vec(
        "virtualtb_fast:GroundTruthStore-v0", num_envs=count, store=store, autoreset_mode="SameStep"
    )
    observations, _ = envs.reset(seed=21)
    session, page = np.zeros(count, np.int64), np.zeros(count, np.int64)
    shown, rewards = [], []
    for _ in range(60):
        actions = policy(observations, session, page)
        observations, reward, terminated, truncated, infos = envs.step(actions)
        over = terminated | truncated
        items = infos["items"].copy()
        if over.any():
            items[over] = infos["final_info"]["items"][over]
        shown.append(items)
        rewards.append(reward)
        session, page = session + over, np.where(over, 0, page + 1)
    for index in {0, count // 2, count - 1}:
        log = vtb.rollout(store, policy, sessions=100, seed=21 + index)
        assert np.array_equal(log["items"][:60], np.array(shown)[:, index])
        assert np.array_equal(log["units"][:60], np.array(rewards)[:, index])


@pytest.mark.parametrize("seed", PINNED)
def test_rollouts_are_as_pinned(seed: int, tmp_path: Path) -> None:
    store = GroundTruthStore(seed << 32, hour="uniform")
    out = tmp_path / "log.parquet"
    for more in (
        {"num_threads": 1},
        {"num_threads": 3, "batch_size": 777},
        {"num_threads": 2, "batch_size": 64, "out": out},
    ):
        played = vtb.rollout(store, "logger", sessions=60_000, seed=7 << 32, **more)
        assert played.digest() == PINNED[seed], more
    other = vtb.rollout(store, "logger", sessions=60_000, seed=8 << 32)
    assert other.digest() not in PINNED.values()


@pytest.mark.parametrize("isa", _core.cpu_info()["available"])
def test_every_instruction_set_plays_the_same(isa: str) -> None:
    code = (
        "import virtualtb_fast as vtb; store = vtb.GroundTruthStore(0, hour='uniform');"
        "print(vtb.rollout(store, 'logger', sessions=60_000, seed=7 << 32).digest())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"VIRTUALTB_FAST_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == PINNED[0]
