"""The settings of the refit, and its log: sessions of the published networks.

The published networks play the part of the shop. Good actions are found by a cross-entropy search
that sees nothing but sampled clicks; sessions are logged under actions whose norm is log-uniform, a
fifth of them near good ones.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor

from refit_evaluate import (
    ACTION,
    CHUNK,
    Tensors,
    directions,
    draw_sessions,
    page_rows,
    random_stream,
    respond,
    write_beside,
)


@dataclasses.dataclass(frozen=True)
class NetworkFit:
    """How one network is fitted."""

    visits: int
    """Training rows seen in all, counting repeats; the length of the fit."""
    batch: int
    """Rows of one gradient step."""
    rate: float
    """Adam's learning rate after the warm-up; it falls linearly to zero."""
    scales: tuple[float, ...]
    """Factors on the inputs, folded into the first layer at export: three for the response
    network (customer, page, action), one for the others."""
    warmup: int = 100
    """Steps over which the rate grows from zero."""
    average: float = 0.999
    """Decay of the running average of the weights, which is what is exported."""
    unit_from: float = 0.0
    """Share of the fit from which inputs move from unit length to their own (see `Net`)."""
    unit_until: float = 0.0
    """Share of the fit by which they have arrived; zero if they have their own throughout."""
    half_until: float = 0.0
    """Share of the fit run in bfloat16, which is twice as fast and too coarse for the end."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result, apart from the published files."""

    run: int = 11
    """Run number r of the base seed `(r << 32) | (purpose << 24)`."""
    shards: int = 30
    """Independent pieces of the log."""
    sessions: int = 130_000
    """Sessions in a shard, about 7.7 pages each: 30 shards hold 30 million pages."""
    norm_low: float = 0.003
    """Smallest norm of a logged action."""
    norm_high: float = 5.0
    """Largest norm of a logged action; between the two the norm is log-uniform."""
    good_share: float = 0.2
    """Share of the pages shown an action near one that the search found good."""
    good_spread: tuple[float, float] = (0.01, 1.0)
    """Distance to the good action as a share of its norm, log-uniform between the two."""
    search_widths: tuple[float, ...] = (0.002, 0.006, 0.02, 0.06, 0.2, 0.6)
    """Starting standard deviations of the searches, each used twice: the width sets the norm of
    the good actions that are found, and the best of all lie where two searches rarely agree."""
    search_rounds: int = 40
    """Rounds of a search."""
    search_population: int = 192
    """Actions tried in a round; an eighth are kept."""
    search_pages: int = 256
    """Pages on which each action of a round is tried."""
    latents: int = 256
    """Noise draws that share one likelihood estimate of the generator."""
    generator: NetworkFit = NetworkFit(8_000_000, 2048, 2e-3, (1.0,))
    """The customer generator; rows are sessions."""
    leave: NetworkFit = NetworkFit(16_000_000, 1024, 1e-3, (3.0,))
    """The session length network; rows are sessions."""
    action: NetworkFit = NetworkFit(
        400_000_000,
        2048,
        1e-2,
        (1.6, 0.64, 16.0),
        unit_from=0.5,
        unit_until=0.75,
        half_until=0.8,
    )
    """The response network; rows are pages. An action unit moves the published network about
    ten times as far as a customer bit does and twenty-five times as far as a page does; these
    scales let Adam, whose steps are the same for every weight, move them alike."""
    evaluation_sessions: int = 100_000
    """Sessions behind each figure of the fidelity table."""


def quick(config: Config) -> Config:
    """The whole pipeline in well under a minute, for tests; its weights are of no use."""
    return dataclasses.replace(
        config,
        shards=2,
        sessions=2_000,
        search_widths=(0.02, 0.2),
        search_rounds=5,
        search_population=64,
        search_pages=32,
        latents=64,
        generator=dataclasses.replace(config.generator, visits=60_000, batch=512),
        leave=dataclasses.replace(config.leave, visits=60_000, batch=512),
        action=dataclasses.replace(config.action, visits=300_000, batch=512),
        evaluation_sessions=1_000,
    )


class Stopped(KeyboardInterrupt):
    """Ctrl-C was pressed; what was done so far is on disk."""


class Control:
    """Notes Ctrl-C, so that work stops between two steps, never inside a write."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGINT, self._note)

    def _note(self, *_: object) -> None:
        self.asked = True

    def check(self) -> None:
        """Stop here if Ctrl-C was pressed."""
        if self.asked:
            raise Stopped


PURPOSES = {"search": 1, "log": 2, "generator": 3, "leave": 4, "action": 5, "evaluate": 6}


def show(text: str, done: bool = False) -> None:
    """Progress on standard error: one line rewritten on a terminal, plain lines in a log."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="\n" if done else "", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------ 1 and 2: the log


def log_uniform(count: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """A column of numbers whose logarithm is uniform."""
    u = torch.rand(count, 1, generator=rng)
    return torch.exp(math.log(low) + u * math.log(high / low))


def find_good_actions(published: Tensors, config: Config, control: Control) -> Tensor:
    """Actions that earn many clicks, found as a shop would: by showing pages and counting.

    The best of every round are kept, not of the last alone: the path of a search covers the
    ground between ordinary and best actions, which is where a policy that learns will walk.
    """
    rng = random_stream(config.run, PURPOSES["search"])
    customers, lengths = draw_sessions(published, 8_000, rng)
    session, page = page_rows(lengths)
    keep, good = config.search_population // 8, []
    for number, width in enumerate(2 * config.search_widths):
        mean, spread, clicks = torch.zeros(ACTION), torch.full((ACTION,), width), torch.zeros(1)
        for done in range(config.search_rounds):
            control.check()
            tried = torch.randn(config.search_population, ACTION, generator=rng) * spread + mean
            shown = torch.randint(len(session), (config.search_pages,), generator=rng)
            clicks, _ = respond(
                published,
                customers[session[shown]].repeat(len(tried), 1),
                page[shown].repeat(len(tried)),
                tried.repeat_interleave(len(shown), 0),
                rng,
            )
            score = clicks.view(len(tried), -1).float().mean(1)
            best = tried[score.topk(keep).indices]
            good.append(best)
            floor = 0.02 * width * 0.97**done  # a search must not freeze before it is done
            mean = 0.3 * mean + 0.7 * best.mean(0)
            spread = 0.3 * spread + 0.7 * (best.std(0) + floor)
        ctr, norm = float(clicks.float().mean() / 10), float(mean.norm())
        show(f"search {number + 1}: click-through {ctr:.3f} at norm {norm:.3f}")
    return torch.cat(good)


def log_shard(published: Tensors, good: Tensor, index: int, config: Config) -> Tensors:
    """One shard of sessions with a fresh engine action on every page.

    Actions are rounded to float16 BEFORE they are shown, so that the compact log holds exactly
    what the customers saw.
    """
    rng = random_stream(config.run, PURPOSES["log"], index)
    customers, lengths = draw_sessions(published, config.sessions, rng)
    session, page = page_rows(lengths)
    columns: dict[str, list[Tensor]] = {"actions": [], "clicks": [], "second": []}
    for rows in torch.arange(len(session)).split(CHUNK):
        direction = directions(len(rows), rng)
        action = direction * log_uniform(len(rows), config.norm_low, config.norm_high, rng)
        near = torch.rand(len(rows), generator=rng) < config.good_share
        centre = good[torch.randint(len(good), (int(near.sum()),), generator=rng)]
        distance = log_uniform(len(centre), *config.good_spread, rng)
        action[near] = centre + direction[near] * distance * centre.norm(dim=1, keepdim=True)
        action = action.half()
        shown = action.float()
        clicks, second = respond(published, customers[session[rows]], page[rows], shown, rng)
        columns["actions"].append(action)
        columns["clicks"].append(clicks.to(torch.uint8))
        columns["second"].append(second.to(torch.uint8))
    return {"customers": customers, "lengths": lengths} | {
        name: torch.cat(parts) for name, parts in columns.items()
    }


@dataclasses.dataclass(frozen=True)
class Log:
    """The whole log in memory: all that the fits ever see."""

    customers: Tensor
    lengths: Tensor
    actions: Tensor
    clicks: Tensor
    second: Tensor
    session: Tensor
    page: Tensor
    found: Tensor
    """Where each search ended: the mean of the actions it kept last."""
    digest: str


def make_log(published: Tensors, config: Config, work: Path, control: Control) -> Log:
    """Log all shards, or read back those that an earlier run left, and join them."""
    path = work / "good_actions.pt"
    if not path.exists():
        good = find_good_actions(published, config, control)
        write_beside(path, functools.partial(torch.save, good))
    good = torch.load(path, weights_only=True)
    shards: list[Tensors] = []
    for index in range(config.shards):
        control.check()
        path = work / f"shard_{index:03d}.pt"
        if not path.exists():
            shard = log_shard(published, good, index, config)
            write_beside(path, functools.partial(torch.save, shard))
        shards.append(torch.load(path, weights_only=True))
        pages = sum(len(shard["clicks"]) for shard in shards)
        show(f"log: shard {index + 1} of {config.shards}, {pages:,} pages")
    digest = hashlib.sha256()
    for shard in shards:
        for name in sorted(shard):
            digest.update(shard[name].contiguous().view(torch.uint8).numpy().tobytes())
    # Column by column, so that the log is never held twice.
    joined = {name: torch.cat([shard.pop(name) for shard in shards]) for name in sorted(shards[0])}
    session, page = page_rows(joined["lengths"])
    keep = config.search_population // 8
    found = good.view(-1, config.search_rounds, keep, ACTION)[:, -1].mean(1)
    return Log(
        **joined,
        session=session.int(),
        page=page.to(torch.uint8),
        found=found,
        digest=digest.hexdigest(),
    )
