"""What a fidelity report's figures mean, in words, with the void guards' figures beside.

Every check is a distance from the log's half. Fresh real sessions have one too, by chance, and so
has a guard that is trivially wrong; ``position`` is how far from the one to the other the simulator
is: 0 as good as fresh real sessions, 1 as bad as the guard. Where even the guard is hardly further
away than fresh sessions, the log cannot tell, and the check is void; unless the simulator is
further away than both, which any log can tell: its position is then how often as far as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["GRADES", "grade", "verdict"]

GRADES: Final = ((0.1, "very close"), (0.25, "close"), (0.5, "some way off"), (math.inf, "far off"))
"""Positions up to which a check has a grade."""
_CLOSE: Final = GRADES[1][0]
_TELLING: Final = 2.0
"""A check counts if the guard's distance is so many times that of fresh real sessions."""

EXCESS: Final = 0.007
"""Nat a page beyond an oracle that are still close: what features tell is all used."""
EFFECT: Final = 0.30
"""Correlation of effects of actions that is close, from logs of 200,000 sessions."""

Found = Mapping[str, Any]


def grade(position: float) -> str:
    """The word for a position."""
    return next(word for most, word in GRADES if position <= most)


def verdict(found: Found) -> dict[str, Any]:
    """The checks, and what they come to.

    Args:
        found: What `fidelity` has gathered.

    Returns:
        ``checks``: one mapping each with ``name``, ``title``, ``figure`` (what is measured),
        ``simulator``, ``fresh``, ``guard`` (distances), ``guard_name``, ``telling`` (whether the
        guard is told from fresh sessions), ``position`` and ``grade`` (None and ``void`` where
        nothing can be told), ``close_at`` (the position up to which it is graded close) and
        ``says``, a sentence.
        ``verdict``: ``headline``, ``grades`` (how many of each), ``worst``, ``worst_pairs`` (a
        sentence) and ``notes``.
    """
    checks = [
        *_customers(found),
        _sessions(found),
        _lengths(found),
        _pages(found),
        _features(found),
        *_hours(found),
        *_truth(found),
    ]
    return {"checks": checks, "verdict": _summary(found, checks)}


def _check(
    name: str,
    title: str,
    figure: str,
    distances: tuple[float, float, float],
    guard: str,
    says: str,
    *,
    floor: float = 0.0,
    bar: float | None = None,
    digits: int = 4,
) -> dict[str, Any]:
    """One check.

    Args:
        name: For programs.
        title: For people.
        figure: What is measured.
        distances: Of the simulator, of fresh real sessions, of the guard.
        guard: What the guard is called.
        says: A sentence with ``{share}`` where the simulator's position goes.
        floor: Distances below it are chance.
        bar: A distance that is close whatever its position, where fresh sessions cannot be had.
        digits: Of the distances, where they are shown.
    """
    simulator, fresh, void = distances
    telling = void > _TELLING * max(fresh, floor) and void > 1e-9
    chance = max(void, fresh, floor, 1e-9)
    position = (simulator - fresh) / (void - fresh) if telling else None
    share = "" if position is None else _share(position)
    close_at = _close_at(fresh, void, bar) if telling else None
    if not telling and simulator > _TELLING * chance:
        position, close_at = simulator / chance, _CLOSE
        says = (
            f"Worse than {guard}, which would do about as well here as fresh real sessions: "
            f"{simulator:.{digits}f} against {void:.{digits}f}."
        )
    elif not telling:
        says = f"This log cannot tell: {guard} would do about as well as fresh real sessions."
    return {
        "name": name,
        "title": title,
        "figure": figure,
        "simulator": simulator,
        "fresh": fresh,
        "guard": void,
        "guard_name": guard,
        "telling": telling,
        "position": position,
        "bar": bar,
        "close_at": close_at,
        "grade": "void" if position is None else _graded(position, simulator, bar),
        "says": says.replace("{share}", share),
        "digits": digits,
    }


def _share(position: float) -> str:
    return "less than 1%" if position < 0.01 else f"{position:.0%}"


def _close_at(fresh: float, void: float, bar: float | None) -> float:
    """The position up to which a check is graded close: see `_graded`."""
    own = 0.0 if bar is None else (bar - fresh) / (void - fresh)
    return max(_CLOSE, own)


def _graded(position: float, distance: float, bar: float | None) -> str:
    if bar is not None and distance <= bar:
        position = min(position, _CLOSE)
    return grade(position)


def _customers(found: Found) -> list[dict[str, Any]]:
    rows = found["customers"]
    guard = "an independent sampler"
    means = [
        sum(rows[name]["marginal_kl"]) / len(rows[name]["marginal_kl"])
        for name in ("simulator", "fresh", "uniform")
    ]
    pairs = [rows[name]["pair_kl"] for name in ("simulator", "fresh", "independent")]
    areas = [rows[name]["auc"] for name in ("simulator", "fresh", "independent")]
    return [
        _check(
            "fields",
            "Each field by itself",
            "mean KL(real || simulated) of the fields' shares, nat",
            (means[0], means[1], means[2]),
            "a uniform sampler",
            "Shares of categories are off by {share} of what a uniform sampler gets wrong. This "
            "says least of all: an independent sampler has them right as well.",
        ),
        _check(
            "pairs",
            "How fields hang together",
            "KL of all pairs of fields, summed, nat",
            (pairs[0], pairs[1], pairs[2]),
            guard,
            "Of what hangs together between two fields, {share} is missed; an independent sampler "
            f"would miss all of it. {_worst_pairs(found)}",
            digits=3,
        ),
        _check(
            "customers",
            "Telling customers apart",
            "area under the curve of a classifier, above one half",
            _above_half(areas),
            guard,
            f"A classifier tells simulated customers from real ones with an area of {areas[0]:.3f} "
            f"(0.5 is guessing; chance alone gives {_band(rows['simulator'])}). An independent "
            f"sampler would score {areas[2]:.3f}.",
            floor=_chance(rows["simulator"]),
        ),
    ]


def _worst_pairs(found: Found) -> str:
    """The pairs of fields that are furthest off, in words."""
    if len(found["fields"]) < 2:
        return "There are no pairs of fields."
    worst = found["pairs"]["worst"]
    if not worst:
        return "No pair of fields is further off than chance allows."
    named = []
    for pair in worst:
        one, other = pair["fields"]
        kl = pair["kl"]
        text = f"{one} and {other} ({kl['simulator']:.4f} nat; fresh real {kl['fresh']:.4f}"
        named.append(f"{text}, independent {kl['independent']:.4f})")
    return f"Furthest off, beyond chance: {'; '.join(named)}."


def _sessions(found: Found) -> dict[str, Any]:
    rows = found["whole_sessions"]
    areas = [rows[name]["auc"] for name in ("simulator", "fresh", "independent")]
    return _check(
        "sessions",
        "Telling whole sessions apart",
        "area under the curve of a classifier, above one half",
        _above_half(areas),
        "an independent sampler",
        "Shown the customer and how the session went (pages, answers, end), a classifier reaches "
        f"{areas[0]:.3f}; {areas[2]:.3f} if fields are drawn independently and how a session goes "
        "has nothing to do with who came.",
        floor=_chance(rows["simulator"]),
    )


def _lengths(found: Found) -> dict[str, Any]:
    lengths = found["lengths"]
    mean, distance = lengths["mean"], lengths["distance"]
    return _check(
        "lengths",
        "How long sessions are",
        "total variation between session lengths",
        (distance["simulator"], distance["fresh"], distance["forgetful"]),
        "a customer who leaves every page alike",
        f"Sessions have {mean['simulator']:.2f} pages in the mean, {mean['real']:.2f} in the log; "
        "their lengths are {share} as far off as those of customers who leave every page with one "
        "probability.",
    )


def _pages(found: Found) -> dict[str, Any]:
    error, rate = found["pages"]["error"], found["rate"]["name"]
    return _check(
        "pages",
        "Answers page by page",
        f"mean error of {rate} by number of the page",
        (error["simulator"], error["fresh"], error["forgetful"]),
        "a customer who answers all pages alike",
        f"{rate} on the n-th page is off by {error['simulator']:.4f} in the mean over pages; one "
        f"rate for all pages would be off by {error['forgetful']:.4f}, fresh real sessions are by "
        f"{error['fresh']:.4f}.",
    )


def _features(found: Found) -> dict[str, Any]:
    features, rate = found["features"], found["rate"]["name"]
    error, rank = features["error"], features["spearman"]
    return _check(
        "features",
        "Who answers how",
        f"mean error of {rate} by category of the customer's fields",
        (error["simulator"], error["fresh"], error["blind"]),
        "a feature-blind customer",
        f"{rate} of customers with some feature is off by {error['simulator']:.4f} in the mean "
        f"(rank correlation {rank['simulator']:.2f}); a feature-blind simulator would be off by "
        f"{error['blind']:.4f} (0.00), fresh real sessions are by {error['fresh']:.4f} "
        f"({rank['fresh']:.2f}).",
    )


def _hours(found: Found) -> list[dict[str, Any]]:
    hours = found["hours"]
    if hours is None:
        return []
    error, pearson, rate = hours["error"], hours["pearson"], found["rate"]["name"]
    says = (
        f"{rate} over twelve parts of the day: correlation {pearson['simulator']:.2f}, off by "
        f"{error['simulator']:.4f} in the mean; one rate for the whole day would be off by "
        f"{error['pooled']:.4f}."
    )
    if not hours["by_slice"]:
        says = (
            "This simulator knows no time of day: it has one rate for all hours, off by "
            f"{error['simulator']:.4f} in the mean. Fit one a part of the day if that matters."
        )
    distances = (error["simulator"], error["fresh"], error["pooled"])
    figure = f"mean error of {rate} over twelve parts of the day"
    return [_check("hours", "Over the day", figure, distances, "one rate for all hours", says)]


def _truth(found: Found) -> list[dict[str, Any]]:
    truth = found["truth"]
    if truth is None:
        return []
    excess = truth["customer_excess"]
    checks = [
        _check(
            "customer_excess",
            "Customers under the true density",
            "E[-log p(x)] beyond the true entropy, nat",
            (excess["simulator"], max(0.0, excess["fresh"]), excess["independent"]),
            "an independent sampler",
            f"Simulated customers are {excess['simulator']:.2f} nat less likely than true ones; "
            f"independent fields {excess['independent']:.2f} nat.",
            digits=2,
        )
    ]
    if "response_excess" in truth:
        gap, effect = truth["response_excess"], truth["action_effect"]
        checks += [
            _check(
                "response_excess",
                "Answers under the true probabilities",
                "negative log-likelihood beyond an oracle's, nat a page",
                (gap["simulator"], 0.0, gap["constant"]),
                "one probability for all",
                f"Its probabilities cost {gap['simulator']:.4f} nat a page beyond an oracle who "
                f"knows the hidden archetype; constant ones cost {gap['constant']:.4f}.",
                bar=EXCESS,
            ),
            _check(
                "action_effect",
                "What another page does to a customer",
                "1 - correlation of learned and true effects of actions",
                (1 - effect["simulator"], 0.0, 1 - effect["blind"]),
                "an action-blind simulator",
                "What another page does to a customer's odds of buying correlates with the truth "
                f"at {effect['simulator']:.2f}; 0 for a simulator that does not see the action. "
                "Policies are trained on this; logs say little of it, and 0.30 is a good figure.",
                bar=1 - EFFECT,
                digits=2,
            ),
        ]
    return checks


def _summary(found: Found, checks: list[dict[str, Any]]) -> dict[str, Any]:
    counted = [check for check in checks if check["position"] is not None]
    grades = {word: sum(check["grade"] == word for check in counted) for _, word in GRADES}
    good = grades["very close"] + grades["close"]
    headline = f"Close to the log in {good} of {len(counted)} respects"
    fine = ("very close", "close")
    lacking = [check["title"].lower() for check in counted if check["grade"] not in fine]
    headline += f"; not in: {', '.join(lacking)}." if lacking else "."
    if not counted:
        headline = "This log is too small, or too even, to tell a simulator from its guards."
    worst = max(counted, key=lambda check: check["position"], default=None)
    return {
        "headline": headline,
        "grades": grades | {"void": len(checks) - len(counted)},
        "worst": None if worst is None else worst["name"],
        "worst_pairs": _worst_pairs(found),
        "notes": _notes(found),
    }


def _notes(found: Found) -> list[str]:
    rows, notes, rate = found["customers"], [], found["rate"]["name"]
    level = {name: side["rate"] for name, side in found["sides"].items()}
    if level["real"] > 0:
        off = level["simulator"] / level["real"] - 1
        notes.append(
            f"{rate} over all pages: {level['simulator']:.4f} simulated, {level['real']:.4f} in "
            f"the log ({off:+.1%}; fresh real sessions {level['fresh'] / level['real'] - 1:+.1%}). "
            "A difference here is part of those by page and by feature."
        )
    new, fresh = rows["simulator"]["novel_rows"], rows["fresh"]["novel_rows"]
    notes.append(
        f"{new:.0%} of the simulated customers are not among the {rows['compared']:,} real ones "
        f"they were compared with; of fresh real customers {fresh:.0%} are not"
        + (": it repeats those it has seen." if new < 0.5 * fresh else ".")
    )
    about = found["about"]
    # Networks are named by their digest, of which a few digits say enough.
    kind, _, digest = about["policy"]["name"].partition("network:")
    shown = f"network {digest[:8]}" if digest else kind[:60]
    notes.append(
        f"Both sides were shown pages by the policy {shown} "
        f"({about['policy']['how']}). How customers answer pages that no policy of the log would "
        "show, no log can tell."
    )
    if about["log"]["fitted_to"]:
        notes.append(
            "The simulator was fitted to this log, to the fresh half of it too: one that it has "
            "never seen is the stricter test."
        )
    for name, why in found["left_out"].items():
        notes.append(f"Of the usual baselines, {name} was left out: {why}.")
    truth = found["truth"]
    if truth is not None and "r2p" in truth:
        zero, logger = truth["r2p"]["zero"], truth["r2p"]["logger"]
        notes.append(
            f"R2P in the true store: {logger['truth']:.4f} under the logger "
            f"({logger['simulator']:.4f} simulated), {zero['truth']:.4f} under the zero "
            f"action ({zero['simulator']:.4f} simulated)."
        )
    return notes


def _above_half(areas: list[float]) -> tuple[float, float, float]:
    # A classifier below one half has found nothing.
    simulator, fresh, guard = (max(0.0, area - 0.5) for area in areas)
    return simulator, fresh, guard


def _chance(row: Mapping[str, Any]) -> float:
    return float(row["auc_null"][1]) - 0.5


def _band(row: Mapping[str, Any]) -> str:
    return f"{row['auc_null'][0]:.3f} to {row['auc_null'][1]:.3f}"
