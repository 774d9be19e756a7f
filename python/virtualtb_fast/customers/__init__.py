"""Samplers of customers, fitted to logged ones.

``fit_gan_sd`` is the paper's; the others are its baselines and the modern alternatives, on the same
interface: ``fit(codes, fields, seed=...)`` gives a `CustomerSampler`, which draws natively and goes
into a simulator's file. `FITS` has them by the name that the command line uses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from virtualtb_fast.customers.autoregressive import AutoregressiveConfig, fit_autoregressive
from virtualtb_fast.customers.baselines import (
    GmmConfig,
    fit_bootstrap,
    fit_gan,
    fit_gmm,
    fit_independent,
    fit_wgan,
    fit_wgan_gp,
)
from virtualtb_fast.customers.gan_sd import PRESETS, GanConfig, fit_gan_sd
from virtualtb_fast.customers.latent_class import LatentClassConfig, fit_latent_class
from virtualtb_fast.customers.sampler import CustomerSampler

__all__ = [
    "CONFIGS",
    "FITS",
    "PRESETS",
    "AutoregressiveConfig",
    "CustomerSampler",
    "GanConfig",
    "GmmConfig",
    "LatentClassConfig",
    "fit_autoregressive",
    "fit_bootstrap",
    "fit_gan",
    "fit_gan_sd",
    "fit_gmm",
    "fit_independent",
    "fit_latent_class",
    "fit_wgan",
    "fit_wgan_gp",
]

FITS: Mapping[str, Callable[..., CustomerSampler]] = {
    "gan-sd": fit_gan_sd,
    "gan-sd-fields": functools.partial(fit_gan_sd, config="fields"),
    "gan-sd-paper": functools.partial(fit_gan_sd, config="paper"),
    "gan": fit_gan,
    "wgan": fit_wgan,
    "wgan-gp": fit_wgan_gp,
    "gmm": fit_gmm,
    "lca": fit_latent_class,
    "ar": fit_autoregressive,
    "independent": fit_independent,
    "rows": fit_bootstrap,
}
"""Fits by name: ``lca`` is the latent-class mixture, ``ar`` the autoregressive sampler."""

CONFIGS: Mapping[str, type[Any] | None] = {
    **dict.fromkeys(FITS, GanConfig),
    "gmm": GmmConfig,
    "lca": LatentClassConfig,
    "ar": AutoregressiveConfig,
    "independent": None,
    "rows": None,
}
"""What the settings of each fit are, by its name; None where it has none."""
