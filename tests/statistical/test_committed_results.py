"""What was asked of learned simulators beside what was measured: the results that README quotes.

The figures are those of `benches/results/learned`, which `make tables` measures in hours; here they
are held to their bounds, world by world, in an instant, and in `test_committed_customers` those of
customers. Last come those of reduced precision. Every bound stands once, with the rule that it
follows from, and beside it what must fail it: something trivially wrong, judged in the same run.
Where such a guard is known to pass a bound, that is said and asserted, with what tells it apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from benches import reduced as modes
from tests.statistical.committed import RESULTS, WORLDS, cell, read

RESPONSES, PAPER, TABLE2 = read("responses"), read("responses-paper"), read("table2")
FIGURE4, FIGURE5, WARM = read("figure4"), read("figure5"), read("figure5-warm")
FITS, CARTPOLE = read("fits"), read("cartpole")


def test_all_worlds_that_are_claimed_are_there() -> None:
    for found, key in ((RESPONSES, "method"), (TABLE2, "row")):
        claimed = set(found["rows"]) - {"guard", "feature_blind", "fresh"}
        held = {(one[key], one["world"]) for one in found["cells"]}
        assert {(name, world) for name in claimed for world in WORLDS} <= held
        assert tuple(found["worlds"]) == WORLDS
    for found, key in ((FIGURE4, "cells"), (FIGURE5, "days")):
        # README writes them as "first to last".
        assert found["worlds"] == list(WORLDS[: len(found["worlds"])])
        assert [one["world"] for one in found[key]] == found["worlds"]
        assert found["worlds"]


@pytest.mark.parametrize("found", [RESPONSES, PAPER, FIGURE4, FIGURE5, WARM])
def test_results_are_of_code_that_is_there(found: dict[str, Any]) -> None:
    assert found["commit"]
    assert not found["commit"].endswith("-dirty")


def test_rows_are_means_of_their_cells() -> None:
    """README quotes rows; bounds are held by cells."""
    for name in (*HELD, "mail"):
        cells = [cell(RESPONSES, "method", name, world) for world in WORLDS]
        row = {key: mean for key, (mean, _) in RESPONSES["rows"][name].items()}
        assert row["effect"] == pytest.approx(
            np.mean([one["action_effect"]["learned"] for one in cells])
        )
        assert row["length"] == pytest.approx(np.mean([one["length"]["ratio"] for one in cells]))
        assert row["auc"] == pytest.approx(np.mean([one["telling_apart"]["auc"] for one in cells]))
    for name, row in TABLE2["rows"].items():
        cells = [cell(TABLE2, "row", name, world) for world in WORLDS]
        for side in ("simulator", "truth"):
            for at, day in enumerate(TABLE2["days"]):
                mean = 100 * np.mean([one[side][at] for one in cells])
                assert row[f"{side}_{day}"][0] == pytest.approx(mean)


# --- answers: cloning, cloning then MAIL, linear in the action ----------------------------------

HELD = ("bc", "bc+mail", "linear")
"""MAIL from random weights is there as well, to be seen."""
EFFECT = 0.30
"""Least correlation of learned with true differences of the log-odds of buying between two logged
actions of the same customer."""
BLIND_EFFECT = 0.05
"""What customers who do not see the action stay below."""
EXCESS_NAT = 0.007
"""Nat a page beyond an oracle who knows the hidden archetype; constant answers have twice that."""
R2P_GAP = 0.002
"""Between simulator and truth under the logger's actions. No guard in these results: customers a
little keener to buy must fail it in `tests/training/test_mail_truth.py`."""
SESSIONS = 0.03
"""Total variation of (length, outcome, page) within a query, weighted by pages: logged actions."""
SHIFTED = 0.06
"""The same under actions one standard deviation off, which were never logged."""
PAGES_AUC = 0.58
"""Of a fresh discriminator between real and generated pages."""
ENGINE = 0.1
"""1-Wasserstein distance, in logged sd, of any action dimension in any group of customers, to a
logger whose means depend on the query."""
LENGTH = 0.05
"""Of the mean length of generated sessions, over real ones. No guard in these results: customers
more ready to leave must fail it in `tests/training/test_mail_truth.py`."""


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("method", HELD)
def test_answers(method: str, world: int) -> None:
    found = cell(RESPONSES, "method", method, world)
    assert RESPONSES["settings"]["train"] == 200_000
    assert found["action_effect"]["learned"] >= EFFECT
    assert abs(found["action_effect"]["action_blind"]) < BLIND_EFFECT
    excess = found["excess_likelihood"]
    assert excess["learned"] <= EXCESS_NAT < excess["constant"]
    r2p = found["r2p"]["logger"]
    assert abs(r2p["simulator"] - r2p["truth"]) <= R2P_GAP
    logger, shifted = found["distance"]["logger"], found["distance"]["shifted"]
    assert logger["distance"] <= SESSIONS < logger["feature_blind"]
    assert shifted["distance"] <= SHIFTED < shifted["constant"]
    auc = found["telling_apart"]
    assert auc["auc"] <= PAGES_AUC < auc["independent_fields"]
    assert found["engine"]["learned"] <= ENGINE < found["engine"]["untrained"]
    assert abs(found["length"]["ratio"] - 1) <= LENGTH
    if method == "bc+mail":
        assert min(found["fit"][f"{one}_gradient_norm"] for one in ("engine", "customers")) > 0


def test_the_aims_in_the_table_are_these() -> None:
    """README prints them from the results."""
    most = {"excess": EXCESS_NAT, "logger": R2P_GAP, "distance": SESSIONS, "shifted": SHIFTED}
    most |= {"auc": PAGES_AUC, "engine": ENGINE, "length": 1 + LENGTH, "effect": 1.0}
    assert {key: high for key, (_, high) in RESPONSES["aims"].items()} == most
    least = {key: low for key, (low, _) in RESPONSES["aims"].items() if low > 0}
    assert least == {"effect": EFFECT, "length": 1 - LENGTH}
    assert RESPONSES["aims"]["logger"][0] == -R2P_GAP


def test_mail_from_random_weights_misses_what_readme_says() -> None:
    row = {key: mean for key, (mean, _) in RESPONSES["rows"]["mail"].items()}
    missed = {key for key, (low, high) in RESPONSES["aims"].items() if not low <= row[key] <= high}
    assert missed == {"effect", "excess", "distance", "shifted", "engine"}
    kept = [
        cell(RESPONSES, "method", "bc+mail", world)["fit"]["best_iteration"] > 0 for world in WORLDS
    ]
    assert sum(kept) == 3
    readme = (RESULTS.parents[2] / "README.md").read_text()
    assert "misses the aims of effect, excess, sessions, shifted sessions and engine" in readme
    assert "made held-out answers likelier in 3 of 5 worlds" in readme


def test_a_table_of_answers_by_page_passes_under_shifted_actions_in_some_worlds() -> None:
    """The guard that passes: what shifts is how much all customers buy. README says so.

    Under logged actions it fails in every world, and answers that do not know the page either fail
    under both (`test_answers`).
    """
    blind = {
        world: cell(RESPONSES, "method", HELD[0], world)["distance"]["shifted"]["feature_blind"]
        for world in WORLDS
    }
    passed = [world for world in WORLDS if blind[world] <= SHIFTED]
    assert 0 < len(passed) < len(WORLDS)
    row = RESPONSES["rows"]["feature_blind"]
    assert row["shifted"][0] == pytest.approx(np.mean(list(blind.values())))
    readme = (RESULTS.parents[2] / "README.md").read_text()
    worlds = " and ".join(map(str, passed))
    assert f"within the aim in {len(passed)} of {len(WORLDS)} worlds ({worlds})" in readme


def test_the_papers_reward_keeps_customers_from_leaving() -> None:
    """Each page pays. What the defaults give is held by `test_answers`."""
    assert {one["method"] for one in PAPER["cells"]} == {"mail-paper"}
    for one in PAPER["cells"]:
        assert one["length"]["ratio"] > 1 + LENGTH
        assert one["fit"]["customers_gradient_norm"] > 0


# --- policies on later days ---------------------------------------------------------------------

NOTHING = 0.01
"""Share by which the random engine may differ from itself on other sessions: the ratio of R2P in
two runs of 200,000 sessions has a standard error of .0045."""
NORM = 1.2
"""Times the norm mu of most logged actions: where the action norm constraint must hold policies."""


@pytest.mark.parametrize("world", WORLDS)
def test_policies_gain_what_guards_do_not(world: int) -> None:
    guards = {name: cell(TABLE2, "row", name, world) for name in ("zero", "blind", "logger")}
    for side in ("simulator", "truth"):
        assert max(map(abs, guards["logger"][side])) <= NOTHING
    # An engine that merely stops being random gains more than that, so it is a row of its own.
    assert max(guards["zero"]["truth"]) > NOTHING
    for method in ("bc", "mail", "bc+mail"):
        found = cell(TABLE2, "row", method, world)
        for side in ("simulator", "truth"):
            gained = found[side][0]
            assert gained > max(guards[name][side][0] for name in ("zero", "blind"))
        training = found["training"]
        assert training["norm"] <= NORM * training["anc"][1]


@pytest.mark.xfail(reason="measured: tastes that turned by 70 degrees leave no gain to be seen")
@pytest.mark.parametrize("method", ["mail", "bc+mail"])
def test_gains_outlast_a_month(method: str) -> None:
    """Asked: in the true store, above 0 with a 95 % interval. Zero actions pass that, so above
    theirs."""
    row = TABLE2["rows"][method]
    for figure in ("truth_30", "truth_over_zero"):
        mean, half = row[figure]
        assert mean - half > 0


# --- R2P by feature and by hour -----------------------------------------------------------------

FEATURE_ERROR = 0.006
"""Mean difference of R2P by category of every field, weighted by pages."""
FEATURE_RANK = 0.8
"""Least rank correlation of the same."""


@pytest.mark.parametrize("found", FIGURE4["cells"], ids=lambda one: str(one["world"]))
def test_r2p_by_feature(found: dict[str, Any]) -> None:
    features = found["features"]
    shown = features["cells"]
    assert min(one["pages"] for one in shown) >= features["least_pages"] == 2_000
    assert {one["field"] for one in shown} == {f"field_{number}" for number in range(11)}
    # The figures are of what is drawn.
    pages = np.array([one["pages"] for one in shown])
    rates = {name: np.array([one["rate"][name] for one in shown]) for name in shown[0]["rate"]}
    for name in ("simulator", "blind"):
        error = np.average(np.abs(rates[name] - rates["real"]), weights=pages)
        assert features["error"][name] == pytest.approx(error)
    assert features["error"]["simulator"] <= FEATURE_ERROR
    assert features["spearman"]["simulator"] >= FEATURE_RANK > features["spearman"]["blind"]
    # The guard that passes: no category is far from the mean. It is the order that it lacks, and
    # it is thrice as far off as the simulator.
    assert 3 * features["error"]["simulator"] < features["error"]["blind"] <= FEATURE_ERROR


HOURS_R = 0.9
"""Least correlation of true and simulated R2P over the twelve parts of a day."""
HOURS_ERROR = 0.004
"""Largest difference in any part; the true rates' own 95 % interval is a quarter of it."""


@pytest.mark.parametrize(
    "found", [*FIGURE5["days"], *WARM["days"]], ids=lambda one: str(one["world"])
)
def test_r2p_over_a_day(found: dict[str, Any]) -> None:
    hours = found["hours"]
    rates = {name: np.array(values) for name, values in hours["rate"].items()}
    assert {len(values) for values in rates.values()} == {12}
    assert max(hours["half_width"]) <= HOURS_ERROR / 4
    for name in ("simulator", "pooled"):
        r = np.corrcoef(rates["real"], rates[name])[0, 1]
        assert hours["pearson"][name] == pytest.approx(r)
        error = np.abs(rates["real"] - rates[name]).max()
        assert hours["largest_error"][name] == pytest.approx(error)
    # The guard is one simulator of the whole day.
    assert hours["pearson"]["simulator"] >= HOURS_R > hours["pearson"]["pooled"]
    largest = hours["largest_error"]
    assert largest["simulator"] <= HOURS_ERROR < largest["pooled"]


# --- whole fits ---------------------------------------------------------------------------------

CTR = 0.05
"""Of the published networks' click-through rate, under each of four policies."""
CLOSE = ("gan-sd, bc+mail, mixed actions", "lca, bc, mixed actions")
SIMULATING = 0.1
"""Most share of a fit's time that goes into simulating."""
MEMORY = 1.2
"""Times that of a fit to a tenth of the log."""


def off(rates: Mapping[str, float], truth: Mapping[str, float]) -> float:
    assert rates.keys() == truth.keys()
    return max(abs(rates[policy] / truth[policy] - 1) for policy in truth)


def test_click_through_rates_of_fits_to_published_logs() -> None:
    rates = FITS["published"]["click_through"]
    truth = rates["published"]
    assert len(truth) == 4
    for name in CLOSE:
        assert off(rates[name], truth) <= CTR
        held = FITS["published"]["fits"][name]
        assert held["largest_difference"] == pytest.approx(off(rates[name], truth))
    # Guards: a fit that never saw actions near zero, and customers to whom actions are all one.
    assert off(rates["lca, bc, uniform actions"], truth) > CTR
    mean = np.mean(list(truth.values()))
    assert off(dict.fromkeys(truth, float(mean)), truth) > CTR
    # MAIL from random weights comes nowhere near, which README shows.
    assert off(rates["lca, mail, mixed actions"], truth) > CTR


def test_fits_simulate_little_and_hold_little() -> None:
    fits = {**FITS["published"]["fits"], **FITS["scale"]}
    assert {"1000000", "10000000"} <= fits.keys()
    for name, fit in fits.items():
        mail = fit["stages"].get("mail", {"seconds": 0.0, "simulating_share": 0.0})
        simulated = mail["seconds"] * mail["simulating_share"] + fit["stages"]["check"]["seconds"]
        assert fit["simulating_share"] == pytest.approx(simulated / fit["seconds"], abs=2e-4), name
        assert 0 < fit["simulating_share"] < SIMULATING
    small, large = (FITS["scale"][pages] for pages in ("1000000", "10000000"))
    for pages, fit in (("1000000", small), ("10000000", large)):
        assert int(pages) <= fit["stages"]["log"]["pages"] < 1.001 * int(pages)
    least = small["peak_memory_bytes"]
    assert large["peak_memory_bytes"] < MEMORY * least
    # The guard: a fit that held the log, compressed as it is, would not pass.
    assert least + large["log_bytes"] - small["log_bytes"] > MEMORY * least


# --- TRPO ---------------------------------------------------------------------------------------

BALANCED = 475
"""Mean return of 100 episodes from which CartPole-v1 counts as solved; 500 is the most."""


def test_cartpole_is_balanced_by_four_seeds_of_five() -> None:
    assert CARTPOLE["steps"] <= 200_000
    assert CARTPOLE["episodes"] == 100
    assert set(CARTPOLE["seeds"]) == set(map(str, WORLDS))
    returns = [one["mean_return"] for one in CARTPOLE["seeds"].values()]
    assert sum(value >= BALANCED for value in returns) >= 4
    # The guard: the same loop without TRPO's step.
    assert max(one["without_steps"] for one in CARTPOLE["seeds"].values()) < 100


# --- reduced precision --------------------------------------------------------------------------

MODES = json.loads((RESULTS.parent / "reduced.json").read_text())
POLICIES = {"random", "zero", "gaussian:0.1", "gaussian:0.006"}
LOGITS = {"rms": modes.RMS, "most": modes.MOST}


def test_reduced_precision_is_for_both_simulators_and_as_many_pages_as_claimed() -> None:
    assert set(MODES["simulators"]) == {"virtualtb-v0-refit", "virtualtb-v0"}
    assert MODES["bounds"] == {"ctr": modes.CTR, **LOGITS}
    for found in MODES["simulators"].values():
        assert set(found) == POLICIES
        for row in found.values():
            for form in ("exact", "reduced", "guard"):
                assert row[form]["pages"] >= 10_000_000
            for form in ("reduced", "guard"):
                change = row[form]["ctr"] / row["exact"]["ctr"] - 1
                assert row[form]["relative_change_of_ctr"] == pytest.approx(change)
            assert row["logits"]["pages"] > 500_000


@pytest.mark.parametrize("name", sorted(MODES["simulators"]))
def test_reduced_precision_changes_ctr_and_logits_little(name: str) -> None:
    for row in MODES["simulators"][name].values():
        # The guard has the weights between hidden units rounded to five bits.
        ours, guard = (row[form]["relative_change_of_ctr"] for form in ("reduced", "guard"))
        assert abs(ours) <= modes.CTR < abs(guard)
        assert ours != 0
        for key, bound in LOGITS.items():
            assert 0 < row["logits"]["reduced"][key] <= bound < row["logits"]["guard"][key]


def test_the_bench_of_reduced_precision_refuses_the_guard() -> None:
    for found in MODES["simulators"].values():
        assert modes.broken(found) == []
        turned = {
            policy: {
                "reduced": row["guard"],
                "guard": row["reduced"],
                "logits": {"reduced": row["logits"]["guard"], "guard": row["logits"]["reduced"]},
            }
            for policy, row in found.items()
        }
        # All three bounds are exceeded, and no guard exceeds them.
        assert len(modes.broken(turned)) == 6
