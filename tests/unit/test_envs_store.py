"""GroundTruthStore-v0: the promises of VirtualTB-v1, for customers that are known."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import virtualtb_fast as vtb

SEED = 11 << 32


@pytest.fixture(scope="module")
def store() -> vtb.GroundTruthStore:
    return vtb.GroundTruthStore(7 << 32, calibrate=False, tau=1.0, b0=-5.0)


@pytest.fixture(scope="module")
def remembering() -> vtb.GroundTruthStore:
    return vtb.GroundTruthStore(
        7 << 32, calibrate=False, tau=1.0, b0=-6.0, memory=3, repeat=False, hour="uniform"
    )


def single(store: vtb.GroundTruthStore, **arguments: Any) -> Any:
    return gymnasium.make("virtualtb_fast:GroundTruthStore-v0", store=store, **arguments)


def vector(store: vtb.GroundTruthStore, n: int, mode: str = "SameStep", **arguments: Any) -> Any:
    return gymnasium.make_vec(
        "virtualtb_fast:GroundTruthStore-v0",
        num_envs=n, store=store, autoreset_mode=mode, **arguments,
    )  # fmt: skip


def action(env: int, session: int, page: int) -> np.ndarray:
    rng = np.random.default_rng((env, session, page))
    return (rng.normal(size=27) * 10 ** rng.uniform(-2.5, 0.5)).astype(np.float32)


KEYS = ("items", "slot", "outcome", "units", "value", "R2P", "page", "raw_reward", "clipped")


def play_single(store: vtb.GroundTruthStore, env: int, sessions: int) -> list[tuple[Any, ...]]:
    """Rows (session, observation, reward, terminated, truncated, info...) of some sessions."""
    rows, single_env = [], single(store)
    for session in range(sessions):
        single_env.reset(seed=SEED + env if session == 0 else None)
        page, over = 0, False
        while not over:
            step = single_env.step(action(env, session, page))
            observation, reward, terminated, truncated, info = step
            over = terminated or truncated
            told = tuple(np.asarray(info[key]).tolist() for key in KEYS)
            rows.append((session, observation.tobytes(), reward, terminated, truncated, *told))
            page += 1
    single_env.close()
    return rows


def play_vector(
    store: vtb.GroundTruthStore, n: int, mode: str, sessions: int, threads: int
) -> dict[int, list[tuple[Any, ...]]]:
    envs = vector(store, n, mode, num_threads=threads)
    envs.reset(seed=SEED)
    at = [[0, 0] for _ in range(n)]
    rows: dict[int, list[tuple[Any, ...]]] = {env: [] for env in range(n)}
    waiting = np.zeros(n, bool)
    while min(session for session, _ in at) < sessions:
        actions = np.stack([action(env, *at[env]) for env in range(n)])
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        for env in range(n):
            if waiting[env]:
                assert not infos["_page"][env]
                assert rewards[env] == 0
                continue
            over = bool(terminated[env] or truncated[env])
            final = mode == "SameStep" and over
            seen = infos["final_obs"][env] if final else observations[env]
            source = infos["final_info"] if final else infos
            told = tuple(np.asarray(source[key][env]).tolist() for key in KEYS)
            ends = (bool(terminated[env]), bool(truncated[env]))
            rows[env].append((at[env][0], seen.tobytes(), rewards[env], *ends, *told))
            at[env] = [at[env][0] + 1, 0] if over else [at[env][0], at[env][1] + 1]
        ended = terminated | truncated
        waiting = ended if mode == "NextStep" else np.zeros(n, bool)
        if mode == "Disabled" and ended.any():
            envs.reset(options={"reset_mask": ended})
    envs.close()
    return {env: [row for row in played if row[0] < sessions] for env, played in rows.items()}


def test_a_mask_is_false_where_a_session_has_just_started(store: vtb.GroundTruthStore) -> None:
    envs = vector(store, 40)
    envs.reset(seed=SEED)
    ended = 0
    for _ in range(20):
        _, _, terminated, truncated, infos = envs.step(np.zeros((40, 27), np.float32))
        over = terminated | truncated
        ended += over.sum()
        for key in KEYS:
            assert infos[f"_{key}"].tolist() == (~over).tolist()
            assert not infos[key][over].any()
            if over.any():
                assert infos["final_info"][f"_{key}"].tolist() == over.tolist()
                assert not infos["final_info"][key][~over].any()
        if over.any():
            assert (infos["final_info"]["page"][over] > 0).all()
            assert (infos["final_info"]["items"][over].std(axis=1) > 0).all()
    assert ended > 50


@pytest.mark.parametrize("which", ["store", "remembering"])
@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_every_form_plays_the_same_sessions(
    which: str, mode: str, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(which)
    expected = {env: play_single(store, env, 3) for env in (0, 3, 6)}
    for n, threads in ((1, 1), (7, 1), (64, 2)):
        played = play_vector(store, n, mode, 3, threads)
        for env in range(0, n, 3):
            if env in expected:
                assert played[env] == expected[env]
    # Void guard: another seed is another session.
    assert expected[0] != expected[3]


def test_a_large_batch_is_the_small_ones_side_by_side(store: vtb.GroundTruthStore) -> None:
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 0.02, (6, 4096, 27)).astype(np.float32)
    large = vector(store, 4096, num_threads=2)
    observations = [large.reset(seed=SEED)[0]] + [large.step(a)[0] for a in actions]
    for first in (0, 64, 4032):
        small = vector(store, 64, num_threads=1)
        part = [small.reset(seed=SEED + first)[0]]
        part += [small.step(np.ascontiguousarray(a[first : first + 64]))[0] for a in actions]
        for ours, theirs in zip(part, observations, strict=True):
            assert ours.tobytes() == theirs[first : first + 64].tobytes()


@pytest.mark.parametrize("which", ["store", "remembering"])
def test_gymnasium_finds_nothing_to_warn_of(which: str, request: pytest.FixtureRequest) -> None:
    env = single(request.getfixturevalue(which)).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=False)
    assert env.observation_space.shape == ((91,) if which == "store" else (145,))


def test_observations_are_the_documented_ones(remembering: vtb.GroundTruthStore) -> None:
    env = single(remembering)
    observation, info = env.reset(seed=3)
    assert info == {}
    customer = observation[:88].copy()
    assert customer.sum() == 11
    assert not observation[88:].any()
    shown: list[np.ndarray] = []
    for page in range(40):
        chosen = action(0, 0, page)
        observation, _, terminated, truncated, info = env.step(chosen)
        assert observation in env.observation_space
        shown.insert(0, np.clip(chosen, -1, 1))
        remembered = np.concatenate([*shown, np.zeros(27), np.zeros(27)])[:54]
        assert np.array_equal(observation[91:], remembered.astype(np.float32))
        assert np.array_equal(observation[:88], customer)
        assert observation[88] == info["units"]
        assert observation[89] == (info["outcome"] in (0, 3))
        assert observation[90] == page + 1 == info["page"]
        if terminated or truncated:
            break
    assert terminated or truncated
    with pytest.raises(vtb.StateError):
        env.step(action(0, 0, 0))


def test_rewards_and_the_action_norm_constraint(store: vtb.GroundTruthStore) -> None:
    n, rho, mu = 256, 3.0, 0.0354
    plain = vector(store, n)
    valued = vector(store, n, reward="value")
    shaped = vector(store, n, anc=(rho, mu))
    for envs in (plain, valued, shaped):
        envs.reset(seed=5)
    bought = 0
    for step in range(10):
        actions = np.stack([action(env, step, 0) for env in range(n)])
        _, rewards, *_, infos = plain.step(actions)
        final = infos.get("final_info", {"value": np.zeros(n)})
        values = infos["value"] + final["value"]
        assert np.array_equal(valued.step(actions)[1], values)
        executed = np.clip(actions, -1, 1).astype(np.float64)
        norms = np.sqrt((executed**2).sum(1))
        expected = rewards / (1 + rho * np.maximum(norms - mu, 0))
        np.testing.assert_allclose(shaped.step(actions)[1], expected, rtol=1e-12)
        assert set(np.unique(rewards)) <= {0.0, 1.0}
        assert ((values > 0) == (rewards > 0)).all()
        bought += int(rewards.sum())
    assert bought > 100


def test_snapshots_pickles_and_copies_go_on_alike(remembering: vtb.GroundTruthStore) -> None:
    envs = vector(remembering, 70).unwrapped
    envs.reset(seed=1)
    actions = np.stack([action(env, 0, 0) for env in range(70)])
    for _ in range(4):
        envs.step(actions)
    state = envs.get_state()
    twins = [pickle.loads(pickle.dumps(envs)), copy.deepcopy(envs)]
    expected = [envs.step(actions)[0].tobytes() for _ in range(5)]
    for twin in twins:
        assert [twin.step(actions)[0].tobytes() for _ in range(5)] == expected
    envs.set_state(state)
    assert [envs.step(actions)[0].tobytes() for _ in range(5)] == expected
    other = vector(vtb.GroundTruthStore(8 << 32, calibrate=False, tau=1.0, b0=-6.0), 70).unwrapped
    other.reset(seed=1)
    with pytest.raises(vtb.FileFormatError):
        other.set_state(state)


def test_what_is_seen_can_be_restricted() -> None:
    hidden = vtb.GroundTruthStore(
        7 << 32, calibrate=False, tau=1.0, b0=-8.0, observe_page=False, observe_feedback=False
    )
    open_store = vtb.GroundTruthStore(7 << 32, calibrate=False, tau=1.0, b0=-8.0)
    for store, same in ((hidden, True), (open_store, False)):
        env = single(store)
        turns = 0
        for seed in range(20):
            first = env.reset(seed=seed)[0].tobytes()
            over = False
            while not over:
                observation, _, terminated, truncated, _ = env.step(np.zeros(27, np.float32))
                over = terminated or truncated
                if not over:
                    turns += 1
                    # The same bytes; void guard: a store that hides nothing.
                    assert (observation.tobytes() == first) == same
        assert turns > 20


def test_rendering(store: vtb.GroundTruthStore, capsys: pytest.CaptureFixture[str]) -> None:
    env = single(store, render_mode="ansi")
    env.reset(seed=2)
    assert "none shown yet" in env.render()
    for page in range(30):
        *_, terminated, truncated, info = env.step(action(1, 1, page))
        if terminated or truncated:
            break
    text = env.render()
    assert str(info["items"][0]) in text
    assert vtb._core.OUTCOMES[info["outcome"]] in text
    assert max(map(len, text.splitlines())) <= 78
    shown = vector(store, 6, render_mode="human")
    shown.reset(seed=3)
    assert "2 environments more" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        {"store": 3},
        {"reward": "clicks"},
        {"anc": (-1.0, 0.0)},
        {"anc": 3},
        {"render_mode": "rgb_array"},
        {"num_envs": 0},
        {"num_threads": 0},
        {"autoreset_mode": "Sometimes"},
    ],
)
def test_bad_arguments_are_refused(store: vtb.GroundTruthStore, arguments: dict[str, Any]) -> None:
    from virtualtb_fast.envs.store import GroundTruthStoreVector

    with pytest.raises(vtb.InvalidArgumentError):
        GroundTruthStoreVector(**{"num_envs": 2, "store": store, **arguments})


@pytest.mark.parametrize(
    "actions",
    [
        np.zeros((3, 27)),
        np.zeros((2, 27), np.float32),
        np.full((3, 27), np.nan, np.float32),
        np.zeros((27, 3), np.float32).T,
    ],
)
def test_bad_actions_move_nothing(store: vtb.GroundTruthStore, actions: np.ndarray) -> None:
    envs = vector(store, 3).unwrapped
    envs.reset(seed=1)
    state = envs.get_state()
    with pytest.raises(vtb.InvalidActionError):
        envs.step(actions)
    assert envs.get_state() == state
