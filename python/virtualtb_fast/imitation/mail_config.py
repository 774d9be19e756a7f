"""Settings of MAIL."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from virtualtb_fast._arguments import (
    flag,
    instance,
    integer,
    number,
    one_of,
    settle,
    threads,
    widths,
)
from virtualtb_fast.imitation.cloning import CloningConfig
from virtualtb_fast.imitation.judge import REWARDS, Reward
from virtualtb_fast.rl import trpo

__all__ = ["MailConfig"]

_STARTS: Final = ("bc", "random")


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
    sessions: int = 10_000
    """J: sessions simulated an iteration, and logged ones beside them."""
    iterations: int = 50
    """Most iterations."""
    gamma: float = 0.95
    """Discount."""
    lam: float = 0.95
    """Lambda of the advantages."""
    step: trpo.TrpoConfig = field(default_factory=lambda: trpo.TrpoConfig(delta=0.01))
    """The joint policy's longest step."""
    average: float = 0.8
    """Decay, an iteration, of the average of the policies that is looked at and returned: policy
    and discriminator chase each other around where they would meet."""
    step_margin: float = 0.0
    """Taken off the discriminator's accuracy on unseen pages before it limits a step."""
    fisher_share: float = 0.05
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
    judge_batch: int = 4_096
    """Pages of each side in its minibatch."""
    judge_rate: float = 1e-3
    """Adam's rate for it; it falls linearly to a tenth."""
    judge_decay: float = 0.1
    """Its weight decay, decoupled."""
    judge_average: float = 0.97
    """Decay of the average of its weights that rewards are from."""
    penalty: float = 0.0
    """Weight of the squared gradient at logged pages (R1; Mescheder et al., ICML 2018)."""
    stop_accuracy: float = 0.5
    """Stops when the discriminator's accuracy on fresh pages stays at or below this ..."""
    stop_after: int = 20
    """... for so many iterations."""
    look_every: int = 5
    """Iterations between looks at held-out pages; 0: the last iteration's policies are the
    result."""
    patience: int = 4
    """Looks without a better likelihood, the policies having moved since, before it stops; from
    random weights, which take their time, it does not."""
    num_threads: int | None = None
    """Of the simulation; results do not depend on it."""

    def __post_init__(self) -> None:
        for name, known in (("init", _STARTS), ("reward", REWARDS)):
            one_of(name, getattr(self, name), known)
        instance("cloning", self.cloning, CloningConfig)
        instance("step", self.step, trpo.TrpoConfig)
        settle(self, flag, "absorbing")
        counts = ("sessions", "iterations", "value_epochs", "judge_epochs", "judge_batch")
        settle(self, integer, *counts, "stop_after", "patience", low=1, high=2**31)
        settle(self, integer, "look_every", low=0, high=2**31)
        shares = ("gamma", "lam", "average", "judge_average", "stop_accuracy")
        settle(self, number, *shares, low=0, high=1)
        settle(self, number, "fisher_share", low=0, high=1, above=True)
        settle(self, number, "clip", "value_rate", "judge_rate", low=0, above=True)
        settle(self, number, "judge_decay", "penalty", low=0)
        settle(self, number, "step_margin", low=-math.inf)
        settle(self, widths, "value_hidden", "judge_hidden")
        object.__setattr__(self, "num_threads", threads(self.num_threads))

    @classmethod
    def paper(cls, **other: Any) -> MailConfig:
        """The paper's form: reward -log(1 - D), no padding, random weights, the last iteration."""
        preset = {"reward": "minus_log_one_minus_d", "absorbing": False, "init": "random"}
        return cls(**{**preset, "look_every": 0, **other})
