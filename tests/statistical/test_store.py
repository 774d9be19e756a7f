"""The store against its own definition: customers, tastes, answers. Seeds are fixed; each bound
is four standard errors or a p-value of 1e-4 over all that is compared, unless it says otherwise."""

from __future__ import annotations

import ast
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from scipy import stats

import virtualtb_fast as vtb
from virtualtb_fast.store import LOGGED_MU, LOGGED_SD, ConstantCustomer, GroundTruthStore

REPORTED = 100 << 32


@pytest.fixture(scope="module")
def store() -> GroundTruthStore:
    return GroundTruthStore(REPORTED)


def environments(store: GroundTruthStore, n: int) -> Any:
    return gymnasium.make_vec(
        "virtualtb_fast:GroundTruthStore-v0", num_envs=n, store=store, autoreset_mode="SameStep"
    ).unwrapped


def customers(store: GroundTruthStore, n: int, seed: int) -> np.ndarray:
    """Field codes of n customers, from the first observations of n sessions."""
    return store.schema.codes(environments(store, n).reset(seed=seed)[0])


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """The p-value of counts; cells that expect fewer than 8 are merged."""
    expected = probabilities * counts.sum()
    rare = expected < 8
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 8:
        counts[-2], expected[-2] = counts[-2] + counts[-1], expected[-2] + expected[-1]
        counts, expected = counts[:-1], expected[:-1]
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(stats.chi2.sf(statistic, len(counts) - 1))


def test_sampled_pairs_of_fields_have_their_exact_probabilities(store: GroundTruthStore) -> None:
    codes = customers(store, 400_000, 3 << 32)
    hidden = store.reveal()
    blocks = [hidden.fields[:, columns] for columns in store.schema.slices.values()]
    worst, worst_independent = 1.0, 1.0
    for a, b in combinations(range(11), 2):
        left, right = blocks[a], blocks[b]
        counts = np.zeros((left.shape[1], right.shape[1]))
        np.add.at(counts, (codes[:, a], codes[:, b]), 1)
        exact = np.einsum("k,ka,kb->ab", hidden.shares, left, right)
        worst = min(worst, chi_square(counts.ravel(), exact.ravel()))
        alone = np.outer(hidden.shares @ left, hidden.shares @ right)
        worst_independent = min(worst_independent, chi_square(counts.ravel(), alone.ravel()))
    assert worst > 1e-4 / 55
    # Void guard: fields that do not depend on one another.
    assert worst_independent < 1e-100


@pytest.mark.parametrize(("seed", "day"), [(REPORTED, 0), (0, 0), (101 << 32, 30)])
def test_the_density_is_that_of_whole_customers(seed: int, day: int) -> None:
    store = GroundTruthStore(seed, day=day, calibrate=False, tau=1.0, b0=-5.5)
    first, second = (customers(store, 400_000, seed << 32) for seed in (4, 5))
    rows, counts = np.unique(first, axis=0, return_counts=True)
    frequent = rows[np.argsort(-counts)[:500]]
    density = np.exp(store.reveal().log_density(frequent))
    keys = {row.tobytes(): index for index, row in enumerate(frequent)}
    seen = np.bincount([keys.get(row.tobytes(), 500) for row in second], minlength=501)
    probabilities = np.append(density, 1 - density.sum())
    assert probabilities[-1] > 0
    assert chi_square(seen, probabilities) > 1e-4
    # Void guard: a density that is off by a twentieth at every other customer.
    wrong = density * np.where(np.arange(500) % 2, 1.05, 0.95)
    assert chi_square(seen, np.append(wrong, 1 - wrong.sum())) < 1e-4
    # Void guard: the density of another day.
    other = GroundTruthStore(seed, day=15, calibrate=False, tau=1.0, b0=-5.5)
    wrong = np.exp(other.reveal().log_density(frequent))
    assert chi_square(seen, np.append(wrong, 1 - wrong.sum())) < 1e-4


def test_sessions_play_out_as_computed(store: GroundTruthStore) -> None:
    n, steps = 8192, 120
    hidden = store.reveal()
    rng = np.random.default_rng(0)

    def r2p(choose: Any) -> tuple[float, int]:
        envs = environments(store, n)
        envs.reset(seed=6 << 32)
        buys = sum(float(envs.step(choose(envs))[1].sum()) for _ in range(steps))
        return buys / (n * steps), n * steps

    def logger(envs: Any) -> np.ndarray:
        return rng.normal(0, LOGGED_SD, (n, 27)).astype(np.float32)

    def oracle(envs: Any) -> np.ndarray:
        return hidden.best_responses(envs.reveal_archetypes())

    played = {
        "zero": r2p(lambda envs: np.zeros((n, 27), np.float32)),
        "logger": r2p(logger),
        "uniform": r2p(lambda envs: rng.uniform(-1, 1, (n, 27)).astype(np.float32)),
        "oracle": r2p(oracle),
    }
    for name, (rate, pages) in played.items():
        expected = store.expected(name)
        # The last sessions are cut, which favours first pages; 6 sampling errors of the exact
        # figure's own pages (.0003) and of these allow for that.
        bound = 6 * math.sqrt(expected.r2p / pages) + 0.0005
        assert abs(rate - expected.r2p) < bound, (name, rate, expected)
        # Void guard: the bound tells every policy from every other.
        others = [store.expected(other).r2p for other in played if other != name]
        assert min(abs(rate - other) for other in others) > bound, (name, rate, others)
    assert played["uniform"][0] < 0.8 * played["logger"][0]
    assert played["oracle"][0] > 2 * played["logger"][0]
    assert abs(hidden.calibration["logger"] - 0.09) <= 0.003


def test_the_counters_are_those_of_the_event_log(store: GroundTruthStore) -> None:
    """R2P, TV and TT recomputed from the raw events in plain Python, equal exactly."""
    counted = []
    pages = buys = units = cents = sessions = 0
    squared = 0
    for seed in (9 << 32, 10 << 32):
        envs = environments(store, 3000)
        envs.reset(seed=seed)
        rng = np.random.default_rng(seed)
        for _ in range(25):
            actions = rng.normal(0, LOGGED_SD, (3000, 27)).astype(np.float32)
            _, _, terminated, truncated, infos = envs.step(actions)
            final, ended = infos["final_info"], infos["_final_info"]
            for env in range(3000):
                event = final if ended[env] else infos
                pages += 1
                buys += int(event["outcome"][env]) == 1
                units += int(event["units"][env])
                cents += round(float(event["value"][env]) * 100)
                if terminated[env] or truncated[env]:
                    sessions += 1
                    squared += int(event["page"][env]) ** 2
        counted.append(envs.counters())
    total = counted[0] + counted[1]
    assert (total.pages, total.sessions, total.buy_pages) == (pages, sessions, buys)
    assert (total.tv, total.cents, total.pages_squared) == (units, cents, squared)
    assert total.r2p == buys / pages
    assert total.tt == cents / 100
    assert total.ctr == buys / (10 * pages)
    assert sum(total.outcomes) == pages
    assert sum(total.sessions_by_length) == sessions
    # Void guard: the two halves differ, so one of them alone would not pass.
    assert counted[0] != counted[1]
    assert counted[0].cents != cents


def test_logged_norms_are_the_documented_ones() -> None:
    norms = np.linalg.norm(np.random.default_rng(0).normal(0, LOGGED_SD, (100_000, 27)), axis=1)
    assert abs(np.median(norms) - 0.030) < 0.0002
    assert abs(np.quantile(norms, 0.9) - LOGGED_MU) < 0.0003


def late(pages: dict[str, np.ndarray]) -> np.ndarray:
    """A customer who reacts to nothing but the sign of the action two pages ago."""
    weights = np.zeros((len(pages["page"]), 12))
    buys = np.where(pages["actions"][:, 2, 0] > 0, 0.3, 0.05)
    weights[:, :10] = buys[:, None] / 10
    weights[:, 10] = 1 - buys
    return weights


def test_memory_is_what_makes_an_answer_predictable() -> None:
    """A table by the last action misfits, one by the last three does not."""
    store = GroundTruthStore(1, calibrate=False, tau=1.0, b0=-6.0, memory=3, customers=late)
    n, rng = 2048, np.random.default_rng(1)
    envs = environments(store, n)
    envs.reset(seed=7 << 32)
    signs = np.zeros((n, 3), int)
    rows = []
    for _ in range(60):
        actions = np.zeros((n, 27), np.float32)
        actions[:, 0] = rng.choice([-0.5, 0.5], n)
        signs = np.column_stack((np.sign(actions[:, 0]).astype(int), signs[:, :2]))
        _, rewards, terminated, truncated, _ = envs.step(actions)
        rows.append(np.column_stack((signs, rewards.astype(int))))
        # The next customer has no past.
        signs[terminated | truncated] = 0
    log = np.concatenate(rows)
    half = len(log) // 2

    def misfit(memory: int) -> float:
        def cells(part: np.ndarray, width: int) -> np.ndarray:
            return ((part[:, :width] + 1) * 3 ** np.arange(width)).sum(1)

        known, full = cells(log[:half], memory), cells(log[half:], 3)
        shown = np.bincount(known, minlength=3**memory)
        bought = np.bincount(known, log[:half, 3], minlength=3**memory)
        rate = bought / np.maximum(shown, 1)
        statistic, freedom = 0.0, 0
        for cell in np.unique(full):
            inside = log[half:][full == cell]
            table = cells(inside[:1], memory)[0]
            count, p = len(inside), rate[table]
            # The table itself was estimated: its error counts as well.
            variance = p * (1 - p) * count * (1 + count / max(shown[table], 1))
            statistic += (inside[:, 3].sum() - count * p) ** 2 / variance
            freedom += 1
        return float(stats.chi2.sf(statistic, freedom))

    assert misfit(1) < 1e-6
    assert misfit(3) > 0.01


def test_constant_customers_through_the_environments() -> None:
    store = GroundTruthStore(
        1, calibrate=False, tau=1.0, b0=-6.0, customers=ConstantCustomer(0.2, 0.5)
    )
    envs = environments(store, 8192)
    envs.reset(seed=8 << 32)
    zeros = np.zeros((8192, 27), np.float32)
    buys = np.mean([envs.step(zeros)[1].mean() for _ in range(30)])
    error = math.sqrt(0.2 * 0.8 / (8192 * 30))
    assert abs(buys - 0.2) < 4 * error
    assert abs(buys - 0.21) > 4 * error


REVEALING = {"reveal", "reveal_archetypes", "best_responses", "expected"}
"""What tells hidden things; `log_density` and the rest are of what `reveal` gives alone."""
TEXTS = REVEALING - {"expected"}
"""As texts: the environments' ``reward="expected"`` is what a learned simulator pays."""
MAY_REVEAL = {
    "_world.py",
    "store.py",
    "envs/store.py",
    "evaluation/customer_data.py",
    "evaluation/responses.py",
    "evaluation/imitation.py",
    "evaluation/reproduce/drift.py",
    "evaluation/truth.py",
}
"""Modules one by one: those that define what is hidden, and those that judge by it."""


def revealed(source: str) -> list[str]:
    """What a module's code takes that is hidden from learners."""
    nodes = list(ast.walk(ast.parse(source)))
    named = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    # What getattr and its like are told; prose is no such text.
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return sorted(REVEALING.intersection(named) | {text for text in texts if text in TEXTS})


def test_training_code_never_reveals() -> None:
    package = Path(vtb.__file__).parent
    modules = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    assert len(modules) > 25
    assert modules.keys() > MAY_REVEAL
    for name in modules.keys() - MAY_REVEAL:
        assert revealed(modules[name].read_text()) == [], name
    # Void guard: what would be found.
    assert revealed("theta = store.reveal().theta") == ["reveal"]
    assert revealed("theta = getattr(store, 'reveal')().theta") == ["reveal"]
    assert revealed((package / "envs/store.py").read_text()) == ["reveal"]
