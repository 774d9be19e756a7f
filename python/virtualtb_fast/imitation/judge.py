"""MAIL's discriminator: what it sees, its loss, and the rewards that follow from its logit.

The absorbing state that sessions go on in after their ends is counted, not made: its rows differ in
the page number alone, so sums over them are sums over page numbers, weighted by how many sessions
had ended by then.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._torch import Tensor, nn, torch
from virtualtb_fast.imitation.response import ResponseNetwork
from virtualtb_fast.networks import Perceptron, stream

__all__ = [
    "REWARDS",
    "Judge",
    "Reward",
    "ended_before",
    "judge_loss",
    "rewards_of",
    "worth_of_ends",
]

Reward = Literal["logit", "log_d", "minus_log_one_minus_d"]
"""log(D / (1 - D)), log D, or -log(1 - D)."""
REWARDS: Final[tuple[str, ...]] = get_args(Reward)


class Judge(nn.Module):
    """The discriminator: a logit that is high where a page looks logged.

    Inputs: one-hot customer, action in units, n / longest, one-hot answers, and whether the row is
    the absorbing state (everything else but n is 0 then).
    """

    def __init__(self, network: ResponseNetwork, hidden: tuple[int, ...], seed: int) -> None:
        super().__init__()
        schema, self.heads = network.schema, network.config.sizes
        self.longest, self.unit = network.config.longest, network.unit
        self.width = schema.customer_width + schema.action + 1 + sum(self.heads) + 1
        self.network = Perceptron(
            (self.width, *hidden, 1), last_gain=0.1, generator=stream(seed, "judge")
        )

    def pages(self, customer: Tensor, action: Tensor, page: Tensor, answer: Tensor) -> Tensor:
        """Inputs (N, width) of pages: one-hot customers, raw actions, numbers, answers."""
        sizes = torch.tensor([0, *self.heads]).cumsum(0)[:-1]
        answers = torch.zeros(len(page), sum(self.heads)).scatter_(1, answer + sizes, 1.0)
        number = page[:, None] / self.longest
        absorbed = torch.zeros(len(page), 1)
        return torch.cat((customer, action / self.unit, number, answers, absorbed), 1)

    def absorbing(self) -> Tensor:
        """Inputs (longest, width) of the absorbing state as page 0, 1, ..."""
        rows = torch.zeros(self.longest, self.width)
        rows[:, self.width - 2 - sum(self.heads)] = torch.arange(self.longest) / self.longest
        rows[:, -1] = 1.0
        return rows

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N,)."""
        out: Tensor = self.network(inputs)
        return out[:, 0]


def judge_loss(
    judge: Judge, logged: Tensor, simulated: Tensor, ended: Tensor, penalty: float
) -> Tensor:
    """-E log D(logged) - E log(1 - D(simulated)), the gradient's penalty, and absorbing rows.

    Args:
        judge: The discriminator.
        logged: Inputs of logged pages.
        simulated: Inputs of simulated pages.
        ended: (2, longest): share of logged and of simulated sessions that ended before each page;
            without rows, no padding.
        penalty: Weight of the squared gradient at logged pages.
    """
    softplus = nn.functional.softplus
    some = logged[:256].detach().requires_grad_(penalty > 0.0)
    loss = softplus(-judge(logged)).mean() + softplus(judge(simulated)).mean()
    if penalty > 0.0:
        (slope,) = torch.autograd.grad(judge(some).sum(), some, create_graph=True)
        loss = loss + 0.5 * penalty * slope.square().sum(1).mean()
    if len(ended):
        logits = judge(judge.absorbing())
        both = ended[0] * softplus(-logits) + ended[1] * softplus(logits)
        loss = loss + both.sum() / ended.sum().clamp_min(1e-9) * 2.0
    return loss


def rewards_of(logits: Tensor, reward: Reward) -> Tensor:
    """Rewards from the discriminator's logits: log(D / (1 - D)), log D, or -log(1 - D)."""
    if reward == "logit":
        return logits
    if reward == "log_d":
        return -nn.functional.softplus(-logits)
    return nn.functional.softplus(logits)


def worth_of_ends(absorbing: Tensor, gamma: float) -> Tensor:
    """What an end on page n is worth: ``sum over k > n of gamma^(k - n) r(absorbing, k)``.

    Args:
        absorbing: (longest,): rewards of the absorbing state as page 0, 1, ...
        gamma: Discount.

    Returns:
        (longest,).
    """
    worth, total = [], 0.0
    for value in reversed(absorbing.tolist()):
        worth.append(total)
        total = gamma * (value + total)
    return torch.tensor(worth[::-1])


def ended_before(lengths: NDArray[np.int64], longest: int) -> Tensor:
    """Share of sessions of these lengths that ended before page 0, 1, ...: (longest,)."""
    counts = np.bincount(np.minimum(lengths, longest), minlength=longest + 1).cumsum()[:longest]
    return torch.from_numpy((counts / len(lengths)).astype(np.float32))
