"""Returns and advantages of rows that lie session after session.

Row ``t`` is one step of some session: its reward, whether the session terminated with it (nothing
comes after: no value), whether it was truncated with it (cut off: what comes after is worth
``next_values[t]``). A row with either is the last of its session; the last row of all must have
one, or is taken as truncated. Nothing flows from one session into another.
"""

from __future__ import annotations

from virtualtb_fast import _arguments
from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast.errors import InvalidArgumentError

__all__ = ["advantages", "discounted"]


def discounted(rewards: Tensor, ended: Tensor, gamma: float) -> Tensor:
    """Discounted rewards to go within each session: ``G_t = r_t + gamma G_{t+1}``.

    Args:
        rewards: (T,) floats.
        ended: (T,) bool: the session's last row.
        gamma: Discount, in [0, 1].

    Returns:
        (T,), of the dtype of the rewards.
    """
    _check(rewards, ended, ended)
    return _backward(rewards, ended, _arguments.number("gamma", gamma, 0, 1))


def advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al., 2016, equation 16) and lambda-returns.

    ``delta_t = r_t + gamma V(s_{t+1}) (not terminated_t) - V(s_t)``, and ``A_t = delta_t + gamma
    lambda A_{t+1}`` where the session goes on. ``next_values[t]`` is the value of the state after
    row ``t`` in its own session, never that of the next session's first row.

    Args:
        rewards: (T,) floats.
        values: (T,): V of each row's state.
        next_values: (T,): V of the state after each row; of no account where it terminated.
        terminated: (T,) bool.
        truncated: (T,) bool.
        gamma: Discount, in [0, 1].
        lam: Lambda, in [0, 1].

    Returns:
        Advantages (T,) and lambda-returns ``A + V`` (T,).
    """
    _check(rewards, terminated, truncated)
    gamma = _arguments.number("gamma", gamma, 0, 1)
    lam = _arguments.number("lam", lam, 0, 1)
    for name, value in (("values", values), ("next_values", next_values)):
        _arguments.instance(name, value, Tensor)
    if not rewards.shape == values.shape == next_values.shape:
        got = f"{tuple(values.shape)} and {tuple(next_values.shape)}"
        raise InvalidArgumentError(f"values: expected shape {tuple(rewards.shape)}, got {got}")
    delta = rewards + gamma * torch.where(terminated, 0.0, next_values) - values
    advantage = _backward(delta, terminated | truncated, gamma * lam)
    return advantage, advantage + values


def _backward(terms: Tensor, ended: Tensor, factor: float) -> Tensor:
    """``S_t = x_t + factor S_{t+1}``, afresh in each session; sums in float64."""
    rows, ends, out, total = terms.double().tolist(), ended.tolist(), [], 0.0
    for term, end in zip(reversed(rows), reversed(ends), strict=True):
        total = term if end else term + factor * total
        out.append(total)
    return torch.tensor(out[::-1], dtype=torch.float64).to(terms.dtype)


def _check(rewards: Tensor, one: Tensor, other: Tensor) -> None:
    for name, value in (("rewards", rewards), ("ends", one), ("ends", other)):
        _arguments.instance(name, value, Tensor)
    good = rewards.ndim == 1 and rewards.is_floating_point()
    good = good and one.shape == rewards.shape == other.shape
    if not good or one.dtype != torch.bool or other.dtype != torch.bool:
        got = f"{rewards.dtype} {tuple(rewards.shape)}, {one.dtype} {tuple(one.shape)}"
        raise InvalidArgumentError(f"rewards and ends: expected floats (T,), bools (T,), got {got}")
