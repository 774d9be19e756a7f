"""The policy that a log was made with: as the log names it, or fitted to its actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from virtualtb_fast.evaluation.sides import blocks_of
from virtualtb_fast.policies import Policy
from virtualtb_fast.records import Prepared
from virtualtb_fast.schema import Schema
from virtualtb_fast.store import LOGGED_SD

__all__ = ["linear_policy", "logged_policy"]

_ENOUGH = 1_000_000
"""Pages that a linear policy is fitted to."""
_RIDGE = 1.0
"""Pages' worth of evidence that a weight is 0."""


def logged_policy(metadata: Mapping[str, str], schema: Schema) -> Policy | None:
    """The policy that a log of this package names, if a simulator can play it; else None."""
    name = metadata.get("policy", "")
    if name == "logger" and "store" in metadata:
        # What a store's logger draws: the same for every customer.
        return Policy.parse(f"gaussian:{LOGGED_SD}")
    if name in ("random", "zero") or name.startswith("gaussian:"):
        return Policy.parse(name)
    return None


def linear_policy(
    log: Prepared, schema: Schema, told: Callable[[str, int, int], None] | None = None
) -> Policy:
    """Normal actions around a linear function of customer and page, by least squares.

    It has the logged mean and variance of every dimension, for every category of every field as
    far as these add up.

    Args:
        log: Whose actions it imitates; of more than a million pages the first ones.
        schema: Of the simulator that it will be played in.
        told: Progress.
    """
    width, page = schema.customer_width, schema.page_column
    inputs = width + 2
    products = np.zeros((inputs, inputs))
    answers = np.zeros((inputs, schema.action))
    squares = np.zeros(schema.action)
    rows = 0
    for block in blocks_of(log):
        shown = np.ones((len(block["page"]), inputs))
        shown[:, :width] = schema.one_hot(block["customer"])
        shown[:, width] = block["page"]
        action = np.asarray(block["action"], np.float64)
        products += shown.T @ shown
        answers += shown.T @ action
        squares += (action * action).sum(0)
        rows += len(action)
        if told is not None:
            told("the log's policy", rows, min(log.rows, _ENOUGH))
        if rows >= _ENOUGH:
            break
    ridge = np.full(inputs, _RIDGE)
    ridge[-1] = 0.0
    weights = np.linalg.lstsq(products + np.diag(ridge), answers, rcond=None)[0]
    errors: Any = squares - 2 * (weights * answers).sum(0)
    errors = (errors + np.einsum("ia,ij,ja->a", weights, products, weights)) / rows
    layer = np.zeros((schema.action, schema.observation_width), np.float32)
    layer[:, :width] = weights[:width].T
    layer[:, page] = weights[width]
    return Policy.from_tensors(
        [(layer, weights[-1].astype(np.float32))],
        schema=schema,
        log_sd=0.5 * np.log(np.maximum(errors, 1e-12)),
        provenance={"fitted_by": "linear_policy", "log": log.digest},
    )
