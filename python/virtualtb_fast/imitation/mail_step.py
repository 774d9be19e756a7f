"""One iteration of MAIL: the discriminator learns, then the joint policy follows it.

`virtualtb_fast.imitation.mail` is the loop around it and says where it departs from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._batches import SessionRows
from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast._training import State, load_adam, pack, pack_adam, unpack
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.fitting import MOST_HELD, mean_loss
from virtualtb_fast.imitation.judge import (
    Judge,
    ended_before,
    judge_loss,
    rewards_of,
    worth_of_ends,
)
from virtualtb_fast.imitation.mail_config import MailConfig
from virtualtb_fast.imitation.response import Engine, FittedResponse
from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.networks import Categorical, Gaussian, Joint, Perceptron, stream
from virtualtb_fast.rl import returns, trpo

__all__ = ["Mail"]

_NUMBERS: Final = ("iteration", "calm", "moved", "idle", "best_iteration", "moved_before")
"""Attributes that count, in the order of a state's ``numbers``."""

_CUT: Final = OUTCOMES.index("max_pages")


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
        # Rewards come from averaged weights: what a discriminator of such weak differences learned
        # last is mostly noise, which the policies would follow.
        self.averaged = Judge(network, config.judge_hidden, seed)
        self.judge_adam = torch.optim.AdamW(
            self.judge.parameters(),
            config.judge_rate,
            betas=(0.9, 0.99),
            weight_decay=config.judge_decay,
        )
        self.value_adam = torch.optim.Adam(self.value.parameters(), config.value_rate)
        self.held = pages.held_out(config.cloning.fit.held_out, seed)
        self.judged = SessionRows(pages.offsets, self.held).ordered(MOST_HELD)
        self.centre, self.iteration, self.calm = 0.0, 0, 0
        self.moved = 0
        self.simulating = self.looping = 0.0
        self.norms: tuple[float, float] = (0.0, 0.0)
        self.mean = self.best = self._policies()
        self.lowest, self.idle, self.best_iteration, self.moved_before = math.inf, 0, 0, 0

    def learn(self, simulated: Pages) -> dict[str, float]:
        """Steps 2 to 4 of an iteration, given the sessions of step 1."""
        config, batch = self.config, self._batch(simulated, np.arange(len(simulated)))
        accuracy = self._accuracy(simulated)
        judged = self._learn_judge(simulated)
        reward, terminated = self._rewards(batch)
        # Pinsker: pages whose divergence is d are told apart with an accuracy of at most
        # (1 + sqrt(d / 2)) / 2.
        shown = 2.0 * max(0.0, 2.0 * (accuracy - config.step_margin) - 1.0) ** 2
        figures = self._improve(batch, reward, terminated, min(config.step.delta, shown))
        self.calm = self.calm + 1 if accuracy <= config.stop_accuracy else 0
        self.iteration += 1
        self._average()
        length = len(simulated) / simulated.sessions
        return {"accuracy": accuracy, "judge_loss": judged, "length": length, **figures}

    def look(self) -> float:
        """The averaged customers' negative log-likelihood of held-out answers, mean, nat a page.

        Where it is the lowest so far, the averaged policies are kept as the best.
        """
        now = self._policies()
        self._take(self.mean)
        found = mean_loss(lambda rows: self.response.network.nll(self.pages, rows), self.judged)
        self._take(now)
        self.idle += self.moved > self.moved_before
        self.moved_before = self.moved
        if found < self.lowest:
            self.lowest, self.idle, self.best = found, 0, self.mean
            self.best_iteration = self.iteration
        return found

    def take_best(self) -> None:
        """Goes back to the policies of the best look."""
        self._take(self.best)

    def _take(self, policies: State) -> None:
        self.response.network.load_state_dict(unpack(policies, "response."))
        self.engine.load_state_dict(unpack(policies, "engine."))

    def _average(self) -> None:
        # In this form what has not moved stays as it is, to the last bit.
        step = np.float32(1.0 - self.config.average)
        self.mean = {
            name: self.mean[name] + step * (now - self.mean[name])
            for name, now in self._policies().items()
        }

    def _policies(self) -> State:
        return {
            **pack(self.response.network.state_dict(), "response."),
            **pack(self.engine.state_dict(), "engine."),
        }

    def _batch(self, pages: Pages, rows: NDArray[np.int64]) -> _Batch:
        last = np.zeros(len(pages), bool)
        last[pages.offsets[1:] - 1] = True
        cut = last & (pages.outcome == _CUT)
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
            real = self.averaged(self._inputs(self.pages, rows)) > 0
            fake = self.averaged(self._inputs(simulated, np.arange(len(simulated)))) <= 0
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
                with torch.no_grad():
                    pairs = zip(self.averaged.parameters(), self.judge.parameters(), strict=True)
                    for mean, now in pairs:
                        mean.lerp_(now, 1.0 - config.judge_average)
                total, steps = total + float(loss.detach()), steps + 1
        return total / steps

    def _rewards(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Rewards of rows, what comes after their sessions included, and where nothing does."""
        config, judge = self.config, self.averaged
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
        self, batch: _Batch, reward: Tensor, terminated: Tensor, delta: float
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
        if delta > 0.0:
            step = trpo.step(
                lambda: self.joint(batch),
                parameters,
                sample,
                advantage,
                replace(config.step, delta=delta),
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
            **self._policies(),
            **{f"mean.{name}": value for name, value in self.mean.items()},
            **{f"best.{name}": value for name, value in self.best.items()},
            **pack(self.judge.state_dict(), "judge."),
            **pack(self.averaged.state_dict(), "averaged."),
            **pack(self.value.state_dict(), "value."),
            **pack_adam(self.judge_adam, "judge_adam."),
            **pack_adam(self.value_adam, "value_adam."),
            "numbers": np.array([getattr(self, name) for name in _NUMBERS], np.int64),
            "figures": np.array([self.centre, self.lowest, *self.norms]),
            "seconds": np.array([self.simulating, self.looping]),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a `state` up."""
        self._take({**state})
        self.judge.load_state_dict(unpack(state, "judge."))
        self.averaged.load_state_dict(unpack(state, "averaged."))
        self.value.load_state_dict(unpack(state, "value."))
        load_adam(self.judge_adam, state, "judge_adam.")
        load_adam(self.value_adam, state, "value_adam.")
        self.mean, self.best = (
            {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
            for prefix in ("mean.", "best.")
        )
        for name, number in zip(_NUMBERS, state["numbers"], strict=True):
            setattr(self, name, int(number))
        self.centre, self.lowest, *norms = (float(number) for number in state["figures"])
        self.simulating, self.looping = (float(number) for number in state["seconds"])
        self.norms = (norms[0], norms[1])


def _take(batch: _Batch, rows: Tensor) -> _Batch:
    return _Batch(*(getattr(batch, name)[rows] for name in _Batch.__dataclass_fields__))
