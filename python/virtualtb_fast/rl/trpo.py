"""Trust region policy optimisation (Schulman et al., ICML 2015), one step of it.

    maximise   L(theta) = E[ pi_theta(a|s) / pi_old(a|s) * A(s, a) ]
    such that  E[ KL(pi_old(.|s) || pi_theta(.|s)) ] <= delta

The step follows the paper's appendix C:

1. g, the gradient of L at theta_old;
2. x with F x = g by conjugate gradients, where F v, the Hessian of the mean divergence times v,
   comes from differentiating its gradient's product with v (and a little damping);
3. the full step beta x with beta = sqrt(2 delta / x'Fx), at which the quadratic model of the
   divergence is delta;
4. backtracking: the first of beta, beta * shrink, ... at which L has grown and the divergence,
   over all rows, is within delta. Without one, the parameters stay as they were, to the last bit.

A policy is a function without arguments that gives the `Distribution` over the batch's rows at the
parameters' present values. So the same step serves Gaussians, categoricals and joint policies.
Dropout and batch statistics have no place in such a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from virtualtb_fast import _arguments
from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast.networks import Distribution

__all__ = [
    "StepReport",
    "TrpoConfig",
    "conjugate_gradient",
    "fisher_product",
    "flat",
    "step",
    "surrogate",
]

Policy = Callable[[], Distribution]
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TrpoConfig:
    """Settings of a step; the defaults are sb3-contrib's but for conjugate gradients (10, not 15).

    Source of the defaults: sb3-contrib's TRPO.
    """

    delta: float = 0.01
    """Largest mean divergence of a step, nat."""
    iterations: int = 10
    """Most iterations of conjugate gradients."""
    tolerance: float = 1e-10
    """Squared residual, as a share of the gradient's squared norm, at which they stop."""
    damping: float = 0.1
    """Added to the diagonal of F."""
    shrink: float = 0.8
    """Factor of a backtrack."""
    backtracks: int = 10
    """Step lengths tried."""

    def __post_init__(self) -> None:
        number, integer = _arguments.number, _arguments.integer
        _arguments.settle(self, number, "delta", low=0, above=True)
        _arguments.settle(self, number, "tolerance", "damping", low=0)
        _arguments.settle(self, number, "shrink", low=0, high=1, above=True)
        _arguments.settle(self, integer, "iterations", "backtracks", low=1, high=2**31)


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did."""

    accepted: bool
    """Whether the parameters changed."""
    gain: float
    """Growth of L, 0 if rejected."""
    kl: float
    """Mean divergence over all rows, nat, 0 if rejected."""
    tried: int
    """Step lengths tried."""
    gradient_norm: float
    """Norm of g."""


def surrogate(new: Distribution, old_log_prob: Tensor, sample: Any, advantage: Tensor) -> Tensor:
    """L: the mean advantage, weighted by the ratio of densities."""
    return (torch.exp(new.log_prob(sample) - old_log_prob) * advantage).mean()


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All entries of the tensors, one after the other."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def fisher_product(kl: Tensor, parameters: Sequence[Tensor], damping: float = 0.0) -> Product:
    """The function v -> (F + damping) v, F the Hessian of ``kl`` in the parameters.

    ``kl`` is KL(old || new) averaged over rows, at new = old, where its Hessian is Fisher's
    information. Its first derivative is kept as a graph; each product differentiates that once.
    """
    gradient = flat(torch.autograd.grad(kl, parameters, create_graph=True, materialize_grads=True))

    def product(vector: Tensor) -> Tensor:
        inner = gradient @ vector.to(gradient.dtype)
        # A parameter in which the divergence is linear has no second derivative.
        parts = torch.autograd.grad(inner, parameters, retain_graph=True, materialize_grads=True)
        return flat(parts) + damping * vector.to(gradient.dtype)

    return product


def conjugate_gradient(
    product: Product, target: Tensor, *, iterations: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """Solves A x = target for a symmetric positive definite A, given as v -> A v.

    Inner products and the recurrences are in float64, whatever ``product`` computes in.

    Returns:
        float64, of the target's shape.
    """
    goal = target.double()
    x, residual = torch.zeros_like(goal), goal.clone()
    direction, square = residual.clone(), float(residual @ residual)
    stop = tolerance * square
    for _ in range(iterations):
        if square <= stop:
            break
        image = product(direction.to(target.dtype)).double()
        curvature = float(direction @ image)
        if not curvature > 0.0:
            break
        length = square / curvature
        x += length * direction
        residual -= length * image
        before, square = square, float(residual @ residual)
        direction = residual + (square / before) * direction
    return x


def step(
    policy: Policy,
    parameters: Sequence[Tensor],
    sample: Any,
    advantage: Tensor,
    config: TrpoConfig = TrpoConfig(),
    *,
    fisher_policy: Policy | None = None,
) -> StepReport:
    """One step: changes the parameters in place, or leaves them as they are.

    Args:
        policy: The distributions of all rows at the parameters' present values.
        parameters: Leaves that require gradients.
        sample: What was done in each row, as the distribution's ``log_prob`` takes it.
        advantage: (N,).
        config: Settings.
        fisher_policy: The distributions of some of the rows, from which F is estimated. The
            divergence that a step must keep to is always that of all rows.

    Returns:
        What was done. A gradient of 0, or one that is not finite, is a rejected step.
    """
    start = [parameter.detach().clone() for parameter in parameters]
    now = policy()
    old = now.detach()
    with torch.no_grad():
        old_log_prob = old.log_prob(sample)
    before = surrogate(now, old_log_prob, sample, advantage)
    grads = torch.autograd.grad(before, parameters, retain_graph=True, materialize_grads=True)
    gradient = flat(grads).detach()
    norm = float(gradient.double().norm())
    rejected = StepReport(False, 0.0, 0.0, 0, norm)
    if not 0.0 < norm < math.inf:
        return rejected

    some = now if fisher_policy is None else fisher_policy()
    product = fisher_product(some.detach().kl(some).mean(), parameters, config.damping)
    limits = {"iterations": config.iterations, "tolerance": config.tolerance}
    direction = conjugate_gradient(product, gradient, **limits)  # type: ignore[arg-type]
    curvature = float(direction @ product(direction.to(gradient.dtype)).double())
    if not 0.0 < curvature < math.inf:
        return rejected
    full = math.sqrt(2.0 * config.delta / curvature) * direction

    for tried in range(1, config.backtracks + 1):
        _move(parameters, start, full * config.shrink ** (tried - 1))
        with torch.no_grad():
            new = policy()
            gain = float(surrogate(new, old_log_prob, sample, advantage) - before)
            kl = float(old.kl(new).mean())
        # Comparisons with NaN are false: such a step is never taken.
        if gain > 0.0 and kl <= config.delta:
            return StepReport(True, gain, kl, tried, norm)
    with torch.no_grad():
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(value)
    return StepReport(False, 0.0, 0.0, config.backtracks, norm)


def _move(parameters: Sequence[Tensor], start: Sequence[Tensor], offset: Tensor) -> None:
    sizes = [value.numel() for value in start]
    with torch.no_grad():
        pieces = zip(parameters, start, torch.split(offset, sizes), strict=True)
        for parameter, value, piece in pieces:
            parameter.copy_(value.double() + piece.view_as(value))
