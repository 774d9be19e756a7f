"""What the settings of fits must be, before anything is computed with them.

Checked settings hold Python's own numbers, whatever they came as: a run's identity is JSON.
"""

from __future__ import annotations

from typing import Any

from virtualtb_fast._arguments import integer, names, number, one_of, settle, widths
from virtualtb_fast.errors import InvalidArgumentError

__all__ = ["check_autoregressive", "check_gan", "check_gmm", "check_latent_class"]

_MOST = 2**31


def check_gan(config: Any) -> None:
    """Raises `InvalidArgumentError` unless a `GanConfig` can be fitted with."""
    _counts(
        config,
        *("steps", "batch", "discriminator_batch", "latent", "num_threads"),
        *("generator_updates", "discriminator_updates"),
    )
    _numbers(config, "alpha", "alpha_end", "beta", "adversarial", "r1", "gradient_penalty")
    _numbers(config, "rate", "discriminator_rate", above=True)
    _numbers(config, "pair_memory", "rate_end", "real_label", "average", high=1)
    settle(config, widths, "hidden", "discriminator_hidden")
    settle(config, _pair, "temperature", high=_MOST, above=True)
    settle(config, _pair, "betas", high=1)
    if 1 in config.betas:
        raise InvalidArgumentError(f"betas: expected numbers below 1, got {config.betas!r}")
    if config.clip is not None:
        _numbers(config, "clip", above=True)
    if config.attributes is not None:
        settle(config, names, "attributes")
    if isinstance(config.pairs, str):
        one_of("pairs", config.pairs, ("none", "all"))
    elif not isinstance(config.pairs, tuple) or any(
        len(names("pairs", pair)) != 2 for pair in config.pairs
    ):
        expected = "'none', 'all' or pairs of names"
        raise InvalidArgumentError(f"pairs: expected {expected}, got {config.pairs!r}")
    one_of("adversary", config.adversary, ("non-saturating", "linear", "wasserstein"))
    one_of("estimator", config.estimator, ("st_gumbel", "soft", "reinforce"))
    if config.batch < 2 and config.estimator == "reinforce":
        raise InvalidArgumentError("batch: expected 2 or more for reinforce, got 1")


def check_autoregressive(config: Any) -> None:
    """Raises `InvalidArgumentError` unless an `AutoregressiveConfig` can be fitted with."""
    _counts(config, "hidden", "steps", "batch", "patience", "num_threads")
    _numbers(config, "rate", above=True)
    _numbers(config, "decay")
    _numbers(config, "rate_end", "average", high=1)
    _numbers(config, "held_out", high=1, above=True)
    if config.held_out == 1:
        raise InvalidArgumentError(f"held_out: expected a share below 1, got {config.held_out!r}")


def check_latent_class(config: Any) -> None:
    """Raises `InvalidArgumentError` unless a `LatentClassConfig` can be fitted with."""
    _counts(config, "starts", "start_iterations", "iterations", "rows", "trial_rows")
    if config.components is not None:
        _counts(config, "components")
    settle(config, _some, "choices")
    settle(config, number, "tolerance", low=-_MOST)
    _numbers(config, "prior")


def check_gmm(config: Any) -> None:
    """Raises `InvalidArgumentError` unless a `GmmConfig` can be fitted with."""
    _counts(config, "components", "iterations", "rows")
    _numbers(config, "regularisation")


def _counts(config: Any, *which: str) -> None:
    settle(config, integer, *which, low=1, high=_MOST)


def _numbers(config: Any, *which: str, high: float = float("inf"), above: bool = False) -> None:
    settle(config, number, *which, low=0, high=high, above=above)


def _pair(what: str, value: Any, *, high: float, above: bool = False) -> tuple[float, ...]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise InvalidArgumentError(f"{what}: expected two numbers, got {value!r}")
    return tuple(number(what, one, 0, high, above=above) for one in value)


def _some(what: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not value:
        expected = "a tuple of one integer or more"
        raise InvalidArgumentError(f"{what}: expected {expected}, got {value!r}")
    return tuple(integer(what, one, 1, _MOST) for one in value)
