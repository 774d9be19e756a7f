"""TRPO-ANC in simulators and stores: it improves, where there is something to learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from virtualtb_fast._torch import torch
from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError
from virtualtb_fast.evaluation.reproduce.drift import _blind
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.linear import fit_linear
from virtualtb_fast.imitation.simulate import logged_customers, simulator_of
from virtualtb_fast.policies import trpo as trainer
from virtualtb_fast.policies.play import Lanes
from virtualtb_fast.policies.trpo import TrainConfig, train
from virtualtb_fast.rl import returns
from virtualtb_fast.rl.trpo import TrpoConfig
from virtualtb_fast.rollout import rollout
from virtualtb_fast.store import LOGGED_MU, GroundTruthStore

SEED = 9 << 24
QUICK = TrainConfig(
    iterations=90, plateau=None, lanes=512, hidden=(16,), step=TrpoConfig(delta=0.5), num_threads=1
)
TINY = TrainConfig(iterations=6, least=6, lanes=32, steps=3, hidden=(8,), num_threads=1)


@pytest.fixture(scope="module")
def store() -> GroundTruthStore:
    return GroundTruthStore()


@pytest.fixture(scope="module")
def pages(store: GroundTruthStore) -> Pages:
    return Pages.from_log(rollout(store, "logger", sessions=60_000, seed=1 << 24).log)


@pytest.fixture(scope="module")
def simulator(pages: Pages) -> Any:
    return simulator_of(fit_linear(pages, seed=SEED), logged_customers(pages), pages.schema)


def r2p(place: Any, policy: Any) -> float:
    return rollout(place, policy, sessions=60_000, seed=2 << 24, keep=False).r2p


def test_it_improves_in_the_simulator_and_in_truth(
    store: Any, simulator: Any, pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(simulator, mu=LOGGED_MU, seed=SEED, config=QUICK)
    logger, zero = r2p(simulator, f"gaussian:{LOGGED_MU / 6.2}"), r2p(simulator, "zero")
    true_zero = store.expected("zero").r2p

    def improves(policy: Any) -> tuple[bool, bool]:
        return (
            r2p(simulator, policy) > 1.2 * max(logger, zero),
            r2p(store, policy) > true_zero + 0.01,
        )

    assert improves(trained.policy) == (True, True)
    history = trained.report["history"]
    assert {len(column) for column in history.values()} == {90}
    assert history["r2p"][-1] > 1.2 * history["r2p"][0]
    assert trained.report["norm"] < 1.3 * LOGGED_MU
    # What is reported is the reward before the constraint.
    assert history["r2p"][-1] > 1.01 * history["reward"][-1]
    # Void guards: customers who are all alike, and rewards that belong to other pages.
    blind = train(_blind(pages), mu=LOGGED_MU, seed=SEED, config=QUICK)
    assert improves(blind.policy) == (False, False)
    real = returns.advantages

    def shuffled(reward: Any, *rest: Any, **options: Any) -> Any:
        order = torch.randperm(len(reward), generator=torch.Generator().manual_seed(0))
        return real(reward[order], *rest, **options)

    monkeypatch.setattr(returns, "advantages", shuffled)
    lost = train(simulator, mu=LOGGED_MU, seed=SEED, config=QUICK)
    assert improves(lost.policy) == (False, False)


def test_the_constraint_keeps_actions_at_usual_norms(simulator: Any) -> None:
    norms = {
        form: train(
            simulator, mu=LOGGED_MU, seed=SEED, config=replace(QUICK, constraint=form)
        ).report["norm"]
        for form in ("scaled", None)
    }
    assert norms["scaled"] < 1.2 * LOGGED_MU
    # Void guard: without it a linear simulator is believed far out.
    assert norms[None] > 1.5 * LOGGED_MU


def tensors(trained: Any) -> dict[str, Any]:
    return trained.sampled.tensors()


def equal(one: Any, other: Any) -> bool:
    mine, yours = tensors(one), tensors(other)
    return set(mine) == set(yours) and all(np.array_equal(mine[key], yours[key]) for key in mine)


@pytest.mark.parametrize("kind", ["simulator", "store"])
def test_a_seed_decides_every_bit_and_a_kill_changes_none(
    kind: str, simulator: Any, store: Any, keeper: Any
) -> None:
    place = simulator if kind == "simulator" else store
    kept, told = keeper(), []
    first = train(
        place, mu=LOGGED_MU, seed=SEED, config=TINY, checkpoint=kept,
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert [words[:3] for words in told] == [("policy", n, 6) for n in range(1, 7)]
    assert equal(first, train(place, mu=LOGGED_MU, seed=SEED, config=replace(TINY, num_threads=2)))
    assert not equal(first, train(place, mu=LOGGED_MU, seed=SEED + 1, config=TINY))
    # Base seeds of other runs differ in their high bits alone.
    assert not equal(first, train(place, mu=LOGGED_MU, seed=SEED | 1 << 32, config=TINY))
    assert len(kept.history) == 6
    for state in (kept.history[0], kept.history[3], kept.history[5]):
        again = train(place, mu=LOGGED_MU, seed=SEED, config=TINY, checkpoint=keeper(state))
        assert equal(first, again)
        assert again.report["history"] == first.report["history"]
    # The policy that is handed over shows the mean of the one that draws.
    assert "log_sd" not in first.policy.tensors()
    assert first.policy.provenance["place"] == place.digest


def test_it_stops_on_a_plateau(pages: Any) -> None:
    config = replace(TINY, iterations=40, least=12)
    flat = _blind(pages)
    report = train(flat, mu=LOGGED_MU, seed=SEED, config=config).report
    assert (report["iterations"], report["plateau"]) == (12, True)
    report = train(flat, mu=LOGGED_MU, seed=SEED, config=replace(config, plateau=None)).report
    assert (report["iterations"], report["plateau"]) == (40, False)


def test_growth_is_measured_two_tenths_apart(simulator: Any) -> None:
    training = trainer._Training(simulator, LOGGED_MU, replace(TINY, least=10), 0)
    for growth, level in ((1.0, True), (1.004, True), (1.006, False), (0.9, True)):
        training.history = np.zeros((20, 6))
        # Tenths are two rows long, so four rows lie between the two that are compared.
        training.history[:, 0] = 0.1 * growth ** (np.arange(20) / 2)
        assert training.levelled() == level
    training.history = training.history[:9]
    assert not training.levelled()


def test_a_store_that_remembers_actions_is_a_place_as_well() -> None:
    place = GroundTruthStore(memory=3)
    trained = train(place, mu=LOGGED_MU, seed=SEED, config=replace(TINY, gamma=0.9))
    assert trained.report["iterations"] == 6
    assert np.isfinite(trained.report["history"]["reward"]).all()


def test_clicks_are_rewards_too() -> None:
    import virtualtb_fast as vtb

    config = replace(TINY, reward="clicks", constraint="paper", gamma=0.9)
    trained = train(vtb.load_simulator(), mu=0.1, seed=SEED, config=config)
    assert trained.report["anc"] == (1.0, 0.01)


def test_bad_input_is_refused(simulator: Any, store: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="a Simulator or a GroundTruthStore, got str"):
        train("mine.safetensors", mu=LOGGED_MU, seed=0)  # type: ignore[arg-type]
    for mu in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidArgumentError, match="mu > 0"):
            train(simulator, mu=mu, seed=0, config=replace(TINY, constraint=None))
    with pytest.raises(InvalidArgumentError, match="reward"):
        train(store, mu=LOGGED_MU, seed=0, config=replace(TINY, reward="clicks"))
    for wrong in ({"lanes": 0}, {"gamma": 1.5}, {"noise": 0.0}, {"plateau": -0.1}, {"least": 2.5}):
        with pytest.raises(InvalidArgumentError):
            replace(TINY, **wrong)  # type: ignore[arg-type]


def test_rewards_below_zero_are_refused(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(simulator, lanes=8, steps=3, reward=None, anc=None, seed=0, num_threads=1)
    policy = trainer._Training(simulator, LOGGED_MU, TINY, 0).policy
    step = lanes.envs.step

    def lossy(actions: Any) -> Any:
        seen, reward, *rest = step(actions)
        return seen, reward - 1.0, *rest

    monkeypatch.setattr(lanes.envs, "step", lossy)
    with pytest.raises(InvalidArgumentError, match="none below 0"):
        lanes.play(policy, torch.Generator())


def test_a_training_that_diverges_says_so_and_keeps_what_was_good(
    simulator: Any, keeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, played = keeper(), Lanes.play
    asked: list[int] = []

    def broken(self: Any, *words: Any) -> Any:
        asked.append(0)
        batch = played(self, *words)
        return replace(batch, reward=batch.reward * float("nan")) if len(asked) == 4 else batch

    with monkeypatch.context() as patch:
        patch.setattr(Lanes, "play", broken)
        with pytest.raises(TrainingDivergedError, match="reward: expected finite") as caught:
            train(simulator, mu=LOGGED_MU, seed=SEED, config=TINY, checkpoint=kept)
    assert caught.value.step == 4
    assert len(caught.value.state["history"]) == 3 == len(kept.state["history"])
    whole = train(simulator, mu=LOGGED_MU, seed=SEED, config=TINY)
    again = train(simulator, mu=LOGGED_MU, seed=SEED, config=TINY, checkpoint=kept)
    assert equal(whole, again)
