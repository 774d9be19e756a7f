"""Samplers of customers: native draws against a reference in NumPy, densities, conditions."""

from __future__ import annotations

import pickle
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from scipy import stats

import virtualtb_fast as vtb
from virtualtb_fast.customers import CustomerSampler, fit_bootstrap, fit_gmm, fit_independent
from virtualtb_fast.customers.baselines import GmmConfig, largest
from virtualtb_fast.customers.sampler import mixture
from virtualtb_fast.errors import InvalidArgumentError, RareConditionError
from virtualtb_fast.schema import Customers, Field

FIELDS = (Field("region", 3), Field("member", 2), Field("age", 4))
STARTS = (0, 3, 5, 9)
EVERYONE = np.array(list(product(range(3), range(2), range(4))), np.uint8)
"""All 24 customers there can be."""


def softmax(rows: np.ndarray) -> np.ndarray:
    raised = np.exp(rows - rows.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def mixture_of(random: np.random.Generator, components: int = 3) -> CustomerSampler:
    columns = np.concatenate(
        [random.dirichlet(np.ones(one.size), components) for one in FIELDS], axis=1
    )
    return mixture(FIELDS, random.dirichlet(np.ones(components) * 3), columns, {"of": "a test"})


def generator(random: np.random.Generator) -> CustomerSampler:
    shapes = ((6, 5), (9, 6))
    tensors = {}
    for layer, shape in zip((0, 2), shapes, strict=True):
        tensors[f"generator.{layer}.weight"] = random.normal(0, 1.5, shape).astype(np.float32)
        tensors[f"generator.{layer}.bias"] = random.normal(0, 0.3, shape[:1]).astype(np.float32)
    return CustomerSampler(FIELDS, Customers(latent=5, hidden=(6,)), tensors, slope=0.1)


def chain(random: np.random.Generator) -> CustomerSampler:
    tensors = {"customers.0.bias": random.normal(0, 0.5, 3).astype(np.float32)}
    for number in (1, 2):
        size, width = FIELDS[number].size, STARTS[number]
        for layer, shape in ((0, (7, width)), (2, (size, 7))):
            name = f"customers.{number}.{layer}"
            tensors[f"{name}.weight"] = random.normal(0, 1, shape).astype(np.float32)
            tensors[f"{name}.bias"] = random.normal(0, 0.3, shape[:1]).astype(np.float32)
    return CustomerSampler(FIELDS, Customers(kind="autoregressive", hidden=(7,)), tensors, 0.1)


def rows(random: np.random.Generator) -> CustomerSampler:
    return fit_bootstrap(EVERYONE[random.integers(0, 24, 40)], FIELDS)


KINDS = {"mixture": mixture_of, "mlp": generator, "autoregressive": chain, "rows": rows}


def make(kind: str, seed: int = 0) -> CustomerSampler:
    return KINDS[kind](np.random.default_rng(seed))


def exact(sampler: CustomerSampler) -> np.ndarray:
    """Probabilities of everyone, by another way than the package's: loops and float64."""
    tensors = {name: value.astype(np.float64) for name, value in sampler.tensors.items()}
    kind = sampler.config.kind
    out = np.zeros(len(EVERYONE))
    if kind == "rows":
        for row in tensors["customers.rows"]:
            out[(row == EVERYONE).all(1)] += 1 / len(tensors["customers.rows"])
        return out
    if kind == "autoregressive":
        for index, codes in enumerate(EVERYONE):
            p = softmax(tensors["customers.0.bias"])[codes[0]]
            seen = np.zeros(9)
            for number in (1, 2):
                seen[STARTS[number - 1] + codes[number - 1]] = 1
                name = f"customers.{number}"
                hidden = tensors[f"{name}.0.weight"] @ seen[: STARTS[number]]
                hidden = hidden + tensors[f"{name}.0.bias"]
                hidden = np.maximum(hidden, sampler.slope * hidden)
                logits = tensors[f"{name}.2.weight"] @ hidden + tensors[f"{name}.2.bias"]
                p *= softmax(logits)[codes[number]]
            out[index] = p
        return out
    if kind == "mixture":
        weights, columns = tensors["customers.shares"], tensors["customers.fields"]
    else:
        # Two million draws of the noise: an error of some .0003 in each probability.
        noise = np.random.default_rng(9).random((2_000_000, 5))
        hidden = noise @ tensors["generator.0.weight"].T + tensors["generator.0.bias"]
        hidden = np.maximum(hidden, sampler.slope * hidden)
        logits = hidden @ tensors["generator.2.weight"].T + tensors["generator.2.bias"]
        parts = [softmax(logits[:, a:b]) for a, b in pairwise(STARTS)]
        weights, columns = np.full(len(noise), 1 / len(noise)), np.concatenate(parts, axis=1)
    for index, codes in enumerate(EVERYONE):
        picked = columns[:, 0 + codes[0]] * columns[:, 3 + codes[1]] * columns[:, 5 + codes[2]]
        out[index] = weights @ picked
    return out


def counts(codes: np.ndarray) -> np.ndarray:
    return np.bincount(np.ravel_multi_index(codes.T.astype(int), (3, 2, 4)), minlength=24)


def p_value(found: np.ndarray, probabilities: np.ndarray) -> float:
    if found[probabilities == 0].any():
        return 0.0
    possible = probabilities > 0
    expected = probabilities[possible] / probabilities.sum() * found.sum()
    return float(stats.chisquare(found[possible], expected).pvalue)


@pytest.mark.parametrize("kind", KINDS)
def test_native_draws_have_the_probabilities_of_the_reference(kind: str) -> None:
    sampler, other = make(kind), make(kind, seed=1)
    codes = sampler.sample(200_000, seed=5)
    assert codes.dtype == np.uint8
    assert codes.shape == (200_000, 3)
    assert p_value(counts(codes), exact(sampler)) > 1e-4
    # Void guard: another sampler of the same kind, and the same one with independent fields.
    assert p_value(counts(codes), exact(other)) < 1e-4
    if kind != "rows":
        alone = fit_independent(codes, FIELDS)
        assert p_value(counts(codes), exact(alone)) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_those_of_a_stream_of_sessions(kind: str) -> None:
    sampler = make(kind)
    codes = sampler.sample(1000, seed=3)
    assert np.array_equal(sampler.sample(1000, seed=3, num_threads=2), codes)
    assert np.array_equal(sampler.sample(400, seed=3, first=600), codes[600:])
    assert not np.array_equal(sampler.sample(1000, seed=4), codes)
    assert sampler.sample(0).shape == (0, 3)
    again = pickle.loads(pickle.dumps(sampler))
    assert np.array_equal(again.sample(1000, seed=3), codes)


@pytest.mark.parametrize("kind", ["mixture", "autoregressive"])
def test_densities_are_exact(kind: str) -> None:
    sampler = make(kind)
    density = np.exp(sampler.log_density(EVERYONE))
    assert density == pytest.approx(exact(sampler), rel=1e-5)
    assert density.sum() == pytest.approx(1)
    assert sampler.log_density(EVERYONE[:1]) == pytest.approx(np.log(density[:1]))


@pytest.mark.parametrize("kind", ["mlp", "rows"])
def test_densities_that_are_not_known_are_refused(kind: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"mixture or autoregressive, got {kind}"):
        make(kind).log_density(EVERYONE)


@pytest.mark.parametrize("given", [{"region": 1}, {"age": 2, "member": 0}])
@pytest.mark.parametrize("kind", KINDS)
def test_conditional_draws_have_the_conditional_probabilities(
    kind: str, given: dict[str, int]
) -> None:
    sampler = make(kind)
    names = [one.name for one in FIELDS]
    fits = np.all([EVERYONE[:, names.index(name)] == code for name, code in given.items()], axis=0)
    probabilities = exact(sampler)
    codes = sampler.sample(50_000, seed=8, given=given)
    assert len(codes) == 50_000
    found = counts(codes)
    assert found[~fits].sum() == 0
    assert p_value(found, np.where(fits, probabilities, 0)) > 1e-4
    assert np.array_equal(sampler.sample(50_000, seed=8, given=given), codes)
    if kind in ("mixture", "mlp"):
        # Void guard: fixing the fields without asking what that says about the others.
        unconditional = exact(fit_independent(sampler.sample(100_000, seed=9), FIELDS))
        assert p_value(found, np.where(fits, unconditional, 0)) < 1e-4


def test_the_conditional_sampler_of_a_mixture_has_its_posterior() -> None:
    columns = np.array([[1, 0, 0, 0.5, 0.5, 1, 0, 0, 0], [0, 1, 0, 0.1, 0.9, 0, 0, 0, 1]])
    sampler = mixture(FIELDS, np.array([0.25, 0.75]), columns, {})
    conditional = sampler.given({"member": 0})
    shares = conditional.tensors["customers.shares"]
    assert shares == pytest.approx([0.125 / 0.2, 0.075 / 0.2])
    assert conditional.given({"age": 3}).tensors["customers.shares"] == pytest.approx([1.0])


def test_conditions_that_are_never_met() -> None:
    columns = np.array([[0.5, 0.5, 0, 0.5, 0.5, 1, 0, 0, 0]])
    with pytest.raises(RareConditionError, match="probability 0"):
        mixture(FIELDS, np.ones(1), columns, {}).sample(5, given={"region": 2})
    with pytest.raises(RareConditionError, match="got none"):
        fit_bootstrap(EVERYONE[:8], FIELDS).sample(5, given={"region": 2})
    sampler = make("autoregressive")
    tensors = dict(sampler.tensors)
    tensors["customers.0.bias"] = np.array([0, 0, -80], np.float32)
    never = CustomerSampler(FIELDS, sampler.config, tensors, sampler.slope)
    with pytest.raises(RareConditionError, match=r"of \{'region': 2\} .* got 0 in 2097152"):
        never.sample(5, given={"region": 2})
    with pytest.raises(RareConditionError, match="expected 1000000000 customers"):
        sampler.sample(1_000_000_000, given={"region": 0})


def test_one_logged_customer_who_fits_is_enough() -> None:
    sampler = fit_bootstrap(EVERYONE, FIELDS).given({"region": 2, "member": 1, "age": 3})
    assert sampler.sample(4).tolist() == [[2, 1, 3]] * 4


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"count": -1}, "count"),
        ({"count": 1.5}, "count"),
        ({"count": 1, "seed": -1}, "seed"),
        ({"count": 1, "given": {"shoe": 1}}, "a field out of"),
        ({"count": 1, "given": {"age": 4}}, "0 to 3, got 4"),
        ({"count": 1, "given": {"age": "young"}}, "0 to 3, got 'young'"),
        ({"count": 1, "first": 3, "given": {"age": 1}}, "expected 0 with a condition"),
    ],
)
def test_calls_that_are_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgumentError, match=match):
        make("mixture").sample(**arguments)


def test_tensors_that_make_no_sampler_are_refused() -> None:
    sampler = make("mlp")
    tensors = {name: one for name, one in sampler.tensors.items() if name != "generator.2.bias"}
    with pytest.raises(InvalidArgumentError, match=r"generator\.2\.bias"):
        CustomerSampler(FIELDS, sampler.config, tensors)
    with pytest.raises(InvalidArgumentError, match="given: expected a sampler of kind"):
        sampler.given({"age": 1})


def test_the_customers_of_a_simulator(simulator: vtb.Simulator) -> None:
    sampler = CustomerSampler.of(simulator)
    assert sampler.fields == simulator.schema.customer
    codes = sampler.sample(64, seed=12)
    # The same customers that come in its sessions.
    log = vtb.rollout(simulator, policy="zero", sessions=64, seed=12, keep=True).log
    assert log is not None
    first = log["page"] == 0
    assert np.array_equal(log["customer"][first], codes)


def test_field_probabilities_are_those_of_the_draws() -> None:
    for kind in ("mixture", "mlp"):
        sampler = make(kind)
        mean = sampler.field_probabilities(50_000).mean(0)
        codes = sampler.sample(50_000)
        for number, one in enumerate(FIELDS):
            share = np.bincount(codes[:, number], minlength=one.size) / len(codes)
            block = mean[STARTS[number] : STARTS[number + 1]]
            assert abs(share - block).max() < 0.012, kind
    with pytest.raises(InvalidArgumentError, match="mlp or mixture, got rows"):
        make("rows").field_probabilities(3)


def test_the_largest_of_gaussians() -> None:
    assert largest(np.zeros(3), np.ones(3)) == pytest.approx([1 / 3] * 3, abs=1e-9)
    # Two: the difference is a Gaussian.
    means, deviations = np.array([0.3, -0.2]), np.array([0.5, 1.2])
    expected = stats.norm.cdf(0.5 / np.hypot(0.5, 1.2))
    assert largest(means, deviations)[0] == pytest.approx(expected, abs=1e-9)
    # Deviations that differ by orders of magnitude: nearly a step at 0.
    found = largest(np.array([0.0, 0.1]), np.array([1e-4, 0.3]))
    assert found[1] == pytest.approx(stats.norm.cdf(0.1 / np.hypot(0.3, 1e-4)), abs=1e-8)
    random = np.random.default_rng(0)
    means, deviations = random.normal(0, 0.4, 5), np.exp(random.normal(-2, 1, 5))
    drawn = (means + deviations * random.normal(size=(400_000, 5))).argmax(1)
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    assert abs(largest(means, deviations) - shares).max() < 0.004


def test_the_gaussian_mixture_is_exported_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported mixture against scikit-learn's own draws of the same model, argmax a field."""
    module = pytest.importorskip("sklearn.mixture", reason="the mixture is scikit-learn's")
    made: list[Any] = []

    fit = module.GaussianMixture.fit

    def remembered(model: Any, rows: np.ndarray) -> Any:
        made.append(model)
        return fit(model, rows)

    monkeypatch.setattr(module.GaussianMixture, "fit", remembered)
    codes = make("mixture").sample(4000, seed=2)
    sampler = fit_gmm(codes, FIELDS, seed=7, config=GmmConfig(components=3))
    (model,) = made
    model.random_state = 11
    numbers, _ = model.sample(200_000)
    drawn = np.stack([numbers[:, a:b].argmax(1) for a, b in pairwise(STARTS)], axis=1)
    probabilities = exact(sampler)
    assert p_value(counts(drawn), probabilities) > 1e-4
    assert p_value(counts(sampler.sample(200_000, seed=3)), probabilities) > 1e-4
    # Void guards: the logged customers, and means taken for probabilities.
    assert p_value(counts(drawn), counts(codes) / len(codes)) < 1e-4
    means = np.clip(model.means_, 1e-6, None)
    naive = exact(
        mixture(
            FIELDS,
            model.weights_,
            np.concatenate(
                [
                    part / part.sum(1, keepdims=True)
                    for part in np.split(means, STARTS[1:-1], axis=1)
                ],
                1,
            ),
            {},
        )
    )
    assert p_value(counts(drawn), naive) < 1e-4
    assert np.exp(sampler.log_density(EVERYONE)).sum() == pytest.approx(1)
    with pytest.raises(InvalidArgumentError, match="at least 10 rows"):
        fit_gmm(codes[:9], FIELDS)
