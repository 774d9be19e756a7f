"""MAIL: multi-agent adversarial imitation learning (Shi et al., AAAI 2019, algorithm 2).

Two policies are learned from logged sessions at once: the engine's, which chooses what a customer
is shown, and the customers', which answer it. In every iteration

1. J sessions are simulated with both, natively;
2. a discriminator learns to tell their pages (customer, action, page, answer) from logged ones;
3. its logit, high where a page looks logged, is the reward of the joint policy
   pi(a, a_c | s, n) = pi_engine(a | s, n) pi_customer(a_c | s, a, n);
4. one value network and one TRPO step, over both policies within one trust region, follow it.

Where this departs from the paper, and why:

- **The reward is the logit**, log D - log(1 - D), and sessions go on to the longest possible page
  in an absorbing state that the discriminator sees as well (Kostrikov et al., ICLR 2019). The
  paper's rewards have one sign: what is never negative teaches customers to stay, what is never
  positive to leave. ``MailConfig.paper()`` has its form.
- **Absorbing rows are counted, not made.** They differ in the page number alone, so the expected
  loss over them is a sum over page numbers weighted by how many sessions had ended by then, and
  what an end is worth is the discounted sum of their rewards, which is exact. Weights that depend
  on the page number alone and are the same on both sides leave the best discriminator unchanged;
  absorbing rows weigh as much as pages do together. Pages are averaged on each side, absorbing rows
  are counted a session, so that what an end is worth is exact where simulated sessions are as long
  as logged ones, and pulls less towards the logged length where they are not.
- **The value network sees (x, n)**, not the action: the action is part of what the joint policy
  does, and a baseline that knows it would cancel the engine's share of the advantage.
- **A step is no longer than the evidence.** TRPO normalises what it follows, so a discriminator
  that knows nothing would send the policies on a random walk of full steps. The trust region is at
  most the divergence that its accuracy on pages it has not seen gives away (Pinsker's bound), and
  rewards come from an average of its weights.
- **The result is the iteration that held-out answers are likeliest under**, looked at every few
  iterations: adversarial steps have no loss that falls, and where the engine's networks cannot say
  how the shop chose (several policies in one log), ending sessions early hides that from the
  discriminator and makes customers worse with every step. What is looked at, and returned, is an
  average over the last iterations.
- **Both policies start from behaviour cloning** unless ``init="random"``; the paper is silent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from virtualtb_fast._arguments import instance
from virtualtb_fast._torch import torch
from virtualtb_fast._training import Keeper, Progress, require_finite, torch_threads
from virtualtb_fast._work import Kept
from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError
from virtualtb_fast.imitation.cloning import clone_engine, clone_response, start_at_shares
from virtualtb_fast.imitation.data import Pages
from virtualtb_fast.imitation.fitting import Part, check_arguments
from virtualtb_fast.imitation.mail_config import MailConfig
from virtualtb_fast.imitation.mail_step import Mail
from virtualtb_fast.imitation.response import Engine, FittedResponse, ResponseNetwork
from virtualtb_fast.imitation.simulate import CustomerSource, logged_customers, simulate
from virtualtb_fast.networks import stream
from virtualtb_fast.rl import trpo
from virtualtb_fast.schema import Customers

__all__ = ["MailConfig", "MailResult", "fit_mail"]

_DEFAULT = MailConfig()


@dataclass(frozen=True)
class MailResult:
    """What MAIL learned."""

    response: FittedResponse
    """The customers."""
    engine: Engine
    """The engine that logged."""
    report: dict[str, Any]
    """``method``; ``iterations`` and ``steps`` taken in them, ``best_iteration``, whose policies
    these are (0: those that it began with), ``stopped_early``; ``seconds`` of this call, the
    ``simulating_share`` of the loop's; norms of the first gradients of both policies."""


@torch_threads(1)
def fit_mail(
    pages: Pages,
    *,
    seed: int,
    config: MailConfig = _DEFAULT,
    customers: CustomerSource | None = None,
    start: tuple[FittedResponse, Engine] | None = None,
    progress: Progress | None = None,
    checkpoint: Keeper | None = None,
) -> MailResult:
    """Learns customers and engine from logged sessions.

    Args:
        pages: The log.
        seed: Of everything that is drawn.
        config: Settings.
        customers: Who comes in simulated sessions; the logged sessions' customers unless given.
        start: Cloned customers and engine to start from, in place of cloning them here. They are
            trained further, in place.
        progress: Called with (stage, iterations done, most iterations, figures).
        checkpoint: Keeps the state, after Ctrl-C that of the last whole iteration; a training that
            finds one there goes on from it, to the same bits.

    Raises:
        TrainingDivergedError: a figure is not finite; says which, and in which iteration. Its
            ``state`` is that of the last good iteration.
        InvalidArgumentError: settings or a log that do not fit.
    """
    check_arguments(pages, seed, config, MailConfig, progress, checkpoint)
    _check_others(customers, start)
    if config.cloning.response.leave != "hazard":
        raise InvalidArgumentError("MAIL: expected leave 'hazard', got 'once'")
    began = time.perf_counter()
    response, engine = start or _start(pages, seed, config, progress, checkpoint)
    cloned = start is not None or config.init == "bc"
    mail = Mail(pages, config, seed, response, engine)
    keeper = None if checkpoint is None else Part(checkpoint, "mail")
    held = None if keeper is None else keeper.load()
    if held is not None:
        mail.restore(held)
    elif config.look_every:
        mail.look()
    source = logged_customers(pages) if customers is None else customers
    good = mail.state()
    try:
        while not _done(mail, cloned):
            now = time.perf_counter()
            played = simulate(
                response,
                engine,
                source,
                sessions=config.sessions,
                seed=_session_seed(seed, mail.iteration),
                num_threads=config.num_threads,
            )
            mail.simulating += time.perf_counter() - now
            figures = mail.learn(played)
            last = _done(mail, cloned)
            if config.look_every and (last or mail.iteration % config.look_every == 0):
                figures["held_out"] = mail.look()
            mail.looping += time.perf_counter() - now
            try:
                weights = trpo.flat([*engine.parameters(), *response.network.parameters()])
                require_finite("mail", mail.iteration, **figures, weights=weights.detach())
            except TrainingDivergedError as error:
                mail.restore(good)
                if keeper is not None:
                    keeper.save(good)
                error.state = good
                raise
            good = mail.state()
            if keeper is not None and (_done(mail, cloned) or keeper.due()):
                keeper.save(good)
            if progress is not None:
                progress("mail", mail.iteration, config.iterations, figures)
    except KeyboardInterrupt as stop:
        # The iteration that is under way is torn, the last one is whole.
        if keeper is not None and not isinstance(stop, Kept):
            keeper.save(good)
        raise
    if config.look_every:
        mail.take_best()
    report = {
        "method": "bc+mail" if cloned else "mail",
        "iterations": mail.iteration,
        "steps": mail.moved,
        "best_iteration": mail.best_iteration if config.look_every else mail.iteration,
        "stopped_early": mail.iteration < config.iterations,
        "seconds": time.perf_counter() - began,
        "simulating_share": mail.simulating / mail.looping if mail.looping else 0.0,
        "engine_gradient_norm": mail.norms[0],
        "customers_gradient_norm": mail.norms[1],
    }
    return MailResult(response.with_report(**report), engine, report)


def _check_others(customers: object, start: object) -> None:
    """Raises `InvalidArgumentError` for no source of customers, or nothing to start from."""
    if customers is not None and not (
        isinstance(getattr(customers, "config", None), Customers)
        and isinstance(getattr(customers, "tensors", None), Mapping)
    ):
        expected = "a sampler of customers, or None"
        raise InvalidArgumentError(f"customers: expected {expected}, got {customers!r}")
    if start is None:
        return
    if not isinstance(start, tuple) or len(start) != 2:
        raise InvalidArgumentError(f"start: expected customers and an engine, got {start!r}")
    instance("start", start[0], FittedResponse)
    instance("start", start[1], Engine)


def _start(
    pages: Pages,
    seed: int,
    config: MailConfig,
    progress: Progress | None,
    checkpoint: Keeper | None,
) -> tuple[FittedResponse, Engine]:
    cloning = config.cloning
    if config.init == "random":
        unit = pages.action_units()
        network = ResponseNetwork(pages.schema, cloning.response, unit, seed)
        start_at_shares(network, pages)
        engine = Engine(pages.schema, unit, cloning.engine_hidden, seed)
        return FittedResponse(network), engine
    parts = [None if checkpoint is None else Part(checkpoint, name) for name in ("one", "two")]
    shared: dict[str, Any] = {"seed": seed, "config": cloning, "progress": progress}
    response = clone_response(pages, **shared, checkpoint=parts[0])
    return response, clone_engine(pages, **shared, checkpoint=parts[1])


def _done(mail: Mail, cloned: bool) -> bool:
    config = mail.config
    idle = cloned and config.look_every > 0 and mail.idle >= config.patience
    return mail.iteration >= config.iterations or mail.calm >= config.stop_after or idle


def _session_seed(seed: int, iteration: int) -> int:
    """Sessions of an iteration are those of no other, nor of another run."""
    return int(torch.randint(1 << 62, (), generator=stream(seed, "sessions", iteration)))
