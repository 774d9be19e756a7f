"""The single environment called at the wrong time, or with the wrong things."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import virtualtb_fast as vtb

ANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = np.zeros(27, np.float32)


def test_steps_before_reset_after_the_end_and_after_close(make):
    env = make()
    action = GOOD
    with pytest.raises(vtb.StateError, match="no reset yet"):
        env.step(action)
    env.reset(seed=0)
    while not env.step(action)[2]:
        pass
    before = env.get_state()
    with pytest.raises(vtb.StateError, match="over"):
        env.step(action)
    assert env.get_state() == before
    env.reset()
    env.step(action)
    env.close()
    env.close()
    for call in (env.reset, lambda: env.step(action), env.get_state, env.observe):
        with pytest.raises(vtb.StateError, match="closed"):
            call()
    with pytest.raises(vtb.StateError):
        env.set_state(before)


BAD_ACTIONS = {
    "too short": GOOD[:26],
    "too long": np.zeros(28, np.float32),
    "empty": np.zeros(0, np.float32),
    "a scalar": np.float32(0),
    "a batch of one": GOOD[None],
    "a column": GOOD[:, None],
    "double": GOOD.astype(np.float64),
    "half": GOOD.astype(np.float16),
    "integers": GOOD.astype(np.int32),
    "booleans": GOOD.astype(bool),
    "objects": GOOD.astype(object),
    "the other byte order": GOOD.astype(">f4"),
    "strided": np.zeros(54, np.float32)[::2],
    "reversed": np.arange(27, dtype=np.float32)[::-1],
    "a list": GOOD.tolist(),
    "None": None,
    "text": "action",
    "not a number": np.where(np.arange(27) == 20, np.nan, GOOD).astype(np.float32),
    "infinite": np.full(27, np.inf, np.float32),
    "minus infinite": np.full(27, -np.inf, np.float32),
}


@pytest.mark.parametrize("what", BAD_ACTIONS)
def test_bad_actions_are_refused_and_nothing_moves(make, what):
    env = make()
    env.reset(seed=0)
    while env.step(GOOD)[2]:
        env.reset()
    before = env.get_state()
    with pytest.raises(vtb.InvalidActionError, match=r"expected .*, got"):
        env.step(BAD_ACTIONS[what])
    assert env.get_state() == before


@ANY
@given(
    npst.arrays(
        st.one_of(npst.floating_dtypes(), npst.integer_dtypes(), npst.boolean_dtypes()),
        st.one_of(npst.array_shapes(max_dims=3, max_side=28), st.just((27,))),
    )
)
def test_any_array_is_shown_or_refused(make, action):
    env = make()
    env.reset(seed=0)
    before = env.get_state()
    exact = action.shape == (27,) and action.dtype == np.float32 and action.dtype.isnative
    if exact and np.isfinite(action).all() and np.abs(action).max() <= 1e6:
        assert env.step(action)[0] in env.observation_space
    else:
        with pytest.raises(vtb.InvalidActionError):
            env.step(action)
        assert env.get_state() == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"reward": "money"},
        {"reward": None},
        {"reward": 3},
        {"anc": (1,)},
        {"anc": (1, 2, 3)},
        {"anc": 1.0},
        {"anc": "ab"},
        {"anc": (-1, 0.1)},
        {"anc": (1, -0.1)},
        {"anc": (float("nan"), 0)},
        {"anc": (1, float("inf"))},
        {"simulator": "nobody"},
        {"simulator": 3},
        {"simulator": None},
        {"page_base": 2},
        {"page_base": "0"},
        {"page_base": None},
    ],
)
def test_other_arguments_are_refused(make, arguments):
    with pytest.raises(vtb.InvalidArgumentError):
        make(**arguments)


def test_an_unknown_render_mode_is_refused(simulator):
    from virtualtb_fast.envs.virtualtb import VirtualTBV1

    with pytest.raises(vtb.InvalidArgumentError, match="render_mode"):
        VirtualTBV1(simulator, render_mode="rgb_array")
