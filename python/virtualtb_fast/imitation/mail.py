"""MAIL: multi-agent adversarial imitation learning (Shi et al., AAAI 2019, algorithm 2).

Two policies are learned from logged sessions at once: the engine's, which chooses what a customer
is shown, and the customers', which answer it. In every iteration

1. J sessions are simulated with both, natively;
2. a discriminator learns to tell their pages (customer, action, page, answer) from logged ones;
3. its logit, high where a page looks logged, is the reward of the joint policy
   pi(a, a_c | s, n) = pi_engine(a | s, n) pi_customer(a_c | s, a, n);
4. one value network and one TRPO step, over both policies within one trust region, follow it.

Where this departs from the paper, and why:

- **The reward is the logit**, log D - log(1 - D), and sessions go on to the longest possible page
  in an absorbing state that the discriminator sees as well (Kostrikov et al., ICLR 2019). The
  paper's rewards have one sign: what is never negative teaches customers to stay, what is never
  positive to leave. ``MailConfig.paper()`` has its form.
- **Absorbing rows are counted, not made.** They differ in the page number alone, so the expected
  loss over them is a sum over page numbers weighted by how many sessions had ended by then, and
  what an end is worth is the discounted sum of their rewards, which is exact. Weights that depend
  on the page number alone and are the same on both sides leave the best discriminator unchanged;
  absorbing rows weigh as much as pages do together.
- **The value network sees (x, n)**, not the action: the action is part of what the joint policy
  does, and a baseline that knows it would cancel the engine's share of the advantage.
- **No step without evidence.** TRPO normalises what it follows, so a discriminator that knows
  nothing would send the policies on a random walk of full steps. They stay where they are while
  its accuracy on pages that it has not seen is within ``step_margin`` of a coin's.
- **Both policies start from behaviour cloning** unless ``init="random"``; the paper is silent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast._training import Progress, require_finite
from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError
from virtualtb_fast.imitation.cloning import (
    CloningConfig,
    clone_engine,
    clone_response,
    start_at_shares,
)
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.fitting import Keeper, Part, load_adam, pack, pack_adam, unpack
from virtualtb_fast.imitation.judge import (
    Judge,
    Reward,
    ended_before,
    judge_loss,
    rewards_of,
    worth_of_ends,
)
from virtualtb_fast.imitation.response import Engine, FittedResponse, ResponseNetwork
from virtualtb_fast.imitation.simulate import CustomerSource, logged_customers, simulate
from virtualtb_fast.networks import Categorical, Gaussian, Joint, Perceptron, stream
from virtualtb_fast.rl import returns, trpo

__all__ = ["MailConfig", "MailResult", "fit_mail"]


@dataclass(frozen=True, slots=True)
class MailConfig:
    """Settings of MAIL; `paper` is the preset of the paper's reward."""

    cloning: CloningConfig = field(default_factory=CloningConfig)
    """Networks, and the start by cloning."""
    init: Literal["bc", "random"] = "bc"
    """Where the policies start: behaviour cloning, or random weights and the log's shares."""
    reward: Reward = "logit"
    """Reward of a page from the discriminator's D."""
    absorbing: bool = True
    """Whether sessions are padded with an absorbing state."""
    clip: float = 5.0
    """Bound of a logit reward."""
    sessions: int = 2_000
    """J: sessions simulated an iteration, and logged ones beside them."""
    iterations: int = 300
    """Most iterations."""
    gamma: float = 0.95
    """Discount."""
    lam: float = 0.95
    """Lambda of the advantages."""
    step: trpo.TrpoConfig = field(default_factory=lambda: trpo.TrpoConfig(delta=0.01))
    """The joint policy's step."""
    step_margin: float = 0.024
    """Accuracy above 0.5 on unseen pages from which on the policies take steps: three standard
    errors if the pages of a session count as one."""
    fisher_share: float = 0.2
    """Share of rows that the Fisher matrix is estimated from."""
    value_hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of the value network."""
    value_epochs: int = 4
    """Passes of the value network an iteration."""
    value_rate: float = 1e-3
    """Adam's rate for it."""
    judge_hidden: tuple[int, ...] = (128, 64)
    """Hidden layers of the discriminator."""
    judge_epochs: int = 3
    """Passes of the discriminator an iteration."""
    judge_batch: int = 1_024
    """Pages of each side in its minibatch."""
    judge_rate: float = 3e-4
    """Adam's rate for it; it falls linearly to a tenth."""
    penalty: float = 1.0
    """Weight of the squared gradient at logged pages (R1; Mescheder et al., ICML 2018)."""
    stop_accuracy: float = 0.55
    """Stops when the discriminator's accuracy on fresh pages stays at or below this ..."""
    stop_after: int = 20
    """... for so many iterations."""
    num_threads: int | None = None
    """Of the simulation; results do not depend on it."""

    @classmethod
    def paper(cls, **other: Any) -> MailConfig:
        """The paper's form: reward -log(1 - D), no padding, random weights to start from."""
        preset = {"reward": "minus_log_one_minus_d", "absorbing": False, "init": "random"}
        return cls(**{**preset, **other})


@dataclass(frozen=True)
class MailResult:
    """What MAIL learned."""

    response: FittedResponse
    """The customers."""
    engine: Engine
    """The engine that logged."""
    report: dict[str, Any]
    """Iterations, seconds, the share of them spent simulating, and the first step's norms of the
    gradients of both policies."""


# ------------------------------------------------------------------ the loop


@dataclass
class _Batch:
    """Simulated pages as tensors."""

    customer: Tensor
    page: Tensor
    action: Tensor
    answer: Tensor
    last: Tensor
    """Whether the session ended with the row."""
    cut: Tensor
    """Whether it ended at its longest, not by the customer."""


class Mail:
    """All that is trained, and one iteration of it."""

    def __init__(
        self, pages: Pages, config: MailConfig, seed: int, response: FittedResponse, engine: Engine
    ) -> None:
        self.pages, self.config, self.seed = pages, config, seed
        self.response, self.engine = response, engine
        network = response.network
        self.judge = Judge(network, config.judge_hidden, seed)
        self.value = Perceptron(
            (pages.schema.customer_width + 1, *config.value_hidden, 1),
            generator=stream(seed, "value"),
        )
        self.judge_adam = torch.optim.Adam(
            self.judge.parameters(), config.judge_rate, betas=(0.5, 0.99)
        )
        self.value_adam = torch.optim.Adam(self.value.parameters(), config.value_rate)
        self.held = pages.held_out(config.cloning.fit.held_out, seed)
        self.centre, self.iteration, self.calm = 0.0, 0, 0
        self.moved = 0
        self.norms: tuple[float, float] = (math.nan, math.nan)

    def learn(self, simulated: Pages) -> dict[str, float]:
        """Steps 2 to 4 of an iteration, given the sessions of step 1."""
        config, batch = self.config, self._batch(simulated, np.arange(len(simulated)))
        accuracy = self._accuracy(simulated)
        judged = self._learn_judge(simulated)
        reward, terminated = self._rewards(batch)
        figures = self._improve(batch, reward, terminated, accuracy > 0.5 + config.step_margin)
        self.calm = self.calm + 1 if accuracy <= config.stop_accuracy else 0
        self.iteration += 1
        length = len(simulated) / simulated.sessions
        return {"accuracy": accuracy, "judge_loss": judged, "length": length, **figures}

    def _batch(self, pages: Pages, rows: NDArray[np.int64]) -> _Batch:
        last = np.zeros(len(pages), bool)
        last[pages.offsets[1:] - 1] = True
        cut = last & (pages.page >= self.response.network.config.longest - 1)
        return _Batch(
            pages.customers(rows),
            pages.numbers(rows),
            pages.actions(rows),
            self.response.network.targets(pages, rows),
            torch.from_numpy(last[rows]),
            torch.from_numpy(cut[rows]),
        )

    def _inputs(self, pages: Pages, rows: NDArray[np.int64]) -> Tensor:
        answers = self.response.network.targets(pages, rows)
        given = pages.customers(rows), pages.actions(rows), pages.numbers(rows)
        return self.judge.pages(*given, answers)

    def _some(self, held: bool) -> NDArray[np.int64]:
        """As many sessions as are simulated, at random, of those held out or of the others."""
        rng = stream(self.seed, "held" if held else "logged", self.iteration)
        found, many = np.empty(0, np.int64), self.config.sessions
        while len(found) < many:
            drawn = torch.randint(len(self.held), (16 * many,), generator=rng).numpy()
            found = np.concatenate((found, drawn[self.held[drawn] == held]))
        return found[:many]

    def _accuracy(self, simulated: Pages) -> float:
        """Of the discriminator so far on pages that it has not seen, sides weighted alike."""
        rows = self.pages.rows_of(self._some(held=True))
        with torch.no_grad():
            real = self.judge(self._inputs(self.pages, rows)) > 0
            fake = self.judge(self._inputs(simulated, np.arange(len(simulated)))) <= 0
        return 0.5 * float(real.float().mean() + fake.float().mean())

    def _learn_judge(self, simulated: Pages) -> float:
        config, sessions = self.config, self._some(held=False)
        logged = self._inputs(self.pages, self.pages.rows_of(sessions))
        fake = self._inputs(simulated, np.arange(len(simulated)))
        ended = torch.zeros(0, 1)
        longest = self.judge.longest
        if config.absorbing:
            sides = self.pages.lengths(sessions), np.diff(simulated.offsets)
            ended = torch.stack([ended_before(lengths, longest) for lengths in sides])
        rng = stream(self.seed, "judge", self.iteration)
        share = self.iteration / config.iterations
        for group in self.judge_adam.param_groups:
            group["lr"] = config.judge_rate * (1.0 - 0.9 * share)
        many, total, steps = min(len(logged), len(fake)), 0.0, 0
        for _ in range(config.judge_epochs):
            one, other = (torch.randperm(len(side), generator=rng) for side in (logged, fake))
            size = config.judge_batch
            for first in range(0, max(1, many - size + 1), size):
                mine, yours = one[first : first + size], other[first : first + size]
                loss = judge_loss(self.judge, logged[mine], fake[yours], ended, config.penalty)
                self.judge_adam.zero_grad()
                torch.autograd.backward(loss)
                self.judge_adam.step()
                total, steps = total + float(loss.detach()), steps + 1
        return total / steps

    def _rewards(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Rewards of rows, what comes after their sessions included, and where nothing does."""
        config, judge = self.config, self.judge
        with torch.no_grad():
            given = batch.customer, batch.action, batch.page, batch.answer
            reward = rewards_of(judge(judge.pages(*given)), config.reward)
            absorbed = rewards_of(judge(judge.absorbing()), config.reward)
        if config.reward == "logit":
            # All sessions are equally long, so a constant off every reward changes no policy.
            mean = float(reward.mean())
            self.centre = mean if self.iteration == 0 else 0.9 * self.centre + 0.1 * mean
            centre = self.centre if config.absorbing else 0.0
            reward = (reward - centre).clamp(-config.clip, config.clip)
            absorbed = (absorbed - centre).clamp(-config.clip, config.clip)
        if config.absorbing:
            worth = worth_of_ends(absorbed, config.gamma)
            reward = reward + torch.where(batch.last, worth[batch.page.long()], 0.0)
            return reward, batch.last
        return reward, batch.last & ~batch.cut

    def _values(self, batch: _Batch) -> Tensor:
        scale = self.response.network.config.page_scale
        inputs = torch.cat((batch.customer, batch.page[:, None] * scale), 1)
        out: Tensor = self.value(inputs)
        return out[:, 0]

    def joint(self, batch: _Batch) -> Joint:
        """The joint policy's distributions: of actions in units, then of answers to them."""
        engine: Gaussian = self.engine(batch.customer, batch.page)
        network = self.response.network
        answer: Categorical = network.distribution(batch.customer, batch.page, batch.action)
        return Joint((engine, answer))

    def _improve(
        self, batch: _Batch, reward: Tensor, terminated: Tensor, move: bool
    ) -> dict[str, float]:
        config, truncated = self.config, batch.last & ~terminated
        with torch.no_grad():
            values = self._values(batch)
            following = torch.cat((values[1:], values[-1:]))
            # The row after a session's last is another customer's.
            cut = _take(batch, truncated)
            following[truncated] = self._values(replace(cut, page=cut.page + 1))
        advantage, goal = returns.advantages(
            reward, values, following, terminated, truncated, gamma=config.gamma, lam=config.lam
        )
        advantage = (advantage - advantage.mean()) / advantage.std().clamp_min(1e-8)
        sample = (batch.action / self.engine.policy.unit, batch.answer)
        if self.iteration == 0:
            self.norms = self._gradient_norms(batch, sample, advantage)
        rng = stream(self.seed, "fisher", self.iteration)
        many = max(1, round(config.fisher_share * len(reward)))
        some = _take(batch, torch.randperm(len(reward), generator=rng)[:many])
        parameters = [*self.engine.parameters(), *self.response.network.parameters()]
        step = trpo.StepReport(False, 0.0, 0.0, 0, 0.0)
        if move:
            step = trpo.step(
                lambda: self.joint(batch),
                parameters,
                sample,
                advantage,
                config.step,
                fisher_policy=lambda: self.joint(some),
            )
        self.moved += step.accepted
        total, steps = 0.0, 0
        for _ in range(config.value_epochs):
            for rows in torch.split(torch.randperm(len(goal), generator=rng), 1_024):
                loss = (self._values(_take(batch, rows)) - goal[rows]).square().mean()
                self.value_adam.zero_grad()
                torch.autograd.backward(loss)
                self.value_adam.step()
                total, steps = total + float(loss.detach()), steps + 1
        return {
            "value_loss": total / steps,
            "reward": float(reward.mean()),
            "kl": step.kl,
            "gain": step.gain,
            "gradient_norm": step.gradient_norm,
        }

    def _gradient_norms(
        self, batch: _Batch, sample: tuple[Tensor, Tensor], advantage: Tensor
    ) -> tuple[float, float]:
        """Norms of the gradients of engine and customers."""
        new = self.joint(batch)
        with torch.no_grad():
            old = new.log_prob(sample)
        goal = trpo.surrogate(new, old, sample, advantage)
        parts = [list(self.engine.parameters()), list(self.response.network.parameters())]
        grads = torch.autograd.grad(goal, [*parts[0], *parts[1]], materialize_grads=True)
        sizes = len(parts[0])
        return float(trpo.flat(grads[:sizes]).norm()), float(trpo.flat(grads[sizes:]).norm())

    def state(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {
            **pack(self.response.network.state_dict(), "response."),
            **pack(self.engine.state_dict(), "engine."),
            **pack(self.judge.state_dict(), "judge."),
            **pack(self.value.state_dict(), "value."),
            **pack_adam(self.judge_adam, "judge_adam."),
            **pack_adam(self.value_adam, "value_adam."),
            "numbers": np.array([self.iteration, self.calm, self.moved], np.int64),
            "centre": np.array([self.centre, *self.norms]),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a `state` up."""
        self.response.network.load_state_dict(unpack(state, "response."))
        self.engine.load_state_dict(unpack(state, "engine."))
        self.judge.load_state_dict(unpack(state, "judge."))
        self.value.load_state_dict(unpack(state, "value."))
        load_adam(self.judge_adam, state, "judge_adam.")
        load_adam(self.value_adam, state, "value_adam.")
        self.iteration, self.calm, self.moved = (int(number) for number in state["numbers"])
        self.centre, *norms = (float(number) for number in state["centre"])
        self.norms = (norms[0], norms[1])


def fit_mail(
    pages: Pages,
    *,
    seed: int,
    config: MailConfig = MailConfig(),
    customers: CustomerSource | None = None,
    start: tuple[FittedResponse, Engine] | None = None,
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> MailResult:
    """Learns customers and engine from logged sessions.

    Args:
        pages: The log.
        seed: Of everything that is drawn.
        config: Settings.
        customers: Who comes in simulated sessions; the logged sessions' customers unless given.
        start: Cloned customers and engine to start from, in place of cloning them here. They are
            trained further, in place.
        progress: Called with (stage, iterations done, most iterations, figures).
        checkpoint: Keeps the state; a training that finds one there goes on from it, to the same
            bits.

    Raises:
        TrainingDivergedError: a figure is not finite; says which, and in which iteration. Its
            ``state`` is that of the last good iteration.
        InvalidArgumentError: settings or a log that do not fit.
    """
    if config.cloning.response.leave != "hazard":
        raise InvalidArgumentError("MAIL: expected leave 'hazard', got 'once'")
    began = time.perf_counter()
    response, engine = start or _start(pages, seed, config, progress, checkpoint)
    mail = Mail(pages, config, seed, response, engine)
    keeper = None if checkpoint is None else Part(checkpoint, "mail")
    held = None if keeper is None else keeper.load()
    if held is not None:
        mail.restore(held)
    source = logged_customers(pages) if customers is None else customers
    good, simulating, looping = mail.state(), 0.0, time.perf_counter()
    while mail.iteration < config.iterations and mail.calm < config.stop_after:
        now = time.perf_counter()
        played = simulate(
            response,
            engine,
            source,
            sessions=config.sessions,
            seed=_session_seed(seed, mail.iteration),
            num_threads=config.num_threads,
        )
        simulating += time.perf_counter() - now
        figures = mail.learn(played)
        try:
            weights = trpo.flat([*engine.parameters(), *response.network.parameters()])
            require_finite("mail", mail.iteration, **figures, weights=weights.detach())
        except TrainingDivergedError as error:
            mail.restore(good)
            if keeper is not None:
                keeper.save(good)
            error.state = good
            raise
        good = mail.state()
        done = mail.iteration == config.iterations or mail.calm == config.stop_after
        if keeper is not None and (done or keeper.due()):
            keeper.save(good)
        if progress is not None:
            progress("mail", mail.iteration, config.iterations, figures)
    loop = time.perf_counter() - looping
    report = {
        "method": "mail" if config.init == "random" and start is None else "bc+mail",
        "iterations": mail.iteration,
        "steps": mail.moved,
        "stopped_early": mail.iteration < config.iterations,
        "seconds": time.perf_counter() - began,
        "simulating_share": simulating / loop if loop else 0.0,
        "engine_gradient_norm": mail.norms[0],
        "customers_gradient_norm": mail.norms[1],
    }
    return MailResult(response.with_report(**report), engine, report)


def _start(
    pages: Pages,
    seed: int,
    config: MailConfig,
    progress: Progress | None,
    checkpoint: Keeper | None,
) -> tuple[FittedResponse, Engine]:
    cloning = config.cloning
    if config.init == "random":
        unit = pages.action_units()
        network = ResponseNetwork(pages.schema, cloning.response, unit, seed)
        start_at_shares(network, pages)
        engine = Engine(pages.schema, unit, cloning.engine_hidden, seed)
        return FittedResponse(network), engine
    parts = [None if checkpoint is None else Part(checkpoint, name) for name in ("one", "two")]
    shared: dict[str, Any] = {"seed": seed, "config": cloning, "progress": progress}
    response = clone_response(pages, **shared, checkpoint=parts[0])
    return response, clone_engine(pages, **shared, checkpoint=parts[1])


def _session_seed(seed: int, iteration: int) -> int:
    """Sessions of an iteration are those of no other, nor of another run."""
    return int(torch.randint(1 << 62, (), generator=stream(seed, "sessions", iteration)))


def _take(batch: _Batch, rows: Tensor) -> _Batch:
    return _Batch(*(getattr(batch, name)[rows] for name in _Batch.__dataclass_fields__))
