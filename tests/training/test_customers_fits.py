"""Fits of samplers: gradients, losses by hand, resuming, divergence, bad tables. Small and quick.

What they reach on ground-truth customers is in ``test_customers.py``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from virtualtb_fast import customers
from virtualtb_fast.customers import FITS, PRESETS, CustomerSampler, GanConfig
from virtualtb_fast.customers import _gan_losses as losses
from virtualtb_fast.customers._run import Memory, Run
from virtualtb_fast.errors import (
    InvalidArgumentError,
    MissingExtraError,
    TrainingDivergedError,
)
from virtualtb_fast.schema import Field

torch = pytest.importorskip("torch", reason="fits need PyTorch")

FIELDS = (Field("region", 3), Field("member", 2), Field("age", 4))
SIZES = (3, 2, 4)
SMALL = GanConfig(steps=60, batch=64, discriminator_batch=32, latent=4, hidden=(8,))


def table(rows: int = 600, seed: int = 0) -> np.ndarray:
    """Two kinds of customers, whose fields depend on one another."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 2, rows)
    region = np.where(kind == 0, 0, random.integers(1, 3, rows))
    age = np.where(random.random(rows) < 0.9, kind * 2, random.integers(0, 4, rows))
    return np.stack((region, kind ^ (random.random(rows) < 0.1), age), 1).astype(np.uint8)


def generator(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


# --- the gradient reaches the generator ---------------------------------------------------------


@pytest.mark.parametrize("estimator", ["st_gumbel", "soft", "reinforce"])
@pytest.mark.parametrize("adversary", ["non-saturating", "linear", "wasserstein"])
def test_the_adversary_alone_moves_the_logits(estimator: str, adversary: str) -> None:
    from virtualtb_fast.customers.gan_sd import _Trainer

    config = replace(
        SMALL, alpha=0.0, alpha_end=0.0, beta=0.0, estimator=estimator, adversary=adversary
    )
    trainer = _Trainer(table(), FIELDS, 0, config, "cpu")
    logits = trainer.logits(64).detach().requires_grad_(True)
    log_p = losses.field_log_softmax(logits, SIZES)
    trainer.adversary(logits, log_p, 0.0).backward()
    # Every field of every customer, or nearly: a detached input would give None or 0.
    moved = logits.grad.abs().split(list(SIZES), -1)
    for part in moved:
        assert (part.sum(-1) > 0).float().mean() > 0.9
    # Void guard: the mistake of reproductions, whose discriminator sees detached rows.
    hard, _ = losses.draw(logits, SIZES, generator())
    assert not hard.requires_grad
    before = [one.detach().clone() for one in trainer.generator.parameters()]
    trainer.update_generator(0.0)
    after = trainer.generator.parameters()
    assert all(not torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    logits = torch.randn(50, 9, generator=generator(), dtype=torch.float64).requires_grad_(True)
    hard, noise = losses.draw(logits, SIZES, generator(1))
    assert set(hard.unique().tolist()) == {0, 1}
    assert all((part.sum(-1) == 1).all() for part in hard.split(list(SIZES), -1))
    rows = losses.straight_through(logits, hard, noise, 0.5, SIZES)
    assert torch.allclose(rows, hard, atol=1e-12)
    weights = torch.randn(50, 9, generator=generator(2), dtype=torch.float64)
    (found,) = torch.autograd.grad((rows * weights).sum(), logits)
    soft = losses.field_log_softmax((logits + noise) / 0.5, SIZES).exp()
    (expected,) = torch.autograd.grad((soft * weights).sum(), logits)
    assert torch.allclose(found, expected)


def test_draws_have_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 0.5, 0.0, 2.0, 0.0, 0.0, -3.0]]).expand(40_000, -1)
    hard, _ = losses.draw(logits, SIZES, generator())
    expected = losses.field_log_softmax(logits[:1], SIZES).exp()[0]
    assert abs(hard.mean(0) - expected).max() < 0.012
    assert abs(hard.mean(0) - expected.flip(0)).max() > 0.1


def test_reinforce_is_unbiased() -> None:
    """Its mean gradient is that of the expected loss, computed over all 24 customers."""
    from virtualtb_fast.customers.gan_sd import _Trainer

    config = replace(SMALL, estimator="reinforce", discriminator_hidden=(16,))
    trainer = _Trainer(table(), FIELDS, 3, config, "cpu")
    logits = torch.randn(1, 9, generator=generator(5)).requires_grad_(True)
    everyone = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4))
    shown = torch.cat(
        [torch.nn.functional.one_hot(everyone[:, i], size) for i, size in enumerate(SIZES)], 1
    ).float()
    log_p = losses.field_log_softmax(logits, SIZES)
    loss = losses.adversarial_loss("non-saturating", trainer.discriminator(shown))[:, 0].detach()
    loss = loss + 3 * shown[:, 0]
    (exact,) = torch.autograd.grad(((shown @ log_p[0]).exp() * loss).sum(), logits)
    # The trainer's own discriminator, with something that stands out added to it.
    network = trainer.discriminator
    trainer.discriminator = lambda rows: network(rows)
    original = losses.adversarial_loss
    many = 200_000

    def shifted(kind: str, scores: Any) -> Any:
        return original(kind, scores) + 3 * shifted.rows[:, :1]

    import virtualtb_fast.customers.gan_sd as module

    def remember(rows: Any) -> Any:
        shifted.rows = rows
        return network(rows)

    trainer.discriminator = remember
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "adversarial_loss", shifted)
        wide = logits.expand(many, -1)
        loss = trainer.adversary(wide, losses.field_log_softmax(wide, SIZES), 0.0)
    (found,) = torch.autograd.grad(loss, logits)
    assert abs(found - exact).max() < 0.01
    assert exact.abs().max() > 0.1


# --- losses by hand -----------------------------------------------------------------------------


def test_adversarial_losses_by_hand() -> None:
    scores = torch.tensor([0.0, 2.0], dtype=torch.float64)
    sigmoid = 1 / (1 + math.exp(-2))
    by_hand = {
        "non-saturating": [math.log(2), -math.log(sigmoid)],
        "linear": [-0.5, -sigmoid],
        "wasserstein": [0, -2],
    }
    for kind, expected in by_hand.items():
        assert losses.adversarial_loss(kind, scores).tolist() == pytest.approx(expected)
    real, fake = scores, scores - 1
    fool = [-math.log(1 - 1 / (1 + math.exp(1))), -math.log(1 - 1 / (1 + math.exp(-1)))]
    plain = losses.discriminator_loss("non-saturating", real, fake, 1.0).item()
    assert plain == pytest.approx((math.log(2) - math.log(sigmoid)) / 2 + sum(fool) / 2)
    smooth = losses.discriminator_loss("non-saturating", real, fake, 0.9).item()
    extra = 0.1 * ((math.log(2) - math.log(1 - sigmoid)) / 2)
    assert smooth == pytest.approx(
        0.9 * (math.log(2) - math.log(sigmoid)) / 2 + extra + sum(fool) / 2
    )
    assert losses.discriminator_loss("wasserstein", real, fake, 0.9).item() == pytest.approx(-1)


def test_entropy_and_divergence_of_marginals_by_hand() -> None:
    p = torch.tensor([0.5, 0.25, 0.25, 0.9, 0.1], dtype=torch.float64)
    q = torch.tensor([0.25, 0.25, 0.5, 0.5, 0.5], dtype=torch.float64)
    logs = torch.log(torch.tensor([3.0, 3, 3, 2, 2], dtype=torch.float64))
    both, first = torch.ones(5), torch.tensor([1.0, 1, 1, 0, 0])
    entropy = 1.5 * math.log(2) / math.log(3)
    assert losses.relative_entropy(q, first, logs).item() == pytest.approx(entropy)
    assert losses.relative_entropy(q, both, logs).item() == pytest.approx(entropy + 1)
    left = 0.5 * math.log(2) - 0.25 * math.log(2)
    right = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert losses.marginal_divergence(p, q, first).item() == pytest.approx(left)
    assert losses.marginal_divergence(p, q, both).item() == pytest.approx(left + right)


def test_entropy_and_divergence_depend_on_the_batch_not_on_rows() -> None:
    """One customer a row, sharp: rows have no entropy, the batch has all of it, and a gradient."""
    logits = (20 * torch.eye(4, dtype=torch.float64)).requires_grad_(True)
    p = losses.field_log_softmax(logits, (4,)).exp()
    ones, logs = torch.ones(4), torch.full((4,), math.log(4.0))
    assert losses.relative_entropy(p.mean(0), ones, logs).item() == pytest.approx(1)
    tilted = losses.field_log_softmax(torch.randn(8, 4, generator=generator()), (4,)).exp()
    tilted.requires_grad_(True)
    entropy = losses.relative_entropy(tilted.mean(0), ones, logs)
    (slope,) = torch.autograd.grad(entropy, tilted)
    assert slope.abs().min() > 0
    # Void guard: the entropy of sampled one-hot rows, as reproductions have it, has no gradient.
    hard, _ = losses.draw(logits, (4,), generator())
    assert not losses.relative_entropy(hard.mean(0), ones, logs).requires_grad


def test_the_pair_loss_has_the_gradient_of_the_divergence() -> None:
    real = torch.rand(9, 9, generator=generator(), dtype=torch.float64)
    real = real + real.T
    block = np.repeat(np.arange(3), SIZES)
    mask = torch.from_numpy((block[:, None] != block[None]).astype(float))
    for a in range(3):
        for b in range(3):
            part = np.ix_(block == a, block == b)
            real[part] /= real[part].sum()
    real = real * mask
    logits = torch.randn(40, 9, generator=generator(1), dtype=torch.float64).requires_grad_(True)
    p = losses.field_log_softmax(logits, SIZES).exp()
    now = p.T @ p / len(p)
    # By its definition: all pairs, each once.
    upper = torch.triu(torch.ones(9, 9, dtype=torch.float64))
    exact = (upper * real * ((real + 1e-12).log() - (now + 1e-6).log())).sum()
    (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
    found_loss = losses.pair_loss(real, now.detach(), now)
    (found,) = torch.autograd.grad(found_loss, logits)
    assert torch.allclose(found, expected, atol=1e-10)
    assert losses.pair_divergence(real, now.detach()).item() == pytest.approx(exact.item())
    assert expected.abs().max() > 1e-3


def test_penalties_by_hand() -> None:
    weights = torch.tensor([[3.0, 4.0]])

    def network(rows: Any) -> Any:
        return rows @ weights.T

    rows = torch.randn(7, 2, generator=generator())
    assert losses.r1_penalty(network, rows.clone()).item() == pytest.approx(25)
    mix = torch.rand(7, 1, generator=generator())
    assert losses.gradient_penalty(network, rows, -rows, mix).item() == pytest.approx(16)


def test_noise_is_folded_into_the_first_layer() -> None:
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(6, 5)).astype(np.float32), np.arange(6, dtype=np.float32)
    uniform = random.random((10, 5))
    folded, shift = losses.fold_noise(weight, bias)
    trained = (uniform - 0.5) * math.sqrt(12) @ weight.T + bias
    assert uniform @ folded.T + shift == pytest.approx(trained, abs=1e-5)
    scaled = (random.random(200_000) - 0.5) * math.sqrt(12)
    assert scaled.std() == pytest.approx(1, abs=0.01)


# --- the life of a fit --------------------------------------------------------------------------

QUICK: dict[str, Callable[..., CustomerSampler]] = {
    "gan-sd": lambda *a, **k: customers.fit_gan_sd(*a, config=SMALL, **k),
    "gan-sd-reinforce": lambda *a, **k: customers.fit_gan_sd(
        *a, config=replace(SMALL, estimator="reinforce", pairs=(("region", "age"),)), **k
    ),
    "wgan-gp": lambda *a, **k: customers.fit_wgan_gp(
        *a, config=replace(customers.baselines.WGAN_GP, **{
            name: getattr(SMALL, name)
            for name in ("steps", "batch", "discriminator_batch", "latent", "hidden")
        }), **k
    ),
    "lca": lambda *a, **k: customers.fit_latent_class(
        *a, config=customers.LatentClassConfig(tolerance=-1.0, iterations=60, start_iterations=3),
        **k
    ),
    "ar": lambda *a, **k: customers.fit_autoregressive(
        *a, config=customers.AutoregressiveConfig(hidden=5, steps=260, batch=32), **k
    ),
}  # fmt: skip


def same(one: CustomerSampler, two: CustomerSampler) -> bool:
    return one.tensors.keys() == two.tensors.keys() and all(
        one.tensors[name].tobytes() == two.tensors[name].tobytes() for name in one.tensors
    )


@pytest.mark.parametrize("name", QUICK)
def test_a_fit_continues_to_the_same_bits(name: str) -> None:
    fit, every = QUICK[name], Memory()
    whole = fit(table(), FIELDS, seed=1 << 40, checkpoint=every)
    assert len(every.states) >= 2
    # Nobody who stores the states changes the result.
    assert same(fit(table(), FIELDS, seed=1 << 40), whole)
    for state in (every.states[0], every.states[-2], every.states[-1]):
        resumed = fit(table(), FIELDS, seed=1 << 40, checkpoint=Memory(state))
        assert same(resumed, whole)
        assert resumed.report["history"] == whole.report["history"]
    # Void guards: another seed (in the high half, which torch ignores), and a state that is lost.
    assert not same(fit(table(), FIELDS, seed=1 << 41), whole)
    with pytest.raises(InvalidArgumentError, match="expected a state of"):
        fit(table(seed=1), FIELDS, seed=1 << 40, checkpoint=Memory(every.states[0]))
    with pytest.raises(InvalidArgumentError, match="expected a state of"):
        fit(table(), FIELDS, seed=1 << 40, checkpoint=Memory({"step": 3}))


@pytest.mark.parametrize("name", QUICK)
def test_a_fit_tells_how_it_goes(name: str) -> None:
    told: list[tuple[str, int, int, dict[str, float]]] = []
    sampler = QUICK[name](table(), FIELDS, progress=lambda *a: told.append((*a[:3], dict(a[3]))))
    assert len(told) >= 3
    assert [one[1] for one in told] == sorted({one[1] for one in told})
    what = told[0][0]
    assert what == sampler.report["fitted_by"]
    assert all(math.isfinite(value) for one in told for value in one[3].values())
    history = sampler.report["history"]
    assert len({len(values) for values in history.values()}) == 1 or "held_out" in history
    assert sampler.report["cpu_seconds"] >= 0

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QUICK[name](table(), FIELDS, progress=stop)


def test_torch_is_left_as_it_was() -> None:
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(2)
    try:
        for fit in QUICK.values():
            fit(table(), FIELDS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    # No fit draws from the global generator.
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_diverging_fit_names_quantity_and_step_and_keeps_the_last_good_state() -> None:
    wild = replace(SMALL, steps=2000, rate=1e30, rate_end=1.0)
    with pytest.raises(TrainingDivergedError, match="expected a finite") as caught:
        customers.fit_gan_sd(table(), FIELDS, config=wild)
    error = caught.value
    assert error.step >= 0
    assert error.quantity in str(error)
    assert f"at step {error.step}" in str(error)
    assert error.state is None
    # From good beginnings: a discriminator whose weights become too large later.
    states = Memory()
    from virtualtb_fast.customers import gan_sd

    original = gan_sd._Trainer.update_discriminator

    def poisoned(self: Any, share: float) -> float:
        if share > 0.7:
            return math.nan
        return original(self, share)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan_sd._Trainer, "update_discriminator", poisoned)
        with pytest.raises(TrainingDivergedError, match="that of step 40 is in this") as caught:
            customers.fit_gan_sd(table(), FIELDS, config=SMALL, checkpoint=states)
    assert (caught.value.quantity, caught.value.step) == ("discriminator_loss", 43)
    state = caught.value.state
    assert state is not None
    assert state["step"] == 40
    # What was kept is good: it goes on to where an undisturbed fit ends.
    resumed = customers.fit_gan_sd(table(), FIELDS, config=SMALL, checkpoint=Memory(dict(state)))
    assert same(resumed, customers.fit_gan_sd(table(), FIELDS, config=SMALL))


def test_a_state_that_is_not_finite_is_not_kept() -> None:
    run = Run("fit", 100, identity={}, progress=None, checkpoint=(memory := Memory()))
    for step in range(19):
        run.done(step, {"loss": 1.0}, dict)
    bad = {"network": {"weight": torch.tensor([math.inf])}, "number": np.ones(2)}
    with pytest.raises(TrainingDivergedError) as caught:
        run.done(19, {"loss": 1.0}, lambda: bad)
    assert caught.value.quantity == "network.weight"
    assert memory.states == []


# --- tables that people have --------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_ten_rows_and_a_constant_column_are_enough(name: str) -> None:
    few = table(10)
    few[:, 1] = 0
    codes = QUICK[name](few, FIELDS).sample(2000)
    assert codes.shape == (2000, 3)
    # Most have the constant; GANs need more steps than these for all of them.
    least = 0.95 if name in ("lca",) else 0.0
    assert (codes[:, 1] == 0).mean() > least
    two = QUICK[name](np.zeros((2, 3), np.uint8), FIELDS).sample(100)
    assert two.shape == (100, 3)


@pytest.mark.parametrize("name", ["independent", "rows", "gmm"])
def test_baselines_take_ten_rows_and_a_constant_column(name: str) -> None:
    if name == "gmm":
        pytest.importorskip("sklearn", reason="the mixture is scikit-learn's")
    few = table(10)
    few[:, 1] = 0
    codes = FITS[name](few, FIELDS).sample(2000)
    assert (codes[:, 1] == 0).mean() == 1


@pytest.mark.parametrize("fit", [*FITS.values()], ids=[*FITS])
def test_tables_that_are_none(fit: Callable[..., CustomerSampler]) -> None:
    good = table(20)
    with pytest.raises(InvalidArgumentError, match=r"shape \(n, 3\) with n at least 2"):
        fit(good[:, :2], FIELDS)
    with pytest.raises(InvalidArgumentError, match="n at least 2"):
        fit(good[:1], FIELDS)
    with pytest.raises(InvalidArgumentError, match=r"float64, with NaN in it"):
        fit(np.where(good == 1, np.nan, good), FIELDS)
    with pytest.raises(InvalidArgumentError, match="expected integers, got float64"):
        fit(good.astype(float), FIELDS)
    unseen = good.copy()
    unseen[7, 2] = 4
    with pytest.raises(InvalidArgumentError, match=r"row 7, field 'age': expected 0 to 3, got 4"):
        fit(unseen, FIELDS)
    with pytest.raises(InvalidArgumentError, match="expected one Field"):
        fit(good, [])


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"batch": 1.5},
        {"estimator": "hard"},
        {"adversary": "none"},
        {"generator_updates": 0},
        {"batch": 1, "estimator": "reinforce"},
    ],
)
def test_settings_that_are_none(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(settings))):
        GanConfig(**settings)


def test_names_of_types_and_presets_are_checked() -> None:
    with pytest.raises(InvalidArgumentError, match=r"got \['shoe'\]"):
        customers.fit_gan_sd(table(), FIELDS, config=replace(SMALL, attributes=("shoe",)))
    with pytest.raises(InvalidArgumentError, match=r"got \['shoe'\]"):
        customers.fit_gan_sd(table(), FIELDS, config=replace(SMALL, pairs=(("age", "shoe"),)))
    with pytest.raises(InvalidArgumentError, match="default, fields, paper, got 'best'"):
        customers.fit_gan_sd(table(), FIELDS, config="best")


@pytest.mark.parametrize("name", ["gan-sd", "gan", "ar"])
def test_without_torch_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"PyTorch: pip install virtualtb-fast\[train\]"):
        FITS[name](table(), FIELDS)
    # These need none.
    assert FITS["lca"](table(), FIELDS).sample(3).shape == (3, 3)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn", "sklearn.mixture"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install virtualtb-fast\[report\]"):
        FITS["gmm"](table(), FIELDS)


# --- what the presets are -----------------------------------------------------------------------


def test_presets_are_as_documented() -> None:
    paper = PRESETS["paper"]
    assert (paper.alpha, paper.alpha_end, paper.beta) == (1, 1, 1)
    assert (paper.adversary, paper.generator_updates, paper.pairs) == ("linear", 5, "none")
    assert (paper.r1, paper.gradient_penalty, paper.clip) == (0, 0, None)
    fields = PRESETS["fields"]
    assert (fields.pairs, fields.batch, fields.steps) == ("none", 512, 8000)
    assert PRESETS["default"].pairs == "all"
    for plain in (customers.baselines.GAN, customers.baselines.WGAN, customers.baselines.WGAN_GP):
        assert (plain.alpha, plain.alpha_end, plain.beta, plain.pairs) == (0, 0, 0, "none")
    assert customers.baselines.WGAN.clip == 0.01
    assert customers.baselines.WGAN_GP.gradient_penalty == 10


def test_clipped_weights_stay_within_bounds() -> None:
    states = Memory()
    config = replace(SMALL, adversary="wasserstein", clip=0.01, r1=0.0, discriminator_updates=2)
    customers.fit_gan_sd(table(), FIELDS, config=config, checkpoint=states)
    weights = states.states[-1]["discriminator"].values()
    assert max(one.abs().max().item() for one in weights) <= 0.01


def test_two_tables_of_one_mixture_have_likelihoods_as_they_should() -> None:
    """Latent classes and the autoregressive sampler, on held-out customers of a known table."""
    train, held = table(8000), table(8000, seed=1)
    exact = {}
    for codes in (train, held):
        rows, counted = np.unique(codes, axis=0, return_counts=True)
        exact = {tuple(row): count / len(codes) for row, count in zip(rows, counted, strict=True)}
    entropy = -sum(p * math.log(p) for p in exact.values())
    independent = -customers.fit_independent(train, FIELDS).log_density(held).mean()
    for sampler in (
        customers.fit_latent_class(train, FIELDS, seed=2),
        customers.fit_autoregressive(
            train, FIELDS, config=customers.AutoregressiveConfig(hidden=16, steps=600)
        ),
    ):
        assert -sampler.log_density(held).mean() < entropy + 0.02
    # Void guard.
    assert independent > entropy + 0.5


def test_rare_categories_of_the_first_field_are_rare_from_the_start() -> None:
    """Adam moves a logit by its rate a step: from 0 it would not come down to these."""
    random = np.random.default_rng(4)
    shares = np.array([0.9985, 0.001, 0.0005])
    codes = np.stack((random.choice(3, 20_000, p=shares), random.integers(0, 2, 20_000)), 1)
    fields = (Field("a", 3), Field("b", 2))
    config = customers.AutoregressiveConfig(hidden=4, steps=20)
    sampler = customers.fit_autoregressive(codes, fields, config=config)
    logits = sampler.tensors["customers.0.bias"].astype(float)
    found = np.exp(logits) / np.exp(logits).sum()
    assert found == pytest.approx(np.bincount(codes[:, 0]) / len(codes), rel=0.2)
    # Void guard: so many steps from equal shares.
    start = np.exp(np.array([1.0, -1, -1]) * 20 * config.rate)
    assert (start / start.sum())[1] > 100 * shares[1]


# --- settings of NumPy's numbers -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "numpy", "python"),
    [
        (
            "gan-sd",
            GanConfig(
                steps=np.int64(2), rate=np.float32(0.5), betas=(np.float32(0.5), np.float64(0.5)),
                temperature=(np.float32(0.5), np.float32(0.25)), hidden=(np.int64(8),),
                batch=np.uint8(64), latent=4, clip=np.float32(1), attributes=["region"],
            ),
            GanConfig(
                steps=2, rate=0.5, betas=(0.5, 0.5), temperature=(0.5, 0.25), hidden=(8,),
                batch=64, latent=4, clip=1.0, attributes=("region",),
            ),
        ),
        (
            "ar",
            customers.AutoregressiveConfig(
                hidden=np.int64(4), steps=np.int32(2), rate=np.float32(0.5),
                held_out=np.float16(0.5),
            ),
            customers.AutoregressiveConfig(hidden=4, steps=2, rate=0.5, held_out=0.5),
        ),
        (
            "lca",
            customers.LatentClassConfig(
                iterations=np.int64(3), choices=(np.int64(1), np.int64(2)), prior=np.float32(0.5)
            ),
            customers.LatentClassConfig(iterations=3, choices=(1, 2), prior=0.5),
        ),
    ],
)  # fmt: skip
def test_numpys_numbers_in_settings_are_pythons(name: str, numpy: Any, python: Any) -> None:
    assert repr(numpy) == repr(python)
    fitted = [FITS[name](table(100), FIELDS, seed=1, config=one) for one in (numpy, python)]
    for key, value in fitted[0].tensors.items():
        assert (value == fitted[1].tensors[key]).all()
