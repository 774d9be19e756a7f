"""The single environment VirtualTB-v1: spaces, steps, rewards, seeds, Gymnasium."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import virtualtb_fast as vtb


def actions(count, size=27, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, size)).astype(np.float32)


def played(env, table, *, seed=None):
    """Observations, rewards and ends under a table of actions; resets when a session ends."""
    rows = [(*env.reset(seed=seed),)]
    for action in table:
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append((observation, reward, terminated, truncated, info))
        if terminated:
            rows.append((*env.reset(),))
    return rows


def same(left, right):
    """Whether two histories agree to the last bit."""
    if len(left) != len(right):
        return False
    for one, other in zip(left, right, strict=True):
        if one[0].tobytes() != other[0].tobytes() or one[1:] != other[1:]:
            return False
    return True


# Spaces and what steps return


def test_spaces(make):
    env = make()
    space = env.observation_space
    assert (space.shape, space.dtype) == ((91,), np.float32)
    assert space.low.tolist() == [0] * 91
    assert space.high.tolist() == [1] * 88 + [10, 9, 100]
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (27,), np.float32)


def test_spaces_follow_the_schema(make, shop):
    env = make(simulator=shop)
    assert env.observation_space.high.tolist() == [1] * 11 + [4, 2, 12]
    assert env.action_space == gymnasium.spaces.Box(-2, 3, (6,), np.float32)


def test_a_step_returns_what_the_docstring_says(make, simulator):
    env = make()
    observation, info = env.reset(seed=3)
    assert info == {}
    customer, total = observation[:88].copy(), 0
    assert observation[88:].tolist() == [0, 0, 0]
    assert observation[:88].sum() == 11
    for page, action in enumerate(actions(500), 1):
        observation, reward, terminated, truncated, info = env.step(action)
        total += info["clicks"]
        assert observation in env.observation_space
        assert observation[:88].tolist() == customer.tolist()
        assert observation[88:].tolist() == [info["clicks"], info["deals"], page]
        assert type(reward) is float
        assert reward == info["clicks"] == info["raw_reward"]
        assert (type(terminated), truncated) == (bool, False)
        assert info["page"] == page
        assert info["CTR"] == total / page / 10
        assert info["clipped"] is False
        kinds = {key: type(value) for key, value in info.items()}
        whole = {"clicks": int, "deals": int, "page": int}
        assert kinds == {**whole, "CTR": float, "raw_reward": float, "clipped": bool}
        if terminated:
            break
    assert terminated
    assert page == observation[90]


def test_what_is_returned_is_fresh(make):
    env = make()
    first, _ = env.reset(seed=0)
    kept = first.copy()
    first[:] = 7
    assert env.observe().tolist() == kept.tolist()
    second = env.step(actions(1)[0])[0]
    second[:] = 7
    assert env.observe()[:88].tolist() == kept[:88].tolist()


def test_rewards(make):
    table = actions(400) * 0.3
    clicks = [row for row in played(make(), table, seed=5) if len(row) > 2]
    deals = [row for row in played(make(reward="deals"), table, seed=5) if len(row) > 2]
    buy = [row for row in played(make(reward="buy"), table, seed=5) if len(row) > 2]
    for one, two, three in zip(clicks, deals, buy, strict=True):
        assert one[0].tobytes() == two[0].tobytes() == three[0].tobytes()
        assert one[1] == one[4]["clicks"]
        assert two[1] == two[4]["raw_reward"] == one[4]["deals"]
        assert three[1] == float(one[4]["deals"] > 0)
    assert len({row[1] for row in clicks}) > 3
    assert len({row[1] for row in deals}) > 3


def test_actions_are_clipped_into_the_box_and_flagged(make):
    beyond = actions(300) * 3
    one, other = make(), make()
    one.reset(seed=1), other.reset(seed=1)
    flags = set()
    for action in beyond:
        got, want = one.step(action), other.step(np.clip(action, -1, 1))
        assert got[0].tobytes() == want[0].tobytes()
        assert got[1:4] == want[1:4]
        assert got[4] == {**want[4], "clipped": bool((np.abs(action) > 1).any())}
        flags.add(got[4]["clipped"])
        if got[2]:
            one.reset(), other.reset()
    assert True in flags
    edge = np.ones(27, np.float32)
    one.reset(seed=1)
    assert one.step(edge)[4]["clipped"] is False
    one.reset(seed=1)
    assert one.step(np.nextafter(edge, np.float32(2)))[4]["clipped"] is True


# The action norm constraint


def find_clicks(make, action, **arguments):
    """A step with clicks under this action: its shaped and its raw reward."""
    env = make(**arguments)
    env.reset(seed=0)
    for _ in range(500):
        _, reward, terminated, _, info = env.step(action)
        if info["clicks"]:
            return reward, info["raw_reward"]
        if terminated:
            env.reset()
    raise AssertionError("no clicks in 500 pages")


def along(first, size=27):
    action = np.zeros(size, np.float32)
    action[0] = first
    return action


@pytest.mark.parametrize("norm", [0.0, 0.25, 0.5])
def test_anc_leaves_small_actions_alone(make, norm):
    reward, raw = find_clicks(make, along(norm), anc=(1.0, 0.5))
    assert reward == raw > 0


def test_anc_halves_the_reward_at_mu_plus_one(make):
    reward, raw = find_clicks(make, along(1), anc=(1.0, 0.0))
    assert reward == raw / 2
    reward, raw = find_clicks(make, along(1.5), version="v0", anc=(1.0, 0.5))
    assert reward == raw / 2


def test_anc_takes_the_norm_of_the_executed_action(make):
    reward, raw = find_clicks(make, along(50), anc=(1.0, 0.0))
    assert reward == raw / 2
    reward, raw = find_clicks(make, along(50), version="v0", anc=(1.0, 0.0))
    assert reward == raw / 51


@pytest.mark.parametrize(("rho", "mu"), [(1, 0.01), (10, 0.3), (0, 0), (100, 2)])
def test_anc_is_the_formula(make, rho, mu):
    env = make(anc=(rho, mu))
    env.reset(seed=0)
    shaped = 0
    for action in actions(300) * 0.7:
        _, reward, terminated, _, info = env.step(action)
        norm = np.sqrt((action.astype(np.float64) ** 2).sum())
        want = info["raw_reward"] / (1 + rho * max(norm - mu, 0))
        assert reward == pytest.approx(want, rel=1e-15)
        assert info["raw_reward"] == info["clicks"]
        shaped += reward != info["raw_reward"]
        if terminated:
            env.reset()
    assert (shaped > 0) == (rho > 0 and mu < 4)


# Seeds


def test_same_seed_same_bytes_other_seed_other_bytes(make):
    table = actions(200)
    first = played(make(), table, seed=11)
    assert same(first, played(make(), table, seed=11))
    assert not same(first, played(make(), table, seed=12))


def test_resets_go_through_the_sessions_of_a_stream(make):
    env = make()
    first = [env.reset(seed=4)[0], env.reset()[0], env.reset()[0]]
    again = [env.reset(seed=4)[0], env.reset()[0], env.reset()[0]]
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])


def test_without_a_seed_the_stream_is_fresh_and_can_be_asked_for(make):
    customers = [make().reset()[0].tobytes() for _ in range(8)]
    assert len(set(customers)) > 1
    env = make()
    table = actions(50)
    first = played(env, table)
    seed = env.unwrapped.np_random_seed
    assert same(first, played(make(), table, seed=seed))
    env.reset(seed=9)
    assert env.unwrapped.np_random_seed == 9


def test_a_generator_that_was_set_decides_the_stream(make):
    def first(entropy):
        env = make().unwrapped
        env.np_random = np.random.default_rng(entropy)
        return [env.reset()[0].tobytes() for _ in range(4)]

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, 2**64 - 1, np.int64(5), np.uint64(2**63)])
def test_seeds_up_to_64_bits(make, seed):
    one, other = make(), make()
    assert np.array_equal(one.reset(seed=seed)[0], other.reset(seed=int(seed))[0])


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", [1, 2], [], b"1", 1j, float("nan")])
def test_other_seeds_are_refused(make, seed):
    env = make()
    env.reset(seed=3)
    before = env.get_state()
    with pytest.raises(vtb.InvalidArgumentError, match="seed: expected"):
        env.reset(seed=seed)
    assert env.get_state() == before


def test_environments_share_no_random_numbers(make):
    table = actions(60)
    alone = played(make(), table, seed=1)
    one, other = make(), make()
    other.reset(seed=99)
    rows = [(*one.reset(seed=1),)]
    for action in table:
        if other.step(action)[2]:
            other.reset()
        rows.append(one.step(action))
        if rows[-1][2]:
            rows.append((*one.reset(),))
    assert same(alone, rows)


def test_simulators_can_be_given_by_file(make, simulator, tmp_path):
    simulator.save(tmp_path / "mine.safetensors")
    table = actions(30)
    by_file = make(simulator=str(tmp_path / "mine.safetensors"))
    assert same(played(by_file, table, seed=1), played(make(), table, seed=1))


# Quirk 5: the page base


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_page_base(make, simulator, version):
    env = make(version, page_base=1)
    zero = make(version, simulator=simulator.with_page_base(1))
    assert env.observation_space.high[-1] == 101
    first, want = env.reset(seed=2)[0], zero.reset(seed=2)[0]
    assert (first[-1], want[-1]) == (1, 0)
    for action in actions(200):
        one, other = env.step(action), zero.step(action)
        assert one[0][-1] == other[0][-1] + 1
        assert one[0][:-1].tolist() == other[0][:-1].tolist()
        assert one[1:] == other[1:]
        assert np.array_equal(env.observe(), one[0])
        if one[2]:
            env.reset(), zero.reset()


# Gymnasium


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_check_env(make, version, kit):
    env = make(version)
    with kit.v0_is_not_outdated():
        check_env(env.unwrapped)


def test_gymnasium_gives_the_environment_itself_without_wrappers(make):
    env = make()
    assert env.unwrapped is env
    assert env.spec.id == "VirtualTB-v1"
    assert env.spec.max_episode_steps is None


@pytest.mark.parametrize("way", ["make", "register_envs"])
def test_both_supported_ways_of_registering(way, simulator, tmp_path):
    """In a fresh interpreter, where warnings are errors: v0 must not be called outdated."""
    simulator.save(tmp_path / "sim.safetensors")
    lines = {
        "make": "env = gymnasium.make('virtualtb_fast:VirtualTB-v0', simulator=path)",
        "register_envs": "import virtualtb_fast; gymnasium.register_envs(virtualtb_fast); "
        "env = gymnasium.make('VirtualTB-v0', simulator=path)",
    }
    code = f"import sys, gymnasium; path = sys.argv[1]; {lines[way]}; env.reset(seed=1); print(env)"
    command = [sys.executable, "-W", "error", "-c", code, os.fspath(tmp_path / "sim.safetensors")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert "VirtualTB-v0" in run.stdout


def test_gymnasium_wrappers(make):
    env = gymnasium.wrappers.TimeLimit(make(), 3)
    env = gymnasium.wrappers.RecordEpisodeStatistics(env)
    env = gymnasium.wrappers.NormalizeObservation(env)
    env = gymnasium.wrappers.TransformReward(env, lambda reward: 2 * reward)
    env.reset(seed=0)
    for action in actions(100):
        observation, _, terminated, truncated, info = env.step(action)
        assert observation.shape == (91,)
        if terminated or truncated:
            assert 1 <= info["episode"]["l"] <= 3
            env.reset()
