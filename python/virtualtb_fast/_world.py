"""What a ground-truth store's world is made of: its items, how sessions go, what is hidden."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast.errors import InvalidArgumentError

__all__ = ["Course", "Hidden", "Items"]


@dataclass(frozen=True, slots=True)
class Items:
    """Some items of a catalogue."""

    attributes: NDArray[np.float32]
    """(n, 27), standardised: 0 log-price, 1 sales, 2 historical click-through, the rest latent."""
    category: NDArray[np.uint8]
    """(n,): the query whose candidates the item may be among."""
    price: NDArray[np.float64]
    """(n,): in units of money, whole cents."""


@dataclass(frozen=True, slots=True)
class Course:
    """How sessions go under a policy, in expectation."""

    r2p: float
    """Share of pages that sell."""
    mean_length: float
    """Pages of a session."""
    lengths: NDArray[np.float64] = field(repr=False)
    """(longest,): probability that a session has n + 1 pages."""


@dataclass(frozen=True)
class Hidden:
    """What a world hides from learners. For evaluation and tests; never for training."""

    tau: float
    """Strength of tastes: standard deviation of an archetype's utility among candidates."""
    b0: float
    """Utility of an average item on the first page."""
    phase: float
    """The hour at which buying crosses its mean on the way up."""
    shared: NDArray[np.float64]
    """(27,): the taste that all archetypes share."""
    theta: NDArray[np.float64]
    """(16, 27): the archetypes' tastes on the store's day."""
    covariance: NDArray[np.float64]
    """(27, 27): pooled covariance of the attributes within categories."""
    shares: NDArray[np.float64]
    """(16,): shares of the archetypes on the store's day."""
    fields: NDArray[np.float64]
    """(16, 88): P(field = category | archetype)."""
    logged_means: NDArray[np.float32]
    """(18, 27): means of the state-dependent logger, by query."""
    calibration: dict[str, Any] | None
    """Figures of the calibration: R2P of ``logger`` (on pages of its own), ``oracle``, ``zero``,
    ``uniform`` and ``best_constant`` with its ``best_action``; ``slots_changed``, ``mean_length``,
    ``length_quantiles`` (10, 50, 90, 99 %), ``entropy`` and ``total_correlation`` (nat). None if
    the store was made with explicit parameters."""
    production: NDArray[np.float32] = field(repr=False)
    _native: _core.Store = field(repr=False)

    def log_density(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Logarithms of p(x) of customers.

        Args:
            codes: Category codes, integers (n, 11).

        Returns:
            float64 (n,).

        Raises:
            InvalidArgumentError: codes of another shape, or out of range.
        """
        array = _arguments.array("codes", codes)
        if array.size and array.dtype.kind == "i" and array.min() < 0:
            raise InvalidArgumentError(f"codes: expected none below 0, got {array.min()}")
        if array.ndim != 2 or array.dtype.kind not in "iu":
            got = f"{array.dtype} of shape {array.shape}"
            raise InvalidArgumentError(f"codes: expected integers of shape (n, 11), got {got}")
        return self._native.ln_density(np.minimum(array, 255).astype(np.uint8, order="C"))

    def best_responses(self, archetypes: ArrayLike) -> NDArray[np.float32]:
        """The exact best action for customers of these archetypes: it shows what they like most.

        Args:
            archetypes: Integers (n,), as the environments' ``reveal_archetypes`` gives them.

        Returns:
            float32 (n, 27), within the box.

        Raises:
            InvalidArgumentError: something other than integers of 0 to 15.
        """
        numbers = _arguments.array("archetypes", archetypes)
        whole = numbers.dtype.kind in "iu"
        if not whole or (numbers.size and not 0 <= numbers.min() <= numbers.max() < 16):
            expected = "integers of 0 to 15"
            raise InvalidArgumentError(f"archetypes: expected {expected}, got {archetypes!r}")
        theta = self.theta[numbers]
        # Any positive multiple ranks alike: this one keeps the action well within the box.
        weights = 0.5 * theta / np.abs(theta).max(-1, keepdims=True)
        action: NDArray[np.float32] = (weights - self.production).astype(np.float32)
        return action
