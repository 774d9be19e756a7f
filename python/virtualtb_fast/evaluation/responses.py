"""Learned customers judged by a ground-truth store: effects of actions, likelihood, sessions.

Everything here looks behind the store's curtain (`GroundTruthStore.reveal`), which training never
does. Each figure comes with a void guard: the same figure of something trivially wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.logs import OUTCOMES, SessionLog
from virtualtb_fast.store import LOGGED_SD, GroundTruthStore

if TYPE_CHECKING:
    from virtualtb_fast.imitation.data import Pages

__all__ = [
    "action_effect",
    "answers_by_page",
    "excess_likelihood",
    "lengths_by_query",
    "separation",
    "telling_apart",
    "true_answers",
    "worst_distance",
]

Answers = Callable[[NDArray[np.uint8], NDArray[Any], NDArray[np.float32]], NDArray[np.floating]]
"""Probabilities (n, 3) of turn, buy, leave from codes (n, 11), pages (n,), raw actions (n, 27)."""

_QUERY = 9
"""The field that is the customer's query."""


def true_answers(
    store: GroundTruthStore,
    codes: NDArray[np.uint8],
    page: NDArray[Any],
    action: NDArray[np.float32],
    archetypes: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """The true probabilities (n, 3) of turn, buy and leave.

    Args:
        store: A store of day 0 to 30 without hours.
        codes: (n, 11).
        page: (n,). Without archetypes only first pages have a known answer: on later ones it
            depends on what was turned.
        action: (n, 27), raw.
        archetypes: (n,); without them, the mean over what the customer's fields say of them.
    """
    hidden = store.reveal()
    rows = store.pages(np.ascontiguousarray(action, np.float32), codes[:, _QUERY].copy())
    shown = store.items().attributes[rows].astype(np.float64)
    if archetypes is None:
        sizes = [one.size for one in store.schema.customer]
        columns = codes.astype(np.int64) + np.cumsum([0, *sizes[:-1]])
        logs = np.log(hidden.shares)[:, None] + np.log(hidden.fields)[:, columns].sum(2)
        weights = np.exp(logs - logs.max(0))
        weights = (weights / weights.sum(0)).T
        taste = np.einsum("nsd,kd->nks", shown, hidden.theta)
    else:
        weights = np.ones((len(codes), 1))
        taste = np.einsum("nsd,nd->ns", shown, hidden.theta[archetypes])[:, None]
    number = np.asarray(page, np.float64)[:, None]
    buy = np.exp(taste + hidden.b0 - 0.03 * number[:, :, None]).sum(-1)
    turn, leave = np.exp(-0.02 * number), np.exp(-2.3 + 0.05 * number)
    each = np.stack(np.broadcast_arrays(turn, buy, leave), -1)
    found: NDArray[np.float64] = np.einsum(
        "nk,nka->na", weights, each / each.sum(-1, keepdims=True)
    )
    return found


def action_effect(
    answers: Answers, store: GroundTruthStore, codes: NDArray[np.uint8], seed: int
) -> float:
    """What another logged action does to the log-odds of buying, learned against true.

    Args:
        answers: The learned probabilities.
        store: The truth.
        codes: (n, 11): customers on their first page, who are shown two logged actions each.
        seed: Of the actions.

    Returns:
        Correlation over customers; 0 if the learned answers do not depend on the action.
    """
    rng = np.random.default_rng(seed)
    one, other = rng.normal(0, LOGGED_SD, (2, len(codes), 27)).astype(np.float32)
    first = np.zeros(len(codes), np.int64)

    def odds(buys: NDArray[Any]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.log(buys.astype(np.float64)) - np.log1p(-buys)
        return found

    learned = [odds(answers(codes, first, action)[:, 1]) for action in (one, other)]
    true = [odds(true_answers(store, codes, first, action)[:, 1]) for action in (one, other)]
    gap = learned[0] - learned[1]
    if gap.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(gap, true[0] - true[1])[0, 1])


def excess_likelihood(
    models: dict[str, Answers], store: GroundTruthStore, *, pages: int, seed: int
) -> dict[str, float]:
    """Negative log-likelihood beyond that of an oracle who knows the archetype, nat a page.

    Args:
        models: Learned probabilities, by name.
        store: The truth.
        pages: About how many pages to play, under logged actions.
        seed: Of sessions and actions.
    """
    many, rng = 2048, np.random.default_rng(seed)
    envs: Any = gymnasium.make_vec(
        "virtualtb_fast:GroundTruthStore-v0", num_envs=many, store=store, autoreset_mode="SameStep"
    ).unwrapped
    observation, _ = envs.reset(seed=seed)
    column = store.schema.page_column
    excess = dict.fromkeys(models, 0.0)
    steps = -(-pages // many)
    for _ in range(steps):
        codes, number = store.schema.codes(observation), observation[:, column].copy()
        archetypes = envs.reveal_archetypes().copy()
        action = rng.normal(0, LOGGED_SD, (many, 27)).astype(np.float32)
        observation, reward, ended, cut, _ = envs.step(action)
        answer = np.where(reward > 0, 1, np.where(ended, 2, 0))
        assert not (cut & ended).any()
        true = true_answers(store, codes, number, action, archetypes)
        best = np.log(true[np.arange(many), answer])
        for name, model in models.items():
            given = model(codes, number, action)[np.arange(many), answer]
            excess[name] += float((best - np.log(given.astype(np.float64))).mean()) / steps
    return excess


def lengths_by_query(log: SessionLog, longest: int = 40) -> NDArray[np.int64]:
    """Sessions (18, longest, outcomes) by query, length (at most ``longest``) and end."""
    ends = log.session_offsets()[1:] - 1
    counts = np.zeros((18, longest, len(OUTCOMES)), np.int64)
    where = (
        log["customer"][ends, _QUERY],
        np.minimum(log["page"][ends], longest - 1),
        log["outcome"][ends],
    )
    np.add.at(counts, where, 1)
    return counts


def answers_by_page(
    log: SessionLog, longest: int = 40, *, constant: bool = False
) -> NDArray[np.float64]:
    """The guard of `worst_distance`: lengths and ends by a hazard table that knows the page alone.

    Args:
        log: What the table is made of.
        longest: Longer sessions count as this long.
        constant: Whether not even the page is known.

    Returns:
        (longest, outcomes): the share of sessions of each length and end.
    """
    counts = np.zeros((longest, len(OUTCOMES)))
    np.add.at(counts, (np.minimum(log["page"], longest - 1), log["outcome"]), 1)
    if constant:
        counts = np.broadcast_to(counts.sum(0), counts.shape)
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    turned = OUTCOMES.index("turn")
    alive = np.concatenate(([1.0], np.cumprod(rates[:-1, turned])))
    shares: NDArray[np.float64] = rates * alive[:, None]
    shares[:, turned] = 0.0
    found: NDArray[np.float64] = shares / shares.sum()
    return found


def worst_distance(
    learned: NDArray[Any], true: NDArray[np.int64], *, by_query: bool = True
) -> float:
    """Total variation of (length, outcome, page), within each query, weighted by pages.

    Length and outcome of a session fix the outcomes of all of its pages, so a session of n pages
    counts n times.

    Args:
        learned: Sessions (18, longest, outcomes), or (longest, outcomes) for all queries alike.
        true: (18, longest, outcomes).
        by_query: With False, over all queries together.
    """
    pages = np.arange(1, true.shape[1] + 1)[:, None]
    ours = np.broadcast_to(learned, true.shape) * pages
    theirs = true * pages
    if not by_query:
        ours, theirs = ours.sum(0, keepdims=True), theirs.sum(0, keepdims=True)
    weight = theirs.sum((1, 2)) / theirs.sum()
    seen = weight > 0
    ours, theirs, weight = ours[seen], theirs[seen], weight[seen]
    ours = ours / np.maximum(ours.sum((1, 2), keepdims=True), 1e-300)
    theirs = theirs / theirs.sum((1, 2), keepdims=True)
    return float((0.5 * np.abs(ours - theirs).sum((1, 2)) * weight).sum())


def separation(
    ours: NDArray[Any],
    our_groups: NDArray[Any],
    theirs: NDArray[Any],
    their_groups: NDArray[Any],
    least: int = 5_000,
) -> float:
    """The largest 1-Wasserstein distance over groups and dimensions, in logged sd.

    Args:
        ours: Learned actions (n, A).
        our_groups: Their groups (n,).
        theirs: Logged actions (m, A).
        their_groups: Theirs (m,).
        least: Groups of fewer actions on a side are left out.
    """
    sd, worst = theirs.std(0), 0.0
    at = (np.arange(2_000) + 0.5) / 2_000
    for group in np.unique(their_groups):
        one, other = ours[our_groups == group], theirs[their_groups == group]
        if min(len(one), len(other)) >= least:
            gap = np.quantile(one, at, axis=0) - np.quantile(other, at, axis=0)
            worst = max(worst, float((np.abs(gap).mean(0) / sd).max()))
    return worst


def telling_apart(real: Pages, generated: Pages, seed: int) -> float:
    """Held-out AUC of a fresh discriminator between real and generated pages.

    It sees customer, action, page, answer and the length of the page's session; half of the
    sessions of each side train it, the other half are judged.

    Args:
        real: Logged sessions.
        generated: As many simulated ones, or nearly.
        seed: Of weights and order.
    """
    from virtualtb_fast._torch import nn, torch
    from virtualtb_fast.networks import Perceptron, stream

    unit = real.action_units()

    def inputs(pages: Pages) -> Any:
        rows = np.arange(len(pages))
        lengths = np.diff(pages.offsets)
        length = torch.from_numpy(np.repeat(lengths, lengths).astype(np.float32))[:, None]
        answer = nn.functional.one_hot(pages.answers(rows), 3).float()
        page = pages.numbers(rows)[:, None]
        return torch.cat(
            (pages.customers(rows), pages.actions(rows) / unit, page / 10, answer, length / 10), 1
        )

    sides = [inputs(real), inputs(generated)]
    cuts = [int(pages.offsets[pages.sessions // 2]) for pages in (real, generated)]
    x = torch.cat([side[:cut] for side, cut in zip(sides, cuts, strict=True)])
    y = torch.cat([torch.ones(cuts[0]), torch.zeros(cuts[1])])
    rng = stream(seed, "telling apart")
    network = Perceptron((x.shape[1], 64, 64, 1), last_gain=0.1, generator=rng)
    adam = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(3):
        for rows in torch.split(torch.randperm(len(x), generator=rng), 1_024):
            logits = network(x[rows])[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y[rows])
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
    with torch.no_grad():
        scores = [
            network(side[cut:])[:, 0].double().numpy()
            for side, cut in zip(sides, cuts, strict=True)
        ]
    ranks = np.concatenate(scores).argsort().argsort()[: len(scores[0])]
    many, others = len(scores[0]), len(scores[1])
    return float((ranks.sum() - many * (many - 1) / 2) / (many * others))
