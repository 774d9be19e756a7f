"""The action norm constraint (Shi et al., AAAI 2019, "ANC").

    r'(s, a) = r(s, a) / (1 + rho max(||a|| - mu, 0))

A simulator knows what was logged and believes what it likes of everything else, and a policy that
is trained in it goes where it believes the most. So rewards of actions whose norm is beyond that of
most logged ones count for less. Environments apply it natively (their argument ``anc``), to the
executed action and to the training reward alone: ``info["raw_reward"]`` is without it, and so is
every evaluation.

The paper has rho = 1 and mu = .01 as if the unit of an action were known. Without a unit the same
reads 1 + rho max(||a|| / mu - 1, 0), which is rho / mu in the form above: the default here, with mu
a quantile of logged norms.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments
from virtualtb_fast.errors import InvalidArgumentError

__all__ = ["PAPER", "Form", "norm_constraint", "usual_norm"]

Form = Literal["scaled", "paper"]

PAPER: Final = (1.0, 0.01)
"""(rho, mu) as printed."""


def usual_norm(actions: NDArray[np.floating], *, quantile: float = 0.9) -> float:
    """mu: the norm that this share of logged actions does not exceed.

    Args:
        actions: (n, A), raw. Actions whose dimensions have different units are to be divided by
            them first, and by the same ones in training.
        quantile: In (0, 1); "most historical actions" is .9.

    Raises:
        InvalidArgumentError: no actions, not finite ones, or ones that are mostly zero.
    """
    share = _arguments.real("quantile", quantile)
    array = _arguments.array("actions", actions)
    good = array.ndim == 2 and array.size > 0 and array.dtype.kind in "iuf"
    if not good or not np.isfinite(array).all():
        got = f"{array.dtype} of shape {array.shape}"
        raise InvalidArgumentError(f"actions: expected finite numbers (n, A), got {got}")
    if not 0.0 < share < 1.0:
        raise InvalidArgumentError(f"quantile: expected one within (0, 1), got {quantile!r}")
    mu = float(np.quantile(np.linalg.norm(array.astype(np.float64), axis=1), share))
    if mu == 0.0:
        raise InvalidArgumentError(
            f"actions: expected a norm above 0 at the quantile {share}, got 0"
        )
    return mu


def norm_constraint(mu: float, rho: float = 1.0, form: Form = "scaled") -> tuple[float, float]:
    """(rho, mu) as environments take them in ``anc``.

    Args:
        mu: Norm that is still free, above 0.
        rho: Strength, 0 or above; without a unit in the form ``scaled``: a norm of 2 mu halves the
            reward if it is 1.
        form: ``scaled`` divides rho by mu. ``paper`` is the preset as printed, whatever the other
            two say.

    Raises:
        InvalidArgumentError: numbers out of range, another form.
    """
    if not isinstance(form, str) or form not in ("scaled", "paper"):
        raise InvalidArgumentError(f"form: expected 'scaled' or 'paper', got {form!r}")
    free, strength = _arguments.real("mu", mu), _arguments.real("rho", rho)
    if not (math.isfinite(free) and math.isfinite(strength) and free > 0 <= strength):
        got = f"mu {mu!r} and rho {rho!r}"
        raise InvalidArgumentError(f"norm constraint: expected mu > 0, rho >= 0, got {got}")
    return PAPER if form == "paper" else (strength / free, free)
