"""GAN-SD: a generative adversarial network that also matches the distribution of customer types.

Shi et al., "Virtual-Taobao" (AAAI 2019), section "GAN-SD". The generator maps noise to one softmax
a field and maximises

    E[ D(G(z)) ] + alpha H(V(G(z))) - beta KL( V(x) || V(G(z)) )

where V is the "customer type", a set of attributes. Two things are easily got wrong, and are wrong
in public reproductions:

* H and KL are of the *batch's* marginals q_f = mean_b p_f(z_b), not of rows. A term that is
  averaged over rows has its optimum where the noise is ignored: independent fields.
* The discriminator sees one-hot rows while its gradient reaches the generator, by
  straight-through Gumbel-softmax.

Single fields alone leave the joint structure to the discriminator. The default's V holds all pairs
of fields as well: E_z[p_f(z) p_g(z)'] is the exact marginal of a pair, since fields are independent
given z. This pair term does most of the work, the discriminator what is beyond pairs: on a world
for tuning the fit without it is as close in pairs, and leaves .25 in place of .14 of the excess
cross-entropy that independent fields have.

The reading order is that of the algorithm: settings, networks, losses, loop.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast._extras import torch_for
from virtualtb_fast._training import device as checked_device
from virtualtb_fast._training import torch_threads
from virtualtb_fast.customers import _run as running
from virtualtb_fast.customers import _tables as tables
from virtualtb_fast.customers._config_checks import check_gan
from virtualtb_fast.customers._gan_losses import (
    adversarial_loss,
    discriminator_loss,
    draw,
    field_log_softmax,
    fold_noise,
    gradient_penalty,
    marginal_divergence,
    network,
    pair_divergence,
    pair_loss,
    r1_penalty,
    relative_entropy,
    straight_through,
)
from virtualtb_fast.customers.sampler import CustomerSampler
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import Customers, Field

__all__ = ["PRESETS", "GanConfig", "fit_gan_sd"]

Tensor = Any
"""A ``torch.Tensor``; torch is imported when a fit is called."""

SLOPE = 0.01
"""Of the generator's leaky ReLU, as in the published networks."""


@dataclass(frozen=True, slots=True)
class GanConfig:
    """Settings of a fit. The defaults reach the documented figures in some two CPU minutes."""

    steps: int = 4_500
    """Updates of the generator."""
    alpha: float = 0.1
    """Weight of the entropy of V; see ``alpha_end``."""
    alpha_end: float = 0.0
    """The weight at the last step, reached linearly: an entropy term kept up biases marginals."""
    beta: float = 1.0
    """Weight of the divergences of V."""
    attributes: tuple[str, ...] | None = None
    """Names of the fields of V; None for all."""
    pairs: Literal["none", "all"] | tuple[tuple[str, str], ...] = "all"
    """Pairs of fields that V holds as well: by name, all of them, or none."""
    pair_memory: float = 0.98
    """Running mean of the pairs' marginals: one batch alone is a biased denominator."""
    adversary: Literal["non-saturating", "linear", "wasserstein"] = "non-saturating"
    """What the generator minimises: -log D, -D (as the paper writes), or minus the critic."""
    adversarial: float = 1.0
    """Weight of the adversary's term."""
    estimator: Literal["st_gumbel", "soft", "reinforce"] = "st_gumbel"
    """How the gradient passes the draw of one-hot rows. ``soft`` shows the discriminator
    probabilities, which it tells from one-hot rows easily (real rows are blurred to hinder that);
    ``reinforce`` is unbiased and noisy."""
    temperature: tuple[float, float] = (0.66, 0.2)
    """Of Gumbel-softmax, first and last step, linear between."""
    generator_updates: int = 1
    """Updates of the generator in a row before the discriminator's turn: the paper's k."""
    discriminator_updates: int = 1
    """Updates of the discriminator in its turn."""
    batch: int = 1024
    """Customers in an update of the generator."""
    discriminator_batch: int = 256
    """Real and as many generated customers in an update of the discriminator."""
    latent: int = 128
    """Dimensions of the noise."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of the generator."""
    discriminator_hidden: tuple[int, ...] = (256, 128)
    """Hidden layers of the discriminator (leaky ReLU of slope .2)."""
    rate: float = 1e-3
    """Adam's rate of the generator."""
    discriminator_rate: float = 1e-3
    """Adam's rate of the discriminator."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's decay rates, of both."""
    rate_end: float = 0.02
    """Rates fall by a half cosine to this share."""
    real_label: float = 1.0
    """What real customers count as for the discriminator; .9 is one-sided label smoothing."""
    r1: float = 0.0
    """Weight gamma of the penalty gamma / 2 |grad D|^2 at real customers. It makes things worse:
    on a world for tuning, .1, .02 and 0 give an excess cross-entropy of .65, .58 and .39 nat."""
    gradient_penalty: float = 0.0
    """Weight of (|grad D| - 1)^2 between real and generated customers (WGAN-GP)."""
    clip: float | None = None
    """Largest magnitude of the discriminator's weights (WGAN)."""
    average: float = 0.999
    """Decay of the running mean of the generator's weights, which is what is exported."""
    num_threads: int = 1
    """Threads of torch. Another number gives another, equally good, result."""

    def __post_init__(self) -> None:
        check_gan(self)


PRESETS: Mapping[str, GanConfig] = {
    "default": GanConfig(),
    "fields": GanConfig(pairs="none", batch=512, steps=8_000),
    "paper": GanConfig(
        alpha=1.0,
        alpha_end=1.0,
        pairs="none",
        adversary="linear",
        generator_updates=5,
        hidden=(128,),
        discriminator_hidden=(128,),
    ),
}
"""``default``: V of single fields and pairs, annealed entropy. ``fields``: V of single fields.
``paper``: alpha = beta = 1, D itself instead of its logarithm, five generator updates a turn, no
penalty, V of single fields; its marginals are biased by the entropy term that stays."""


# --- the loop -----------------------------------------------------------------------------------


class _Trainer:
    """Networks, optimisers, running means and noise of one fit."""

    def __init__(
        self,
        table: NDArray[np.uint8],
        fields: Sequence[Field],
        seed: int,
        config: GanConfig,
        device: str,
    ) -> None:
        self.torch = torch = torch_for("fit_gan_sd")
        self.config, self.table, self.fields = config, table, tuple(fields)
        self.sizes, self.device = [field.size for field in fields], device
        self.random = torch.Generator(device).manual_seed(tables.hashed_seed(seed, "gan"))
        width = sum(self.sizes)
        self.generator = network((config.latent, *config.hidden, width), SLOPE, self.random)
        sizes = (width, *config.discriminator_hidden, 1)
        self.discriminator = network(sizes, 0.2, self.random)
        self.average = [one.detach().clone() for one in self.generator.parameters()]
        adam = torch.optim.Adam
        self.generator_adam = adam(self.generator.parameters(), config.rate, config.betas)
        rate = config.discriminator_rate
        self.discriminator_adam = adam(self.discriminator.parameters(), rate, config.betas)
        self._types(table, fields)

    def _types(self, table: NDArray[np.uint8], fields: Sequence[Field]) -> None:
        """V: the real marginals of fields and pairs, and masks of the columns that count."""
        config = self.config
        names = [field.name for field in fields]
        chosen = set(names if config.attributes is None else config.attributes)
        every = config.pairs == "all"
        pairs = () if isinstance(config.pairs, str) else config.pairs
        unknown = chosen.union(*pairs) - set(names)
        if unknown:
            message = f"expected fields out of {names}, got {sorted(unknown)}"
            raise InvalidArgumentError(f"attributes, pairs: {message}")
        block = np.repeat(np.arange(len(fields)), self.sizes)
        wanted = np.full((len(fields), len(fields)), every and config.beta != 0)
        for left, right in pairs:
            a, b = names.index(left), names.index(right)
            wanted[a, b] = wanted[b, a] = True
        np.fill_diagonal(wanted, False)
        self.has_pairs = bool(wanted.any())
        real = tables.pair_marginals(table, fields) * wanted[np.ix_(block, block)]
        members = np.repeat([float(name in chosen) for name in names], self.sizes)
        self.real = self._tensor(tables.marginals(table, fields))
        self.real_pairs = self._tensor(real)
        # Every field counts by how full its entropy is.
        self.logs = self._tensor(np.log(np.repeat(self.sizes, self.sizes)))
        self.members = self._tensor(members)
        self.running: Tensor = None

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return self.torch.from_numpy(array.astype(np.float32)).to(self.device)

    def _uniform(self, *shape: int) -> Tensor:
        return self.torch.rand(shape, generator=self.random, device=self.device)

    def logits(self, count: int) -> Tensor:
        """Field logits of fresh noise, uniform with mean 0 and sd 1."""
        noise = self._uniform(count, self.config.latent)
        return self.generator((noise - 0.5) * math.sqrt(12))

    def real_rows(self, count: int) -> Tensor:
        """One-hot rows of logged customers, drawn with replacement."""
        picked = self.torch.randint(
            len(self.table), (count,), generator=self.random, device=self.device
        )
        codes = np.ascontiguousarray(self.table[picked.cpu().numpy()])
        return self._tensor(tables.one_hot(codes, self.fields))

    def step(self, step: int) -> dict[str, float]:
        """One update of the generator, and the discriminator's turn if it has come."""
        config, share = self.config, step / max(1, self.config.steps)
        fall = config.rate_end + (1 - config.rate_end) * 0.5 * (1 + math.cos(math.pi * share))
        for adam, rate in (
            (self.generator_adam, config.rate),
            (self.discriminator_adam, config.discriminator_rate),
        ):
            adam.param_groups[0]["lr"] = rate * fall
        losses = self.update_generator(share)
        if (step + 1) % config.generator_updates == 0:
            for _ in range(config.discriminator_updates):
                losses["discriminator_loss"] = self.update_discriminator(share)
        return losses

    def tau(self, share: float) -> float:
        """The temperature now."""
        first, last = self.config.temperature
        return first + (last - first) * share

    def adversary(self, logits: Tensor, log_p: Tensor, share: float) -> Tensor:
        """The adversary's part of the generator's loss, with its gradient by the estimator."""
        config = self.config
        if config.estimator == "soft":
            return adversarial_loss(config.adversary, self.discriminator(log_p.exp())).mean()
        hard, noise = draw(logits, self.sizes, self.random)
        if config.estimator == "st_gumbel":
            rows = straight_through(logits, hard, noise, self.tau(share), self.sizes)
            return adversarial_loss(config.adversary, self.discriminator(rows)).mean()
        with self.torch.no_grad():
            loss = adversarial_loss(config.adversary, self.discriminator(hard))[:, 0]
            # The mean of the other rows: independent of this one, so the gradient is unbiased.
            baseline = (loss.sum() - loss) / (len(loss) - 1)
        score = ((loss - baseline) * (hard * log_p).sum(-1)).mean()
        return score + loss.mean() - score.detach()

    def update_generator(self, share: float) -> dict[str, float]:
        """-E adversary - alpha H + beta (KL of fields + KL of pairs), one Adam step."""
        config = self.config
        # Its gradient passes through the discriminator, whose own weights need none now.
        self.discriminator.requires_grad_(False)
        logits = self.logits(config.batch)
        log_p = field_log_softmax(logits, self.sizes)
        p = log_p.exp()
        marginal = p.mean(0)
        adversary = self.adversary(logits, log_p, share)
        alpha = config.alpha + (config.alpha_end - config.alpha) * share
        divergence = marginal_divergence(self.real, marginal, self.members)
        entropy = relative_entropy(marginal, self.members, self.logs)
        loss = config.adversarial * adversary - alpha * entropy + config.beta * divergence
        losses = {"adversary_loss": adversary, "marginal_kl": divergence, "entropy": entropy}
        value = loss.detach()
        if self.has_pairs:
            now, keep = p.T @ p / len(p), config.pair_memory
            before = now.detach() if self.running is None else self.running
            self.running = keep * before + (1 - keep) * now.detach()
            loss = loss + config.beta * pair_loss(self.real_pairs, self.running, now)
            losses["pair_kl"] = pair_divergence(self.real_pairs, self.running)
            # What is minimised: the pair loss itself has its gradient, and no meaning.
            value = value + config.beta * losses["pair_kl"]
        losses["generator_loss"] = value
        self.generator_adam.zero_grad()
        loss.backward()
        self.generator_adam.step()
        for mean, one in zip(self.average, self.generator.parameters(), strict=True):
            mean.lerp_(one.detach(), 1 - config.average)
        return {name: value.item() for name, value in losses.items()}

    def update_discriminator(self, share: float) -> float:
        """One Adam step of the discriminator on fresh real and generated customers."""
        torch, config = self.torch, self.config
        self.discriminator.requires_grad_(True)
        count = config.discriminator_batch
        real = self.real_rows(count)
        with torch.no_grad():
            logits = self.logits(count)
            if config.estimator == "soft":
                fake = field_log_softmax(logits, self.sizes).exp()
                # One-hot rows would be told apart by their sharpness alone: blur them.
                blur = self._uniform(count, 1) * 0.5
                noise = self._uniform(*real.shape)
                parts = (noise / 0.2).split(self.sizes, -1)
                real = (1 - blur) * real + blur * torch.cat([q.softmax(-1) for q in parts], -1)
            else:
                fake, _ = draw(logits, self.sizes, self.random)
        scores = self.discriminator(torch.cat((real, fake)))
        label = config.real_label
        loss = discriminator_loss(config.adversary, scores[:count], scores[count:], label)
        if config.r1:
            loss = loss + config.r1 / 2 * r1_penalty(self.discriminator, real)
        if config.gradient_penalty:
            mix = self._uniform(count, 1)
            penalty = gradient_penalty(self.discriminator, real, fake, mix)
            loss = loss + config.gradient_penalty * penalty
        self.discriminator_adam.zero_grad()
        loss.backward()
        self.discriminator_adam.step()
        if config.clip is not None:
            with torch.no_grad():
                for one in self.discriminator.parameters():
                    one.clamp_(-config.clip, config.clip)
        value: float = loss.item()
        return value

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_adam": self.generator_adam,
            "discriminator_adam": self.discriminator_adam,
        }

    def state(self) -> running.State:
        """A copy of all that changes."""
        held = {name: part.state_dict() for name, part in self._parts().items()}
        held |= {"average": self.average, "running": self.running}
        return {**copy.deepcopy(held), "random": self.random.get_state()}

    def load(self, state: running.State) -> None:
        """Takes up a state."""
        held = copy.deepcopy({name: state[name] for name in (*self._parts(), "average", "running")})
        for name, part in self._parts().items():
            part.load_state_dict(held[name])
        self.average, self.running = held["average"], held["running"]
        self.random.set_state(state["random"])

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The averaged generator in the form of simulator files."""
        arrays = [one.cpu().numpy().copy() for one in self.average]
        arrays[0], arrays[1] = fold_noise(arrays[0], arrays[1])
        kinds = ("weight", "bias")
        return {f"generator.{i // 2 * 2}.{kinds[i % 2]}": one for i, one in enumerate(arrays)}


def fit_gan_sd(
    codes: ArrayLike,
    fields: Sequence[Field],
    *,
    seed: int = 0,
    config: GanConfig | str = "default",
    progress: running.Progress | None = None,
    checkpoint: running.Checkpoint | None = None,
    device: str = "cpu",
    what: str = "fit_gan_sd",
) -> CustomerSampler:
    """Fits GAN-SD to logged customers.

    Args:
        codes: Category codes of the customers, integers (n, F), n at least 2.
        fields: The F fields.
        seed: Of initialisation, noise and minibatches.
        config: Settings, or the name of one of `PRESETS`.
        progress: Called every 20 steps with (what, steps done, steps in all, losses).
        checkpoint: Where states go and come from; the fit continues from one to the same bits.
        device: Of torch. The CPU is as fast for networks of this size.
        what: The name that errors and the report give it.

    Returns:
        A sampler of kind ``mlp``, which draws as the published generator does. Its ``report`` holds
        the settings, the losses and the processor time.

    Raises:
        InvalidArgumentError: a table or settings that make no fit; a state of another run.
        MissingExtraError: PyTorch is not installed.
        TrainingDivergedError: a loss or weight is not finite; the last good state is kept in it.
    """
    if isinstance(config, str):
        config = PRESETS[arguments.one_of("config", config, tuple(PRESETS))]
    config = arguments.instance("config", config, GanConfig)
    table = tables.check_customers(codes, fields)
    torch_for(arguments.text("what", what))
    with torch_threads(config.num_threads):
        trainer = _Trainer(table, fields, seed, config, checked_device(device))
        run = running.Run(
            what,
            config.steps,
            identity=running.identity(table, fields, seed, config),
            progress=progress,
            checkpoint=checkpoint,
        )
        if run.resumed is not None:
            trainer.load(run.resumed)
        for step in range(run.first, config.steps):
            run.done(step, trainer.step(step), trainer.state)
    customers = Customers(latent=config.latent, hidden=config.hidden)
    return CustomerSampler(tuple(fields), customers, trainer.tensors(), SLOPE, run.report())
