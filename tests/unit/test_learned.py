"""Simulators of the learned kinds: their files, what is refused, and their environments."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import Config, Customers, Leave, Response

KINDS = [
    ("mixture", "once"),
    ("mixture", "hazard"),
    ("rows", "outcome"),
    ("autoregressive", "linear"),
]
HAZARDS = KINDS[1:]


@pytest.mark.parametrize("kinds", KINDS)
def test_files_come_back(kit, tmp_path, kinds):
    simulator = kit.learned(*kinds)
    path = tmp_path / "sim.safetensors"
    simulator.save(path)
    for other in (
        vtb.load_simulator(path),
        pickle.loads(pickle.dumps(simulator)),
        copy.deepcopy(simulator),
        vtb.Simulator.from_tensors(
            simulator.tensors(),
            name=simulator.name,
            schema=simulator.schema,
            config=simulator.config,
        ),
    ):
        assert other == simulator
        assert (other.config, other.schema) == (simulator.config, simulator.schema)
        assert other.tensors().keys() == simulator.config.shapes(simulator.schema).keys()
        for name, tensor in other.tensors().items():
            assert tensor.shape == simulator.config.shapes(simulator.schema)[name]
            assert tensor.dtype == simulator.config.dtypes(simulator.schema)[name]
            assert np.array_equal(tensor, simulator.tensors()[name])
        assert other.to_bytes() == simulator.to_bytes()


@pytest.mark.parametrize("kinds", KINDS)
def test_no_part_of_a_file_loads(kit, tmp_path, kinds):
    data = kit.learned(*kinds).to_bytes()
    path = tmp_path / "sim.safetensors"
    for length in range(0, len(data), 13):
        path.write_bytes(data[:length])
        with pytest.raises(vtb.FileFormatError, match=path.name):
            vtb.Simulator.load(path)


@pytest.mark.parametrize("kinds", KINDS)
def test_tensors_missing_surplus_misshaped_or_of_another_type_are_refused(kit, kinds):
    simulator = kit.learned(*kinds)

    def build(tensors):
        vtb.Simulator.from_tensors(
            tensors, name="bad", schema=simulator.schema, config=simulator.config
        )

    whole = simulator.tensors()
    for name, tensor in whole.items():
        wrong = [
            {key: value for key, value in whole.items() if key != name},
            whole | {name: tensor[:-1]},
            whole | {name: tensor[None]},
            whole | {name: tensor.astype(np.float64)},
            whole | {name: tensor.astype(np.int64)},
            whole | {f"{name}.more": tensor},
        ]
        other = np.float32 if tensor.dtype == np.uint8 else np.uint8
        wrong.append(whole | {name: tensor.astype(other)})
        if tensor.dtype == np.float32:
            for value in (np.nan, np.inf, -np.inf):
                bad = tensor.copy()
                bad.flat[-1] = value
                wrong.append(whole | {name: bad})
        for tensors in wrong:
            with pytest.raises(InvalidArgumentError, match=r"tensor.*: expected .* got"):
                build(tensors)
    build(whole)


def spoilt(simulator, name, spoil):
    tensors = simulator.tensors()
    spoil(tensors[name])
    with pytest.raises(InvalidArgumentError) as caught:
        vtb.Simulator.from_tensors(
            tensors, name="bad", schema=simulator.schema, config=simulator.config
        )
    return str(caught.value)


def test_what_no_sampler_could_draw_is_named(kit):
    def change(at, by):
        def spoil(tensor):
            tensor[at] += by

        return spoil

    mixture = kit.learned("mixture", "hazard")
    error = spoilt(mixture, "customers.shares", change(0, 0.01))
    assert "customers.shares: expected probabilities that sum to 1" in error
    error = spoilt(mixture, "customers.fields", change((3, 5), 0.01))
    assert 'component 3, field "member": expected probabilities that sum to 1' in error
    error = spoilt(mixture, "customers.fields", change((3, 5), -2))
    assert "at least 0" in error
    error = spoilt(kit.learned("rows", "outcome"), "customers.rows", change((7, 1), 2))
    assert 'customers.rows, row 7, field "member": expected a code below 2' in error
    huge = kit.learned("autoregressive", "linear")
    for name, model in (
        ("customers.1.0.weight", "customers.1"),
        ("action.0.weight", "action"),
        ("effect.weight", "effect"),
    ):
        error = spoilt(huge, name, change(..., 1e30))
        assert f"{model}: expected sums of at most 1e30" in error


@pytest.mark.parametrize(
    "make",
    [
        lambda: Customers(kind="mixture"),
        lambda: Customers(kind="mixture", components=0),
        lambda: Customers(kind="mixture", components=20_000),
        lambda: Customers(kind="mixture", components=3, latent=4),
        lambda: Customers(kind="rows"),
        lambda: Customers(kind="rows", rows=1 << 25),
        lambda: Customers(kind="rows", rows=3, components=3),
        lambda: Customers(kind="autoregressive", hidden=(3, 4)),
        lambda: Customers(kind="autoregressive", hidden=()),
        lambda: Customers(kind="autoregressive", latent=3),
        lambda: Customers(kind=["mlp"]),
        lambda: Customers(components=3),
        lambda: Response(kind="linear"),
        lambda: Response(kind="quadratic"),
        lambda: Response(heads="outcome", clicks=3),
        lambda: Response(heads="outcome", items=0),
        lambda: Response(heads="both"),
        lambda: Response(items=11),
        lambda: Leave(kind="hazard"),
        lambda: Leave(kind="hazard", longest=0),
        lambda: Leave(kind="hazard", longest=32_768),
        lambda: Leave(kind="hazard", longest=3, classes=3),
        lambda: Leave(longest=3),
        lambda: Config(response=Response(heads="outcome")),
    ],
)
def test_parts_that_no_simulator_could_have_are_refused(make):
    with pytest.raises(InvalidArgumentError, match=r"expected .* got"):
        make()


PARTS = [
    Customers(kind="mixture", components=3),
    Customers(kind="rows", rows=9),
    Customers(kind="autoregressive"),
    Customers(),
]
ANSWERS = [
    (Response(), Leave()),
    (Response(), Leave(kind="hazard", longest=100)),
    (Response(heads="outcome"), Leave(kind="hazard", longest=100)),
    (Response(heads="outcome", kind="linear", items=5), Leave(kind="hazard", longest=100)),
]


@pytest.mark.parametrize("customers", PARTS)
@pytest.mark.parametrize(("response", "leave"), ANSWERS)
def test_configs_of_every_kind_survive_json(customers, response, leave):
    config = Config(customers, response, leave, 0.1)
    assert Config.from_json(config.to_json()) == config
    assert Customers.from_json(customers.to_json()) == customers


def test_the_first_simulators_are_written_as_they_were():
    """Their files, and so their digests, must not change."""
    assert json.loads(Config().to_json()) == {
        "customers": {"kind": "mlp", "latent": 128, "hidden": [128]},
        "response": {"page_scale": 1.0, "clicks": 11, "second": 10, "hidden": [128, 256]},
        "leave": {"kind": "once", "classes": 101, "hidden": [128, 256]},
        "slope": 0.01,
    }
    plain = {"page_scale": 1.0, "clicks": 11, "second": 10, "hidden": [128, 256]}
    said = Response.from_json(plain | {"kind": "mlp", "heads": "clicks"})
    assert said == Response.from_json(plain) == Response()


@pytest.mark.parametrize(
    "changes",
    [
        {"customers": {"kind": "mixture", "components": 3, "hidden": [3]}},
        {"customers": {"components": 3}},
        {"customers": {"kind": "autoregressive", "hidden": 3}},
        {"response": {"page_scale": 1.0, "hidden": [3], "heads": "outcome", "clicks": 3}},
        {"response": {"page_scale": 1.0, "hidden": [3], "heads": "outcome"}},
        {"response": {"page_scale": 1.0, "hidden": [3], "heads": "outcome", "items": 10}},
        {"response": [1]},
        {"leave": {"kind": "hazard", "longest": 3, "classes": 4}},
        {"leave": {"kind": "never"}},
    ],
)
def test_other_json_is_refused_by_both_sides(kit, changes):
    simulator = kit.learned("mixture", "once")
    text = json.dumps(json.loads(simulator.config.to_json()) | changes)
    with pytest.raises(InvalidArgumentError, match=r"expected .* got"):
        Config.from_json(text)
    with pytest.raises(InvalidArgumentError, match=r"expected .* got"):
        _core.Simulator.from_tensors(
            "bad", simulator.schema.to_json(), text, "{}", simulator.tensors()
        )


def test_what_response_cannot_answer_is_refused(kit):
    simulator = kit.learned("rows", "outcome")
    codes, pages = simulator.customers(4, seed=0), np.arange(4)
    actions = np.zeros((4, 6), np.float32)
    assert simulator.response(codes, pages, actions)["outcome"].shape == (4, 3)
    assert simulator.response(codes[:0], pages[:0], actions[:0])["outcome"].shape == (0, 3)
    for wrong in (
        (codes[:3], pages, actions),
        (codes.astype(np.int64), pages, actions),
        (codes + np.uint8(9), pages, actions),
        (codes[:, :2], pages, actions),
        (codes, pages[:3], actions),
        (codes, pages - 1, actions),
        (codes, pages + (1 << 25), actions),
        (codes, pages.astype(np.float64), actions),
        (codes, pages[None], actions),
        (codes, pages, actions[:3]),
        (codes, pages, actions.astype(np.float64)),
        (codes, pages, actions + np.float32(np.nan)),
        (codes, pages, actions + np.float32(2e6)),
        (codes, pages, None),
    ):
        with pytest.raises(InvalidArgumentError, match=r"expected .* got"):
            simulator.response(*wrong)
    for count, seed, first in ((-1, 0, 0), (1.5, 0, 0), (True, 0, 0), (1, -1, 0), (1, 0, -1)):
        with pytest.raises(InvalidArgumentError, match=r"expected .* got"):
            simulator.customers(count, seed, first=first)
    with pytest.raises(InvalidArgumentError, match="memory"):
        simulator.customers(2**61, 0)
    with pytest.raises(InvalidArgumentError, match="num_threads"):
        simulator.customers(1, 0, num_threads=0)


@pytest.mark.parametrize("kinds", HAZARDS)
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_vectors_end_sessions_as_single_environments_do(kit, make, make_vec, kinds, mode):
    simulator = kit.learned(*kinds)
    envs = make_vec(num_envs=60, simulator=simulator, autoreset_mode=mode)
    single = make(simulator=simulator)
    single.reset(seed=7)
    observations, _ = envs.reset(seed=7)
    over, ends = False, set()
    for actions in kit.table(60, 60, size=6, seed=1):
        if over and mode == "NextStep":
            observations, rewards, *_ = envs.step(actions)
            want, _ = single.reset()
            assert rewards[0] == 0
            assert np.array_equal(observations[0], want)
            over = False
            continue
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        want, reward, done, cut, info = single.step(actions[0])
        assert (rewards[0], terminated[0], truncated[0]) == (reward, done, cut)
        over = done or cut
        if over:
            ends.add(_core.OUTCOMES[info["outcome"]])
        told = infos["final_info"] if over and mode == "SameStep" else infos
        assert {key: told[key][0] for key in info} == info
        if over and mode == "SameStep":
            assert np.array_equal(infos["final_obs"][0], want)
            want, _ = single.reset()
        assert np.array_equal(observations[0], want)
        if over and mode == "Disabled":
            with pytest.raises(vtb.StateError):
                envs.step(actions)
            observations, _ = envs.reset(options={"reset_mask": terminated | truncated})
            want, _ = single.reset()
            assert np.array_equal(observations[0], want)
        elif mode == "Disabled" and (terminated | truncated).any():
            envs.reset(options={"reset_mask": terminated | truncated})
    assert ends >= ({"leave", "max_pages"} if kinds[1] == "hazard" else {"buy", "leave"})


@pytest.mark.parametrize("kinds", KINDS)
def test_snapshots_go_on_as_the_original(kit, make_vec, kinds):
    simulator = kit.learned(*kinds)
    envs, other = (
        make_vec(num_envs=40, simulator=simulator, autoreset_mode="SameStep") for _ in range(2)
    )
    envs.reset(seed=1)
    other.reset(seed=2)
    plan = kit.table(12, 40, size=6)
    for actions in plan[:5]:
        envs.step(actions)
    state = envs.get_state()
    other.set_state(state)
    assert other.get_state() == state
    again = pickle.loads(pickle.dumps(envs))
    for actions in plan[5:]:
        want = envs.step(actions)
        for one in (other, again):
            got = one.step(actions)
            assert all(kit.equal(a, b) for a, b in zip(got, want, strict=True))
    again.close()


def test_an_altered_snapshot_of_a_hazard_is_refused_or_plays_on(kit, make_vec):
    envs = make_vec(num_envs=2, simulator=kit.learned("rows", "outcome"), autoreset_mode="SameStep")
    envs.reset(seed=0)
    actions = kit.table(1, 2, size=6)[0]
    envs.step(actions)
    before, refused = envs.get_state(), 0
    for bit in range(8 * len(before)):
        altered = bytearray(before)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            envs.set_state(bytes(altered))
        except vtb.FileFormatError:
            refused += 1
            assert envs.get_state() == before
            continue
        assert (envs.observe()[:, :11].sum(1) == 3).all()
        with contextlib.suppress(vtb.StateError):
            envs.step(actions)
        envs.set_state(before)
    assert refused > 500


@pytest.mark.parametrize("kinds", KINDS)
def test_observations_stay_within_their_space(kit, make, kinds):
    simulator = kit.learned(*kinds)
    env = make(simulator=simulator)
    schema, high = simulator.schema, env.observation_space.high
    heads = (1, 1) if "outcome" in simulator.config.heads else (4, 2)
    assert (high[schema.clicks_column], high[schema.second_column]) == heads
    assert high[schema.page_column] == simulator.config.leave.longest
    seen = [env.reset(seed=0)[0]]
    for actions in kit.table(400, 1, size=6):
        observation, _, terminated, truncated, _ = env.step(actions[0])
        seen.append(observation)
        if terminated or truncated:
            seen.append(env.reset()[0])
    assert all(env.observation_space.contains(observation) for observation in seen)
    # The bounds are reached, but for sessions of a dozen pages.
    reached = np.max(seen, axis=0) == high
    assert reached[schema.clicks_column : schema.page_column].all()
    assert kinds[1] == "once" or reached[schema.page_column]


@pytest.mark.parametrize("kinds", HAZARDS)
def test_v0_plays_only_what_ends_as_published(kit, make, make_vec, kinds):
    for one in (make, make_vec):
        with pytest.raises(InvalidArgumentError, match=r"VirtualTB-v0: expected .* drawn once"):
            one("v0", simulator=kit.learned(*kinds))


@pytest.mark.parametrize("customers", ["mixture", "rows", "autoregressive"])
def test_v0_replaces_customers_of_every_kind(kit, make_vec, customers):
    """Quirk 1: the observation at the end is the next customer's, and shifts no session."""
    simulator = kit.learned(customers, "once")
    quirky = make_vec("v0", num_envs=200, simulator=simulator, autoreset_mode="SameStep")
    clean = make_vec("v1", num_envs=200, simulator=simulator, autoreset_mode="SameStep")
    observations, _ = quirky.reset(seed=3)
    clean.reset(seed=3)
    changed, ended = 0, 0
    for actions in np.clip(kit.table(12, 200, size=6), -2, 3):
        before = observations
        observations, _, _, _, infos = quirky.step(actions)
        want = clean.step(actions)
        assert np.array_equal(observations, want[0])
        for env in np.flatnonzero(infos.get("_final_obs", [])):
            final = infos["final_obs"][env]
            ended += 1
            changed += not np.array_equal(final[:11], before[env, :11])
    assert ended > 100
    assert changed > 0.7 * ended


@pytest.mark.parametrize("kinds", KINDS)
def test_a_session_can_be_looked_at(kit, make, kinds):
    env = make(simulator=kit.learned(*kinds), render_mode="ansi")
    env.reset(seed=1)
    assert "none shown yet" in env.render()
    texts = []
    for actions in kit.table(30, 1, size=6):
        _, _, terminated, truncated, _ = env.step(actions[0])
        texts.append(env.render())
        assert (", over" in texts[-1]) == (terminated or truncated)
        if terminated or truncated:
            env.reset()
    text = "\n".join(texts)
    if kinds[1] != "once":
        assert "answer    leave" in text
    assert ("R2P" in text) == (kinds[1] in ("outcome", "linear"))
    assert ("deals" in text) == (kinds[1] in ("once", "hazard"))


def test_pages_can_count_from_one(kit, make):
    """``page_base=1`` gives the customer page n + 1, whatever the kind."""
    simulator = kit.learned("autoregressive", "linear")
    later = simulator.with_page_base(1)
    codes, actions = simulator.customers(50, 0), np.zeros((50, 6), np.float32)
    got = later.response(codes, np.zeros(50, int), actions)["outcome"]
    want = simulator.response(codes, np.ones(50, int), actions)["outcome"]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert make(simulator=simulator, page_base=1).reset(seed=0)[0][-1] == 1


def test_a_rollout_of_outcomes_counts_purchases(kit):
    played = vtb.rollout(kit.learned("rows", "outcome"), "random", sessions=500, seed=0)
    summary = played.summary
    assert summary.sells
    assert not summary.priced
    assert summary.units == summary.clicks == summary.second == summary.buy_pages
    assert summary.ctr == summary.r2p / 4
    assert "R2P" in str(summary)
    assert "TT" not in str(summary)
    with pytest.raises(InvalidArgumentError, match="sells"):
        summary + vtb.rollout(kit.learned("rows", "hazard"), "random", sessions=5).summary
