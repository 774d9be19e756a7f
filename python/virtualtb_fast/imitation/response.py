"""The networks that imitation fits: how customers answer a page, and how the engine chose it.

A `ResponseNetwork` and an `Engine` speak to training in tensors, and export to the tensors of
simulator and policy files, with all scales folded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import schema as schemas
from virtualtb_fast._arguments import integer, number, one_of, settle, widths
from virtualtb_fast._torch import Tensor, nn, torch
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.imitation.data import Pages, one_hot
from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.networks import (
    Categorical,
    Gaussian,
    GaussianPolicy,
    Perceptron,
    layers_of,
    stream,
)
from virtualtb_fast.policies import Policy
from virtualtb_fast.schema import Schema

__all__ = ["Engine", "FittedResponse", "ResponseConfig", "ResponseNetwork"]

_LEFT = OUTCOMES.index("leave")


@dataclass(frozen=True, slots=True)
class ResponseConfig:
    """The shape of a response network."""

    heads: Literal["outcome", "clicks"] = "outcome"
    """``outcome``: turn, buy, leave. ``clicks``: clicks, second head and, with ``leave`` a hazard,
    stay or leave."""
    kind: Literal["mlp", "linear"] = "mlp"
    """``linear``: the buy logit is linear in the action, the rest does not see it."""
    hidden: tuple[int, ...] = (128, 256)
    """Sizes of the hidden layers."""
    slope: float = 0.01
    """Of the leaky ReLU; the same for all networks of a simulator."""
    page_scale: float = 0.1
    """The page number is multiplied by this."""
    clicks: int = 11
    """Categories of the head of clicks."""
    second: int = 10
    """Categories of the second head."""
    leave: Literal["hazard", "once"] = "hazard"
    """``once``: the length of a session is drawn at its start, by a network of its own."""
    longest: int = 101
    """Pages of the longest possible session."""
    items: int = 10
    """Items on a page."""

    def __post_init__(self) -> None:
        one_of("heads", self.heads, ("outcome", "clicks"))
        one_of("kind", self.kind, ("mlp", "linear"))
        one_of("leave", self.leave, ("hazard", "once"))
        settle(self, widths, "hidden")
        settle(self, number, "slope", low=0, high=1)
        if self.slope == 1:
            raise InvalidArgumentError("slope: expected a number below 1, got 1.0")
        settle(self, number, "page_scale", low=-1e6, high=1e6)
        settle(self, integer, "clicks", "second", "items", low=1, high=256)
        settle(self, integer, "longest", low=1, high=2**31)
        if self.kind == "linear" and self.heads != "outcome":
            raise InvalidArgumentError(f"kind linear: expected heads outcome, got {self.heads!r}")
        if self.heads == "outcome" and self.leave != "hazard":
            raise InvalidArgumentError("heads outcome: expected leave hazard, got 'once'")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Categories of each head."""
        if self.heads == "outcome":
            return (3,)
        return (self.clicks, self.second, *((2,) if self.leave == "hazard" else ()))


class ResponseNetwork(nn.Module):
    """Logits of all heads from customer, page and action."""

    unit: Tensor

    def __init__(self, schema: Schema, config: ResponseConfig, unit: Tensor, seed: int) -> None:
        """``unit`` (A,): raw actions are divided by it."""
        super().__init__()
        self.schema, self.config = schema, config
        rng = stream(seed, "response")
        width, linear = schema.customer_width, config.kind == "linear"
        sizes = (width + 1 + (0 if linear else schema.action), *config.hidden, sum(config.sizes))
        self.network = Perceptron(
            sizes, activation=("leaky_relu", config.slope), last_gain=0.1, generator=rng
        )
        self.effect = nn.Linear(width, schema.action) if linear else None
        if self.effect is not None:
            nn.init.zeros_(self.effect.weight)
            nn.init.zeros_(self.effect.bias)
        self.register_buffer("unit", unit)

    def forward(self, customer: Tensor, page: Tensor, action: Tensor) -> Tensor:
        """Logits (N, sum of heads).

        Args:
            customer: One-hot (N, customer_width).
            page: (N,) numbers.
            action: (N, A), raw.
        """
        scaled = action / self.unit
        numbers = page[:, None] * self.config.page_scale
        if self.effect is None:
            out: Tensor = self.network(torch.cat((customer, numbers, scaled), 1))
            return out
        logits = self.network(torch.cat((customer, numbers), 1))
        gain = (self.effect(customer) * scaled).sum(1, keepdim=True)
        pushed: Tensor = logits + nn.functional.pad(gain, (1, 1))
        return pushed

    def distribution(self, customer: Tensor, page: Tensor, action: Tensor) -> Categorical:
        """The heads' distribution; arguments as of `forward`."""
        return Categorical(self(customer, page, action), self.config.sizes)

    def targets(self, pages: Pages, rows: NDArray[np.int64]) -> Tensor:
        """What was answered, int64 (n, heads).

        Raises:
            InvalidArgumentError: more clicks than the head has categories for.
        """
        if self.config.heads == "outcome":
            return pages.answers(rows)[:, None]
        columns = [pages.clicks[rows], pages.second[rows]]
        if self.config.leave == "hazard":
            columns.append((pages.outcome[rows] == _LEFT).astype(np.uint8))
        stacked = np.stack(columns, 1)
        if (stacked.max(0, initial=0) >= np.array(self.config.sizes)).any():
            got = stacked.max(0).tolist()
            raise InvalidArgumentError(f"answers: expected below {self.config.sizes}, got {got}")
        return torch.from_numpy(stacked.astype(np.int64))

    def nll(self, pages: Pages, rows: NDArray[np.int64]) -> Tensor:
        """Mean negative log-likelihood of what was answered, nat a page."""
        given = pages.customers(rows), pages.numbers(rows), pages.actions(rows)
        likelihood: Tensor = self.distribution(*given).log_prob(self.targets(pages, rows))
        return -likelihood.mean()

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Under the names of simulator files, for raw inputs but for the page's scale."""
        unit = self.unit.double().numpy()
        known = np.ones(self.schema.customer_width + 1)
        if self.effect is None:
            scale = np.append(known, 1.0 / unit)
            return self.network.named_tensors("action", input_scale=scale)
        weight = self.effect.weight.detach().double().numpy() / unit[:, None]
        bias = self.effect.bias.detach().double().numpy() / unit
        return {
            **self.network.named_tensors("action"),
            "effect.weight": weight.astype(np.float32),
            "effect.bias": bias.astype(np.float32),
        }

    def take(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Replaces all weights by those of a simulator's file: the inverse of `tensors`.

        Computed in float64, rounded once; exact where units are powers of two.

        Args:
            tensors: Of a network of this form, as `tensors` gives them; others are not looked at.
        """
        unit = self.unit.double()
        with torch.no_grad():
            layers = layers_of(tensors, "action")
            for index, (layer, given) in enumerate(zip(self.network.layers, layers, strict=True)):
                weight, bias = (torch.from_numpy(one.astype(np.float64)) for one in given)
                if index == 0 and self.effect is None:
                    weight[:, -self.schema.action :] *= unit
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            if self.effect is not None:
                weight, bias = (
                    torch.from_numpy(tensors[f"effect.{name}"].astype(np.float64))
                    for name in ("weight", "bias")
                )
                self.effect.weight.copy_(weight * unit[:, None])
                self.effect.bias.copy_(bias * unit)


class Engine(nn.Module):
    """How the shop chose what to show: an action, normal given customer and page."""

    def __init__(
        self, schema: Schema, unit: Tensor, hidden: tuple[int, ...], seed: int, scale: float = 0.1
    ) -> None:
        """``unit`` (A,): logged standard deviations; ``scale`` multiplies the page number."""
        super().__init__()
        self.schema = schema
        sizes = (schema.observation_width, *hidden, schema.action)
        network = Perceptron(sizes, last_gain=0.01, generator=stream(seed, "engine"))
        with torch.no_grad():
            # The engine does not see the last page's feedback: these inputs are 0 in training, so
            # their weights get no gradient either.
            network.layers[0].weight[:, [schema.clicks_column, schema.second_column]] = 0.0
        sd = torch.ones(schema.observation_width)
        sd[schema.page_column] = 1.0 / scale
        # The log's own spread: exactly 1 in units.
        start = torch.zeros(schema.action)
        self.policy = GaussianPolicy(network, log_sd=start, unit=unit, observation_sd=sd)

    def forward(self, customer: Tensor, page: Tensor) -> Gaussian:
        """The distribution of actions in units, given one-hot customers and page numbers."""
        nothing = torch.zeros(len(page), 2)
        found: Gaussian = self.policy(torch.cat((customer, nothing, page[:, None]), 1))
        return found

    def nll(self, pages: Pages, rows: NDArray[np.int64]) -> Tensor:
        """Mean negative log-density of what was shown, in units."""
        units = pages.actions(rows) / self.policy.unit
        likelihood: Tensor = self(pages.customers(rows), pages.numbers(rows)).log_prob(units)
        return -likelihood.mean()

    def to_policy(self, **about: Any) -> Policy:
        """The native policy that draws these actions."""
        return Policy.from_tensors(**self.policy.export(), schema=self.schema, provenance=about)


@dataclass(frozen=True)
class FittedResponse:
    """How customers answer pages, learned from a log."""

    network: ResponseNetwork
    """The heads."""
    limit: Perceptron | None = None
    """With ``leave="once"``: logits of the session's length from the one-hot customer."""
    report: dict[str, Any] = field(default_factory=dict)
    """How the fit went."""

    def export(self) -> tuple[schemas.Response, schemas.Leave, dict[str, NDArray[np.float32]]]:
        """The parts of a `virtualtb_fast.schema.Config` and the tensors that go with them."""
        config = self.network.config
        kinds: dict[str, Any] = {"kind": config.kind, "heads": config.heads}
        if config.heads == "clicks":
            kinds |= {"clicks": config.clicks, "second": config.second}
        else:
            kinds |= {"items": config.items}
        response = schemas.Response(page_scale=config.page_scale, hidden=config.hidden, **kinds)
        tensors = self.network.tensors()
        if self.limit is None:
            return response, schemas.Leave(kind="hazard", longest=config.longest), tensors
        hidden = tuple(layer.out_features for layer in self.limit.layers[:-1])
        leave = schemas.Leave(classes=config.longest + 1, hidden=hidden)
        return response, leave, {**tensors, **self.limit.named_tensors("leave")}

    def probabilities(
        self, customer: ArrayLike, page: ArrayLike, action: ArrayLike
    ) -> dict[str, NDArray[np.float32]]:
        """Each head's probabilities, as `Simulator.response` gives them.

        Args:
            customer: Category codes (N, fields).
            page: (N,).
            action: (N, A), raw.

        Returns:
            ``outcome`` (N, 3); or ``clicks``, ``second`` and, with a hazard, ``leave``.
        """
        schema = self.network.schema
        codes = torch.from_numpy(np.asarray(customer, np.int64))
        numbers = torch.from_numpy(np.asarray(page, np.float32))
        actions = torch.from_numpy(np.asarray(action, np.float32))
        with torch.no_grad():
            heads = self.network.distribution(one_hot(schema, codes), numbers, actions)
        names = ("outcome",) if len(heads.heads) == 1 else ("clicks", "second", "leave")
        parts = heads.log_probabilities()
        return {name: part.exp().numpy() for name, part in zip(names, parts, strict=False)}

    def with_report(self, **more: Any) -> FittedResponse:
        """The same, with more to say."""
        return replace(self, report={**self.report, **more})
