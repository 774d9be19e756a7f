"""The native vector environments: what they share with single ones, and autoreset."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import virtualtb_fast as vtb

MODES = ("NextStep", "SameStep", "Disabled")

# Environment i of a vector environment is the single environment seeded s + i


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize(("count", "threads"), [(1, 1), (7, 2), (64, 3), (4096, 2)])
def test_each_environment_is_the_single_one(make, make_vec, version, count, threads, kit):
    seed, steps = 2**64 - 40, 25
    envs = make_vec(version, num_envs=count, num_threads=threads, autoreset_mode="SameStep")
    actions = kit.table(steps, count, seed=count)
    history = [envs.reset(seed=seed)[0], *(envs.step(rows) for rows in actions)]
    single = make(version)
    picked = range(count) if count < 100 else [*range(0, count, 173), 39, 40, 47, 48, count - 1]
    for index in picked:
        observation, _ = single.reset(seed=(seed + index) % 2**64)
        assert kit.equal(history[0][index], observation)
        for rows, (observations, rewards, terminated, truncated, infos) in zip(
            actions, history[1:], strict=True
        ):
            observation, reward, ended, _, info = single.step(rows[index])
            assert (rewards[index], terminated[index]) == (reward, ended)
            assert not truncated[index]
            if ended:
                assert kit.equal(infos["final_obs"][index], observation)
                infos = infos["final_info"]
                observation, _ = single.reset()
            assert kit.equal(observations[index], observation)
            assert all(infos[f"_{key}"][index] for key in info)
            assert {key: infos[key][index] for key in info} == info


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_the_same_in_one_piece_and_in_parts(make_vec, version, mode, kit):
    count, steps, parts = 4096, 12, ((0, 1), (1, 8), (8, 72), (72, 4096))
    settings = {"autoreset_mode": mode, "reward": "deals", "anc": (1.0, 0.1)}
    whole = make_vec(version, num_envs=count, num_threads=2, **settings)
    threads = (1, 1, 2, 3)
    split = [
        make_vec(version, num_envs=end - start, num_threads=number, **settings)
        for (start, end), number in zip(parts, threads, strict=True)
    ]
    first = whole.reset(seed=7)[0]
    for (start, end), envs in zip(parts, split, strict=True):
        assert kit.equal(envs.reset(seed=7 + start)[0], first[start:end])
    for rows in kit.table(steps, count):
        got = whole.step(rows)
        for (start, end), envs in zip(parts, split, strict=True):
            want = envs.step(rows[start:end].copy())
            for one, other in zip(got[:4], want[:4], strict=True):
                assert kit.equal(one[start:end], other)
            for key in ("clicks", "deals", "CTR", "raw_reward", "clipped", "page", "_page"):
                assert kit.equal(got[4][key][start:end], want[4][key])
            if mode == "Disabled" and want[2].any():
                mask = want[2]
                envs.reset(options={"reset_mask": mask})
        if mode == "Disabled" and got[2].any():
            whole.reset(options={"reset_mask": got[2]})


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 64, None])
def test_threads_change_nothing(make_vec, threads, kit):
    one, many = make_vec(num_envs=1000, num_threads=1), make_vec(num_envs=1000, num_threads=threads)
    assert many.num_threads >= 1
    assert kit.equal(one.reset(seed=1)[0], many.reset(seed=1)[0])
    for rows in kit.table(15, 1000):
        assert all(kit.equal(a, b) for a, b in zip(one.step(rows), many.step(rows), strict=True))


# As Gymnasium's own vector environments


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("mode", MODES)
def test_it_is_what_gymnasium_makes_of_single_ones(make_vec, version, mode, kit):
    count = 9
    native = make_vec(version, num_envs=count, autoreset_mode=mode)
    sync = make_vec(
        version,
        num_envs=count,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode(mode)},
    )
    assert isinstance(sync, SyncVectorEnv)
    for name in ("observation_space", "action_space", "single_observation_space", "num_envs"):
        assert getattr(native, name) == getattr(sync, name)
    assert native.metadata == sync.metadata
    assert native.autoreset_mode == sync.autoreset_mode
    first, second = native.reset(seed=3), sync.reset(seed=3)
    assert kit.equal(first[0], second[0])
    assert first[1] == second[1] == {}
    ended = 0
    for rows in kit.table(60, count):
        got, want = native.step(rows), sync.step(rows)
        for one, other in zip(got[:4], want[:4], strict=True):
            assert kit.equal(one, other)
        # Gymnasium leaves a key out where no environment has it; here it is always there.
        for key, column in want[4].items():
            assert kit.equal(got[4][key], column), key
        for key in got[4].keys() - want[4].keys():
            assert not got[4][key].any()
        ended += got[2].sum()
        if mode == "Disabled" and got[2].any():
            mask = got[2]
            one = native.reset(options={"reset_mask": mask.copy()})
            other = sync.reset(options={"reset_mask": mask.copy()})
            assert kit.equal(one[0], other[0])
    assert ended > 50


def test_make_vec_gives_the_native_environment(make_vec, simulator):
    envs = make_vec(num_envs=5, num_threads=2, autoreset_mode="SameStep", simulator=simulator)
    assert type(envs).__name__ == "VirtualTBV1Vector"
    assert envs.spec.id == "VirtualTB-v1"
    assert envs.num_envs == 5
    assert envs.num_threads == 1
    assert envs.metadata["autoreset_mode"] is envs.autoreset_mode is AutoresetMode.SAME_STEP
    assert envs.observation_space.shape == (5, 91)
    assert type(envs).metadata.get("autoreset_mode") is None
    assert make_vec(autoreset_mode=AutoresetMode.DISABLED).autoreset_mode == AutoresetMode.DISABLED
    assert make_vec().autoreset_mode == AutoresetMode.NEXT_STEP
    assert "num_envs=5" in repr(envs)


def test_what_is_returned_is_fresh(make_vec, kit):
    envs = make_vec(num_envs=20, autoreset_mode="SameStep")
    rows = kit.table(30, 20)
    returned = [envs.reset(seed=0)[0]]
    for actions in rows:
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        final = infos.get("final_info", {})
        returned += [observations, rewards, terminated, truncated]
        returned += [*infos.values(), *final.values()]
        returned += [row for row in infos.get("final_obs", []) if row is not None]
    numeric = [array for array in returned if isinstance(array, np.ndarray) and array.dtype != "O"]
    twin = make_vec(num_envs=20, autoreset_mode="SameStep")
    twin.reset(seed=0)
    for actions in rows:
        twin.step(actions)
    for array in numeric:
        array[:] = 1
    assert kit.equal(envs.observe(), twin.observe())
    assert kit.equal(envs.step(rows[0])[0], twin.step(rows[0])[0])


# Autoreset


def sessions_of(envs, mode, pages, plan):
    """Each environment's sessions: (customer, clicks by page), under actions by session and page.

    Only what a caller sees is used.
    """
    count = envs.num_envs
    observations, _ = envs.reset(seed=50)
    done = [[] for _ in range(count)]
    now = [(row[:88].tobytes(), []) for row in observations]
    fresh = np.zeros(count, bool)
    for _ in range(pages):
        places = [(len(done[i]), len(now[i][1])) for i in range(count)]
        actions = np.array([plan[session % 7, page] for session, page in places])
        observations, _, terminated, _, infos = envs.step(actions)
        ended_infos = infos.get("final_info", infos)
        for i in range(count):
            if fresh[i]:
                now[i] = (observations[i, :88].tobytes(), [])
                continue
            source = ended_infos if terminated[i] else infos
            now[i][1].append((source["clicks"][i], source["deals"][i]))
            if terminated[i]:
                done[i].append(now[i])
                now[i] = (observations[i, :88].tobytes(), [])
        fresh = terminated if mode == "NextStep" else np.zeros(count, bool)
        if mode == "Disabled" and terminated.any():
            observations, _ = envs.reset(options={"reset_mask": terminated})
            for i in np.flatnonzero(terminated):
                now[i] = (observations[i, :88].tobytes(), [])
    return done


def test_all_modes_play_the_same_sessions(make_vec, kit):
    plan = kit.table(7, 101)
    histories = {
        mode: sessions_of(make_vec(num_envs=12, autoreset_mode=mode), mode, 120, plan)
        for mode in MODES
    }
    for index in range(12):
        three = [histories[mode][index] for mode in MODES]
        shared = min(map(len, three))
        assert shared > 10
        assert three[0][:shared] == three[1][:shared] == three[2][:shared]


def test_next_step_ignores_the_action_after_the_end(make_vec, kit):
    envs, other = make_vec(num_envs=30), make_vec(num_envs=30)
    envs.reset(seed=0), other.reset(seed=0)
    ended = np.zeros(30, bool)
    resets = 0
    for rows in kit.table(40, 30):
        changed = rows.copy()
        changed[ended] = 1
        got, want = envs.step(rows), other.step(changed)
        assert all(kit.equal(one, two) for one, two in zip(got, want, strict=True))
        assert not got[1][ended].any()
        assert not got[2][ended].any()
        assert not got[0][ended, 88:].any()
        assert got[4]["_clicks"].tolist() == (~ended).tolist()
        resets += ended.sum()
        ended = got[2]
    assert resets > 100


def test_same_step_masks(make_vec, kit):
    envs = make_vec(num_envs=50, autoreset_mode="SameStep")
    envs.reset(seed=1)
    seen = 0
    for rows in kit.table(40, 50):
        observations, rewards, terminated, _, infos = envs.step(rows)
        assert ("final_obs" in infos) == terminated.any()
        if not terminated.any():
            continue
        for mask in (infos["_final_obs"], infos["_final_info"], ~infos["_clicks"]):
            assert mask.tolist() == terminated.tolist()
        for index in range(50):
            final = infos["final_obs"][index]
            assert (final is None) != terminated[index]
            if final is not None:
                seen += 1
                assert final.shape == (91,)
                assert final[90] == infos["final_info"]["page"][index] >= 1
                assert final[88] == infos["final_info"]["clicks"][index] == rewards[index]
                assert not observations[index, 88:].any()
                assert infos["page"][index] == infos["clicks"][index] == 0
    assert seen > 100


def test_disabled_refuses_a_step_until_the_mask_is_reset(make_vec, kit):
    envs = make_vec(num_envs=10, autoreset_mode="Disabled")
    envs.reset(seed=0)
    rows = kit.table(1, 10)[0]
    while not (terminated := envs.step(rows)[2]).any():
        pass
    before = envs.get_state()
    first = int(np.flatnonzero(terminated)[0])
    with pytest.raises(vtb.StateError, match=f"environment {first}:"):
        envs.step(rows)
    assert envs.get_state() == before
    others = envs.observe()[~terminated]
    options = {"reset_mask": terminated}
    observations, _ = envs.reset(options=options)
    assert options == {"reset_mask": terminated}
    assert kit.equal(observations[~terminated], others)
    assert not observations[terminated, 88:].any()
    envs.step(rows)


def test_a_session_takes_less_than_600_bytes(simulator: vtb.Simulator) -> None:
    envs = gymnasium.make_vec("virtualtb_fast:VirtualTB-v1", num_envs=1000, simulator=simulator)
    assert 500 < envs.unwrapped._batch.bytes_per_session < 600
