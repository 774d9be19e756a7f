"""Learned simulators against a reference in float64, number by number; and their forms.

The reference is written from the documentation alone. It has its own Philox, computes in float64
and draws one number at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.logs import OUTCOMES

FIELDS_PURPOSE, RESPONSE, LATENT, LEAVE, CUSTOMER = 1, 3, 0, 2, 12
TURN, BUY, LEFT, MAX_PAGES = range(4)
KINDS = [
    ("mlp", "hazard"),
    ("mixture", "once"),
    ("mixture", "outcome"),
    ("rows", "linear"),
    ("rows", "once"),
    ("autoregressive", "hazard"),
    ("autoregressive", "linear"),
]
"""Every kind of customers and every kind of answers, each at least twice."""


class Twin:
    """One session after the other, as the documentation says."""

    def __init__(self, simulator, kit):
        self.kit, self.schema, self.config = kit, simulator.schema, simulator.config
        self.tensors = {k: v.astype(np.float64) for k, v in simulator.tensors().items()}

    def network(self, model, x):
        names = [name for name in self.tensors if name.startswith(f"{model}.")]
        layers = [name for name in names if name.endswith("weight")]
        for layer in range(len(layers)):
            weight = self.tensors[f"{model}.{2 * layer}.weight"]
            x = weight @ x + self.tensors[f"{model}.{2 * layer}.bias"]
            if layer + 1 < len(layers):
                x = np.maximum(x, self.config.slope * x)
        return x

    def uniforms(self, purpose, count, page=0):
        return self.kit.uniforms(self.seed, self.session, page, purpose, count)

    def one_hot(self, codes):
        sizes = [field.size for field in self.schema.customer]
        blocks = [np.eye(size)[code] for size, code in zip(sizes, codes, strict=False)]
        return np.concatenate(blocks)

    def draw_customer(self):
        kit, fields = self.kit, list(self.schema.slices.values())
        kind = self.config.customers.kind
        if kind == "mlp":
            logits = self.network("generator", self.uniforms(LATENT, self.config.customers.latent))
            chances = [kit.softmax(logits[columns]) for columns in fields]
            return list(map(kit.pick, chances, self.uniforms(FIELDS_PURPOSE, len(fields))))
        if kind == "rows":
            high, low = (self.uniforms(CUSTOMER, 2) * 2**24).astype(int).tolist()
            rows = self.tensors["customers.rows"]
            return rows[(high * 2**24 + low) * len(rows) >> 48].astype(int).tolist()
        if kind == "mixture":
            which, *drawn = self.uniforms(CUSTOMER, 1 + len(fields))
            row = self.tensors["customers.fields"][
                kit.pick(self.tensors["customers.shares"], which)
            ]
            return [kit.pick(row[columns], u) for columns, u in zip(fields, drawn, strict=True)]
        codes = []
        for index, uniform in enumerate(self.uniforms(CUSTOMER, len(fields))):
            logits = self.tensors["customers.0.bias"]
            if index:
                logits = self.network(f"customers.{index}", self.one_hot(codes))
            codes.append(kit.pick(kit.softmax(logits), uniform))
        return codes

    def reset(self, seed=None):
        self.seed, self.session = (seed, 0) if seed is not None else (self.seed, self.session + 1)
        self.codes = self.draw_customer()
        self.user = self.one_hot(self.codes)
        if self.config.leave.kind == "once":
            limits = self.kit.softmax(self.network("leave", self.user))
            self.limit = self.kit.pick(limits, self.uniforms(LEAVE, 1)[0])
        else:
            self.limit = self.config.leave.longest
        self.page = self.total = 0
        self.feedback = [0, 0]
        return self.observation()

    def observation(self):
        return np.concatenate((self.user, self.feedback, [self.page])).astype(np.float32)

    def chances(self, action):
        """Probabilities of every head."""
        page = [self.page * self.config.response.page_scale]
        action = np.asarray(action, np.float64)
        if self.config.response.kind == "linear":
            logits = self.network("action", np.concatenate((self.user, page)))
            effects = self.tensors["effect.weight"] @ self.user + self.tensors["effect.bias"]
            logits[BUY] += effects @ action
        else:
            logits = self.network("action", np.concatenate((self.user, page, action)))
        ends = np.cumsum(list(self.config.heads.values()))
        return [self.kit.softmax(block) for block in np.split(logits, ends[:-1])]

    def step(self, action):
        """Observation, clicks, deals, outcome."""
        chances = self.chances(action)
        drawn = self.uniforms(RESPONSE, len(chances), self.page)
        answer = list(map(self.kit.pick, chances, drawn))
        self.page += 1
        last = self.page >= self.limit
        if "outcome" in self.config.heads:
            (outcome,) = answer
            clicks = deals = int(outcome == BUY)
            self.feedback = [clicks, int(outcome == TURN)]
        else:
            clicks, deals = self.feedback = answer[:2]
            outcome = LEFT if len(answer) > 2 and answer[2] else TURN
        if outcome == TURN and last:
            outcome = LEFT if self.config.leave.kind == "once" else MAX_PAGES
        self.total += clicks
        return self.observation(), clicks, deals, outcome


def replay(make, kit, simulator, twin, steps=700):
    """Whether the environment plays what the reference plays; and the outcomes seen."""
    env, rng, outcomes = make(simulator=simulator), np.random.default_rng(8), set()
    if not np.array_equal(env.reset(seed=5)[0], twin.reset(5)):
        return False, outcomes
    for _ in range(steps):
        action = rng.uniform(-4, 4, 6).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        want, clicks, deals, outcome = twin.step(np.clip(action, -2, 3))
        outcomes.add(outcome)
        got = [reward, info["clicks"], info["deals"], terminated, truncated, info["page"]]
        ends = [outcome in (BUY, LEFT), outcome == MAX_PAGES]
        same = np.array_equal(observation, want)
        same &= got == [clicks, clicks, deals, *ends, twin.page]
        same &= info["CTR"] == twin.total / twin.page / simulator.page_items
        if simulator.config.leave.kind == "hazard":
            same &= info["outcome"] == outcome
        if simulator.config.response.heads == "outcome":
            same &= info["R2P"] == twin.total / twin.page
        if same and outcome != TURN:
            same &= np.array_equal(env.reset()[0], twin.reset())
        if not same:
            return False, outcomes
    return True, outcomes


@pytest.mark.parametrize(("customers", "response"), KINDS)
def test_every_kind_replays(make, kit, customers, response):
    simulator = kit.learned(customers, response)
    same, outcomes = replay(make, kit, simulator, Twin(simulator, kit))
    assert same
    expected = {
        "once": {TURN, LEFT},
        "hazard": {TURN, LEFT, MAX_PAGES},
        "outcome": {TURN, BUY, LEFT, MAX_PAGES},
        "linear": {TURN, BUY, LEFT, MAX_PAGES},
    }
    assert outcomes >= expected[response]


@pytest.mark.parametrize(
    ("customers", "response", "tensor"),
    [
        ("mixture", "outcome", "customers.shares"),
        ("mixture", "outcome", "customers.fields"),
        ("rows", "linear", "customers.rows"),
        ("rows", "linear", "effect.weight"),
        ("rows", "linear", "effect.bias"),
        ("autoregressive", "hazard", "customers.0.bias"),
        ("autoregressive", "hazard", "customers.1.2.bias"),
        ("autoregressive", "hazard", "customers.2.0.weight"),
        ("autoregressive", "hazard", "action.2.bias"),
    ],
)
def test_the_replay_sees_what_is_slightly_wrong(make, kit, customers, response, tensor):
    """The void guard: the reference of a simulator in which one tensor is a little off."""
    simulator = kit.learned(customers, response)
    twin = Twin(simulator, kit)
    twin.tensors[tensor] = np.roll(twin.tensors[tensor], 1, axis=-1)
    assert not replay(make, kit, simulator, twin)[0]


@pytest.mark.parametrize(("customers", "response"), KINDS)
def test_probabilities_are_those_of_the_reference(kit, customers, response):
    simulator = kit.learned(customers, response)
    twin, rng = Twin(simulator, kit), np.random.default_rng(1)
    codes = simulator.customers(500, seed=3)
    pages = rng.integers(0, 9, 500)
    actions = rng.uniform(-2, 3, (500, 6)).astype(np.float32)
    answers = simulator.response(codes, pages, actions)
    assert {name: block.shape for name, block in answers.items()} == {
        name: (500, size) for name, size in simulator.config.heads.items()
    }
    for row in range(500):
        twin.user, twin.page = twin.one_hot(codes[row]), pages[row]
        for block, want in zip(answers.values(), twin.chances(actions[row]), strict=True):
            np.testing.assert_allclose(block[row], want, atol=3e-6)
    # Another action is another answer, or the comparison would say little.
    other = simulator.response(codes, pages, actions[::-1])
    assert max(np.abs(other[name] - answers[name]).max() for name in answers) > 0.1
    for threads in (1, 3):
        again = simulator.response(codes, pages, actions, num_threads=threads)
        assert kit.equal(again, answers)
    one = simulator.response(codes[7:8], pages[7:8], actions[7:8])
    assert all(np.array_equal(one[name][0], answers[name][7]) for name in answers)


@pytest.mark.parametrize("customers", ["mlp", "mixture", "rows", "autoregressive"])
def test_customers_are_those_of_the_sessions(kit, customers):
    simulator = kit.learned(customers, "outcome")
    codes = simulator.customers(7_000, seed=9)
    log = vtb.rollout(simulator, "random", sessions=7_000, seed=9)
    assert np.array_equal(log["customer"][log["page"] == 0], codes)
    assert np.array_equal(simulator.customers(100, 9, first=6_900), codes[6_900:])
    assert np.array_equal(simulator.customers(7_000, 9, num_threads=1), codes)
    assert simulator.customers(0, 9).shape == (0, 3)
    assert not np.array_equal(simulator.customers(7_000, 10), codes)
    config, schema = simulator.config, simulator.schema
    names = config.customers.shapes(schema.customer)
    alone = _core.Customers.from_tensors(
        json.dumps([{"name": field.name, "size": field.size} for field in schema.customer]),
        config.customers.to_json(),
        config.slope,
        {name: tensor for name, tensor in simulator.tensors().items() if name in names},
    )
    assert np.array_equal(alone.sample(9, 0, 7_000, None), codes)


@pytest.mark.parametrize(("customers", "response"), KINDS)
def test_single_vector_and_rollout_are_one(make, make_vec, kit, customers, response):
    """One stream in three forms, under actions of session and page; and what a policy sees."""
    simulator = kit.learned(customers, response)
    plan, seen = kit.table(7, 11, size=6, seed=2), []

    def policy(observation, session, page):
        seen.append((session.copy(), page.copy(), observation.copy()))
        return plan[session % 7, page % 11]

    log = vtb.rollout(simulator, policy, sessions=80, seed=3, batch_size=16).log
    numbers, pages, observed = map(np.concatenate, zip(*seen, strict=True))
    observed = observed[np.lexsort((pages, numbers))]
    assert np.array_equal(log.observations(), observed)
    assert np.array_equal(log.observations(slice(5, 30)), observed[5:30])

    env, rows = make(simulator=simulator), []
    for session in range(80):
        env.reset(seed=3) if session == 0 else env.reset()
        over, page = False, 0
        while not over:
            _, _, terminated, truncated, info = env.step(plan[session % 7, page % 11])
            over = terminated or truncated
            outcome = info.get("outcome", LEFT if over else TURN)
            rows.append((session, page, info["clicks"], info["deals"], outcome))
            page += 1
    columns = ("session", "page", "clicks", "second", "outcome")
    for name, column in zip(columns, zip(*rows, strict=True), strict=True):
        assert np.array_equal(log[name], column), name
    assert np.array_equal(log["units"], log["second"])
    assert {OUTCOMES[code] for code in log["outcome"]} >= {"turn", "leave"}

    envs = make_vec(num_envs=70, simulator=simulator, autoreset_mode="SameStep")
    observations, _ = envs.reset(seed=[3] * 35 + list(range(100, 135)))
    session, row = 0, 0
    for _ in range(40):
        page = int(observations[0, -1])
        actions = np.repeat(plan[session % 7, page % 11][None], 70, axis=0)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        assert (rewards[:35] == log["clicks"][row]).all()
        ended = bool(terminated[0] or truncated[0])
        assert ended == (log["outcome"][row] != TURN)
        final = infos["final_info"] if ended else infos
        if "outcome" in infos:
            assert final["outcome"][0] == log["outcome"][row]
        session, row = session + ended, row + 1


@pytest.mark.parametrize(("customers", "response"), KINDS)
def test_neither_threads_nor_batches_nor_files_change_a_log(tmp_path, kit, customers, response):
    simulator = kit.learned(customers, response)
    want = vtb.rollout(simulator, "random", sessions=20_000, seed=7, num_threads=1).digest()
    for threads, size in ((2, 57), (3, 8192)):
        log = vtb.rollout(
            simulator, "random", sessions=20_000, seed=7, num_threads=threads, batch_size=size
        )
        assert log.digest() == want
    path = tmp_path / "log.parquet"
    vtb.rollout(simulator, "random", sessions=20_000, seed=7, out=path)
    log = vtb.logs.read_log(path)
    assert log.digest() == want
    assert log.metadata.get("heads") == (
        "outcome" if simulator.config.response.heads == "outcome" else None
    )
    kept = vtb.rollout(simulator, "random", sessions=300, seed=7)
    assert np.array_equal(log.observations(slice(0, len(kept))), kept.log.observations())


@pytest.mark.parametrize("isa", _core.cpu_info()["available"])
def test_every_instruction_set_plays_the_same(tmp_path, kit, isa):
    code = (
        "import sys, virtualtb_fast as vtb\n"
        "for path in sys.argv[1:]:\n"
        "    print(vtb.rollout(path, 'random', sessions=5_000, seed=7).digest())"
    )
    paths, digests = [], []
    for index, kinds in enumerate(KINDS):
        paths.append(str(tmp_path / f"{index}.safetensors"))
        kit.learned(*kinds).save(paths[-1])
        digests.append(vtb.rollout(kit.learned(*kinds), "random", sessions=5_000, seed=7).digest())
    run = subprocess.run(
        [sys.executable, "-c", code, *paths],
        env=os.environ | {"VIRTUALTB_FAST_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == digests
    assert len(set(digests)) == len(KINDS)


@pytest.mark.parametrize(("customers", "response"), KINDS)
def test_the_expected_reward_is_that_of_the_probabilities(make_vec, make, kit, customers, response):
    simulator = kit.learned(customers, response)
    envs = make_vec(num_envs=150, simulator=simulator, reward="expected", anc=(2.0, 0.5))
    plain = make_vec(num_envs=150, simulator=simulator)
    observations, _ = envs.reset(seed=4)
    plain.reset(seed=4)
    going = np.ones(150, bool)
    for actions in np.clip(kit.table(12, 150, size=6, seed=6), -2, 3):
        codes, pages = simulator.schema.codes(observations), observations[:, -1].astype(int)
        answers = simulator.response(codes, pages, actions)
        if "outcome" in answers:
            want = answers["outcome"][:, BUY].astype(np.float64)
        else:
            chances = answers["clicks"].astype(np.float64)
            want = np.zeros(150)
            for clicks in range(chances.shape[1]):
                want += clicks * chances[:, clicks]
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        same = plain.step(actions)
        assert np.array_equal(observations, same[0])
        assert np.array_equal(infos["raw_reward"][going], want[going])
        norms = np.sqrt((actions.astype(np.float64) ** 2).sum(1))
        shaped = want / (1 + 2 * np.maximum(norms - 0.5, 0))
        np.testing.assert_allclose(rewards[going], shaped[going], rtol=1e-12)
        assert (rewards[~going] == 0).all()
        going = ~(terminated | truncated)
    env = make(simulator=simulator, reward="expected")
    env.reset(seed=4)
    _, reward, *_ = env.step(actions[0])
    codes = simulator.customers(1, seed=4)
    answers = simulator.response(codes, np.zeros(1, int), actions[:1])
    first = answers["outcome"][0, BUY] if "outcome" in answers else None
    assert first is None or reward == np.float64(first)
