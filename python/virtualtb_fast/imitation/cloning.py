"""Behaviour cloning: customers and engine by maximum likelihood on logged pages.

Given the customer, page and action of a row, what was answered is an observed label, and the
likelihood factorises over rows. With full-support logging this is consistent, so it is no straw man
for MAIL: the same networks, averaged weights, and a stop on held-out sessions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._arguments import instance, settle, widths
from virtualtb_fast._batches import SessionRows
from virtualtb_fast._torch import Tensor, nn, torch
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.fitting import FitConfig, Keeper, Progress, check_arguments, fit
from virtualtb_fast.imitation.response import (
    Engine,
    FittedResponse,
    ResponseConfig,
    ResponseNetwork,
)
from virtualtb_fast.imitation.warm import warm_network
from virtualtb_fast.networks import Perceptron, stream
from virtualtb_fast.simulator import Simulator

__all__ = ["CLICKS", "CloningConfig", "clone_engine", "clone_limit", "clone_response"]


@dataclass(frozen=True, slots=True)
class CloningConfig:
    """Settings of behaviour cloning."""

    response: ResponseConfig = field(default_factory=ResponseConfig)
    """The customers' network."""
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(batch=4096, rate=2e-3, epochs=5, weight_decay=0.1)
    )
    """Of the customers' network."""
    engine_hidden: tuple[int, ...] = (128, 128)
    """Hidden layers of the engine's mean."""
    engine_fit: FitConfig = field(
        default_factory=lambda: FitConfig(batch=1024, rate=2e-3, epochs=4)
    )
    """Of the engine."""
    limit_hidden: tuple[int, ...] = (128, 256)
    """Hidden layers of the network of lengths, with ``leave="once"``."""

    def __post_init__(self) -> None:
        instance("response", self.response, ResponseConfig)
        for name in ("fit", "engine_fit"):
            instance(name, getattr(self, name), FitConfig)
        settle(self, widths, "engine_hidden", "limit_hidden")


CLICKS = CloningConfig(
    response=ResponseConfig(heads="clicks", page_scale=1.0),
    fit=FitConfig(batch=1024, rate=2e-3, epochs=12),
)
"""Settings for logs of clicks. A page says much more there than whether something was bought, and
the fit goes on gaining: on a million pages of the published simulator (seed 0) .045 nat a page over
those of purchases. With page numbers as they are it learns what is peculiar to the first pages: the
distance of session lengths there is .05, with a tenth of them .11."""


def clone_response(
    pages: Pages,
    *,
    seed: int,
    config: CloningConfig = CloningConfig(),
    warm_start: Simulator | None = None,
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> FittedResponse:
    """Fits how customers answer pages.

    With ``leave="once"`` the network of lengths is fitted apart: see `clone_limit`.

    Args:
        pages: The log.
        seed: Of weights, held-out sessions and the order of rows.
        config: Settings.
        warm_start: A simulator whose responses these start from, in place of random weights and
            the log's shares of answers; of the form that ``config.response`` says. Where no step
            makes held-out answers likelier, they are the result.
        progress: Called with (stage, steps done, steps, figures).
        checkpoint: Keeps the state; see `virtualtb_fast.imitation.fitting.fit`.

    Raises:
        TrainingDivergedError: a loss is not finite.
        InvalidArgumentError: answers that the heads have no categories for; too few sessions;
            a simulator of another form; arguments of another kind.
    """
    check_arguments(pages, seed, config, CloningConfig, progress, checkpoint)
    train, held = pages.split(config.fit.held_out, seed)
    if warm_start is None:
        network = ResponseNetwork(pages.schema, config.response, pages.action_units(), seed)
        start_at_shares(network, pages)
    else:
        network = warm_network(warm_start, pages, config.response)
    report = fit(
        network,
        lambda rows: network.nll(pages, rows),
        train,
        held,
        config.fit,
        seed=seed,
        name="cloning of customers",
        progress=progress,
        checkpoint=checkpoint,
    )
    return FittedResponse(network, report={"method": "cloning", **asdict(report)})


def clone_engine(
    pages: Pages,
    *,
    seed: int,
    config: CloningConfig = CloningConfig(),
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> Engine:
    """Fits how the shop chose its actions; arguments and errors as of `clone_response`."""
    check_arguments(pages, seed, config, CloningConfig, progress, checkpoint)
    train, held = pages.split(config.engine_fit.held_out, seed)
    engine = Engine(pages.schema, pages.action_units(), config.engine_hidden, seed)
    fit(
        engine,
        lambda rows: engine.nll(pages, rows),
        train,
        held,
        config.engine_fit,
        seed=seed,
        name="cloning of the engine",
        progress=progress,
        checkpoint=checkpoint,
    )
    return engine


def clone_limit(
    pages: Pages,
    *,
    seed: int,
    config: CloningConfig,
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> Perceptron:
    """Fits the length of a session given the customer, as the published network draws it.

    Lengths are classes 1 to ``longest``; class 0 never occurs. Arguments and errors as of
    `clone_response`. The result is `FittedResponse.limit`.
    """
    check_arguments(pages, seed, config, CloningConfig, progress, checkpoint)
    shape = config.response
    network = Perceptron(
        (pages.schema.customer_width, *config.limit_hidden, shape.longest + 1),
        activation=("leaky_relu", shape.slope),
        last_gain=0.1,
        generator=stream(seed, "limit"),
    )
    chosen, numbers = pages.held_out(config.fit.held_out, seed), np.arange(pages.sessions + 1)
    train, held = SessionRows(numbers, ~chosen), SessionRows(numbers, chosen)

    def loss(sessions: NDArray[np.int64]) -> Tensor:
        logits = network(pages.customers(pages.offsets[sessions]))
        lengths = torch.from_numpy(np.minimum(pages.lengths(sessions), shape.longest))
        return nn.functional.cross_entropy(logits, lengths)

    fit(
        network,
        loss,
        train,
        held,
        config.fit,
        seed=seed,
        name="cloning of lengths",
        progress=progress,
        checkpoint=checkpoint,
    )
    return network


def start_at_shares(network: ResponseNetwork, pages: Pages) -> None:
    """Sets the last biases to the log-shares of answers, which saves the first hundred steps."""
    targets = network.targets(pages, pages.spread())
    bias, first = network.network.layers[-1].bias, 0
    with torch.no_grad():
        for head, size in enumerate(network.config.sizes):
            counts = torch.bincount(targets[:, head], minlength=size) + 0.5
            bias[first : first + size] = (counts / counts.sum()).log()
            first += size
