"""Networks in PyTorch: perceptrons, what they say about actions, and their way into files.

A `Perceptron` is the one shape of network that simulator and policy files hold. Distributions
(`Gaussian`, `Categorical`, `Joint`) are values: log-densities and divergences of a batch of rows,
in closed form, which is all that `virtualtb_fast.rl` needs to know of a policy.

Units: networks see and give actions in units of ``unit`` (the standard deviation of what was
logged), since a network that was trained on actions of norm 0.03 and sees them raw learns nothing
of them. Files hold plain layers for raw inputs: scales are folded into the first and last layers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._torch import Tensor, nn, torch
from virtualtb_fast._training import torch_threads
from virtualtb_fast.errors import InvalidArgumentError

__all__ = [
    "Activation",
    "Categorical",
    "Distribution",
    "Gaussian",
    "GaussianPolicy",
    "Joint",
    "Perceptron",
    "stream",
]

Activation = Literal["tanh"] | tuple[Literal["leaky_relu"], float]
"""What follows every layer but the last: as policy files name it."""

Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(weight (outputs, inputs), bias (outputs,)) of each layer."""

_LOG_2PI = math.log(2.0 * math.pi)


def stream(seed: int, *purpose: int | str) -> torch.Generator:
    """A generator of random numbers for one purpose of one run.

    PyTorch's generator takes 32 bits and drops the rest, which would make all of our base seeds
    ``run << 32`` equal; so seed and purpose are hashed.
    """
    digest = hashlib.sha256(repr((int(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


# ------------------------------------------------------------------ distributions over rows


class Distribution(Protocol):
    """One distribution a row, for N rows at once."""

    def log_prob(self, sample: Any) -> Tensor:
        """Log-density of each row's sample, (N,)."""
        ...

    def kl(self, other: Any) -> Tensor:
        """KL(self || other) of each row, (N,), nat."""
        ...

    def detach(self) -> Self:
        """A copy of the numbers as they are now, whatever becomes of the parameters."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Normal, independent in each dimension."""

    mean: Tensor
    """(N, A)."""
    log_sd: Tensor
    """(A,) or (N, A)."""

    def log_prob(self, sample: Tensor) -> Tensor:
        """Log-density of ``sample`` (N, A), (N,)."""
        scaled = (sample - self.mean) * torch.exp(-self.log_sd)
        return (-0.5 * scaled.square() - self.log_sd - 0.5 * _LOG_2PI).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other), (N,)."""
        gap = (self.mean - other.mean) * torch.exp(-other.log_sd)
        ratio = torch.exp(2.0 * (self.log_sd - other.log_sd))
        return (other.log_sd - self.log_sd + 0.5 * (ratio + gap.square() - 1.0)).sum(-1)

    def detach(self) -> Gaussian:
        """A copy of the numbers as they are now, whatever becomes of the parameters."""
        # A parameter's own memory may be in here, and a step changes it in place.
        return Gaussian(self.mean.detach().clone(), self.log_sd.detach().clone())


@dataclass(frozen=True)
class Categorical:
    """Several categorical heads, independent of one another."""

    logits: Tensor
    """(N, sum of heads)."""
    heads: tuple[int, ...]
    """Categories of each head."""

    def log_probabilities(self) -> tuple[Tensor, ...]:
        """Each head's log-probabilities, (N, categories)."""
        return tuple(
            part.log_softmax(-1) for part in torch.split(self.logits, list(self.heads), -1)
        )

    def log_prob(self, sample: Tensor) -> Tensor:
        """Log-probability of ``sample``, integers (N, number of heads); (N,)."""
        parts = self.log_probabilities()
        chosen = [part.gather(-1, sample[:, k : k + 1]) for k, part in enumerate(parts)]
        return torch.cat(chosen, -1).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self || other), (N,)."""
        pairs = zip(self.log_probabilities(), other.log_probabilities(), strict=True)
        return torch.stack([(mine.exp() * (mine - yours)).sum(-1) for mine, yours in pairs]).sum(0)

    def detach(self) -> Categorical:
        """A copy of the numbers as they are now, whatever becomes of the parameters."""
        return Categorical(self.logits.detach().clone(), self.heads)


@dataclass(frozen=True)
class Joint:
    """Parts drawn one after the other, each given those before.

    Its divergence is the sum of the parts', with what a part is given taken from the rows: an
    unbiased estimate of KL = KL_first + E_first KL_second.
    """

    parts: tuple[Distribution, ...]

    def log_prob(self, sample: Sequence[Any]) -> Tensor:
        """Log-density of a sample with one entry a part, (N,)."""
        pairs = zip(self.parts, sample, strict=True)
        return torch.stack([part.log_prob(value) for part, value in pairs]).sum(0)

    def kl(self, other: Joint) -> Tensor:
        """KL(self || other), (N,)."""
        pairs = zip(self.parts, other.parts, strict=True)
        return torch.stack([mine.kl(yours) for mine, yours in pairs]).sum(0)

    def detach(self) -> Joint:
        """A copy of the numbers as they are now, whatever becomes of the parameters."""
        return Joint(tuple(part.detach() for part in self.parts))


# ------------------------------------------------------------------ networks


class Perceptron(nn.Module):
    """Linear layers with one activation between them.

    Layers are orthogonal times the activation's gain, biases 0; the last layer has the gain
    ``last_gain``.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Activation = "tanh",
        last_gain: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise InvalidArgumentError(f"sizes: expected two or more layer sizes, got {sizes!r}")
        self.activation = _checked(activation)
        layers = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
            last = index + 2 == len(sizes)
            gain = last_gain if last else _gain(self.activation)
            with torch.no_grad():
                layer.weight.copy_(_orthogonal(outputs, inputs, generator).mul_(gain))
                layer.bias.zero_()
            layers.append(layer)
        self._stack = nn.ModuleList(layers)

    @property
    def layers(self) -> list[nn.Linear]:
        """The linear layers, inputs first."""
        return [layer for layer in self._stack if isinstance(layer, nn.Linear)]

    @classmethod
    def from_layers(cls, layers: Layers, activation: Activation) -> Perceptron:
        """The network of these layers."""
        sizes = [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]
        network = cls(sizes, activation=activation, generator=stream(0))
        with torch.no_grad():
            for layer, (weight, bias) in zip(network.layers, layers, strict=True):
                layer.weight.copy_(torch.from_numpy(np.array(weight, np.float32)))
                layer.bias.copy_(torch.from_numpy(np.array(bias, np.float32)))
        return network

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        for index, layer in enumerate(self.layers):
            if index:
                if self.activation == "tanh":
                    x = torch.tanh(x)
                else:
                    x = nn.functional.leaky_relu(x, float(self.activation[1]))
            x = layer(x)
        return x

    def export(
        self,
        *,
        input_scale: NDArray[np.float64] | None = None,
        input_shift: NDArray[np.float64] | None = None,
        output_scale: NDArray[np.float64] | None = None,
    ) -> Layers:
        """Plain layers of ``output_scale * network(input_scale * (x - input_shift))`` for raw x.

        Computed in float64, rounded once.
        """
        layers = []
        for index, layer in enumerate(self.layers):
            weight = layer.weight.detach().double().numpy()
            bias = layer.bias.detach().double().numpy()
            if index == 0 and input_scale is not None:
                weight = weight * input_scale
            if index == 0 and input_shift is not None:
                bias = bias - weight @ input_shift
            if index + 1 == len(self.layers) and output_scale is not None:
                weight, bias = weight * output_scale[:, None], bias * output_scale
            layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        return layers

    def named_tensors(self, model: str, **scales: NDArray[np.float64]) -> dict[str, Any]:
        """`export` under the names of simulator files: ``<model>.<0, 2, 4>.<weight|bias>``."""
        tensors = {}
        for index, (weight, bias) in enumerate(self.export(**scales)):
            tensors[f"{model}.{2 * index}.weight"] = weight
            tensors[f"{model}.{2 * index}.bias"] = bias
        return tensors


def layers_of(tensors: Mapping[str, NDArray[Any]], model: str) -> Layers:
    """The layers of one model of a simulator's or a policy's tensors, in order."""
    layers, index = [], 0
    while f"{model}.{index}.weight" in tensors:
        layers.append((tensors[f"{model}.{index}.weight"], tensors[f"{model}.{index}.bias"]))
        index += 2
    if not layers:
        raise InvalidArgumentError(f"tensors: expected {model}.0.weight, got {sorted(tensors)}")
    return layers


class GaussianPolicy(nn.Module):
    """Actions from observations: normal around a perceptron's output, in units of ``unit``.

    The standard deviation does not depend on the observation. Samples, densities and divergences
    are in units too; `export` gives the raw ones.
    """

    observation_mean: Tensor
    observation_sd: Tensor
    unit: Tensor

    def __init__(
        self,
        network: Perceptron,
        *,
        log_sd: Tensor,
        unit: Tensor,
        observation_mean: Tensor | None = None,
        observation_sd: Tensor | None = None,
    ) -> None:
        """``log_sd`` (A,) in units, ``unit`` (A,) raw, the observation's two (D,)."""
        super().__init__()
        width = network.layers[0].in_features
        self.network = network
        self.log_sd = nn.Parameter(log_sd.detach().clone())
        mean = torch.zeros(width) if observation_mean is None else observation_mean
        sd = torch.ones(width) if observation_sd is None else observation_sd
        self.register_buffer("observation_mean", mean)
        self.register_buffer("observation_sd", sd)
        self.register_buffer("unit", unit)

    def forward(self, observation: Tensor) -> Gaussian:
        """The distribution of actions in units, for observations (N, D)."""
        inputs = (observation - self.observation_mean) / self.observation_sd
        return Gaussian(self.network(inputs), self.log_sd)

    def export(self, *, sampled: bool = True) -> dict[str, Any]:
        """What `virtualtb_fast.policies.Policy.from_tensors` takes, but for the schema.

        Args:
            sampled: With False the policy shows the mean.
        """
        unit = self.unit.double().numpy()
        log_sd = self.log_sd.detach().double().numpy() + np.log(unit)
        return {
            "layers": self.network.export(output_scale=unit),
            "activation": self.network.activation,
            "observation_mean": self.observation_mean.numpy().copy(),
            "observation_sd": self.observation_sd.numpy().copy(),
            "log_sd": log_sd.astype(np.float32) if sampled else None,
        }

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, NDArray[Any]],
        *,
        activation: Activation,
        unit: Tensor,
        log_sd: float = -0.7,
    ) -> GaussianPolicy:
        """The policy of a policy file's tensors.

        Args:
            tensors: As `virtualtb_fast.policies.Policy.tensors` gives them.
            activation: The file's activation.
            unit: (A,): units to work in from now on.
            log_sd: In units, for a file that draws nothing.
        """
        layers = layers_of(tensors, "policy")
        scale = unit.double().numpy()
        weight, bias = layers[-1]
        scaled = (weight / scale[:, None], bias / scale)
        layers[-1] = (scaled[0].astype(np.float32), scaled[1].astype(np.float32))
        known = tensors.get("log_sd")
        noise = np.full(len(scale), log_sd) if known is None else known - np.log(scale)
        return cls(
            Perceptron.from_layers(layers, activation),
            log_sd=torch.from_numpy(noise.astype(np.float32)),
            unit=unit,
            observation_mean=torch.from_numpy(tensors["observation.mean"].copy()),
            observation_sd=torch.from_numpy(tensors["observation.sd"].copy()),
        )


def _checked(activation: Any) -> Activation:
    match activation:
        case "tanh":
            return "tanh"
        case ("leaky_relu", float() | int() as slope) if 0.0 <= slope < 1.0:
            return ("leaky_relu", float(slope))
    expected = "'tanh' or ('leaky_relu', slope in [0, 1))"
    raise InvalidArgumentError(f"activation: expected {expected}, got {activation!r}")


def _gain(activation: Activation) -> float:
    """Keeps the variance of a signal: 5/3 for tanh, sqrt(2 / (1 + slope^2)) for a leaky ReLU."""
    return 5.0 / 3.0 if activation == "tanh" else math.sqrt(2.0 / (1.0 + activation[1] ** 2))


@torch_threads(1)
def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Rows or columns, whichever are fewer, are orthonormal; uniform over all such matrices."""
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    basis, upper = torch.linalg.qr(tall)
    basis = basis * torch.sign(torch.diagonal(upper))
    whole: Tensor = basis if rows >= columns else basis.T
    return whole
