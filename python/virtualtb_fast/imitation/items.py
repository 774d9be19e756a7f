"""Customers who see what is on the page: a multinomial logit over its items.

    u_i = theta(x) . z_i + level(x) + b(n)        buying item i, z_i its attributes
    t(n)                                          turning the page
    l(x) + c(n)                                   leaving
    P = softmax over the 10 + 2

theta, level and l are linear in the one-hot customer, b, t and c in the page number. It is fitted
by maximum likelihood on a log with items, and plays through `GroundTruthStore(customers=...)`: the
same catalogue and page loop, with a learned answer in place of the true one. Unlike a response to
the action, it knows that two actions which show the same page are the same.

The log says what was bought by its price. Should several items of a page have that price, the
likelihood is that of buying any one of them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._arguments import instance, number, settle
from virtualtb_fast._torch import Tensor, nn, torch
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.imitation.data import ANSWERS, Pages
from virtualtb_fast.imitation.fitting import FitConfig, Keeper, Progress, check_arguments, fit
from virtualtb_fast.schema import Schema
from virtualtb_fast.store import Items

__all__ = ["ItemConfig", "ItemCustomers", "fit_item_customers"]

_BUY, _LEAVE = ANSWERS.index("buy"), ANSWERS.index("leave")


@dataclass(frozen=True, slots=True)
class ItemConfig:
    """Settings of the fit."""

    fit: FitConfig = field(default_factory=lambda: FitConfig(batch=2048, rate=1e-2, epochs=3))
    """Of the loop."""
    page_scale: float = 0.1
    """The page number is multiplied by this."""

    def __post_init__(self) -> None:
        instance("fit", self.fit, FitConfig)
        settle(self, number, "page_scale", low=-math.inf)


class ItemNetwork(nn.Module):
    """The three kinds of utilities."""

    def __init__(self, schema: Schema, attributes: int, slots: int, scale: float) -> None:
        super().__init__()
        self.schema, self.scale, self.slots = schema, scale, slots
        width = schema.customer_width
        # Columns: theta, level, leaving.
        self.customer = nn.Linear(width, attributes + 2)
        # Columns: buying, turning, leaving, by page.
        self.page = nn.Linear(1, 3, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            # One page in ten sells and one in ten is the last: as good a start as any.
            self.customer.bias[-2:] = torch.tensor([-4.4, -2.1])

    def forward(self, customer: Tensor, page: Tensor, attributes: Tensor) -> Tensor:
        """Log-probabilities (N, slots + 2) of buying each, turning, leaving.

        Args:
            customer: One-hot (N, customer_width).
            page: (N,) numbers.
            attributes: (N, slots, D) of the items shown.
        """
        own, by_page = self.customer(customer), self.page(page[:, None] * self.scale)
        taste, level, leave = own[:, :-2], own[:, -2:-1], own[:, -1:]
        utility = torch.einsum("nsd,nd->ns", attributes, taste) + level + by_page[:, :1]
        logits = torch.cat((utility, by_page[:, 1:2], leave + by_page[:, 2:]), 1)
        logs: Tensor = logits.log_softmax(1)
        return logs


@dataclass(frozen=True)
class ItemCustomers:
    """Learned customers for ``GroundTruthStore(customers=...)``; NumPy alone plays them."""

    taste: NDArray[np.float64]
    """(customer_width, D): theta is the sum of the rows of a customer's categories, and of
    ``shared``."""
    shared: NDArray[np.float64]
    """(D,)."""
    level: NDArray[np.float64]
    """(customer_width + 1,): of buying, by category; the last is everybody's."""
    leave: NDArray[np.float64]
    """(customer_width + 1,): of leaving, likewise."""
    by_page: NDArray[np.float64]
    """(3,): slopes of buying, turning and leaving in the page number."""
    first: NDArray[np.int64]
    """(fields,): first row of each field."""
    report: dict[str, Any]
    """How the fit went."""

    def __post_init__(self) -> None:
        # What logs call these customers: other weights have other names.
        arrays = (self.taste, self.shared, self.level, self.leave, self.by_page)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        object.__setattr__(self, "__qualname__", f"ItemCustomers.{digest[:16]}")

    def tastes(self, customer: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Theta of customers given as codes (n, fields): (n, D)."""
        found: NDArray[np.float64] = self.taste[customer + self.first].sum(1) + self.shared
        return found

    def __call__(self, pages: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Weights (n, slots + 2); see `virtualtb_fast.store.CustomerModel`."""
        rows, number = pages["customer"] + self.first, pages["page"][:, None]
        utility = np.einsum("nsd,nd->ns", pages["attributes"], self.tastes(pages["customer"]))
        level = self.level[rows].sum(1, keepdims=True) + self.level[-1]
        leave = self.leave[rows].sum(1, keepdims=True) + self.leave[-1]
        buy, turn, go = self.by_page
        logits = np.hstack((utility + level + buy * number, turn * number, leave + go * number))
        weights: NDArray[np.float64] = np.exp(logits - logits.max(1, keepdims=True))
        return weights


def fit_item_customers(
    pages: Pages,
    items: Items,
    *,
    seed: int,
    config: ItemConfig | None = None,
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> ItemCustomers:
    """Fits customers who see the page.

    Args:
        pages: A log with items and prices.
        items: The catalogue, all rows: what `GroundTruthStore.items` gives.
        seed: Of held-out sessions and the order of rows.
        config: Settings.
        progress: Called with (stage, steps done, steps, figures).
        checkpoint: Keeps the state; see `virtualtb_fast.imitation.fitting.fit`.

    Raises:
        InvalidArgumentError: a log without items, items that the catalogue does not have, a
            purchase at a price that no item of its page has.
        TrainingDivergedError: a loss is not finite.
    """
    config = ItemConfig() if config is None else config
    check_arguments(pages, seed, config, ItemConfig, progress, checkpoint)
    instance("items", items, Items)
    if pages.items is None or pages.value is None:
        raise InvalidArgumentError("pages: expected a log with items and prices, got none")
    if pages.items.max() >= len(items.attributes):
        expected = f"rows below {len(items.attributes)}"
        raise InvalidArgumentError(f"items: expected {expected}, got {pages.items.max()}")
    shown, value = pages.items, pages.value
    schema, slots = pages.schema, shown.shape[1]
    attributes = torch.from_numpy(np.ascontiguousarray(items.attributes, np.float32))
    cents = np.rint(100.0 * items.price).astype(np.int64)

    def bought(rows: NDArray[np.int64], answers: Tensor) -> Tensor:
        """Whether a slot may be the one that answers, (n, slots + 2)."""
        paid = np.rint(100.0 * value[rows].astype(np.float64)).astype(np.int64)
        out = torch.zeros(len(rows), slots + 2, dtype=torch.bool)
        out[:, :slots] = torch.from_numpy(cents[shown[rows]] == paid[:, None])
        out[:, :slots] &= (answers == _BUY)[:, None]
        out[:, slots] = answers == ANSWERS.index("turn")
        out[:, slots + 1] = answers == _LEAVE
        lost = ~out.any(1)
        if lost.any():
            row = int(rows[int(torch.nonzero(lost)[0])])
            raise InvalidArgumentError(
                f"row {row}: expected the price of an item of the page, got {value[row]!r}"
            )
        return out

    network = ItemNetwork(schema, attributes.shape[1], slots, config.page_scale)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        seen = attributes[torch.from_numpy(shown[rows].astype(np.int64))]
        logs = network(pages.customers(rows), pages.numbers(rows), seen)
        possible = bought(rows, pages.answers(rows))
        likelihood: Tensor = logs.masked_fill(~possible, -torch.inf).logsumexp(1)
        return -likelihood.mean()

    train, held = pages.split(config.fit.held_out, seed)
    report = fit(
        network,
        loss,
        train,
        held,
        config.fit,
        seed=seed,
        name="customers who see the page",
        progress=progress,
        checkpoint=checkpoint,
    )
    weight = network.customer.weight.detach().double().numpy()
    bias = network.customer.bias.detach().double().numpy()
    sizes = [one.size for one in schema.customer]
    return ItemCustomers(
        taste=np.ascontiguousarray(weight[:-2].T),
        shared=bias[:-2].copy(),
        level=np.append(weight[-2], bias[-2]),
        leave=np.append(weight[-1], bias[-1]),
        by_page=network.page.weight.detach().double().numpy()[:, 0] * config.page_scale,
        first=np.cumsum([0, *sizes[:-1]]),
        report={"method": "items", **asdict(report)},
    )
