"""What a fit can be asked for, and what that means for the parts that do the work."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from virtualtb_fast._arguments import effort, integer, one_of
from virtualtb_fast._training import device
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.records import Prepared
from virtualtb_fast.simulator import Simulator

__all__ = ["CUSTOMERS", "MOST_MEMBERS", "ON_DEVICE", "RESPONSES", "WARM", "Settings"]

CUSTOMERS: Final = (
    *("gan-sd", "gan-sd-fields", "gan-sd-paper", "gan", "wgan", "wgan-gp"),
    *("gmm", "lca", "ar", "independent", "rows"),
)
"""Samplers of customers, by name: see `virtualtb_fast.customers.FITS`."""

ON_DEVICE: Final = ("gan-sd", "gan-sd-fields", "gan-sd-paper", "gan", "wgan", "wgan-gp", "ar")
"""Those of them that train networks, which may be on another device."""

RESPONSES: Final = ("mail", "bc+mail", "mail-paper", "bc", "linear")
"""How responses are learned: MAIL from random weights, from cloned ones, or with the paper's
reward; behaviour cloning alone; or the family whose buy logit is linear in the action."""

WARM: Final = ("bc+mail", "bc", "linear")
"""Those of them that can start from an earlier simulator's: that begin by maximum likelihood."""

MOST_MEMBERS: Final = 100
"""Of an ensemble."""

_LONGEST: Final = 100
"""Pages of the longest session, where the log does not say."""
_LONGEST_ONCE: Final = 255
"""What a network of lengths can have at most."""


@dataclass(frozen=True)
class Settings:
    """What was asked for; raises `InvalidArgumentError` for what there is not."""

    customers: str
    responses: str
    leave: Literal["hazard", "once"]
    seed: int
    device: str
    effort: float
    ensemble: int = 1
    customers_config: Any = None
    responses_config: Any = None
    warm_start: Simulator | None = None

    def __post_init__(self) -> None:
        one_of("customers", self.customers, CUSTOMERS)
        one_of("responses", self.responses, RESPONSES)
        one_of("leave", self.leave, ("hazard", "once"))
        object.__setattr__(self, "seed", integer("seed", self.seed, 0, 2**64 - 1))
        object.__setattr__(self, "device", device(self.device))
        object.__setattr__(self, "effort", effort(self.effort))
        object.__setattr__(self, "ensemble", integer("ensemble", self.ensemble, 1, MOST_MEMBERS))
        if self.ensemble > 1 and (self.responses not in ("bc", "linear") or self.leave == "once"):
            raise InvalidArgumentError(
                "ensemble: expected 1, or responses='bc' or 'linear' with leave='hazard', got "
                f"{self.ensemble} with responses={self.responses!r}, leave={self.leave!r}"
            )
        if self.warm_start is not None:
            self._check_warm()
        self._check_configs()

    def _check_warm(self) -> None:
        """Raises `InvalidArgumentError` where there is nothing to start, or several."""
        if self.responses not in WARM:
            expected = ", ".join(map(repr, WARM))
            raise InvalidArgumentError(
                f"warm_start: expected responses out of {expected}, got {self.responses!r}"
            )
        if self.ensemble > 1:
            # From the same weights members would agree where no data tell them to.
            got = f"{self.ensemble} with a warm_start"
            raise InvalidArgumentError(f"ensemble: expected 1, got {got}")

    def _check_configs(self) -> None:
        """Raises `InvalidArgumentError` for settings of something else than what is fitted."""
        if self.customers_config is not None:
            from virtualtb_fast.customers import CONFIGS

            kind, got = CONFIGS[self.customers], type(self.customers_config).__name__
            if kind is None or not isinstance(self.customers_config, kind):
                expected = "None" if kind is None else f"a {kind.__name__}"
                message = f"expected {expected} for {self.customers!r}, got a {got}"
                raise InvalidArgumentError(f"customers_config: {message}")
        if self.responses_config is not None:
            from virtualtb_fast.imitation.cloning import CloningConfig
            from virtualtb_fast.imitation.mail_config import MailConfig

            if not isinstance(self.responses_config, CloningConfig | MailConfig):
                expected = "a CloningConfig or a MailConfig"
                got = f"{self.responses_config!r}"
                raise InvalidArgumentError(f"responses_config: expected {expected}, got {got}")

    def check(self, log: Prepared) -> None:
        """Raises `InvalidArgumentError` if this log cannot be learned from in this way."""
        if self.responses == "linear" and log.heads != "outcome":
            raise InvalidArgumentError(
                "responses: expected a log of purchases for 'linear', got one of clicks"
            )
        if self.warm_start is not None:
            self._check_form(self.warm_start, log)
        if self.leave != "once":
            return
        if self.responses != "bc":
            got = repr(self.responses)
            raise InvalidArgumentError(f"leave='once': expected responses='bc', got {got}")
        if log.heads == "outcome":
            raise InvalidArgumentError("leave='once': expected a log of clicks, got purchases")
        if log.meta["longest"] > _LONGEST_ONCE:
            raise InvalidArgumentError(
                f"leave='once': expected sessions of at most {_LONGEST_ONCE} pages, "
                f"got one of {log.meta['longest']:,}"
            )

    def _check_form(self, start: Simulator, log: Prepared) -> None:
        """Raises `InvalidArgumentError` for a start from answers of other customers or pages."""
        from virtualtb_fast.imitation.warm import require_start

        cloning, _ = self.response_configs(log)
        response = cloning.response
        if self.responses == "linear":
            response = dataclasses.replace(response, kind="linear")
        require_start(start, log.schema, response)
        if log.table is None:
            return
        # Fields of the same names and sizes may still mean others by their codes.
        about = start.provenance.get("fit")
        theirs = about.get("table") if isinstance(about, dict) else None
        if theirs != log.table.to_json():
            expected = "a simulator whose customers are coded as the log's"
            got = "one that does not say" if theirs is None else "one of other categories"
            raise InvalidArgumentError(f"warm_start: expected {expected}, got {got}")

    def sampler_config(self) -> Any:
        """The sampler's settings, its steps multiplied by the effort; None for its defaults."""
        if self.customers_config is not None or self.effort == 1.0:
            return self.customers_config
        from virtualtb_fast import customers

        if self.customers.startswith("gan-sd"):
            preset = self.customers.removeprefix("gan-sd").removeprefix("-") or "default"
            return fewer(customers.PRESETS[preset], "steps", self.effort)
        if self.customers == "ar":
            return fewer(customers.AutoregressiveConfig(), "steps", self.effort)
        return None

    def response_configs(self, log: Prepared) -> tuple[Any, Any]:
        """Settings of cloning and of MAIL, for this log; MAIL gets what it starts from as such."""
        from virtualtb_fast.imitation.cloning import CLICKS, CloningConfig
        from virtualtb_fast.imitation.linear import LINEAR
        from virtualtb_fast.imitation.mail import MailConfig

        given = self.responses_config
        mail = MailConfig.paper() if self.responses == "mail-paper" else MailConfig()
        cloning = CLICKS if log.heads == "clicks" else CloningConfig()
        if self.responses == "linear":
            cloning = LINEAR
        if isinstance(given, MailConfig):
            if self.responses == "mail-paper" and given.reward == "logit":
                raise InvalidArgumentError(
                    "responses_config: expected a MailConfig.paper for 'mail-paper', "
                    f"got one of reward {given.reward!r}"
                )
            mail, cloning = given, given.cloning
        elif isinstance(given, CloningConfig):
            cloning = given
        cloning = dataclasses.replace(
            cloning,
            response=self._shape(cloning.response, log),
            fit=fewer(cloning.fit, "epochs", self.effort),
            engine_fit=fewer(cloning.engine_fit, "epochs", self.effort),
        )
        mail = dataclasses.replace(mail, cloning=cloning, init="random")
        return cloning, fewer(mail, "iterations", self.effort)

    def _shape(self, response: Any, log: Prepared) -> Any:
        """The heads that this log's feedback needs."""
        if log.heads == "outcome":
            longest = _longest(log)
            return dataclasses.replace(response, heads="outcome", leave="hazard", longest=longest)
        clicks, second = (np.array(log.meta["report"][name]) for name in ("clicks", "second"))
        ours = log.table is None
        return dataclasses.replace(
            response,
            heads="clicks",
            leave=self.leave,
            clicks=max(len(clicks), int(log.meta["page_items"]) + 1),
            second=max(len(second), 10 if ours else 2),
            longest=_longest(log, _LONGEST_ONCE if self.leave == "once" else None),
        )


def _longest(log: Prepared, most: int | None = None) -> int:
    """Pages after which a session ends whatever happens."""
    with_store = log.meta["metadata"].get("store_config")
    if with_store is not None:
        rules = json.loads(with_store)
        return int(rules.get("max_index", _LONGEST)) + 1
    longest = max(int(log.meta["longest"]), _LONGEST)
    return longest if most is None else min(longest, most)


def fewer(config: Any, name: str, effort: float) -> Any:
    """Settings whose number of steps of that name is multiplied by the effort."""
    return dataclasses.replace(config, **{name: max(1, round(getattr(config, name) * effort))})
