"""The action norm constraint: its forms, and exact values in environments that apply it."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest

from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.policies.anc import PAPER, norm_constraint, usual_norm
from virtualtb_fast.store import LOGGED_MU, LOGGED_SD, ConstantCustomer, GroundTruthStore


@pytest.fixture(scope="module")
def store() -> GroundTruthStore:
    return GroundTruthStore(customers=ConstantCustomer(buy=0.7, turn=0.2))


def vector(store: GroundTruthStore, lanes: int, anc: tuple[float, float]):
    return gymnasium.make_vec(
        "virtualtb_fast:GroundTruthStore-v0",
        num_envs=lanes,
        store=store,
        anc=anc,
        autoreset_mode="SameStep",
    ).unwrapped


def along(norms) -> np.ndarray:
    """Actions of these norms, in the first dimension."""
    actions = np.zeros((len(norms), 27), np.float32)
    actions[:, 0] = norms
    return actions


def paid(store, norms, anc) -> dict[float, float]:
    """The reward of a purchase by norm."""
    envs = vector(store, len(norms), anc)
    envs.reset(seed=3)
    found = {}
    while len(found) < len(norms):
        _, reward, *_ = envs.step(along(norms))
        found |= {norm: one for norm, one in zip(norms, reward, strict=True) if one > 0}
    return found


def test_exact_values(store) -> None:
    """r up to mu, r / 2 at mu + 1 with rho = 1."""
    found = paid(store, [0.0, 0.25, 0.5, 1.0], (1.0, 0.5))
    assert found == {0.0: 1.0, 0.25: 1.0, 0.5: 1.0, 1.0: 1 / 1.5}
    assert paid(store, [1.0], (1.0, 0.0)) == {1.0: 0.5}
    # The form without a unit: half at twice mu, of the executed action.
    assert paid(store, [0.25, 0.5], norm_constraint(0.25)) == {0.25: 1.0, 0.5: 0.5}
    assert paid(store, [7.0], norm_constraint(0.5)) == {7.0: 0.5}
    # Void guard: without strength nothing is taken off.
    assert paid(store, [1.0], norm_constraint(0.5, rho=0.0)) == {1.0: 1.0}


@pytest.mark.parametrize("anc", [PAPER, norm_constraint(LOGGED_MU), (100.0, 0.3)])
def test_many_lanes_are_one_lane_and_the_formula(store, anc) -> None:
    lanes, (rho, mu) = 64, anc
    envs = vector(store, lanes, anc)
    envs.reset(seed=8)
    alone = [vector(store, 1, anc) for _ in range(lanes)]
    for lane, one in enumerate(alone):
        one.reset(seed=8 + lane)
    rng, shaped = np.random.default_rng(0), 0
    for _ in range(5):
        actions = rng.normal(0, rng.choice([0.005, 0.1, 1.0], (lanes, 1)), (lanes, 27))
        actions = actions.astype(np.float32)
        reward = envs.step(actions)[1]
        for lane, one in enumerate(alone):
            single = one.step(actions[lane : lane + 1])[1][0]
            assert reward[lane] == single
            executed = np.clip(actions[lane].astype(np.float64), -1, 1)
            norm = math.sqrt(math.fsum(executed**2))
            want = 1.0 / (1.0 + rho * max(norm - mu, 0.0))
            if single > 0:
                shaped += want < 1.0
                # The norm's last bit, times what rho makes of it.
                assert abs(single - want) <= 2 * np.spacing(norm) * rho + np.spacing(want)
    assert shaped > 50


def test_the_two_forms() -> None:
    assert norm_constraint(0.05, 2.0) == (40.0, 0.05)
    assert norm_constraint(0.05, 2.0, "paper") == PAPER == (1.0, 0.01)


def test_usual_norms_are_quantiles() -> None:
    actions = along(np.arange(1, 102))
    assert usual_norm(actions) == 91.0
    assert usual_norm(actions, quantile=0.5) == 51.0
    drawn = np.random.default_rng(0).normal(0, LOGGED_SD, (100_000, 27)).astype(np.float32)
    assert usual_norm(drawn) == pytest.approx(LOGGED_MU, rel=0.01)


@pytest.mark.parametrize(
    ("actions", "quantile", "match"),
    [
        (np.zeros((0, 27)), 0.9, "finite numbers"),
        (np.zeros(27), 0.9, "finite numbers"),
        (np.full((3, 27), np.nan), 0.9, "finite numbers"),
        (np.array([["a"]]), 0.9, "finite numbers"),
        (np.zeros((3, 27)), 0.9, "above 0"),
        (np.ones((3, 27)), 1.0, r"within \(0, 1\)"),
    ],
)
def test_bad_actions_are_refused(actions, quantile, match) -> None:
    with pytest.raises(InvalidArgumentError, match=match):
        usual_norm(actions, quantile=quantile)


@pytest.mark.parametrize("given", [(0.0,), (-1.0,), (math.nan,), (1.0, -1.0), (1.0, math.inf)])
def test_bad_constraints_are_refused(given) -> None:
    with pytest.raises(InvalidArgumentError):
        norm_constraint(*given)
    with pytest.raises(InvalidArgumentError, match="'paper'"):
        norm_constraint(1.0, 1.0, "printed")
