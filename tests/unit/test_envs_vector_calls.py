"""The native vector environments: seeds, masks, bad calls, Gymnasium's wrappers."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import virtualtb_fast as vtb

MODES = ("NextStep", "SameStep", "Disabled")
ANY = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Seeds and masks


def test_a_list_of_seeds_is_taken_as_given(make, make_vec, kit):
    seeds = [5, 2**64 - 1, 5, 0]
    for given_seeds in (seeds, tuple(seeds), np.array(seeds, np.uint64)):
        observations, _ = make_vec(num_envs=4).reset(seed=given_seeds)
        for seed, row in zip(seeds, observations, strict=True):
            assert kit.equal(make().reset(seed=seed)[0], row)


def test_seeds_wrap_around(make, make_vec, kit):
    observations, _ = make_vec(num_envs=3).reset(seed=2**64 - 2)
    for seed, row in zip((2**64 - 2, 2**64 - 1, 0), observations, strict=True):
        assert kit.equal(make().reset(seed=seed)[0], row)


def test_none_in_a_list_goes_on_with_the_stream(make, make_vec, kit):
    envs, single = make_vec(num_envs=3), make()
    envs.reset(seed=10)
    observations, _ = envs.reset(seed=[None, 99, None])
    assert kit.equal(observations[1], make().reset(seed=99)[0])
    for index in (0, 2):
        single.reset(seed=10 + index)
        assert kit.equal(observations[index], single.reset()[0])


def test_none_in_the_first_list_is_a_fresh_stream(make_vec):
    rows = {make_vec(num_envs=2).reset(seed=[3, None])[0].tobytes() for _ in range(6)}
    # The stream that nobody seeded follows from np_random, which the seed 3 has set.
    assert len(rows) == 1
    rows = {make_vec(num_envs=2).reset(seed=[None, None])[0].tobytes() for _ in range(6)}
    assert len(rows) > 1


def test_without_a_seed_the_streams_are_fresh_and_can_be_asked_for(make_vec, kit):
    envs = make_vec(num_envs=5)
    first, _ = envs.reset()
    twin = make_vec(num_envs=5)
    assert kit.equal(twin.reset(seed=envs.np_random_seed)[0], first)
    assert not kit.equal(make_vec(num_envs=5).reset()[0], first)


@pytest.mark.parametrize("seed", [None, 40])
def test_a_mask_resets_only_where_it_is_true(make_vec, seed, kit):
    envs, whole = make_vec(num_envs=8), make_vec(num_envs=8)
    envs.reset(seed=3), whole.reset(seed=3)
    for rows in kit.table(2, 8):
        before = envs.step(rows)[0]
    mask = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    want, _ = whole.reset(seed=seed)
    if seed is None:
        # The next sessions of the streams, wherever each has got to.
        state = envs.get_state()
        want = envs.reset()[0]
        envs.set_state(state)
    got, infos = envs.reset(seed=seed, options={"reset_mask": mask})
    assert infos == {}
    assert kit.equal(got[mask], want[mask])
    assert kit.equal(got[~mask], before[~mask])


def test_a_part_that_was_never_reset_cannot_step(make_vec, kit):
    envs = make_vec(num_envs=4)
    mask = np.array([True, True, False, True])
    envs.reset(seed=1, options={"reset_mask": mask})
    with pytest.raises(vtb.StateError, match="environment 2"):
        envs.step(kit.table(1, 4)[0])
    envs.reset(options={"reset_mask": ~mask})
    envs.step(kit.table(1, 4)[0])


@pytest.mark.parametrize(
    "mask",
    [
        [True] * 4,
        np.ones(3, bool),
        np.ones((4, 1), bool),
        np.ones(4, np.int64),
        np.zeros(4, bool),
        "mask",
        3,
    ],
)
def test_other_masks_are_refused(make_vec, mask):
    envs = make_vec(num_envs=4)
    envs.reset(seed=1)
    before = envs.get_state()
    with pytest.raises(vtb.InvalidArgumentError, match="reset_mask"):
        envs.reset(options={"reset_mask": mask})
    assert envs.get_state() == before


@pytest.mark.parametrize(
    "seed", [-1, 2**64, "1234", 1.0, [1, 2, 3], [1, 2, 3, -4], [1, 2, 3, "4"], [[1], [2], [3], [4]]]
)
def test_other_seeds_are_refused(make_vec, seed):
    envs = make_vec(num_envs=4)
    envs.reset(seed=1)
    before = envs.get_state()
    with pytest.raises(vtb.InvalidArgumentError, match="seed"):
        envs.reset(seed=seed)
    assert envs.get_state() == before


# Bad calls


GOOD = np.zeros((6, 27), np.float32)


def poisoned(env, value):
    actions = GOOD.copy()
    actions[env, 13] = value
    return actions


BAD_ACTIONS = {
    "too few": GOOD[:5],
    "too many": np.zeros((7, 27), np.float32),
    "too narrow": GOOD[:, :26],
    "one action": GOOD[0],
    "flat": GOOD.ravel(),
    "transposed": np.zeros((27, 6), np.float32),
    "a transposed view": np.zeros((27, 6), np.float32).T,
    "every second column": np.zeros((6, 54), np.float32)[:, ::2],
    "three dimensions": GOOD[None],
    "double": GOOD.astype(np.float64),
    "integers": GOOD.astype(np.int64),
    "the other byte order": GOOD.astype(">f4"),
    "a list": GOOD.tolist(),
    "None": None,
}


@pytest.mark.parametrize("what", BAD_ACTIONS)
def test_bad_actions_are_refused_and_nothing_moves(make_vec, what):
    envs = make_vec(num_envs=6)
    envs.reset(seed=0)
    before = envs.get_state()
    with pytest.raises(vtb.InvalidActionError, match=r"expected .*, got"):
        envs.step(BAD_ACTIONS[what])
    assert envs.get_state() == before


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_the_environment_of_an_action_that_is_not_finite_is_named(make_vec, version, value):
    envs = make_vec(version, num_envs=6)
    envs.reset(seed=0)
    before = envs.get_state()
    with pytest.raises(vtb.InvalidActionError, match="environment 4"):
        envs.step(poisoned(4, value))
    assert envs.get_state() == before


@ANY
@given(
    npst.arrays(
        st.sampled_from([np.float32, np.float64, np.int8, bool]),
        st.one_of(npst.array_shapes(max_dims=3, max_side=28), st.just((2, 27))),
    )
)
def test_any_array_is_shown_or_refused(make_vec, actions):
    envs = make_vec(num_envs=2)
    envs.reset(seed=0)
    before = envs.get_state()
    exact = actions.shape == (2, 27) and actions.dtype == np.float32
    if exact and np.isfinite(actions).all() and np.abs(actions).max() <= 1e6:
        assert envs.step(actions)[0] in envs.observation_space
    else:
        with pytest.raises(vtb.InvalidActionError):
            envs.step(actions)
        assert envs.get_state() == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_envs": 0},
        {"num_envs": -1},
        {"num_envs": 1 << 40},
        {"num_envs": 10**30},
        {"num_envs": -(10**30)},
        {"num_envs": 2.0},
        {"num_envs": "2"},
        {"num_envs": True},
        {"num_envs": None},
        {"num_threads": 0},
        {"num_threads": -2},
        {"num_threads": 10**30},
        {"num_threads": 1 << 40},
        {"num_threads": 1.5},
        {"num_threads": "all"},
        {"autoreset_mode": "Never"},
        {"autoreset_mode": "same_step"},
        {"autoreset_mode": None},
        {"autoreset_mode": 1},
        {"reward": "money"},
        {"anc": (1, -1)},
        {"simulator": "nobody"},
        {"page_base": -1},
        {"render_mode": "rgb_array"},
    ],
)
def test_other_arguments_are_refused(make_vec, arguments):
    with pytest.raises(vtb.InvalidArgumentError, match="expected"):
        make_vec(**arguments)


def test_steps_before_reset_and_after_close(make_vec):
    envs = make_vec(num_envs=6)
    with pytest.raises(vtb.StateError, match="no reset yet"):
        envs.step(GOOD)
    envs.reset()
    envs.step(GOOD)
    envs.close()
    envs.close()
    assert envs.closed
    for call in (envs.reset, lambda: envs.step(GOOD), envs.get_state, envs.observe):
        with pytest.raises(vtb.StateError, match="closed"):
            call()


# Gymnasium's wrappers


@pytest.mark.parametrize("mode", MODES)
def test_record_episode_statistics_and_masks(make_vec, mode, kit):
    envs = make_vec(num_envs=16, autoreset_mode=mode)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    envs.reset(seed=0)
    for rows in kit.table(80, 16):
        _, _, terminated, _, infos = envs.step(rows)
        assert ("episode" in infos) == terminated.any()
        if terminated.any() and mode == "SameStep":
            lengths = infos["episode"]["l"][terminated]
            assert lengths.tolist() == infos["final_info"]["page"][terminated].tolist()
        if terminated.any() and mode == "Disabled":
            envs.reset(options={"reset_mask": terminated})
    assert envs.episode_count > 100


def test_normalising_wrappers(make_vec, kit):
    vector = gymnasium.wrappers.vector
    envs = vector.NormalizeReward(vector.NormalizeObservation(make_vec(num_envs=8)))
    envs = vector.ClipReward(vector.RescaleAction(envs, -2, 2), -1, 1)
    envs.reset(seed=0)
    for rows in kit.table(30, 8):
        observations, rewards, *_ = envs.step(rows)
        assert observations.shape == (8, 91)
        assert np.isfinite(observations).all()
        assert np.abs(rewards).max() <= 1


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_infos_as_a_list(make, make_vec, mode, kit):
    envs = gymnasium.wrappers.vector.DictInfoToList(make_vec(num_envs=5, autoreset_mode=mode))
    envs.reset(seed=0)
    keys = {"clicks", "deals", "CTR", "page", "raw_reward", "clipped"}
    ended = np.zeros(5, bool)
    for rows in kit.table(30, 5):
        _, _, terminated, _, infos = envs.step(rows)
        for index, info in enumerate(infos):
            if mode == "SameStep" and terminated[index]:
                assert set(info) == {"final_obs", "final_info"}
                assert set(info["final_info"]) == keys
            else:
                assert set(info) == (set() if mode == "NextStep" and ended[index] else keys)
        ended = terminated


def test_transforming_wrappers(make_vec, kit):
    space = gymnasium.spaces.Box(0, 200, (91,), np.float32)
    envs = gymnasium.wrappers.vector.VectorizeTransformObservation(
        make_vec(num_envs=5),
        gymnasium.wrappers.TransformObservation,
        func=lambda observation: observation * 2,
        observation_space=space,
    )
    envs.reset(seed=0)
    for rows in kit.table(30, 5):
        assert (envs.step(rows)[0][:, :88].sum(1) == 22).all()


def test_no_warning_is_given(make_vec):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in MODES:
            make_vec(num_envs=2, autoreset_mode=mode).reset(seed=0)
