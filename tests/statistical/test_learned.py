"""Learned simulators against the probabilities that they were given.

Customers are counted over all cells of their fields at once, so that dependence between fields
counts; every test also shows that something wrong on purpose fails on the same counts.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

import virtualtb_fast as vtb
from virtualtb_fast.schema import Config, Customers, Leave, Response

COUNT = 300_000
P_VALUE = 1e-4
"""Below it a test fails. About 20 are made here, with fixed seeds."""
TURN, BUY, LEFT, MAX_PAGES = range(4)


def p_value(observed, probabilities):
    """Of counts against probabilities; cells of fewer than 20 expected go together."""
    expected = probabilities * observed.sum()
    rare = expected < 20
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    assert observed[~keep].sum() == 0, "what cannot be was drawn"
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    return stats.chi2.sf(statistic, keep.sum() - 1)


def joint(simulator, kit):
    """The probability of every customer, in float64, as an array of one axis a field."""
    tensors = {name: value.astype(np.float64) for name, value in simulator.tensors().items()}
    sizes = [field.size for field in simulator.schema.customer]
    slices, kind = list(simulator.schema.slices.values()), simulator.config.customers.kind
    out = np.zeros(sizes)
    for codes in itertools.product(*map(range, sizes)):
        if kind == "mixture":
            columns = tensors["customers.fields"]
            pairs = zip(slices, codes, strict=True)
            blocks = [columns[:, block.start + code] for block, code in pairs]
            out[codes] = tensors["customers.shares"] @ np.prod(blocks, axis=0)
        elif kind == "rows":
            out[codes] = (tensors["customers.rows"] == codes).all(1).mean()
        else:
            out[codes] = kit.softmax(tensors["customers.0.bias"])[codes[0]]
            for index in range(1, len(sizes)):
                pairs = zip(sizes[:index], codes[:index], strict=True)
                x = np.concatenate([np.eye(size)[code] for size, code in pairs])
                name = f"customers.{index}"
                x = tensors[f"{name}.0.weight"] @ x + tensors[f"{name}.0.bias"]
                x = np.where(x > 0, x, simulator.config.slope * x)
                logits = tensors[f"{name}.2.weight"] @ x + tensors[f"{name}.2.bias"]
                out[codes] *= kit.softmax(logits)[codes[index]]
    return out


def independent(probabilities):
    """The product of the marginals."""
    axes = range(probabilities.ndim)
    out = np.ones(())
    for axis in axes:
        marginal = probabilities.sum(tuple(other for other in axes if other != axis))
        out = out[..., None] * marginal
    return out


@pytest.mark.parametrize("customers", ["mixture", "rows", "autoregressive"])
def test_customers_are_distributed_as_given(kit, customers):
    simulator = kit.learned(customers, "outcome")
    want = joint(simulator, kit)
    assert want.sum() == pytest.approx(1, abs=1e-6)
    codes = simulator.customers(COUNT, seed=17 << 32)
    observed = np.zeros(want.shape)
    np.add.at(observed, tuple(codes.T), 1)
    assert p_value(observed.ravel(), want.ravel()) > P_VALUE
    # Void guards: independent fields of the same marginals, and one cell a tenth too likely.
    assert p_value(observed.ravel(), independent(want).ravel()) < 1e-9
    wrong = want.copy()
    wrong[np.unravel_index(want.argmax(), want.shape)] *= 1.1
    assert p_value(observed.ravel(), wrong.ravel() / wrong.sum()) < P_VALUE


def test_one_component_is_independent_fields(kit):
    config = Config(
        Customers(kind="mixture", components=1), *kit.responses_of("outcome"), slope=0.2
    )
    simulator = kit.random_simulator(6, kit.shop_schema, config)
    want = joint(simulator, kit)
    assert np.allclose(want, independent(want))
    codes = simulator.customers(COUNT, seed=18 << 32)
    observed = np.zeros(want.shape)
    np.add.at(observed, tuple(codes.T), 1)
    assert p_value(observed.ravel(), want.ravel()) > P_VALUE


def test_categories_of_no_probability_never_come(kit):
    schema = kit.shop_schema
    config = Config(
        Customers(kind="mixture", components=3), *kit.responses_of("outcome"), slope=0.2
    )
    tensors = kit.random_simulator(6, schema, config).tensors()
    tensors["customers.shares"][:] = 0.0, 1.0, 0.0
    columns = np.zeros_like(tensors["customers.fields"])
    # The first category, the last, and one between.
    columns[1, [1, 3]], columns[1, 5], columns[1, [7, 8]] = (0.25, 0.75), 1, (0.5, 0.5)
    columns[0, [0, 5, 7]] = columns[2, [4, 6, 10]] = 1
    tensors["customers.fields"] = columns
    simulator = vtb.Simulator.from_tensors(tensors, name="few", schema=schema, config=config)
    codes = simulator.customers(COUNT, seed=2)
    seen = [np.unique(codes[:, field]).tolist() for field in range(3)]
    assert seen == [[1, 3], [0], [0, 1]]


def test_a_large_table_is_drawn_from_evenly(kit):
    config = Config(Customers(kind="rows", rows=4_000), *kit.responses_of("outcome"), slope=0.2)
    schema = vtb.schema.Schema(tuple(vtb.schema.Field(name, 64) for name in "ab"), 6)
    tensors = kit.random_simulator(6, schema, config).tensors()
    number = np.arange(4_000)
    tensors["customers.rows"] = np.stack((number // 64, number % 64), 1).astype(np.uint8)
    simulator = vtb.Simulator.from_tensors(tensors, name="many", schema=schema, config=config)
    codes = simulator.customers(COUNT, seed=19 << 32).astype(int)
    observed = np.bincount(codes[:, 0] * 64 + codes[:, 1], minlength=4_000)
    assert len(observed) == 4_000
    assert p_value(observed, np.full(4_000, 1 / 4_000)) > P_VALUE
    wrong = np.where(number < 400, 1.1, 1.0)
    assert p_value(observed, wrong / wrong.sum()) < P_VALUE


def constant(kit, chances, longest):
    """Customers who turn, buy and leave with these probabilities, whatever they are shown."""
    leave = Leave(kind="hazard", longest=longest)
    response = Response(hidden=(4,), heads="outcome")
    config = Config(Customers(kind="mixture", components=2), response, leave)
    tensors = kit.random_simulator(3, kit.shop_schema, config).tensors()
    for name in ("action.0.weight", "action.2.weight"):
        tensors[name][:] = 0
    tensors["action.2.bias"] = np.log(np.asarray(chances, np.float32))
    return vtb.Simulator.from_tensors(
        tensors, name="constant", schema=kit.shop_schema, config=config
    )


@pytest.mark.parametrize(
    ("chances", "longest"), [((0.8, 0.05, 0.15), 101), ((0.6, 0.3, 0.1), 3), ((0.5, 0.1, 0.4), 1)]
)
def test_constant_customers_have_the_figures_of_theory(kit, chances, longest):
    """R2P is the chance of buying, the mean length a geometric sum."""
    turn, buy, leave = chances
    simulator = constant(kit, chances, longest)
    played = vtb.rollout(simulator, "random", sessions=COUNT, seed=20 << 32, keep=True)
    summary = played.summary
    error = np.sqrt(buy * (1 - buy) / summary.pages)
    assert abs(summary.r2p - buy) < 4 * error
    assert abs(summary.r2p - buy * 1.1) > 4 * error
    lengths = np.arange(1, longest + 1)
    probabilities = turn ** (lengths - 1) * np.where(lengths == longest, 1, 1 - turn)
    observed = summary.sessions_by_length[1:]
    observed = np.pad(observed, (0, longest - len(observed)))
    if longest > 1:
        assert p_value(observed, probabilities) > P_VALUE
        other = (turn - 0.02) ** (lengths - 1) * np.where(lengths == longest, 1, 1.02 - turn)
        assert p_value(observed, other) < P_VALUE
    mean = (1 - turn**longest) / (1 - turn)
    low, high = summary.mean_session_length_interval
    assert abs(summary.mean_session_length - mean) <= 2.1 * (high - low) / 2
    outcomes = np.bincount(played["outcome"], minlength=4)
    assert outcomes[BUY] == summary.clicks == summary.units == summary.buy_pages
    assert outcomes[[BUY, LEFT, MAX_PAGES]].sum() == summary.sessions
    survivors = turn**longest
    spread = np.sqrt(survivors * (1 - survivors) * summary.sessions)
    assert abs(outcomes[MAX_PAGES] - survivors * summary.sessions) <= 4 * spread
    assert abs(outcomes[LEFT] * buy - outcomes[BUY] * leave) < 5 * summary.sessions**0.5


@pytest.mark.parametrize(
    ("customers", "response"),
    [("mixture", "outcome"), ("rows", "linear"), ("autoregressive", "hazard")],
)
def test_answers_are_distributed_as_the_response_says(kit, customers, response):
    """Every page's own probabilities, summed, against the answers drawn."""
    simulator = kit.learned(customers, response)
    log = vtb.rollout(simulator, "random", sessions=100_000, seed=21 << 32)
    answers = simulator.response(log["customer"], log["page"], log["action"])
    others = simulator.response(log["customer"], log["page"], np.roll(log["action"], 1, axis=1))
    if response == "hazard":
        left = (log["outcome"] == LEFT).astype(int)
        drawn = {"clicks": log["clicks"], "second": log["second"], "leave": left}
    else:
        # One who turns the last page is told that there are no more.
        drawn = {"outcome": np.where(log["outcome"] == MAX_PAGES, TURN, log["outcome"])}
    for name, values in drawn.items():
        # Among pages where one category is likely and among those where it is not.
        chances, size = answers[name].astype(np.float64), answers[name].shape[1]
        for part in np.array_split(np.argsort(chances[:, -1], kind="stable"), 3):
            observed = np.bincount(values[part], minlength=size)
            assert fits(observed, chances[part]), name
        # Void guard: the probabilities under other actions, where they were far off.
        wrong = others[name].astype(np.float64)
        far = np.argsort((wrong - chances)[:, -1])[: len(values) // 4]
        assert not fits(np.bincount(values[far], minlength=size), wrong[far]), name


def fits(observed, chances):
    """Whether counts go with a probability of its own for every draw."""
    expected = chances.sum(0)
    covariance = np.diag(expected) - chances.T @ chances
    keep = np.flatnonzero(expected >= 20)[:-1]
    difference = (observed - expected)[keep]
    covariance = covariance[np.ix_(keep, keep)]
    statistic = difference @ np.linalg.solve(covariance, difference)
    return stats.chi2.sf(statistic, len(keep)) > P_VALUE


def test_the_expected_reward_is_the_mean_of_the_drawn_one(kit, make_vec):
    simulator = kit.learned("mixture", "outcome")
    rng = np.random.default_rng(5)
    drawn, expected = [], []
    envs = [
        make_vec(num_envs=2_000, simulator=simulator, reward=reward, autoreset_mode="SameStep")
        for reward in ("buy", "expected")
    ]
    for env in envs:
        env.reset(seed=22 << 32)
    for _ in range(60):
        actions = rng.uniform(-2, 3, (2_000, 6)).astype(np.float32)
        drawn.append(envs[0].step(actions)[1])
        expected.append(envs[1].step(actions)[1])
    drawn, expected = np.concatenate(drawn), np.concatenate(expected)
    error = np.sqrt((expected * (1 - expected)).sum())
    assert abs((drawn - expected).sum()) < 4 * error
    assert abs((drawn - 1.1 * expected).sum()) > 4 * error
    assert expected.var() < 0.9 * drawn.var()
