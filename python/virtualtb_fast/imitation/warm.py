"""A warm start: responses begin as those of an earlier simulator, not at random.

The paper fits each part of a day by itself; customers of one part answer much as those of the part
before, so that its simulator is a good place to begin.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from virtualtb_fast._arguments import instance
from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.response import ResponseConfig, ResponseNetwork
from virtualtb_fast.schema import Schema
from virtualtb_fast.simulator import Simulator

__all__ = ["require_start", "warm_network"]


def require_start(simulator: Simulator, schema: Schema, config: ResponseConfig) -> None:
    """Raises `InvalidArgumentError` unless the simulator's responses are of this form.

    Args:
        simulator: What is to be started from.
        schema: The customers and actions of the log.
        config: The network that is to be fitted. How long sessions may be, and how many items a
            page has, is not of its weights and may be another.
    """
    instance("warm_start", simulator, Simulator)
    held = simulator.config
    response = held.response
    pairs: list[tuple[str, Any, Any]] = [
        ("customers of the fields", _fields(schema), _fields(simulator.schema)),
        ("action dimensions", schema.action, simulator.schema.action),
        ("responses of kind", config.kind, response.kind),
        ("heads", config.heads, response.heads),
        ("hidden layers", config.hidden, tuple(response.hidden)),
        ("leave", config.leave, held.leave.kind),
        ("page_scale", config.page_scale, response.page_scale),
        ("slope", config.slope, held.slope),
    ]
    if config.heads == response.heads == "clicks":
        sizes = (response.clicks, response.second)
        pairs.append(("categories of clicks, second", (config.clicks, config.second), sizes))
    for name, expected, got in pairs:
        same = expected == got
        if isinstance(expected, float):
            # Files hold them in single precision.
            same = np.float32(expected) == np.float32(got)
        if not same:
            raise InvalidArgumentError(
                f"warm_start: expected a simulator with {name} {expected}, got {got}"
            )


def warm_network(simulator: Simulator, pages: Pages, config: ResponseConfig) -> ResponseNetwork:
    """The network that answers as the simulator does, to be trained further.

    Its units of actions are not the standard deviations of the log but the powers of two next to
    them: scaling by those is exact, so that before the first step the network exports the
    simulator's own weights, bit for bit.

    Raises:
        InvalidArgumentError: the simulator's responses are of another form; see `require_start`.
    """
    require_start(simulator, pages.schema, config)
    network = ResponseNetwork(pages.schema, config, _powers_of_two(pages.action_units()), seed=0)
    network.take(simulator.tensors())
    return network


def _fields(schema: Schema) -> str:
    return ", ".join(f"{one.name} ({one.size})" for one in schema.customer)


def _powers_of_two(unit: Tensor) -> Tensor:
    """Those next to positive numbers, by their ratio."""
    share, exponent = np.frexp(unit.double().numpy())
    return torch.from_numpy(np.ldexp(1.0, exponent - (share < 0.5**0.5)).astype(np.float32))
