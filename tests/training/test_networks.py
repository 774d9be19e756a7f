"""Networks and distributions: starts, densities, divergences, scales."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from virtualtb_fast.networks import (  # noqa: E402
    Categorical,
    Gaussian,
    Joint,
    Perceptron,
    layers_of,
    stream,
)


def test_layers_start_orthogonal() -> None:
    network = Perceptron((20, 30, 10, 4), last_gain=0.01, generator=stream(0))
    first, second, last = (layer.weight.detach() for layer in network.layers)
    gain = 5 / 3
    assert torch.allclose(first.T @ first, gain**2 * torch.eye(20), atol=1e-5)
    assert torch.allclose(second @ second.T, gain**2 * torch.eye(10), atol=1e-5)
    assert torch.allclose(last @ last.T, 1e-4 * torch.eye(4), atol=1e-8)
    assert not any(layer.bias.any() for layer in network.layers)
    same = Perceptron((20, 30, 10, 4), last_gain=0.01, generator=stream(0))
    assert torch.equal(first, same.layers[0].weight)
    # Seeds that differ in their high bits only are different runs.
    other = Perceptron((20, 30, 10, 4), last_gain=0.01, generator=stream(1 << 32))
    assert not torch.equal(first, other.layers[0].weight)


def test_what_makes_no_network_is_refused() -> None:
    for sizes, activation in (((3,), "tanh"), ((3, 0), "tanh"), ((3, 2), "relu")):
        with pytest.raises(ValueError, match="expected"):
            Perceptron(sizes, activation=activation, generator=stream(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"action\.0\.weight"):
        layers_of({}, "action")


def test_divergences_and_densities_are_torchs() -> None:
    rng = stream(1)
    means, sds = torch.randn(2, 40, 3, generator=rng), torch.randn(2, 3, generator=rng) * 0.3
    ours = [Gaussian(mean, sd) for mean, sd in zip(means, sds, strict=True)]
    theirs = [torch.distributions.Normal(one.mean, one.log_sd.exp()) for one in ours]
    kl = torch.distributions.kl_divergence(*theirs).sum(-1)
    assert torch.allclose(ours[0].kl(ours[1]), kl, atol=1e-5)
    x = torch.randn(40, 3, generator=rng)
    assert torch.allclose(ours[0].log_prob(x), theirs[0].log_prob(x).sum(-1), atol=1e-5)
    logits = torch.randn(2, 40, 5, generator=rng)
    heads = [Categorical(one, (3, 2)) for one in logits]
    parts = [
        [torch.distributions.Categorical(logits=part) for part in one.split((3, 2), -1)]
        for one in logits
    ]
    both = zip(*parts, strict=True)
    kl_heads = sum(torch.distributions.kl_divergence(one, other) for one, other in both)
    assert torch.allclose(heads[0].kl(heads[1]), kl_heads, atol=1e-5)
    codes = torch.stack([torch.randint(n, (40,), generator=rng) for n in (3, 2)], 1)
    log = sum(one.log_prob(codes[:, k]) for k, one in enumerate(parts[0]))
    assert torch.allclose(heads[0].log_prob(codes), log, atol=1e-5)
    joint = [Joint((one, head)) for one, head in zip(ours, heads, strict=True)]
    assert torch.allclose(joint[0].kl(joint[1]), kl + kl_heads, atol=1e-5)
    assert torch.allclose(
        joint[0].log_prob((x, codes)), theirs[0].log_prob(x).sum(-1) + log, atol=1e-5
    )
    # The order matters: it is KL(self || other).
    assert not torch.allclose(ours[1].kl(ours[0]), kl, atol=1e-2)


def test_scales_are_folded_into_the_layers() -> None:
    network = Perceptron((3, 6, 2), activation=("leaky_relu", 0.1), generator=stream(4))
    scale, shift, out = np.array([0.1, 5.0, 2.0]), np.array([1.0, 0.0, -3.0]), np.array([2.0, 0.5])
    tensors = network.named_tensors("m", input_scale=scale, input_shift=shift, output_scale=out)
    again = Perceptron.from_layers(layers_of(tensors, "m"), ("leaky_relu", 0.1))
    x = torch.randn(9, 3, generator=stream(5))
    scaled = (x - torch.from_numpy(shift).float()) * torch.from_numpy(scale).float()
    expected = network(scaled) * torch.from_numpy(out).float()
    assert torch.allclose(again(x), expected, atol=1e-5)
    # Void guard: the fold does something.
    assert not torch.allclose(again(x), network(x), atol=1e-1)


@pytest.mark.parametrize("module", ["networks", "rl.trpo"])
def test_without_torch_the_import_says_what_to_install(module: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import virtualtb_fast\n"
        "from virtualtb_fast.errors import MissingExtraError\n"
        f"try:\n    import virtualtb_fast.{module}\n"
        "except MissingExtraError as error:\n    assert 'virtualtb-fast[train]' in str(error)\n"
        "else:\n    raise SystemExit('it was imported')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_does_not_import_torch() -> None:
    code = "import sys, virtualtb_fast as vtb; vtb.rollout; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
