"""What GAN-SD is measured against: independent fields, logged rows, a GMM, and plain GANs.

Of these, only the bootstrap of logged rows and the Gaussian mixture know that fields depend on one
another without being told by a discriminator; the independent sampler does not at all, and still
has perfect marginals: it is the void guard of everything that looks at marginals.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast._extras import sklearn_for
from virtualtb_fast.customers import _run as running
from virtualtb_fast.customers import _tables as tables
from virtualtb_fast.customers._config_checks import check_gmm
from virtualtb_fast.customers.gan_sd import GanConfig, fit_gan_sd
from virtualtb_fast.customers.sampler import CustomerSampler, mixture
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import Customers, Field

__all__ = [
    "GAN",
    "WGAN",
    "WGAN_GP",
    "GmmConfig",
    "fit_bootstrap",
    "fit_gan",
    "fit_gmm",
    "fit_independent",
    "fit_wgan",
    "fit_wgan_gp",
]

_PLAIN = {"alpha": 0.0, "alpha_end": 0.0, "beta": 0.0, "pairs": "none"}

GAN = GanConfig(**_PLAIN)  # type: ignore[arg-type]
"""GAN-SD's networks and rates without its distribution terms."""
WGAN = GanConfig(
    **_PLAIN,  # type: ignore[arg-type]
    adversary="wasserstein",
    discriminator_updates=5,
    clip=0.01,
    batch=256,
)
"""A Wasserstein critic kept smooth by clipped weights (Arjovsky et al., 2017)."""
WGAN_GP = GanConfig(
    **_PLAIN,  # type: ignore[arg-type]
    adversary="wasserstein",
    discriminator_updates=5,
    gradient_penalty=10.0,
    batch=256,
    steps=2_000,
)
"""A Wasserstein critic kept smooth by a gradient penalty (Gulrajani et al., 2017)."""


@dataclass(frozen=True, slots=True)
class GmmConfig:
    """Settings of the Gaussian mixture."""

    components: int = 10
    """Gaussians, of diagonal covariance: the paper's baseline has ten."""
    regularisation: float = 1e-3
    """Added to all variances. scikit-learn's 1e-6 is worse: rare categories' Gaussians collapse."""
    iterations: int = 100
    """Most iterations of scikit-learn's EM."""
    rows: int = 200_000
    """Customers that are looked at: of more, so many are drawn."""

    def __post_init__(self) -> None:
        check_gmm(self)


def fit_independent(
    codes: ArrayLike,
    fields: Sequence[Field],
    *,
    seed: int = 0,
    progress: running.Progress | None = None,
    checkpoint: running.Checkpoint | None = None,
) -> CustomerSampler:
    """Fields drawn independently of one another, each by its logged shares.

    Args:
        codes: Category codes of the customers, integers (n, F), n at least 2.
        fields: The F fields.
        seed: Not needed: every fit takes one.
        progress: Not called: there are no steps.
        checkpoint: Not needed either.

    Returns:
        A sampler of kind ``mixture`` with one component.

    Raises:
        InvalidArgumentError: a table that makes no fit.
    """
    table = tables.check_customers(codes, fields)
    _check_unused(seed, progress)
    report = {"fitted_by": "fit_independent", "rows": len(table), "data": tables.digest(table)}
    return mixture(fields, np.ones(1), tables.marginals(table, fields)[None], report)


def fit_bootstrap(
    codes: ArrayLike,
    fields: Sequence[Field],
    *,
    seed: int = 0,
    rows: int = 200_000,
    progress: running.Progress | None = None,
    checkpoint: running.Checkpoint | None = None,
) -> CustomerSampler:
    """Logged customers, drawn with replacement: nobody new ever comes.

    Args:
        codes: Category codes of the customers, integers (n, F), n at least 2.
        fields: The F fields.
        seed: Of what is kept of a larger table.
        rows: Most customers that are kept, 2 or more: they make the size of the simulator's file.
        progress: Not called: there are no steps.
        checkpoint: Not needed.

    Returns:
        A sampler of kind ``rows``.

    Raises:
        InvalidArgumentError: a table that makes no fit.
    """
    table = tables.check_customers(codes, fields)
    _check_unused(seed, progress)
    rows = arguments.integer("rows", rows, 2)
    random = np.random.default_rng(tables.hashed_seed(seed, "bootstrap"))
    kept = table
    if len(table) > rows:
        kept = table[np.sort(random.choice(len(table), rows, replace=False))]
    report = {"fitted_by": "fit_bootstrap", "rows": len(table), "data": tables.digest(table)}
    tensors = {"customers.rows": np.array(kept, np.uint8, order="C")}
    config = Customers(kind="rows", rows=len(kept))
    return CustomerSampler(tuple(fields), config, tensors, report=report)


def fit_gmm(
    codes: ArrayLike,
    fields: Sequence[Field],
    *,
    seed: int = 0,
    config: GmmConfig | None = None,
    progress: running.Progress | None = None,
    checkpoint: running.Checkpoint | None = None,
) -> CustomerSampler:
    """A Gaussian mixture over one-hot rows; a draw's category is each block's largest number.

    Within a component the Gaussians are independent, so P(category | component) is an integral over
    one of them: the sampler is exactly a mixture of categorical fields, and is exported as that.

    Args:
        codes: Category codes of the customers, integers (n, F), n at least 2.
        fields: The F fields.
        seed: Of the beginning.
        config: Settings.
        progress: Not called: scikit-learn makes all steps at once.
        checkpoint: Not needed.

    Returns:
        A sampler of kind ``mixture``.

    Raises:
        InvalidArgumentError: a table that makes no fit, or has fewer rows than components.
        MissingExtraError: scikit-learn is not installed.
    """
    config = arguments.instance("config", GmmConfig() if config is None else config, GmmConfig)
    _check_unused(seed, progress)
    table = tables.check_customers(codes, fields)
    if len(table) < config.components:
        expected = f"at least {config.components} rows, one a component"
        raise InvalidArgumentError(f"codes: expected {expected}, got {len(table)}")
    random = np.random.default_rng(tables.hashed_seed(seed, "gmm"))
    picked = np.sort(random.permutation(len(table))[: config.rows])
    # In double precision: variances of rare categories vanish in float32.
    rows = tables.one_hot(np.ascontiguousarray(table[picked]), fields).astype(np.float64)
    module = sklearn_for("fit_gmm", "mixture")
    model = module.GaussianMixture(
        config.components,
        covariance_type="diag",
        reg_covar=config.regularisation,
        max_iter=config.iterations,
        random_state=int(random.integers(1 << 31)),
    )
    with warnings.catch_warnings():
        # Ten Gaussians on one-hot rows have seldom quite converged.
        warnings.simplefilter("ignore", sklearn_for("fit_gmm", "exceptions").ConvergenceWarning)
        model.fit(rows)
    starts = tables.offsets(fields)
    columns = np.zeros((config.components, int(starts[-1])))
    for component, (means, variances) in enumerate(
        zip(model.means_, model.covariances_, strict=True)
    ):
        for start, end in itertools.pairwise(starts):
            part = slice(int(start), int(end))
            columns[component, part] = largest(means[part], np.sqrt(variances[part]))
    report = {
        **running.identity(table, fields, seed, config),
        "fitted_by": "fit_gmm",
        "iterations": int(model.n_iter_),
        "log_likelihood": float(model.lower_bound_),
    }
    return mixture(fields, model.weights_ / model.weights_.sum(), columns, report)


def _check_unused(seed: int, progress: running.Progress | None) -> None:
    """What these fits do not need is refused all the same where it is no good."""
    arguments.seed(seed)
    arguments.function("progress", progress)


def largest(means: NDArray[np.float64], deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(number c is the largest) of independent Gaussians (k,), by quadrature.

    P(c) = integral of phi_c(x) prod_{d != c} Phi_d(x) dx, by Gauss-Legendre rules of 24 points
    between all places where one of the functions turns: deviations differ by orders of magnitude.
    """
    # scikit-learn, which this is for, depends on scipy.
    from scipy.special import log_ndtr

    nodes, weights = np.polynomial.legendre.leggauss(24)
    turns = np.array([-9.0, -5, -3, -2, -1, 0, 1, 2, 3, 5, 9])
    edges = np.unique((means[:, None] + deviations[:, None] * turns).ravel())
    lengths = np.diff(edges) / 2
    points = ((edges[:-1] + edges[1:])[:, None] / 2 + lengths[:, None] * nodes).ravel()
    mass = (lengths[:, None] * weights).ravel()
    scaled = (points[:, None] - means) / deviations
    below = log_ndtr(scaled)
    density = -0.5 * scaled**2 - np.log(deviations * np.sqrt(2 * np.pi))
    chances = mass @ np.exp(density + below.sum(1, keepdims=True) - below)
    normalised: NDArray[np.float64] = chances / chances.sum()
    return normalised


def fit_gan(codes: ArrayLike, fields: Sequence[Field], **arguments: Any) -> CustomerSampler:
    """A plain GAN: `fit_gan_sd` with the settings `GAN` and the name ``fit_gan``."""
    return fit_gan_sd(codes, fields, **{"config": GAN, "what": "fit_gan", **arguments})


def fit_wgan(codes: ArrayLike, fields: Sequence[Field], **arguments: Any) -> CustomerSampler:
    """A Wasserstein GAN with clipped weights: `fit_gan_sd` with the settings `WGAN`."""
    return fit_gan_sd(codes, fields, **{"config": WGAN, "what": "fit_wgan", **arguments})


def fit_wgan_gp(codes: ArrayLike, fields: Sequence[Field], **arguments: Any) -> CustomerSampler:
    """A Wasserstein GAN with a gradient penalty: `fit_gan_sd` with the settings `WGAN_GP`."""
    return fit_gan_sd(codes, fields, **{"config": WGAN_GP, "what": "fit_wgan_gp", **arguments})
