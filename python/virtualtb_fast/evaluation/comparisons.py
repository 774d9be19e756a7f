"""The figures of a fidelity report: each compares all sides with the log's half.

Everything takes counts or samples (`sides`), and returns what JSON can hold, with the void guards
that `fidelity` lists beside the simulator and the fresh half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import InvalidArgumentError, MissingExtraError
from virtualtb_fast.evaluation import metrics
from virtualtb_fast.evaluation.sides import SLICES, STORY, Side, Story
from virtualtb_fast.schema import Schema

__all__ = [
    "Told",
    "compare_customers",
    "compare_features",
    "compare_hours",
    "compare_lengths",
    "compare_pages",
    "stream",
]

Told = Callable[[str, int, int], None]
"""Progress: (what is going on, how much of it is done, of how much or 0)."""

_BASELINE, _SHUFFLE, _JUDGE = range(11, 14)
"""Purposes of draws."""


def stream(*words: int) -> int:
    """A base seed of its own for a purpose and a piece of it."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


# --- comparisons --------------------------------------------------------------------------------


def compare_customers(
    sides: dict[str, Side],
    schema: Schema,
    labels: Sequence[Sequence[str]],
    baselines: Sequence[str],
    judged: int,
    seed: int,
    told: Told,
    *,
    optional: bool = False,
) -> dict[str, Any]:
    """Marginals, pairs, classifiers, novelty: the simulator's, fresh ones', guards' and others'.

    Args:
        sides: ``real``, ``fresh`` and ``simulator``.
        schema: Whose customers they are.
        labels: What categories are called, by field.
        baselines: Further samplers, names out of `virtualtb_fast.customers.FITS`.
        judged: Most customers a side for classifiers.
        seed: Of guards, baselines and classifiers.
        told: Progress.
        optional: Whether a baseline that cannot be fitted is left out, with a word, and not an
            error.
    """
    sizes = [one.size for one in schema.customer]
    many = min(len(side.sample) for side in sides.values())
    samples = {name: side.sample.first(many) for name, side in sides.items()}
    real = samples.pop("real")
    random = np.random.default_rng((seed, _SHUFFLE))
    apart = np.stack([random.permutation(column) for column in samples["fresh"].customers.T], 1)
    # How the sessions went stays as it was, so it has nothing to do with who came.
    samples["independent"] = Story(np.ascontiguousarray(apart, np.uint8), samples["fresh"].course)
    shares = {name: [_shares(one) for one in side.customers] for name, side in sides.items()}
    customers = {name: one.customers for name, one in samples.items()}
    left_out = {}
    for name in dict.fromkeys(baselines):
        told(f"fitting {name}", 0, 0)
        try:
            customers[name] = _baseline(name, real.customers, schema, many, seed)
        except (MissingExtraError, InvalidArgumentError) as error:
            if not optional:
                raise
            left_out[name] = str(error)
    found, whole = {}, {}
    judged = min(judged, many)
    for number, (name, codes) in enumerate(customers.items()):
        told("classifiers", number, len(customers))
        counts = _counted(codes, sizes)
        shares.setdefault(name, [_shares(one) for one in counts])
        counted = sides[name].customers if name in sides else counts
        found[name] = _customer_figures(sides["real"].customers, counted, real, codes, sizes)
        test = metrics.classifier_two_sample(
            real.customers[:judged], codes[:judged], seed=stream(seed, _JUDGE)
        )
        found[name] |= {"auc": test.auc, "auc_null": list(test.null), "judged_on": test.held_out}
        if name in samples:
            test = metrics.classifier_two_sample(
                real.whole[:judged], samples[name].whole[:judged], seed=stream(seed, _JUDGE, 1)
            )
            whole[name] = {"auc": test.auc, "auc_null": list(test.null)}
    uniform = [np.full(size, 1 / size) for size in sizes]
    far = [metrics.kl(p, q) for p, q in zip(shares["real"], uniform, strict=True)]
    fields = [
        {
            "name": field.name,
            "size": field.size,
            "labels": labels[number],
            "shares": {name: parts[number].tolist() for name, parts in shares.items()},
        }
        for number, field in enumerate(schema.customer)
    ]
    return {
        "fields": fields,
        "customers": {**found, "uniform": {"marginal_kl": far}, "compared": many},
        "pairs": {"worst": _worst_pairs(found, schema, many)},
        "left_out": left_out,
        "whole_sessions": {**whole, "columns": list(STORY)},
    }


def _baseline(
    name: str, codes: NDArray[np.uint8], schema: Schema, many: int, seed: int
) -> NDArray[np.uint8]:
    from virtualtb_fast.customers import FITS

    if name not in FITS:
        raise InvalidArgumentError(f"baselines: expected {', '.join(FITS)}, got {name!r}")
    sampler = FITS[name](codes, schema.customer, seed=stream(seed, _BASELINE))
    return sampler.sample(many, stream(seed, _BASELINE, 1))


def _customer_figures(
    real_counts: list[NDArray[np.int64]],
    counts: list[NDArray[np.int64]],
    real: Story,
    codes: NDArray[np.uint8],
    sizes: list[int],
) -> dict[str, Any]:
    forth, back = [], []
    for p, q in zip(real_counts, counts, strict=True):
        forth.append(metrics.kl(_shares(p), _shares(q), 1 / (2 * q.sum())))
        back.append(metrics.kl(_shares(q), _shares(p), 1 / (2 * p.sum())))
    pairs = metrics.pairs(len(sizes))
    each = metrics.joint_divergences(real.customers, codes, sizes, pairs)
    unique, rows = metrics.novelty(codes, real.customers)
    return {
        "marginal_kl": forth,
        "marginal_kl_back": back,
        "pair_kl": sum(each),
        "pair_kls": each,
        "novel_unique": unique,
        "novel_rows": rows,
    }


def _worst_pairs(found: dict[str, Any], schema: Schema, many: int) -> list[dict[str, Any]]:
    """The three pairs of fields, or fewer, that the simulator has most wrong beyond chance.

    Two samples of n customers of one density have a divergence of about chi2(cells - 1) / n. Chance
    goes beyond what is allowed here for any of the pairs in one report of a hundred, at most: the
    bound is that of Laurent and Massart (2000, Lemma 1), for all pairs at once.
    """
    names = [field.name for field in schema.customer]
    pairs = metrics.pairs(len(names))
    surprise = math.log(100 * max(1, len(pairs)))
    worst: list[dict[str, Any]] = []
    for number, (one, other) in enumerate(pairs):
        cells = schema.customer[one].size * schema.customer[other].size - 1
        most = (cells + 2 * math.sqrt(cells * surprise) + 2 * surprise) / many
        values = {name: row["pair_kls"][number] for name, row in found.items()}
        if values["simulator"] > most:
            worst.append({"fields": [names[one], names[other]], "chance": most, "kl": values})
    worst.sort(key=lambda pair: pair["kl"]["fresh"] - pair["kl"]["simulator"])
    return worst[:3]


def compare_lengths(sides: dict[str, Side]) -> dict[str, Any]:
    """Shares of sessions by number of pages, and their total variation from the log's half."""
    shares = {name: side.lengths / side.sessions for name, side in sides.items()}
    longest = int(max(np.flatnonzero(one).max() for one in shares.values()))
    leave = sides["real"].sessions / sides["real"].pages
    pages = np.arange(longest + 1)
    geometric = np.where(pages > 0, leave * (1 - leave) ** (pages - 1.0), 0.0)
    geometric[-1] = 1 - geometric[:-1].sum()
    shares = {name: one[: longest + 1] for name, one in shares.items()}
    shares["forgetful"] = geometric
    real = shares["real"]
    return {
        "shares": {name: one.tolist() for name, one in shares.items()},
        "mean": {name: float(pages @ one) for name, one in shares.items()},
        "distance": {
            name: float(np.abs(one - real).sum() / 2)
            for name, one in shares.items()
            if name != "real"
        },
    }


def compare_pages(sides: dict[str, Side], items: int) -> dict[str, Any]:
    """Answers by number of the page, for pages that enough real sessions came to."""
    half = sides["real"]
    least = _least(half)
    last = max(1, int((half.by_page[0] >= least).sum()))
    rates, second, leaving = {}, {}, {}
    for name, side in sides.items():
        pages, answers, _, other, ended = side.by_page[:, :last]
        seen = np.maximum(pages, 1)
        rates[name] = answers / (items * seen)
        second[name], leaving[name] = other / seen, ended / seen
    overall = half.answers / (items * half.pages)
    rates["forgetful"] = np.full(last, overall)
    pages, answers, squares = half.by_page[:3, :last]
    mean = answers / pages
    sd = np.sqrt(np.maximum(squares / pages - mean * mean, 0))
    weights = pages / pages.sum()
    return {
        "least_pages": least,
        "pages": pages.tolist(),
        "rate": {name: one.tolist() for name, one in rates.items()},
        "half_width": (1.96 * sd / np.sqrt(pages) / items).tolist(),
        "second": {name: one.tolist() for name, one in second.items()},
        "ending": {name: one.tolist() for name, one in leaving.items()},
        "error": {
            name: float(weights @ np.abs(one - rates["real"]))
            for name, one in rates.items()
            if name != "real"
        },
    }


def compare_features(
    sides: dict[str, Side], schema: Schema, items: int, labels: Sequence[Sequence[str]] = ()
) -> dict[str, Any]:
    """Answers by category of each field (as in the paper's Figure 4), where real pages suffice.

    Args:
        sides: ``real`` and whatever is compared with it; the guard ``blind`` joins them.
        schema: Whose customers they are.
        items: What an answer is divided by, beside pages.
        labels: What categories are called, by field; their codes unless given.
    """
    half = sides["real"]
    least = _least(half)
    overall = {name: side.answers / (items * side.pages) for name, side in sides.items()}
    cells: list[dict[str, Any]] = []
    for number, field in enumerate(schema.customer):
        for code in range(field.size):
            if half.cells[number][0, code] < least:
                continue
            rates = {}
            for name, side in sides.items():
                pages, answers = side.cells[number][:, code]
                rates[name] = float(answers / (items * pages)) if pages else overall[name]
            rates["blind"] = overall["real"]
            pages = int(half.cells[number][0, code])
            label = labels[number][code] if labels else str(code)
            about = {"field": field.name, "code": code, "label": label, "pages": pages}
            cells.append({**about, "rate": rates})
    names = [name for name in (*sides, "blind") if name != "real"]
    weights = np.array([cell["pages"] for cell in cells], np.float64)
    columns = {name: np.array([cell["rate"][name] for cell in cells]) for name in ("real", *names)}
    error, rank = {}, {}
    for name in names:
        gaps = np.abs(columns[name] - columns["real"])
        error[name] = float(weights @ gaps / weights.sum()) if cells else 0.0
        rank[name] = metrics.spearman(columns[name], columns["real"])
    return {"least_pages": least, "cells": cells, "error": error, "spearman": rank}


def compare_hours(
    real: NDArray[np.int64],
    fresh: NDArray[np.int64],
    simulated: NDArray[np.float64],
    items: int,
    pooled: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Answers by part of the day (the paper's Figure 5), and the correlation over the twelve.

    Args:
        real: Pages and answers by part (2, 12), all with pages.
        fresh: Likewise, of what stands in for the real ones.
        simulated: Rates (12,).
        items: What an answer is divided by, beside pages.
        pooled: Rates (12,) of the void guard, which knows no hours; one for all unless given.
    """
    pages, answers = real
    rate = answers / (items * pages)
    if pooled is None:
        pooled = np.full(SLICES, answers.sum() / pages.sum() / items)
    others = {
        "fresh": fresh[1] / (items * np.maximum(fresh[0], 1)),
        "simulator": simulated,
        "pooled": pooled,
    }
    return {
        "pages": pages.tolist(),
        "rate": {"real": rate.tolist(), **{name: one.tolist() for name, one in others.items()}},
        "half_width": (1.96 * np.sqrt(rate * (1 - rate) / pages)).tolist(),
        "pearson": {name: metrics.pearson(one, rate) for name, one in others.items()},
        "error": {name: float(np.abs(one - rate).mean()) for name, one in others.items()},
        "largest_error": {name: float(np.abs(one - rate).max()) for name, one in others.items()},
    }


def _least(side: Side) -> int:
    """Pages that a cell needs: 2,000, of small logs a fiftieth of theirs, but 50."""
    return int(np.clip(side.pages // 50, 50, 2_000))


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = counts / max(1, counts.sum())
    return found


def _counted(codes: NDArray[np.uint8], sizes: list[int]) -> list[NDArray[np.int64]]:
    return [np.bincount(codes[:, number], minlength=size) for number, size in enumerate(sizes)]
