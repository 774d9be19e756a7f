"""Responses whose buy logit is linear in the scaled action.

    logits(x, n, a) = f(x, n) + [0, (W x + v) . a / s, 0]        over turn, buy, leave

It fits in seconds and says plainly which way to push whom. It also says that pushing further is
always better, which no shop has seen: a policy that is free to believe it runs away. That makes it
the second simulator on which constraints of action norms are tried.
"""

from __future__ import annotations

from dataclasses import replace

from virtualtb_fast.imitation.cloning import CloningConfig, clone_response
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.fitting import FitConfig, Keeper, Progress, check_arguments
from virtualtb_fast.imitation.response import FittedResponse, ResponseConfig
from virtualtb_fast.simulator import Simulator

__all__ = ["LINEAR", "fit_linear"]

LINEAR = CloningConfig(
    response=ResponseConfig(kind="linear", hidden=(64,)),
    fit=FitConfig(batch=4096, rate=3e-3, epochs=4),
)
"""Settings that fit a million pages in seconds."""


def fit_linear(
    pages: Pages,
    *,
    seed: int,
    config: CloningConfig = LINEAR,
    warm_start: Simulator | None = None,
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> FittedResponse:
    """Fits the linear family by maximum likelihood.

    Arguments and errors as of `virtualtb_fast.imitation.cloning.clone_response`; the kind of
    ``config.response`` is taken as ``"linear"``.
    """
    check_arguments(pages, seed, config, CloningConfig, progress, checkpoint)
    shape = replace(config.response, kind="linear")
    fitted = clone_response(
        pages,
        seed=seed,
        config=replace(config, response=shape),
        warm_start=warm_start,
        progress=progress,
        checkpoint=checkpoint,
    )
    return fitted.with_report(method="linear")
