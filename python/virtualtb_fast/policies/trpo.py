"""TRPO-ANC: a ranking policy trained in a simulator or a store (Shi et al., AAAI 2019, section 5).

In every iteration

1. the policy shows pages to customers side by side, in a native batch of environments, which shapes
   rewards by the action norm constraint (`virtualtb_fast.policies.anc`);
2. advantages of all pages follow from rewards and a value network (GAE);
3. one step of `virtualtb_fast.rl.trpo` follows them; the value network learns its lambda-returns.

Where this departs from common settings, and why:

- **Actions are in units of mu / sqrt(A)**, so that a policy that says 1 in every dimension has the
  norm mu, and start with noise of a fraction of that. Noise of a box's size would drown customers
  in actions that no shop has shown.
- **In a simulator the reward is the expected one**, the chance of a purchase: the simulator is
  ours, and a page's draw says nothing about its action that the chance does not say better.
- **The discount is 0**: what is wanted is purchases a page (R2P), not purchases a session, which
  keeping customers from buying prolongs.
- **It stops on a plateau.** A training that is cut short is itself a constraint on norms, and would
  be taken for the work of another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import numpy as np

from virtualtb_fast import _arguments
from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast._training import (
    Keeper,
    Progress,
    load_adam,
    pack,
    pack_adam,
    require_finite,
    require_keeper,
    torch_threads,
    unpack,
)
from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError
from virtualtb_fast.networks import Gaussian, GaussianPolicy, Perceptron, stream
from virtualtb_fast.policies import Policy
from virtualtb_fast.policies.anc import Form, norm_constraint
from virtualtb_fast.policies.play import Lanes
from virtualtb_fast.rl import returns, trpo
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import GroundTruthStore

__all__ = ["TrainConfig", "Trained", "train"]


_Reward = Literal["expected", "buy", "clicks", "deals", "value"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of a training."""

    constraint: Form | None = "scaled"
    """Of the action norm: `virtualtb_fast.policies.anc.norm_constraint`; None: none."""
    rho: float = 1.0
    """Its strength."""
    reward: _Reward | None = None
    """Of a page, 0 or above; None: ``expected`` in a simulator, ``buy`` in a store."""
    iterations: int = 500
    """Most iterations."""
    least: int = 60
    """Fewest iterations."""
    plateau: float | None = 0.01
    """Stops when the raw reward of pages has grown by less than this share of itself over the last
    fifth of the iterations; None: never."""
    lanes: int = 1_024
    """Customers side by side."""
    steps: int = 4
    """Pages that each of them sees in an iteration."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of the policy, and of the value network."""
    noise: float = 0.4
    """Standard deviation of actions at the start, in units."""
    gamma: float = 0.0
    """Discount."""
    lam: float = 0.95
    """Lambda of the advantages."""
    step: trpo.TrpoConfig = field(default_factory=lambda: trpo.TrpoConfig(delta=0.1))
    """The policy's step."""
    fisher_share: float = 0.25
    """Share of rows that the Fisher matrix is estimated from."""
    value_epochs: int = 4
    """Passes of the value network an iteration."""
    value_batch: int = 1_024
    """Rows of its minibatch."""
    value_rate: float = 1e-3
    """Adam's rate for it."""
    num_threads: int | None = None
    """Of the environments; results do not depend on it."""

    def __post_init__(self) -> None:
        integer, number, settle = _arguments.integer, _arguments.number, _arguments.settle
        counts = ("iterations", "least", "lanes", "steps", "value_epochs", "value_batch")
        settle(self, integer, *counts, low=1, high=2**31)
        settle(self, number, "gamma", "lam", low=0, high=1)
        settle(self, number, "fisher_share", low=0, high=1, above=True)
        settle(self, number, "noise", "value_rate", low=0, above=True)
        settle(self, number, "rho", low=0)
        if self.plateau is not None:
            settle(self, number, "plateau", low=0)
        if self.constraint is not None:
            _arguments.one_of("constraint", self.constraint, ("scaled", "paper"))
        if self.reward is not None:
            _arguments.one_of("reward", self.reward, get_args(_Reward))
        settle(self, _arguments.widths, "hidden")
        _arguments.instance("step", self.step, trpo.TrpoConfig)
        object.__setattr__(self, "num_threads", _arguments.threads(self.num_threads))


@dataclass(frozen=True)
class Trained:
    """What a training gives."""

    policy: Policy
    """Shows the mean action: what is evaluated, and handed over."""
    sampled: Policy
    """Draws actions, as in training."""
    report: dict[str, Any]
    """``iterations``, ``plateau`` (whether it stopped on one), ``moved`` (steps taken), ``anc``,
    ``norm`` (mean norm of the mean action on the last pages), ``history`` by name (an entry an
    iteration: ``r2p``, the raw reward of a page; ``reward``, the shaped one; ``norm`` of executed
    actions; ``kl``; ``gain``), ``seconds``, ``cpu_seconds`` (of this process, since it last began
    or went on)."""


class _Training:
    """All that is trained, and one iteration of it."""

    def __init__(
        self, place: Simulator | GroundTruthStore, mu: float, config: TrainConfig, seed: int
    ) -> None:
        self.config, self.seed = config, seed
        # mu is the unit of actions too, and so is checked where nothing is enforced.
        anc = norm_constraint(mu, config.rho, config.constraint or "scaled")
        self.anc = None if config.constraint is None else anc
        schema = place.schema
        width, size = schema.observation_width, schema.action
        self.lanes = Lanes(
            place,
            lanes=config.lanes,
            steps=config.steps,
            reward=config.reward,
            anc=self.anc,
            seed=seed,
            num_threads=config.num_threads,
        )
        spread = torch.ones(width)
        # Pages are counted, up to a hundred; the other columns are 0, 1, or a few clicks.
        spread[schema.page_column] = 10.0
        sizes = (width, *config.hidden)
        self.policy = GaussianPolicy(
            Perceptron((*sizes, size), last_gain=0.01, generator=stream(seed, "policy")),
            log_sd=torch.full((size,), math.log(config.noise)),
            unit=torch.full((size,), mu / math.sqrt(size)),
            observation_sd=spread,
        )
        self.value = Perceptron((*sizes, 1), generator=stream(seed, "value"))
        self.adam = torch.optim.Adam(self.value.parameters(), config.value_rate)
        self.history = np.empty((0, len(_FIGURES)))
        self.last_norm = math.nan

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history)

    def improve(self) -> dict[str, float]:
        """One iteration."""
        config = self.config
        batch = self.lanes.play(self.policy, stream(self.seed, "noise", self.iteration))
        with torch.no_grad():
            values = self._values(batch.seen)
            following = torch.cat((values[1:], values[-1:]))
            # The row after a session's last is another customer's.
            following[batch.truncated] = self._values(batch.after)
        advantage, goal = returns.advantages(
            batch.reward, values, following, batch.terminated, batch.truncated,
            gamma=config.gamma, lam=config.lam,
        )  # fmt: skip
        advantage = (advantage - advantage.mean()) / advantage.std().clamp_min(1e-8)
        rng = stream(self.seed, "rows", self.iteration)
        many = max(1, round(config.fisher_share * len(goal)))
        some = batch.seen[torch.randperm(len(goal), generator=rng)[:many]]
        step = trpo.step(
            lambda: self.policy(batch.seen),
            list(self.policy.parameters()),
            batch.action,
            advantage,
            config.step,
            fisher_policy=lambda: self.policy(some),
        )
        with torch.no_grad():
            mean: Gaussian = self.policy(some)
            self.last_norm = float((mean.mean * self.policy.unit).norm(dim=1).mean())
        total, steps = 0.0, 0
        for _ in range(config.value_epochs):
            order = torch.randperm(len(goal), generator=rng)
            for rows in torch.split(order, config.value_batch):
                loss = (self._values(batch.seen[rows]) - goal[rows]).square().mean()
                self.adam.zero_grad()
                torch.autograd.backward(loss)
                self.adam.step()
                total, steps = total + float(loss.detach()), steps + 1
        figures = {"r2p": batch.raw, "reward": float(batch.reward.mean()), "norm": batch.norm}
        figures |= {"kl": step.kl, "gain": step.gain, "moved": float(step.accepted)}
        self.history = np.vstack((self.history, [figures[name] for name in _FIGURES]))
        return {**figures, "value_loss": total / steps, "gradient_norm": step.gradient_norm}

    def _values(self, seen: Tensor) -> Tensor:
        found: Tensor = self.value(seen / self.policy.observation_sd)
        return found[:, 0]

    def levelled(self) -> bool:
        """Whether the raw reward has stopped growing: tenths of the run, two tenths apart."""
        done, config = self.iteration, self.config
        # Fewer than three iterations have no tenths that lie apart.
        if config.plateau is None or done < max(config.least, 3):
            return False
        r2p, tenth = self.history[:, _FIGURES.index("r2p")], max(1, done // 10)
        now, before = r2p[-tenth:].mean(), r2p[-3 * tenth : -2 * tenth].mean()
        return bool(now < (1.0 + config.plateau) * before)

    def state(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {
            **pack(self.policy.state_dict(), "policy."),
            **pack(self.value.state_dict(), "value."),
            **pack_adam(self.adam, "adam."),
            "history": self.history.copy(),
            "last_norm": np.array(self.last_norm),
            "sessions": np.frombuffer(self.lanes.envs.get_state(), np.uint8).copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a `state` up."""
        self.policy.load_state_dict(unpack(state, "policy."))
        self.value.load_state_dict(unpack(state, "value."))
        load_adam(self.adam, state, "adam.")
        self.history, self.last_norm = np.array(state["history"]), float(state["last_norm"])
        self.lanes.envs.set_state(np.asarray(state["sessions"], np.uint8).tobytes())


_FIGURES = ("r2p", "reward", "norm", "kl", "gain", "moved")
"""Columns of the history."""


@torch_threads(1)
def train(
    place: Simulator | GroundTruthStore,
    *,
    mu: float,
    seed: int,
    config: TrainConfig = TrainConfig(),
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> Trained:
    """Trains a policy where actions are ranked: a simulator, or a store.

    Args:
        place: Where customers come from.
        mu: The norm that most logged actions do not exceed (`virtualtb_fast.policies.anc.
            usual_norm`): the unit of the policy, and the constraint's mu.
        seed: Of everything that is drawn.
        config: Settings.
        progress: Called with ("policy", iterations done, most iterations, figures).
        checkpoint: Keeps the state; a training that finds one there goes on from it, to the same
            bits.

    Raises:
        TrainingDivergedError: a figure is not finite; says which, and in which iteration. Its
            ``state`` is that of the last good iteration.
        InvalidArgumentError: settings that do not fit the place; rewards below 0.
    """
    if not isinstance(cast(object, place), Simulator | GroundTruthStore):
        expected = "a Simulator or a GroundTruthStore"
        raise InvalidArgumentError(f"place: expected {expected}, got {type(place).__name__}")
    _arguments.instance("config", config, TrainConfig)
    _arguments.function("progress", progress)
    began, cpu = time.perf_counter(), time.process_time()
    training = _Training(place, mu, config, _arguments.seed(seed))
    held = None if checkpoint is None else require_keeper(checkpoint).load()
    if held is not None:
        training.restore(held)
    good = training.state()
    while training.iteration < config.iterations and not training.levelled():
        figures = training.improve()
        try:
            weights = trpo.flat([*training.policy.parameters(), *training.value.parameters()])
            require_finite("policy", training.iteration, **figures, weights=weights.detach())
        except TrainingDivergedError as error:
            if checkpoint is not None:
                checkpoint.save(good)
            error.state = good
            raise
        good = training.state()
        done = training.iteration == config.iterations or training.levelled()
        if checkpoint is not None and (done or checkpoint.due()):
            checkpoint.save(good)
        if progress is not None:
            progress("policy", training.iteration, config.iterations, figures)
    history = dict(zip(_FIGURES, training.history.T.tolist(), strict=True))
    report = {
        "iterations": training.iteration,
        "plateau": training.iteration < config.iterations,
        "moved": int(sum(history.pop("moved"))),
        "anc": training.anc,
        "norm": training.last_norm,
        "history": history,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
    }
    about = {"of": "trpo", "place": place.digest, "seed": int(seed), "anc": training.anc}
    mean, sampled = (
        Policy.from_tensors(
            **training.policy.export(sampled=drawn), schema=place.schema, provenance=about
        )
        for drawn in (False, True)
    )
    return Trained(mean, sampled, report)
