"""Ways to learn customers, judged in ground-truth stores world by world.

A cell (world x method) holds the figures of `virtualtb_fast.evaluation.responses` and, beside each,
its void guard: the same figure of something trivially wrong.
`virtualtb_fast.evaluation.reproduce.responses` makes a table of them.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from virtualtb_fast._torch import torch
from virtualtb_fast._training import Progress
from virtualtb_fast.evaluation import responses as judge
from virtualtb_fast.imitation import cloning, linear, mail
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.response import Engine, FittedResponse
from virtualtb_fast.imitation.simulate import logged_customers, simulator_of
from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.networks import stream
from virtualtb_fast.policies import Policy
from virtualtb_fast.rollout import rollout
from virtualtb_fast.schema import Schema
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import LOGGED_SD, GroundTruthStore

__all__ = ["Sizes", "cell"]

LOGGER = f"gaussian:{LOGGED_SD}"
TRAIN, PLAYED, SHIFTED, FRESH, EFFECT, EXCESS, QUERY, TEST = range(1, 9)
"""Purposes of random numbers."""
BUY_BIAS = 0.05
"""On the logit of buying: about the least that adds .004 to an R2P of .09, twice the gap that is
allowed, so that it fails wherever a fit lies within the bound."""
LEAVE_BIAS = 0.2
"""On the logit of leaving: sessions of five pages get 7 to 8 % shorter; 5 are allowed."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    train: int = 200_000
    """Logged sessions."""
    played: int = 400_000
    """Sessions of each side in comparisons of rollouts."""
    judged: int = 20_000
    """Sessions of each side for the fresh discriminator."""
    pages: int = 200_000
    """Pages for the likelihood."""
    customers: int = 20_000
    """Customers for the effect of actions."""
    iterations: int | None = None
    """Most of MAIL, if not its default."""
    cloning: cloning.CloningConfig = field(default_factory=cloning.CloningConfig)
    """Of customers and engine."""


def seed_of(world: int, purpose: int) -> int:
    """The base seed of a purpose in a world."""
    return (world << 32) | (purpose << 24)


def learn(
    method: str, pages: Pages, seed: int, sizes: Sizes, progress: Progress | None = None
) -> tuple[FittedResponse, Engine, dict[str, Any]]:
    """Customers and engine by one of the methods."""
    shared: dict[str, Any] = {"seed": seed, "progress": progress}
    if method in ("bc", "linear"):
        if method == "bc":
            fitted = cloning.clone_response(pages, config=sizes.cloning, **shared)
        else:
            fitted = linear.fit_linear(pages, **shared)
        engine = cloning.clone_engine(pages, config=sizes.cloning, **shared)
        return fitted, engine, fitted.report
    settings: dict[str, Any] = {"cloning": sizes.cloning, "num_threads": 1}
    if sizes.iterations is not None:
        settings["iterations"] = sizes.iterations
    if method == "mail-paper":
        config = mail.MailConfig.paper(**settings)
    else:
        config = mail.MailConfig(init="random" if method == "mail" else "bc", **settings)
    result = mail.fit_mail(pages, config=config, **shared)
    return result.response, result.engine, result.report


def shifted(schema: Schema) -> Policy:
    """The logger, one standard deviation off in every dimension: never logged."""
    nothing = np.zeros((27, schema.observation_width), np.float32)
    return Policy.from_tensors(
        [(nothing, np.full(27, LOGGED_SD, np.float32))],
        schema=schema,
        log_sd=np.full(27, np.log(LOGGED_SD)),
    )


def cell(
    world: int, method: str, sizes: Sizes = Sizes(), progress: Progress | None = None
) -> dict[str, Any]:
    """Fits one method in one world and measures it."""
    store = GroundTruthStore(world << 32)
    log = rollout(store, "logger", sessions=sizes.train, seed=seed_of(world, TRAIN)).log
    pages = Pages.from_log(log)
    began, cpu = time.perf_counter(), time.process_time()
    fitted, engine, report = learn(method, pages, seed_of(world, 0), sizes, progress)
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    simulator = simulator_of(fitted, logged_customers(pages), pages.schema)
    out: dict[str, Any] = {
        "world": world,
        "method": method,
        "fit": {**report, **took},
        **against_truth(store, log, fitted, simulator, world, sizes),
    }
    made = rollout(
        simulator, engine.to_policy(), sessions=sizes.judged, seed=seed_of(world, FRESH)
    ).log
    real = rollout(store, "logger", sessions=sizes.judged, seed=seed_of(world, FRESH)).log
    sides = Pages.from_log(real), Pages.from_log(made)
    mixed = independent(sides[0], world)
    out["telling_apart"] = {
        "auc": judge.telling_apart(*sides, seed_of(world, FRESH)),
        "independent_fields": judge.telling_apart(sides[0], mixed, seed_of(world, FRESH)),
    }
    hasty = rollout(
        biased(simulator, "leave", LEAVE_BIAS),
        engine.to_policy(),
        sessions=sizes.judged,
        seed=seed_of(world, FRESH),
    )
    lengths = [len(one) / one.sessions for one in sides]
    out["length"] = {
        "generated": lengths[1],
        "real": lengths[0],
        "ratio": lengths[1] / lengths[0],
        "biased_ratio": hasty.summary.mean_session_length / lengths[0],
    }
    out["engine"] = engine_gap(world, method, sizes)
    return out


def biased(simulator: Simulator, outcome: str, by: float) -> Simulator:
    """The same customers with ``by`` more on the logit of an outcome, on every page."""
    tensors = dict(simulator.tensors())
    layers = [int(name.split(".")[1]) for name in tensors if name.startswith("action.")]
    name = f"action.{max(layers)}.bias"
    tensors[name] = tensors[name].copy()
    tensors[name][OUTCOMES.index(outcome)] += by
    return Simulator.from_tensors(
        tensors,
        name=f"{simulator.name}, biased",
        schema=simulator.schema,
        config=simulator.config,
    )


def against_truth(
    store: GroundTruthStore,
    log: Any,
    fitted: FittedResponse,
    simulator: Simulator,
    world: int,
    sizes: Sizes,
) -> dict[str, Any]:
    """Effect of actions, likelihood, R2P and sessions: learned, true, and of the guards."""

    def learned(codes: Any, page: Any, action: Any) -> Any:
        return fitted.probabilities(codes, page, action)["outcome"]

    def blind(codes: Any, page: Any, action: Any) -> Any:
        return learned(codes, page, np.zeros_like(action))

    shares = np.bincount(log["outcome"], minlength=3)[:3] / len(log)

    def constant(codes: Any, page: Any, action: Any) -> Any:
        return np.broadcast_to(shares, (len(codes), 3))

    test = rollout(store, "logger", sessions=sizes.customers, seed=seed_of(world, TEST)).log
    codes = test["customer"][test.session_offsets()[:-1]]
    effect = [
        judge.action_effect(model, store, codes, seed_of(world, EFFECT))
        for model in (learned, blind)
    ]
    excess = judge.excess_likelihood(
        {"learned": learned, "constant": constant},
        store,
        pages=sizes.pages,
        seed=seed_of(world, EXCESS),
    )
    many, r2p = sizes.played, {}
    distances: dict[str, dict[str, float]] = {}
    tables = {
        "feature_blind": judge.answers_by_page(log),
        "constant": judge.answers_by_page(log, constant=True),
    }
    for name, policy in (("logger", LOGGER), ("shifted", shifted(log.schema))):
        true, again, truth = truly(world, name, many)
        seed = seed_of(world, PLAYED if name == "logger" else SHIFTED)
        ours = rollout(simulator, policy, sessions=many, seed=seed)
        distances[name] = {
            "distance": judge.worst_distance(judge.lengths_by_query(ours.log), true),
            "fresh_truth": judge.worst_distance(again, true),
            **{blind: judge.worst_distance(table, true) for blind, table in tables.items()},
        }
        r2p[name] = {"simulator": ours.r2p, "truth": truth}
    zero = rollout(simulator, "zero", sessions=many, keep=False, seed=seed_of(world, PLAYED))
    r2p["logger"]["truth"] = store.expected("logger").r2p
    keen = biased(simulator, "buy", BUY_BIAS)
    keen_log = rollout(keen, LOGGER, sessions=many, keep=False, seed=seed_of(world, PLAYED))
    r2p["logger"]["biased"] = keen_log.r2p
    r2p["zero"] = {"simulator": zero.r2p, "truth": store.expected("zero").r2p}
    return {
        "action_effect": {"learned": effect[0], "action_blind": effect[1]},
        "excess_likelihood": excess,
        "r2p": r2p,
        "distance": distances,
    }


@functools.cache
def truly(world: int, name: str, many: int) -> tuple[Any, Any, float]:
    """Sessions of the true store by query, length and end, twice, and R2P."""
    store = GroundTruthStore(world << 32)
    policy = "logger" if name == "logger" else shifted(store.schema)
    seed = seed_of(world, PLAYED if name == "logger" else SHIFTED)
    played = [rollout(store, policy, sessions=many, seed=seed + one) for one in range(2)]
    first, second = (judge.lengths_by_query(one.log) for one in played)
    return first, second, played[0].r2p


def independent(pages: Pages, world: int) -> Pages:
    """Sessions whose customers' fields are drawn apart from one another."""
    rng = np.random.default_rng(world)
    codes = pages.customer[pages.offsets[:-1]]
    mixed = np.stack([rng.permutation(column) for column in codes.T], 1)
    return replace(pages, customer=np.repeat(mixed, np.diff(pages.offsets), 0))


def engine_gap(world: int, method: str, sizes: Sizes) -> dict[str, float]:
    """The engine, learned from a logger whose means depend on the query."""
    store = GroundTruthStore(world << 32)
    many, seed = sizes.train // 4, seed_of(world, QUERY)
    pages = Pages.from_log(rollout(store, "logger:query", sessions=many, seed=seed).log)
    if method in ("bc", "linear"):
        engine = cloning.clone_engine(pages, seed=seed, config=sizes.cloning)
    else:
        engine = learn(method, pages, seed, sizes)[1]
    fresh = Engine(pages.schema, pages.action_units(), sizes.cloning.engine_hidden, 0)
    # More of these: the distance itself has an error of 0.8 / sqrt(actions of the group).
    test = Pages.from_log(rollout(store, "logger:query", sessions=2 * many, seed=seed + 1).log)
    rows, groups, found = np.arange(len(test)), test.customer[:, 9], {}
    for name, one in (("learned", engine), ("untrained", fresh)):
        with torch.no_grad():
            wanted = one(test.customers(rows), test.numbers(rows))
            noise = torch.randn(wanted.mean.shape, generator=stream(seed, name))
            drawn = (wanted.mean + wanted.log_sd.exp() * noise) * one.policy.unit
        found[name] = judge.separation(drawn.numpy(), groups, test.action, groups)
    return found
