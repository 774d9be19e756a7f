"""Several responses fitted apart: where they disagree, none of them should be believed.

Members differ in weights, in which sessions are held out and in the order of rows. Disagreement is
what the pages of the log cannot settle (Lakshminarayanan et al., NeurIPS 2017), and grows away
from logged actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.response import FittedResponse

__all__ = ["Ensemble", "disagreement_report"]

_PAGES: Final = 20_000
"""Logged pages that disagreement is measured on."""


@dataclass(frozen=True)
class Ensemble:
    """Fitted responses that answer together. Each member exports to a simulator of its own."""

    members: tuple[FittedResponse, ...]

    def _each(
        self, customer: ArrayLike, page: ArrayLike, action: ArrayLike, head: str
    ) -> NDArray[np.float64]:
        """Each member's probabilities, (members, N, categories)."""
        answers = [one.probabilities(customer, page, action)[head] for one in self.members]
        return np.stack(answers).astype(np.float64)

    def probabilities(
        self, customer: ArrayLike, page: ArrayLike, action: ArrayLike, head: str = "outcome"
    ) -> NDArray[np.float64]:
        """The members' mean probabilities of a head, (N, categories)."""
        mean: NDArray[np.float64] = self._each(customer, page, action, head).mean(0)
        return mean

    def disagreement(
        self, customer: ArrayLike, page: ArrayLike, action: ArrayLike, head: str = "outcome"
    ) -> NDArray[np.float64]:
        """How far the members are apart, nat, (N,): 0 if they say the same.

        The mean divergence of the members from their mixture, which is the mutual information of
        answer and member.
        """
        each = np.maximum(self._each(customer, page, action, head), 1e-30)
        apart = (each * np.log(each / each.mean(0))).sum(-1).mean(0)
        found: NDArray[np.float64] = np.maximum(apart, 0.0)
        return found

    def spread(
        self, customer: ArrayLike, page: ArrayLike, action: ArrayLike
    ) -> NDArray[np.float64]:
        """Standard deviation over members of the probability of a purchase, (N,)."""
        buys = self._each(customer, page, action, "outcome")[..., 1]
        found: NDArray[np.float64] = buys.std(0)
        return found


def disagreement_report(ensemble: Ensemble, pages: Pages) -> dict[str, float]:
    """Mean disagreement, nat, about logged customers and pages when other actions are taken.

    Returns:
        ``logged``: under the logged actions; ``double``, ``fivefold``: under actions twice and
        five times as far from the mean action, as far as the action box goes; ``random``: under
        actions uniform on the box. It is that of the outcome, or of the number of clicks.
    """
    rows = pages.spread(_PAGES)
    logged = np.asarray(pages.action[rows], np.float32)
    low, high = pages.schema.action_range
    mean = logged.mean(0)
    draws = np.random.default_rng(0).uniform(low, high, logged.shape)
    actions = {
        "logged": logged,
        "double": np.clip(mean + 2 * (logged - mean), low, high),
        "fivefold": np.clip(mean + 5 * (logged - mean), low, high),
        "random": draws.astype(np.float32),
    }
    heads = ensemble.members[0].network.config.heads
    head = "outcome" if heads == "outcome" else "clicks"
    given = pages.customer[rows], pages.page[rows]
    return {
        name: float(ensemble.disagreement(*given, action, head).mean())
        for name, action in actions.items()
    }
