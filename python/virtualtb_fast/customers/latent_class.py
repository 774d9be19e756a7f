"""A mixture of customer classes with independent fields within each, by expectation maximisation.

Latent class analysis (Lazarsfeld; EM of Dempster, Laird and Rubin 1977). It takes seconds, has an
exact density, and is hard to beat where customers do come in classes. Expected counts get a small
prior count, so that no category becomes impossible in a class by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast.customers import _run as running
from virtualtb_fast.customers import _tables as tables
from virtualtb_fast.customers._config_checks import check_latent_class
from virtualtb_fast.customers.sampler import CustomerSampler, mixture, mixture_log_density
from virtualtb_fast.schema import Field

__all__ = ["LatentClassConfig", "fit_latent_class"]


@dataclass(frozen=True, slots=True)
class LatentClassConfig:
    """Settings of a fit."""

    components: int | None = None
    """Classes; None for the number of ``choices`` with the best held-out likelihood."""
    choices: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32, 48, 64)
    """Numbers of classes to choose from, tried in this order until two in a row are worse."""
    starts: int = 4
    """Random beginnings, of which the best after ``start_iterations`` goes on."""
    start_iterations: int = 40
    """Iterations of each beginning."""
    iterations: int = 400
    """Most iterations of the one that goes on."""
    tolerance: float = 1e-6
    """Gain of the mean log-likelihood (nat) in an iteration below which it stops."""
    prior: float = 0.1
    """Customers' worth of prior counts a class and field, in the proportions of all customers."""
    rows: int = 200_000
    """Customers that are looked at: of more, so many are drawn."""
    trial_rows: int = 40_000
    """Customers on which the number of classes is tried; a fifth is held out."""

    def __post_init__(self) -> None:
        check_latent_class(self)


@dataclass(slots=True)
class _Model:
    shares: NDArray[np.float64]
    columns: NDArray[np.float64]


def fit_latent_class(
    codes: ArrayLike,
    fields: Sequence[Field],
    *,
    seed: int = 0,
    config: LatentClassConfig | None = None,
    progress: running.Progress | None = None,
    checkpoint: running.Checkpoint | None = None,
    what: str = "fit_latent_class",
) -> CustomerSampler:
    """Fits a latent-class mixture to logged customers.

    Args:
        codes: Category codes of the customers, integers (n, F), n at least 2.
        fields: The F fields.
        seed: Of the beginnings and of what is held out.
        config: Settings.
        progress: Called every 20 iterations with (what, done, most, figures).
        checkpoint: Where states go and come from; the fit continues from one to the same bits.
        what: The name that errors and the report give it.

    Returns:
        A sampler of kind ``mixture`` with an exact density.

    Raises:
        InvalidArgumentError: a table or settings that make no fit; a state of another run.
        TrainingDivergedError: a figure is not finite; the last good state is kept in it.
    """
    config = LatentClassConfig() if config is None else config
    config = arguments.instance("config", config, LatentClassConfig)
    table = tables.check_customers(codes, fields)
    run = running.Run(
        what,
        config.iterations,
        identity=running.identity(table, fields, seed, config),
        progress=progress,
        checkpoint=checkpoint,
    )
    random = np.random.default_rng(tables.hashed_seed(seed, "latent-class"))
    order = random.permutation(len(table))
    some = np.ascontiguousarray(table[np.sort(order[: config.rows])])
    prior = config.prior * tables.smoothed(table, fields)
    trials: dict[str, float] = {}
    if run.resumed is None:
        components = config.components
        if components is None:
            trials = _trials(table[order[: config.trial_rows]], fields, config, random)
            components = int(max(trials, key=lambda name: trials[name]))
        rows = tables.one_hot(some, fields)
        model = _begin(rows, fields, components, prior, config, random)
        before = -np.inf
    else:
        rows = tables.one_hot(some, fields)
        model = _Model(run.resumed["shares"].copy(), run.resumed["columns"].copy())
        before, trials = float(run.resumed["before"]), dict(run.resumed["trials"])
    ended = run.resumed is not None and bool(run.resumed["ended"])
    for step in range(run.first, 0 if ended else config.iterations):
        model, likelihood = _iterate(rows, fields, model, prior)
        ended = likelihood - before < config.tolerance
        before = likelihood
        state = {
            "shares": model.shares,
            "columns": model.columns,
            "before": before,
            "trials": trials,
            "ended": ended,
        }
        figures = {"log_likelihood": likelihood}
        run.done(step, figures, lambda state=state: dict(state), final=ended)  # type: ignore[misc]
        if ended:
            break
    more: dict[str, Any] = {"components": len(model.shares), "held_out": trials}
    return mixture(fields, model.shares, model.columns, run.report(**more))


def _trials(
    table: NDArray[np.uint8],
    fields: Sequence[Field],
    config: LatentClassConfig,
    random: np.random.Generator,
) -> dict[str, float]:
    """Held-out mean log-likelihoods by number of classes; of few rows, of one class alone."""
    held, kept = np.split(table, [len(table) // 5])
    if len(held) < 2:
        return {"1": 0.0}
    rows, prior = tables.one_hot(kept, fields), config.prior * tables.smoothed(kept, fields)
    found: dict[str, float] = {}
    worse = 0
    for components in config.choices:
        if components > max(1, len(kept) // 4):
            break
        model = _begin(rows, fields, components, prior, config, random, starts=2)
        likelihood = float(mixture_log_density(held, fields, model.shares, model.columns).mean())
        worse = worse + 1 if found and likelihood <= max(found.values()) else 0
        found[str(components)] = likelihood
        if worse == 2:
            break
    return found


def _begin(
    rows: NDArray[np.float32],
    fields: Sequence[Field],
    components: int,
    prior: NDArray[np.float64],
    config: LatentClassConfig,
    random: np.random.Generator,
    starts: int | None = None,
) -> _Model:
    """The best of some random beginnings: classes around rows drawn at random."""
    best, best_likelihood = None, -np.inf
    for _ in range(1 if components == 1 else starts or config.starts):
        centres = rows[random.choice(len(rows), components, replace=components > len(rows))]
        columns = 0.3 * centres.astype(np.float64) + 0.7 * rows.mean(0, dtype=np.float64)
        model = _Model(np.full(components, 1 / components), columns)
        likelihood = -np.inf
        for _ in range(1 if components == 1 else config.start_iterations):
            model, likelihood = _iterate(rows, fields, model, prior)
        if likelihood > best_likelihood or best is None:
            best, best_likelihood = model, likelihood
    assert best is not None
    return best


def _iterate(
    rows: NDArray[np.float32],
    fields: Sequence[Field],
    model: _Model,
    prior: NDArray[np.float64],
) -> tuple[_Model, float]:
    """One EM iteration, and the mean log-likelihood of the model that it began with."""
    with np.errstate(divide="ignore"):
        logs = np.log(model.columns)
    # A category without customers in a class: exp of this is 0, and 0 times it is no NaN.
    logs = np.maximum(logs, -1e4).astype(np.float32)
    counts = np.zeros_like(model.columns)
    totals = np.zeros(len(model.shares))
    likelihood = 0.0
    offset = np.log(model.shares).astype(np.float32)
    for first in range(0, len(rows), 1 << 15):
        block = rows[first : first + (1 << 15)]
        # E: responsibilities.
        joint = block @ logs.T + offset
        top = joint.max(1, keepdims=True)
        weights = np.exp(joint - top)
        total = weights.sum(1, keepdims=True)
        weights /= total
        likelihood += float((np.log(total) + top).sum(dtype=np.float64))
        # M: expected counts.
        counts += weights.T @ block
        totals += weights.sum(0, dtype=np.float64)
    counts += prior
    columns = np.concatenate(
        [
            part / np.maximum(part.sum(1, keepdims=True), 1e-300)
            for part in np.split(counts, tables.offsets(fields)[1:-1], axis=1)
        ],
        axis=1,
    )
    shares = (totals + 1e-3) / (totals + 1e-3).sum()
    return _Model(shares, columns), likelihood / len(rows)
