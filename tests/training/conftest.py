"""Small logs with known answers, and a place for checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from virtualtb_fast.schema import Field, Schema

SCHEMA = Schema((Field("kind", 3), Field("size", 2)), action=4)


class Kept:
    """A keeper in memory that saves every time it is asked."""

    def __init__(self, state: Any = None) -> None:
        self.state, self.history = state, []

    def load(self) -> Any:
        return self.state

    def save(self, state: Any) -> None:
        self.state = dict(state)
        self.history.append(self.state)

    def due(self) -> bool:
        return True


def pages_with_known_answers(sessions: int = 4_000, seed: int = 0) -> Any:
    """Pages whose answers follow a logit that is linear in the action."""
    from virtualtb_fast.imitation.data import Pages

    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.4, sessions), 9)
    offsets = np.concatenate(([0], lengths.cumsum()))
    rows = int(offsets[-1])
    customer = np.repeat(rng.integers(0, (3, 2), (sessions, 2)), lengths, 0).astype(np.uint8)
    action = rng.normal(0, 0.02, (rows, 4)).astype(np.float32)
    effect = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 1.0, 0]])[customer[:, 0]]
    buy = (effect * action / 0.02).sum(1) - 1.0
    odds = np.stack((np.zeros(rows), buy, np.full(rows, -1.5)), 1)
    p = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    outcome = (rng.random(rows)[:, None] > p.cumsum(1)[:, :2]).sum(1).astype(np.uint8)
    page = (np.arange(rows) - np.repeat(offsets[:-1], lengths)).astype(np.int16)
    bought = (outcome == 1).astype(np.uint8)
    return Pages(SCHEMA, customer, action, page, outcome, bought, bought, offsets)


@pytest.fixture
def known() -> Callable[..., Any]:
    """Makes pages of (sessions, seed)."""
    return pages_with_known_answers


@pytest.fixture
def keeper() -> type[Kept]:
    """Keeps states in memory."""
    return Kept
