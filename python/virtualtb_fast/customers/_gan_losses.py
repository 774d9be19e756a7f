"""The parts of GAN-SD that are pure functions of tensors: layers, draws, estimators, losses.

Sizes are those of the fields; W is their sum and B a batch. ``gan_sd.py`` says what they are for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._extras import torch_for

__all__ = [
    "adversarial_loss",
    "discriminator_loss",
    "draw",
    "field_log_softmax",
    "fold_noise",
    "gradient_penalty",
    "marginal_divergence",
    "network",
    "pair_loss",
    "r1_penalty",
    "relative_entropy",
    "straight_through",
]

Tensor = Any
"""A ``torch.Tensor``; torch is imported when a fit is called."""


def network(sizes: Sequence[int], slope: float, generator: Any) -> Any:
    """A perceptron with torch's usual initialisation, drawn from a generator of its own."""
    torch = torch_for("fit_gan_sd")
    layers: list[Any] = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        if number:
            layers.append(torch.nn.LeakyReLU(slope))
        layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, device=generator.device)
        bound = 1 / math.sqrt(inputs)
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        layers.append(layer)
    return torch.nn.Sequential(*layers)


def fold_noise(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> tuple[Any, Any]:
    """First layer for noise u in [0, 1), of one trained on sqrt(12) (u - 1/2), which has sd 1."""
    scale = math.sqrt(12)
    wide = weight.astype(np.float64)
    return (scale * wide).astype(np.float32), (bias - scale / 2 * wide.sum(1)).astype(np.float32)


def field_log_softmax(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Logarithms of p_f(z): a log-softmax a field, (B, W)."""
    torch = torch_for("fit_gan_sd")
    return torch.cat([part.log_softmax(-1) for part in logits.split(list(sizes), -1)], -1)


def draw(logits: Tensor, sizes: Sequence[int], generator: Any) -> tuple[Tensor, Tensor]:
    """One-hot draws y (B, W) of softmax(logits) a field, and the Gumbel noise that made them."""
    torch = torch_for("fit_gan_sd")
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 6e-8)))
    perturbed = (logits + noise).detach()
    hard = [
        torch.nn.functional.one_hot(part.argmax(-1), size)
        for part, size in zip(perturbed.split(list(sizes), -1), sizes, strict=True)
    ]
    return torch.cat(hard, -1).to(logits.dtype), noise


def straight_through(
    logits: Tensor, hard: Tensor, noise: Tensor, tau: float, sizes: Sequence[int]
) -> Tensor:
    """The one-hot draws with the gradient of the Gumbel-softmax of temperature tau."""
    soft = field_log_softmax((logits + noise) / tau, sizes).exp()
    return hard + soft - soft.detach()


def adversarial_loss(kind: str, scores: Tensor) -> Tensor:
    """What the generator minimises, a row, of the discriminator's logits of its rows."""
    torch = torch_for("fit_gan_sd")
    if kind == "linear":
        return -scores.sigmoid()
    if kind == "wasserstein":
        return -scores
    return torch.nn.functional.softplus(-scores)


def discriminator_loss(kind: str, real: Tensor, fake: Tensor, label: float) -> Tensor:
    """What the discriminator minimises: -E log D(x) - E log(1 - D(y)), or the critic's gap."""
    torch = torch_for("fit_gan_sd")
    if kind == "wasserstein":
        return fake.mean() - real.mean()
    softplus = torch.nn.functional.softplus
    seen = label * softplus(-real) + (1 - label) * softplus(real)
    return seen.mean() + softplus(fake).mean()


def relative_entropy(marginal: Tensor, members: Tensor, logs: Tensor) -> Tensor:
    """sum_f H(q_f) / log k_f of the batch's marginals q (W,).

    ``members`` (W,) is 1 where a column's field belongs to V; ``logs`` (W,) is its log k_f.
    """
    return -(members * marginal * (marginal + 1e-12).log() / logs).sum()


def marginal_divergence(real: Tensor, marginal: Tensor, members: Tensor) -> Tensor:
    """sum_f KL(p_f || q_f) of the real marginals p against the batch's q, both (W,)."""
    ratio = (real + 1e-12).log() - (marginal + 1e-12).log()
    return (members * real * ratio).sum()


def pair_loss(real: Tensor, running: Tensor, now: Tensor) -> Tensor:
    """A loss with the gradient of sum_{f<g} KL(p_fg || q_fg), taken at the running mean of q.

    Its value means nothing; `pair_divergence` has that.

    Args:
        real: (W, W), p_fg in the blocks of the pairs, each pair twice; 0 elsewhere.
        running: (W, W), the running mean of q, without gradients.
        now: (W, W), this batch's q: the mean of p(z) p(z)', with gradients.
    """
    return -0.5 * (real / (running + 1e-6) * now).sum()


def pair_divergence(real: Tensor, running: Tensor) -> Tensor:
    """sum_{f<g} KL(p_fg || q_fg) at the running mean of q."""
    return 0.5 * (real * ((real + 1e-12).log() - (running + 1e-6).log())).sum()


def r1_penalty(discriminator: Any, real: Tensor) -> Tensor:
    """E |grad D|^2 at real customers, of the logit."""
    torch = torch_for("fit_gan_sd")
    rows = real.requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(rows).sum(), rows, create_graph=True)
    return slope.square().sum(-1).mean()


def gradient_penalty(discriminator: Any, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E (|grad D| - 1)^2 at points between real and generated customers; mix (B, 1) in [0, 1)."""
    torch = torch_for("fit_gan_sd")
    rows = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(rows).sum(), rows, create_graph=True)
    return (slope.norm(dim=-1) - 1).square().mean()
