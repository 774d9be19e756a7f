"""TRPO on its own: its parts against brute force, and whole. `rl` knows no environments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benches.cartpole import balance  # noqa: E402

from virtualtb_fast import networks  # noqa: E402
from virtualtb_fast.networks import (  # noqa: E402
    Categorical,
    Gaussian,
    GaussianPolicy,
    Joint,
    Perceptron,
    stream,
)
from virtualtb_fast.rl import returns, trpo  # noqa: E402


def kinds(
    dtype: torch.dtype = torch.float64,
) -> dict[str, tuple[Callable[[], Any], list[Any], Any]]:
    """A policy function, its parameters and samples, of each kind of distribution."""
    rng = stream(3, "kinds")
    x = torch.randn(50, 3, generator=rng, dtype=dtype)
    small = Perceptron((3, 2, 2), generator=rng).to(dtype)
    heads = Perceptron((3, 3, 5), activation=("leaky_relu", 0.01), generator=rng).to(dtype)
    log_sd = torch.nn.Parameter(torch.tensor([-0.3, 0.2], dtype=dtype))

    def gaussian() -> Gaussian:
        return Gaussian(small(x), log_sd)

    def categorical() -> Categorical:
        return Categorical(heads(x), (3, 2))

    def joint() -> Joint:
        return Joint((gaussian(), categorical()))

    a = gaussian().mean.detach() + torch.randn(50, 2, generator=rng, dtype=dtype)
    codes = torch.stack([torch.randint(n, (50,), generator=rng) for n in (3, 2)], 1)
    first, second = [*small.parameters(), log_sd], list(heads.parameters())
    return {
        "gaussian": (gaussian, first, a),
        "categorical": (categorical, second, codes),
        "joint": (joint, [*first, *second], (a, codes)),
    }


def explicit_fisher(policy: Callable[[], Any], parameters: list[Any]) -> Any:
    """E over actions of score x score', in closed form, row by row; no second derivative."""

    def jacobian(of: Callable[[], Any]) -> Any:
        rows = of().reshape(-1)
        grads = [
            networks.torch.autograd.grad(row, parameters, retain_graph=True, materialize_grads=True)
            for row in rows
        ]
        return torch.stack([trpo.flat(grad) for grad in grads])

    def information(of: Callable[[], Any]) -> Any:
        one = of()
        if isinstance(one, Joint):
            parts = range(len(one.parts))
            return sum(information(lambda k=k: of().parts[k]) for k in parts)
        if isinstance(one, Gaussian):
            n, size = one.mean.shape
            mean = jacobian(lambda: of().mean).view(n, size, -1)
            # d log_sd carries information 2, d mean 1 / sd^2.
            weights = torch.exp(-2 * one.log_sd).detach()
            spread = jacobian(lambda: of().log_sd)
            return torch.einsum("nap,a,naq->pq", mean, weights, mean) / n + 2 * spread.T @ spread
        n, width = one.logits.shape
        slopes = jacobian(lambda: of().logits).view(n, width, -1)
        first, total = 0, 0.0
        for part in one.log_probabilities():
            p = part.detach().exp()
            cov = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
            block = slopes[:, first : first + p.shape[1]]
            total = total + torch.einsum("nap,nab,nbq->pq", block, cov, block) / n
            first += p.shape[1]
        return total

    return information(policy).detach()


@pytest.mark.parametrize("kind", ["gaussian", "categorical", "joint"])
def test_fisher_products_are_those_of_the_explicit_matrix(kind: str) -> None:
    """Relative error below 1e-5, on networks of some 16 to 48 parameters."""
    policy, parameters, _ = kinds()[kind]
    exact = explicit_fisher(policy, parameters)
    now = policy()
    product = trpo.fisher_product(now.detach().kl(now).mean(), parameters)
    vectors = torch.randn(5, len(exact), generator=stream(1), dtype=torch.float64)
    for vector in vectors:
        error = (product(vector) - exact @ vector).norm() / (exact @ vector).norm()
        assert error < 1e-5
        # Void guard: a diagonal approximation is not the matrix.
        rough = (torch.diag(exact) * vector - exact @ vector).norm() / (exact @ vector).norm()
        assert rough > 1e-2
    damped = trpo.fisher_product(policy().detach().kl(policy()).mean(), parameters, 0.5)
    assert torch.allclose(damped(vectors[0]), product(vectors[0]) + 0.5 * vectors[0])


def test_conjugate_gradients_solve() -> None:
    """Against numpy's solution; too few steps do not."""
    rng = np.random.default_rng(0)
    for size in (1, 5, 30):
        root = rng.normal(size=(size, size))
        matrix = root @ root.T + 0.1 * np.eye(size)
        target = rng.normal(size=size)
        exact = np.linalg.solve(matrix, target)
        whole = torch.from_numpy(matrix)
        product = whole.matmul
        found = trpo.conjugate_gradient(
            product, torch.from_numpy(target), iterations=20 * size, tolerance=1e-24
        )
        assert np.linalg.norm(found.numpy() - exact) < 1e-4 * np.linalg.norm(exact)
    few = trpo.conjugate_gradient(product, torch.from_numpy(target), iterations=2)
    assert np.linalg.norm(few.numpy() - exact) > 1e-2 * np.linalg.norm(exact)
    assert not trpo.conjugate_gradient(product, torch.zeros(30)).any()


def test_products_of_float32_are_solved_to_four_digits() -> None:
    policy, parameters, _ = kinds(torch.float32)["joint"]
    exact = explicit_fisher(policy, parameters).double().numpy() + 0.1 * np.eye(
        sum(parameter.numel() for parameter in parameters)
    )
    now = policy()
    product = trpo.fisher_product(now.detach().kl(now).mean(), parameters, 0.1)
    target = torch.randn(len(exact), generator=stream(8))
    found = trpo.conjugate_gradient(product, target, iterations=60).numpy()
    answer = np.linalg.solve(exact, target.double().numpy())
    assert np.linalg.norm(found - answer) < 1e-4 * np.linalg.norm(answer)


@pytest.mark.parametrize("kind", ["gaussian", "categorical", "joint"])
def test_accepted_steps_keep_to_the_bound_and_rejected_ones_change_nothing(kind: str) -> None:
    """KL at most delta and a gain in the surrogate; or parameters as they were, to the bit."""
    rng = stream(5)
    accepted = 0
    for number in range(30):
        policy, parameters, sample = kinds()[kind]
        old, before = policy().detach(), [one.detach().clone() for one in parameters]
        advantage = torch.randn(50, generator=rng, dtype=torch.float64)
        # Every third step is asked for what cannot be had.
        delta = 0.01 if number % 3 else 1e-300
        config = trpo.TrpoConfig(delta=delta, backtracks=10 if number % 2 else 3)
        report = trpo.step(policy, parameters, sample, advantage, config)
        unchanged = all(map(torch.equal, parameters, before))
        assert report.accepted != unchanged
        if report.accepted:
            accepted += 1
            new = policy().detach()
            kl = float(old.kl(new).mean())
            logs = new.log_prob(sample) - old.log_prob(sample)
            gain = float(((logs.exp() - 1) * advantage).mean())
            assert kl <= delta * (1 + 1e-3)
            assert gain > 0
            assert report.kl == pytest.approx(kl, rel=1e-9)
            assert report.gain == pytest.approx(gain, rel=1e-6)
    assert 10 <= accepted < 30


def test_a_step_without_direction_is_rejected() -> None:
    policy, parameters, sample = kinds()["gaussian"]
    before = [one.detach().clone() for one in parameters]
    zero = torch.zeros(50, dtype=torch.float64)
    for advantage in (zero, zero + math.nan, zero + math.inf):
        report = trpo.step(policy, parameters, sample, advantage)
        assert not report.accepted
        assert all(map(torch.equal, parameters, before))


def test_a_fisher_estimate_from_some_rows_keeps_to_the_bound_on_all() -> None:
    policy, parameters, sample = kinds()["joint"]
    rng = stream(6)

    def some() -> Joint:
        gaussian, heads = policy().parts
        return Joint(
            (Gaussian(gaussian.mean[:5], gaussian.log_sd), Categorical(heads.logits[:5], (3, 2)))
        )

    for _ in range(10):
        old = policy().detach()
        advantage = torch.randn(50, generator=rng, dtype=torch.float64)
        report = trpo.step(policy, parameters, sample, advantage, fisher_policy=some)
        assert float(old.kl(policy().detach()).mean()) <= 0.01 * (1 + 1e-3)
        assert report.gain > 0 or not report.accepted


def brute(
    rewards: Any, values: Any, following: Any, terminated: Any, truncated: Any, g: float, lam: float
) -> list[float]:
    """Advantages as double sums over the definition (equation 16), O(T^2)."""
    out = []
    for t in range(len(rewards)):
        total, weight = 0.0, 1.0
        for later in range(t, len(rewards)):
            bootstrap = 0.0 if terminated[later] else g * following[later]
            total += weight * (rewards[later] + bootstrap - values[later])
            if terminated[later] or truncated[later]:
                break
            weight *= g * lam
        out.append(total)
    return out


def test_advantages_are_those_of_brute_force() -> None:
    """Random terminated and truncated rows."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        size = int(rng.integers(1, 200))
        rewards, values, following = rng.normal(size=(3, size))
        terminated = rng.random(size) < 0.2
        truncated = (rng.random(size) < 0.1) & ~terminated
        g, lam = rng.random(2)
        columns = (rewards, values, following, terminated, truncated)
        tensors = [torch.from_numpy(column) for column in columns]
        found, lambda_returns = returns.advantages(*tensors, gamma=g, lam=lam)
        exact = brute(*columns, g, lam)
        np.testing.assert_allclose(found.numpy(), exact, rtol=0, atol=1e-6)
        np.testing.assert_allclose(lambda_returns.numpy(), exact + values, rtol=0, atol=1e-6)
        if (terminated | truncated)[:-1].any() and g * lam > 0.05:
            # Void guard: flowing over the ends of sessions is seen.
            never = torch.zeros(size, dtype=torch.bool)
            wrong, _ = returns.advantages(*tensors[:3], never, never, gamma=g, lam=lam)
            assert np.abs(wrong.numpy() - exact).max() > 1e-6
        to_go = returns.discounted(tensors[0], tensors[3] | tensors[4], g)
        zeros = np.zeros(size)
        # Returns are advantages over values of 0, at lambda 1, without bootstrapping.
        expected = brute(rewards, zeros, zeros, terminated, truncated, g, 1.0)
        np.testing.assert_allclose(to_go.numpy(), expected, rtol=0, atol=1e-6)


def test_returns_refuse_what_does_not_fit() -> None:
    good, ends = torch.ones(3), torch.zeros(3, dtype=torch.bool)
    with pytest.raises(ValueError, match="bools"):
        returns.discounted(good, torch.zeros(3), 0.9)
    with pytest.raises(ValueError, match="expected shape"):
        returns.advantages(good, torch.ones(2), good, ends, ends, gamma=0.9, lam=0.9)


def bandit(seed: int, guard: str | None = None) -> float:
    """What is left of the way to the optimum of a 27-dimensional quadratic after 100 steps."""
    rng = stream(seed, "bandit")
    best = torch.randn(27, generator=rng) * 0.5
    mean, log_sd = torch.zeros(27, requires_grad=True), torch.full((27,), -1.2)
    log_sd.requires_grad_(True)
    start = float(best.square().sum())
    for _ in range(100):
        with torch.no_grad():
            noise = torch.randn(2000, 27, generator=rng)
            action = mean + log_sd.exp() * noise
        reward = -(action - best).square().sum(-1)
        advantage = (reward - reward.mean()) / reward.std()
        if guard == "rewards of other actions":
            advantage = advantage[torch.randperm(2000, generator=rng)]
        if guard != "no steps":
            now = lambda: Gaussian(mean.expand(2000, -1), log_sd)  # noqa: E731
            trpo.step(now, [mean, log_sd], action, advantage, trpo.TrpoConfig(delta=0.1))
        left = float((mean.detach() - best).square().sum()) / start
        if left <= 0.01:
            break
    return left


def test_a_quadratic_bandit_is_solved() -> None:
    """27 dimensions, 99 % of the way to the optimum within 100 steps, five seeds of five."""
    for seed in range(5):
        assert bandit(seed) <= 0.01
        # Void guards: the same loop without steps, and with steps that follow nothing.
        for guard in ("no steps", "rewards of other actions"):
            assert bandit(seed, guard) > 0.5


def test_cartpole_is_balanced() -> None:
    """A mean of 475 of 500 steps, learned within 60,000; one seed of `benches.cartpole`'s loop."""
    trained = balance(0, 60_000)
    assert trained >= 475
    # Void guard: the same loop without the step.
    assert balance(0, 20_000, frozen=True) < 100


def test_parameters_find_their_way_into_policies_and_back() -> None:
    import virtualtb_fast as vtb
    from virtualtb_fast.policies import Policy

    rng = stream(2, "files")
    schema = vtb.load_simulator().schema
    unit = torch.linspace(0.01, 0.2, 27)
    network = Perceptron((91, 8, 27), generator=rng)
    policy = GaussianPolicy(
        network,
        log_sd=torch.full((27,), -0.5),
        unit=unit,
        observation_mean=torch.full((91,), 0.1),
        observation_sd=torch.full((91,), 1.5),
    )
    file = Policy.from_tensors(**policy.export(), schema=schema)
    again = GaussianPolicy.from_tensors(file.tensors(), activation="tanh", unit=2 * unit)
    x = torch.randn(5, 91, generator=rng)
    here, there = policy(x), again(x)
    raw = here.mean * unit
    assert torch.allclose(there.mean * 2 * unit, raw, atol=1e-6)
    assert torch.allclose(there.log_sd.exp() * 2 * unit, here.log_sd.exp() * unit, atol=1e-6)
    # The native policy shows what the network says.
    mean = Policy.from_tensors(**policy.export(sampled=False), schema=schema)
    log = vtb.rollout("virtualtb-v0-refit", mean, sessions=50).log
    with torch.no_grad():
        shown = policy(torch.from_numpy(log.observations())).mean * unit
    assert np.abs(shown.numpy().clip(-1, 1) - log["action"]).max() < 1e-5
    assert np.abs(log["action"]).max() > 0.01
