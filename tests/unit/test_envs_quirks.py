"""VirtualTB-v0's quirks, each by its own test, numbered as in `VirtualTBV0`'s docstring."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA

ZERO = np.zeros(27, np.float32)


def table(steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 27)).astype(np.float32)


def until_done(env, action=ZERO):
    """Steps until done: the last observation before it, the last step, and the pages shown."""
    before, pages = env.observe(), 0
    while True:
        step = env.step(action)
        pages += 1
        if step[2]:
            return before, step, pages
        before = step[0]


@pytest.fixture
def flat():
    """A simulator whose weights are all zero, but for biases that a test may set."""

    def build(**biases):
        tensors = {
            name: np.zeros(shape, np.float32) for name, shape in V0_CONFIG.shapes(V0_SCHEMA).items()
        }
        for name, (index, number) in biases.items():
            tensors[name.replace("_", ".")][index] = number
        return vtb.Simulator.from_tensors(tensors, name="flat")

    return build


# 1


def test_1_the_observation_at_done_is_the_next_customers(make):
    env = make("v0")
    env.reset(seed=0)
    other_than_before = other_than_reset = 0
    for _ in range(200):
        before, (observation, _, _, _, info), pages = until_done(env)
        assert observation[:88].sum() == 11
        assert observation[88:].tolist() == [0, 0, pages]
        assert info["page"] == pages
        fresh, _ = env.reset()
        assert fresh[88:].tolist() == [0, 0, 0]
        other_than_before += observation[:88].tobytes() != before[:88].tobytes()
        other_than_reset += observation[:88].tobytes() != fresh[:88].tobytes()
    assert other_than_before > 150
    assert other_than_reset > 150


def test_1_v1_shows_the_finished_session(make):
    env = make("v1")
    env.reset(seed=0)
    for _ in range(50):
        before, (observation, _, _, _, info), pages = until_done(env)
        assert observation[:88].tobytes() == before[:88].tobytes()
        assert observation[88:].tolist() == [info["clicks"], info["deals"], pages]
        env.reset()


def test_1_the_next_customer_shifts_no_session(make):
    """v0 and v1 play the same sessions of a stream, though v0 draws a customer more in each."""
    v0, v1 = make("v0"), make("v1")
    first, second = v0.reset(seed=6)[0], v1.reset(seed=6)[0]
    for action in table(300):
        assert first.tobytes() == second.tobytes()
        one, other = v0.step(action), v1.step(action)
        assert one[1:] == other[1:]
        first, second = one[0], other[0]
        if one[2]:
            first, second = v0.reset()[0], v1.reset()[0]


# 2


def test_2_stepping_past_the_end_goes_on(make):
    env = make("v0")
    env.reset(seed=1)
    _, (shown, _, _, _, info), pages = until_done(env)
    clicks = round(info["CTR"] * pages * 10)
    ends = 0
    for action in table(60):
        observation, reward, terminated, _, info = env.step(action)
        pages += 1
        clicks += reward
        assert info["page"] == pages == observation[90]
        assert info["CTR"] == clicks / pages / 10
        if not terminated:
            # The customer that was shown at the end stays.
            assert observation[:88].tobytes() == shown[:88].tobytes()
        shown = observation
        ends += terminated
    # The old page count is at or beyond nearly every new limit: it ends almost at once.
    assert ends > 40
    assert env.reset()[0][90] == 0


def test_2_v1_refuses_it(make):
    env = make("v1")
    env.reset(seed=1)
    until_done(env)
    with pytest.raises(vtb.StateError):
        env.step(ZERO)


def test_2_in_a_batch_without_autoreset(make, make_vec):
    envs = make_vec("v0", num_envs=3, autoreset_mode="Disabled")
    singles = [make("v0") for _ in range(3)]
    envs.reset(seed=5)
    for index, single in enumerate(singles):
        single.reset(seed=5 + index)
    for action in table(60):
        observations, rewards, terminated, _, infos = envs.step(np.repeat(action[None], 3, 0))
        for index, single in enumerate(singles):
            observation, reward, ended, _, info = single.step(action)
            assert observation.tobytes() == observations[index].tobytes()
            assert (reward, ended) == (rewards[index], terminated[index])
            assert info["CTR"] == infos["CTR"][index]


# 3


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_3_the_page_limit_depends_on_the_customer_alone(make, version):
    def lengths(action):
        env = make(version)
        env.reset(seed=2)
        out = []
        for _ in range(150):
            out.append(until_done(env, action)[2])
            env.reset()
        return out

    zero = lengths(ZERO)
    assert zero == lengths(np.ones(27, np.float32)) == lengths(-ZERO + 0.02)
    assert len(set(zero)) > 5


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize(("limit", "pages"), [(0, 1), (1, 1), (2, 2), (100, 100)])
def test_3_a_limit_of_zero_still_plays_one_page(make, flat, version, limit, pages):
    env = make(version, simulator=flat(leave_4_bias=(limit, 60)))
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        _, (observation, _, _, truncated, _), shown = until_done(env)
        assert shown == pages == observation[90]
        assert truncated is False
        assert observation in env.observation_space
        env.reset()


# 4


def test_4_the_published_spaces_on_request(make, make_vec):
    env, plain = make("v0", published_spaces=True), make("v0")
    assert env.observation_space.dtype == np.int32
    assert env.observation_space.high.tolist() == [1] * 88 + [29, 9, 100]
    assert env.observation_space.low.tolist() == [0] * 91
    assert plain.observation_space.dtype == np.float32
    assert plain.observation_space.high.tolist() == [1] * 88 + [10, 9, 100]
    observation, want = env.reset(seed=0)[0], plain.reset(seed=0)[0]
    assert observation.dtype == np.float64
    assert observation.tolist() == want.tolist()
    for action in table(40):
        one, other = env.step(action), plain.step(action)
        assert one[0].dtype == np.float64
        assert one[0].tolist() == other[0].tolist()
        assert one[1:] == other[1:]
    envs = make_vec("v0", num_envs=4, published_spaces=True, autoreset_mode="SameStep")
    assert envs.observation_space.dtype == np.int32
    assert envs.reset(seed=0)[0].dtype == np.float64
    for action in table(20):
        observations, *_, infos = envs.step(np.repeat(action[None], 4, 0))
        assert observations.dtype == np.float64
        finals = [row for row in infos.get("final_obs", []) if row is not None]
        assert all(row.dtype == np.float64 for row in finals)
    with pytest.raises(TypeError):
        make("v1", published_spaces=True)


# 5


def test_5_pages_are_counted_from_zero_unless_asked_otherwise(make, flat):
    """A simulator that clicks 10 on page 0, as the network sees it, and never again."""
    tensors = flat(action_4_bias=(0, -50)).tensors()
    tensors["action.0.weight"][0, 88] = 1
    tensors["action.2.weight"][0, 0] = 1
    tensors["action.4.weight"][0, 0] = 200
    tensors["action.4.bias"][10] = 50
    tensors["leave.4.bias"][5] = 60
    simulator = vtb.Simulator.from_tensors(tensors, name="first page")
    for base, clicks in ((0, [10, 0, 0, 0, 0]), (1, [0, 0, 0, 0, 0])):
        env = make("v0", simulator=simulator, page_base=base)
        observation, _ = env.reset(seed=0)
        assert observation[90] == base
        steps = [env.step(ZERO) for _ in range(5)]
        assert [step[1] for step in steps] == clicks
        assert [step[0][90] for step in steps] == [base + page for page in range(1, 6)]
        assert [step[4]["page"] for step in steps] == [1, 2, 3, 4, 5]


# 6


def test_6_environments_do_not_share_a_generator(make):
    torch = pytest.importorskip("torch", reason="the original's generator is torch's")

    def history(interrupt):
        env, other = make("v0"), make("v0")
        rows = [env.reset(seed=3)[0].tobytes()]
        for action in table(60):
            if interrupt:
                torch.manual_seed(1)
                np.random.seed(1)  # noqa: NPY002  (to show that it does not matter)
                other.reset(seed=4)
                other.step(action)
            step = env.step(action)
            rows.append((step[0].tobytes(), *step[1:]))
            if step[2]:
                rows.append(env.reset()[0].tobytes())
        return rows

    state = torch.get_rng_state()
    assert history(False) == history(True)
    torch.set_rng_state(state)


# 7


def test_7_the_order_of_draws(make, flat, kit):
    """With equal probabilities every draw is its uniform: fields in order, limit; clicks, deals."""
    env = make("v0", simulator=flat())
    sizes = np.array([field.size for field in V0_SCHEMA.customer])
    for session in range(30):
        observation, _ = env.reset(seed=8) if session == 0 else env.reset()
        fields = np.floor(kit.uniforms(8, session, 0, 1, 11) * sizes)
        assert V0_SCHEMA.codes(observation).tolist() == fields.tolist()
        limit = int(kit.uniforms(8, session, 0, 2, 1)[0] * 101)
        for page in range(max(limit, 1)):
            first, second = kit.uniforms(8, session, page, 3, 2)
            observation, reward, terminated, _, info = env.step(ZERO)
            assert (reward, info["deals"]) == (int(first * 11), int(second * 10))
            assert terminated == (page + 1 == max(limit, 1))


# 8


def test_8_actions_are_not_clipped(make):
    free, clipped = make("v0"), make("v1")
    free.reset(seed=0), clipped.reset(seed=0)
    differ = 0
    for action in table(200) * 20:
        one, other = free.step(action), clipped.step(action)
        assert one[4]["clipped"] is False
        assert other[4]["clipped"] is True
        differ += one[4]["clicks"] != other[4]["clicks"]
        if one[2]:
            free.reset(), clipped.reset()
    assert differ > 20


@pytest.mark.parametrize(
    "form",
    [
        lambda action: action.tolist(),
        lambda action: tuple(action.tolist()),
        lambda action: action.astype(np.float64),
        lambda action: np.repeat(action, 2)[::2],
        lambda action: action.astype(">f4"),
        lambda action: list(action),
    ],
)
def test_8_anything_like_an_array_of_27_numbers_is_accepted(make, make_vec, form):
    env, plain = make("v0"), make("v0")
    env.reset(seed=0), plain.reset(seed=0)
    envs = make_vec("v0", num_envs=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    for action in table(20):
        one, other = env.step(form(action)), plain.step(action)
        assert one[0].tobytes() == other[0].tobytes()
        assert one[1:] == other[1:]
        both = envs.step([form(action), form(action)])
        assert both[0][0].tobytes() == one[0].tobytes()


def test_8_integers_and_tensors_too(make):
    torch = pytest.importorskip("torch", reason="tensors are torch's")
    env = make("v0")
    env.reset(seed=0)
    env.step([0] * 26 + [1])
    env.step(np.ones(27, np.int8))
    env.step(torch.zeros(27))


@pytest.mark.parametrize(
    "action",
    [
        [0.0] * 26,
        [[0.0] * 27],
        [0.0] * 26 + [float("nan")],
        [0.0] * 26 + [float("inf")],
        [0.0] * 26 + [1e300],
        [0.0] * 26 + ["a"],
        [0.0] * 26 + [None],
        [0.0] * 26 + [1j],
        [0.0] * 26 + [[1.0]],
        ["0.0"] * 27,
        None,
        "action",
        {},
        0.0,
    ],
)
def test_8_but_27_finite_numbers_it_must_be(make, action):
    env = make("v0")
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(vtb.InvalidActionError, match=r"expected .*(got|, not)"):
        env.step(action)
    assert env.get_state() == before


# 9


def test_9_the_api_of_today(make):
    env = make("v0")
    assert isinstance(env, gymnasium.Env)
    assert len(env.reset(seed=0)) == 2
    assert len(env.step(ZERO)) == 5


# 10


def test_10_noise_is_uniform_in_0_to_1(make_vec, flat):
    """A generator whose last field tells in which tenth of [0, 1) the first noise is."""
    tensors = flat(leave_4_bias=(1, 60)).tensors()
    tensors["generator.0.weight"][0, 0] = 1
    # Logit c exceeds logit c - 1 where z exceeds c / 10: the largest is that of z's tenth.
    codes = np.arange(18)
    at = V0_SCHEMA.slices["field_9"]
    tensors["generator.2.weight"][at, 0] = 4000 * codes
    tensors["generator.2.bias"][at] = -4000 * codes * (codes + 1) / 20 + 200
    simulator = vtb.Simulator.from_tensors(tensors, name="noise")
    envs = make_vec("v0", num_envs=20_000, simulator=simulator)
    observations, _ = envs.reset(seed=0)
    tenths = np.bincount(V0_SCHEMA.codes(observations)[:, 9], minlength=18)
    # Of normal noise, half would be below 0 and a sixth above 1.
    assert tenths[:10] == pytest.approx([2000] * 10, abs=5 * 43)
    assert tenths[10:].sum() < 20


def test_the_info_has_what_was_published_and_more(make):
    env = make("v0")
    env.reset(seed=0)
    info = env.step(ZERO)[4]
    assert set(info) == {"CTR", "clicks", "deals", "page", "raw_reward", "clipped"}
