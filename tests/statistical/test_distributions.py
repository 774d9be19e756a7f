"""A million sessions against the networks' own probabilities.

For every page that the environment plays, the reference network says how probable each answer was.
Summed over all pages this gives the expected histogram and its exact covariance, so the only
randomness left is the environment's own. The same holds for page limits, given the customers.
Customers are compared with the mean of the generator over noise of another source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

P_VALUE = 1e-4
"""Below it a test fails. About 40 are made here, with fixed seeds."""

WRONG = 0.5
"""Nat by which the void guards move one logit; most answers are near certain and show little."""


class Histogram:
    """Observed counts, expected counts and their covariance.

    ``wrong`` is what networks would expect that are wrong on purpose.
    """

    def __init__(self, size):
        self.observed, self.expected, self.wrong = np.zeros((3, size))
        self.products = np.zeros((size, size))
        self._rows = []

    def add(self, values, probabilities, wrong):
        self.observed += np.bincount(values, minlength=len(self.observed))
        self.wrong += wrong.sum(0, dtype=np.float64)
        self._rows.append(probabilities)
        if sum(map(len, self._rows)) > 100_000:
            self.close()

    def close(self):
        """Counts the rows that wait: many at once, which is much faster."""
        rows = np.concatenate(self._rows)
        self.expected += rows.sum(0, dtype=np.float64)
        self.products += rows.T @ rows
        self._rows = []

    def p_value(self, expected):
        covariance = np.diag(self.expected) - self.products
        # Bins of fewer than 20 expected go together with the last one.
        keep = np.flatnonzero(self.expected >= 20)[:-1]
        difference = (self.observed - expected)[keep]
        covariance = covariance[np.ix_(keep, keep)]
        statistic = difference @ np.linalg.solve(covariance, difference)
        return stats.chi2.sf(statistic, len(keep))


@dataclass
class Census:
    """What a number of sessions looked like."""

    sessions: int
    fields: list
    lengths: Histogram
    clicks: Histogram
    second: Histogram
    clicks_by_page: Any
    pages_by_page: Any
    returns: Any


def softmax(logits):
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def length_probabilities(logits):
    """A limit of 0 plays one page, as a limit of 1 does."""
    limits = softmax(logits)
    limits[:, 1] += limits[:, 0]
    limits[:, 0] = 0
    return limits


def moved(logits, category):
    logits = logits.copy()
    logits[:, category] += WRONG
    return logits


def census(envs, networks, policy, each):
    """The first ``each`` sessions of every environment, so that long ones are not left out."""
    simulator, count = envs.simulator, envs.num_envs
    schema, config = simulator.schema, simulator.config
    width, heads = schema.customer_width, config.response.clicks
    out = Census(
        sessions=count * each,
        fields=[np.zeros(one.size) for one in schema.customer],
        lengths=Histogram(config.leave.classes),
        clicks=Histogram(heads),
        second=Histogram(config.response.second),
        clicks_by_page=np.zeros(config.leave.classes),
        pages_by_page=np.zeros(config.leave.classes),
        returns=np.zeros((count, each)),
    )
    rng = np.random.default_rng(17)
    observations, _ = envs.reset(seed=3 << 32)
    played = np.zeros(count, np.int64)
    chances = np.zeros((count, config.leave.classes), np.float32)
    while (live := np.flatnonzero(played < each)).size:
        actions = policy(rng, count, schema.action)
        users, pages = observations[live, :width], observations[live, -1].astype(np.int64)
        new = live[pages == 0]
        if new.size:
            for index, codes in enumerate(schema.codes(observations[new]).T):
                out.fields[index] += np.bincount(codes, minlength=len(out.fields[index]))
            logits = networks["leave"](observations[new, :width])
            chances[new] = logits
        scaled = (pages * config.response.page_scale)[:, None].astype(np.float32)
        logits = networks["action"](np.concatenate((users, scaled, actions[live]), axis=1))
        observations, rewards, terminated, _, infos = envs.step(actions)
        second = infos["deals"] + infos.get("final_info", {}).get("deals", 0)
        clicks = rewards.astype(np.int64)[live]
        for histogram, values, part in (
            (out.clicks, clicks, logits[:, :heads]),
            (out.second, second[live], logits[:, heads:]),
        ):
            histogram.add(values, softmax(part), softmax(moved(part, 0)))
        np.add.at(out.clicks_by_page, pages, clicks)
        np.add.at(out.pages_by_page, pages, 1)
        out.returns[live, played[live]] += clicks
        ended = live[terminated[live]]
        lengths = pages[terminated[live]] + 1
        wrong = length_probabilities(moved(chances[ended], 2))
        out.lengths.add(lengths, length_probabilities(chances[ended]), wrong)
        played[ended] += 1
    for histogram in (out.lengths, out.clicks, out.second):
        histogram.close()
    return out


def uniform(rng, count, size):
    return rng.uniform(-1, 1, (count, size)).astype(np.float32)


def zero(rng, count, size):
    return np.zeros((count, size), np.float32)


POLICIES = {"uniform": uniform, "zero": zero}


@pytest.fixture(scope="module")
def networks(published):
    """The published networks: ``forward``, which the parity tests hold against PyTorch."""
    return {
        model: lambda x, model=model: published.forward(model, np.ascontiguousarray(x))
        for model in ("generator", "action", "leave")
    }


@pytest.fixture(scope="module")
def make_census(published, networks):
    from virtualtb_fast.envs.vector import VirtualTBV1Vector

    kept = {}

    def once(name):
        if name not in kept:
            envs = VirtualTBV1Vector(4096, published, autoreset_mode="SameStep")
            kept[name] = census(envs, networks, POLICIES[name], each=245)
        return kept[name]

    return once


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("what", ["lengths", "clicks", "second"])
def test_a_million_sessions(make_census, policy, what):
    million = make_census(policy)
    assert million.sessions > 1_000_000
    histogram = getattr(million, what)
    assert histogram.observed.sum() == pytest.approx(histogram.expected.sum(), rel=1e-5)
    assert histogram.p_value(histogram.expected) > P_VALUE
    # The void guard: the same numbers do not fit networks that are 0.5 nat off.
    assert histogram.p_value(histogram.wrong) < 1e-9


@pytest.fixture(scope="module")
def expected_fields(networks):
    """The mean probabilities of each field over a million noises of numpy's own."""
    from virtualtb_fast.schema import V0_SCHEMA

    rng, rounds = np.random.default_rng(5), 50
    shares = {"right": np.zeros(88), "moved": np.zeros(88)}
    for _ in range(rounds):
        logits = networks["generator"](rng.random((20_000, 128), np.float32))
        for columns in V0_SCHEMA.slices.values():
            shares["right"][columns] += softmax(logits[:, columns]).mean(0) / rounds
            top = int(logits[0, columns].argmax())
            moved_logits = moved(logits[:, columns], top)
            shares["moved"][columns] += softmax(moved_logits).mean(0) / rounds
    split = V0_SCHEMA.slices.values()
    return {key: [share[columns] for columns in split] for key, share in shares.items()}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("index", range(11))
def test_the_customers_of_a_million_sessions(make_census, expected_fields, policy, index):
    counts = make_census(policy).fields[index]
    assert counts.sum() == make_census(policy).sessions
    for key, fits in (("right", True), ("moved", False)):
        expected = expected_fields[key][index] * counts.sum()
        p_value = stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue
        assert (p_value > P_VALUE) == fits


def test_the_published_numbers_under_uniform_actions(make_census):
    million = make_census("uniform")
    pages, clicks = million.pages_by_page.sum(), million.clicks_by_page.sum()
    assert clicks / pages / 10 == pytest.approx(0.0184, abs=0.0004)
    assert pages / million.sessions == pytest.approx(7.785, abs=0.045)
    lengths = million.lengths.observed
    assert lengths[1] / million.sessions == pytest.approx(0.139, abs=0.002)
    share = np.cumsum(lengths) / million.sessions
    quantiles = [int((share < level).sum()) for level in (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)]
    assert quantiles[:5] == [1, 2, 4, 8, 17]
    assert quantiles[5] in (60, 61)
    assert 1 - million.clicks.observed[0] / pages == pytest.approx(0.128, abs=0.002)
    assert million.returns.mean() == pytest.approx(1.44, abs=0.02)
    assert million.returns.std() == pytest.approx(2.71, abs=0.05)


def test_the_published_numbers_under_the_zero_action(make_census):
    million = make_census("zero")
    pages, clicks = million.pages_by_page.sum(), million.clicks_by_page.sum()
    assert 0.054 <= clicks / pages / 10 <= 0.059
    assert 1 - million.clicks.observed[0] / pages == pytest.approx(0.30, abs=0.01)
    by_page = million.clicks_by_page[:6] / million.pages_by_page[:6]
    assert by_page[[0, 1, 2, 5]] == pytest.approx([1.28, 0.84, 0.65, 0.51], abs=0.03)
    assert 1 - million.second.observed[0] / pages == pytest.approx(0.126, abs=0.005)


@pytest.mark.parametrize("policy", POLICIES)
def test_another_shop(shop, kit, policy):
    """The same, for 300,000 sessions of a shop of another shape."""
    from virtualtb_fast.envs.vector import VirtualTBV1Vector

    networks = {
        model: lambda x, network=network: network(x).astype(np.float32)
        for model, network in kit.numpy_networks(shop).items()
    }
    envs = VirtualTBV1Vector(1000, shop, autoreset_mode="SameStep")
    result = census(envs, networks, POLICIES[policy], each=300)
    for what in ("lengths", "clicks", "second"):
        histogram = getattr(result, what)
        assert histogram.p_value(histogram.expected) > P_VALUE
        assert histogram.p_value(histogram.wrong) < 1e-9
    generator = networks["generator"](np.random.default_rng(1).random((400_000, 7)))
    for columns, counts in zip(shop.schema.slices.values(), result.fields, strict=True):
        expected = softmax(generator[:, columns]).mean(0, dtype=np.float64) * counts.sum()
        expected *= counts.sum() / expected.sum()
        # The reference's own noise, up to 3 / 4 of the sessions', widens the statistic.
        statistic = ((counts - expected) ** 2 / expected).sum() / 1.75
        assert stats.chi2.sf(statistic, len(counts) - 1) > P_VALUE
