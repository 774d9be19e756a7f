"""Sessions of policies that are being learned, played natively."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import schema as schemas
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.response import Engine, FittedResponse
from virtualtb_fast.rollout import rollout
from virtualtb_fast.simulator import Simulator

__all__ = ["CustomerSource", "logged_customers", "simulate", "simulator_of"]


class CustomerSource(Protocol):
    """Who comes: a sampler of customers, as simulator files hold it."""

    @property
    def config(self) -> schemas.Customers:
        """Its kind and sizes."""
        ...

    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Its weights."""
        ...


@dataclass(frozen=True)
class _Rows:
    """The customer of sessions is that of a logged session, drawn at random."""

    config: schemas.Customers
    tensors: dict[str, NDArray[Any]]


def logged_customers(pages: Pages) -> CustomerSource:
    """A bootstrap of the customers of logged sessions, of 2^18 of them evenly over a longer log."""
    some = pages.offsets[: -1 : max(1, pages.sessions >> 18)]
    rows = np.ascontiguousarray(pages.customer[some])
    return _Rows(schemas.Customers(kind="rows", rows=len(rows)), {"customers.rows": rows})


def simulator_of(
    fitted: FittedResponse, customers: CustomerSource, schema: schemas.Schema, name: str = "learned"
) -> Simulator:
    """The native simulator of learned responses and these customers."""
    response, leave, tensors = fitted.export()
    slope = fitted.network.config.slope
    return Simulator.from_tensors(
        {**customers.tensors, **tensors},
        name=name,
        schema=schema,
        config=schemas.Config(customers.config, response, leave, slope=slope),
    )


def simulate(
    fitted: FittedResponse,
    engine: Engine,
    customers: CustomerSource,
    *,
    sessions: int,
    seed: int,
    num_threads: int | None = None,
) -> Pages:
    """Plays sessions of the present policies, natively."""
    simulator = simulator_of(fitted, customers, engine.schema)
    played = rollout(
        simulator, engine.to_policy(), sessions=sessions, seed=seed, num_threads=num_threads
    )
    return Pages.from_log(played.log)
