"""What reduced precision does to click-through rates, over ten million pages a policy, and logits.

``python -m benches.reduced [--published DIR] [--pages N] [--json FILE]``

The same sessions are played by the exact form and by the reduced one, and the same pages answered.
Beside them stands a guard, the exact form with the weights between hidden units rounded to five
bits, which has to break the bounds that the reduced form keeps; if anything is not as claimed, the
exit code is 1. How much faster it is, `virtualtb-fast bench` measures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import virtualtb_fast as vtb
from virtualtb_fast.evaluation.machine import machine

POLICIES = ("random", "zero", "gaussian:0.1", "gaussian:0.006")
FORMS = ("reduced", "guard")
SEED = 100 << 32
CTR = 0.005
"""Relative change of the CTR at most, under each policy."""
RMS = 0.04
"""Root mean square of logits' errors at most, as a share of that of the logits, under each policy.
Chosen on runs 0 to 4, whose worst was .034; logits count from their head's mean on the page."""
MOST = 0.16
"""The same share of a page by itself: of 1,000 pages 999 are within it. Worst of the runs: .144."""
RUNS = (100, 101, 102, 103, 104)
"""Runs that nothing was chosen on."""
SESSIONS = 20_000
"""Sessions of each of them."""


def rough(simulator: vtb.Simulator) -> vtb.Simulator:
    """The guard: with the weights between hidden units rounded to five bits, each by itself."""
    tensors = simulator.tensors()
    weights = tensors["action.2.weight"]
    unit = np.abs(weights).max(1, keepdims=True) / 15
    tensors["action.2.weight"] = (np.rint(weights / unit) * unit).astype(np.float32)
    return vtb.Simulator.from_tensors(
        tensors, name="rough", schema=simulator.schema, config=simulator.config
    )


def played(simulator: vtb.Simulator, policy: str, sessions: int, seed: int) -> Any:
    """Customers, pages and actions of some sessions."""
    log = vtb.rollout(simulator, policy, sessions=sessions, seed=seed).log
    assert log is not None
    return log["customer"], log["page"], log["action"]


def centred(simulator: vtb.Simulator, given: Any) -> NDArray[np.float64]:
    """Logits from their head's mean: what is the same for a whole head changes no answer."""
    heads = simulator.response(*given, logits=True).values()
    return np.concatenate([one - one.mean(1, keepdims=True, dtype=np.float64) for one in heads], 1)


def errors(exact: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
    """What `RMS` and `MOST` bound."""
    wrong, size = np.square(other - exact).mean(1), np.square(exact).mean(1)
    return {
        "rms": float(np.sqrt(wrong.mean() / size.mean())),
        "most": float(np.quantile(np.sqrt(wrong / size), 0.999)),
    }


def logits(
    simulator: vtb.Simulator, forms: dict[str, vtb.Simulator], policy: str
) -> dict[str, Any]:
    """The worst errors of each form over `RUNS`."""
    worst = {name: {"rms": 0.0, "most": 0.0} for name in forms}
    pages = 0
    for run in RUNS:
        given = played(simulator, policy, SESSIONS, run << 32 | 1 << 24)
        pages += len(given[1])
        exact = centred(simulator, given)
        for name, form in forms.items():
            found = errors(exact, centred(form, given))
            worst[name] = {key: max(worst[name][key], found[key]) for key in found}
    return {"pages": pages, **worst}


def compare(simulator: vtb.Simulator, pages: int) -> dict[str, Any]:
    """Click-through rates, session lengths and errors of logits of all forms, by policy."""
    forms = {"reduced": simulator.reduced(), "guard": rough(simulator)}
    found: dict[str, Any] = {}
    for policy in POLICIES:
        row: dict[str, Any] = {}
        for name, form in {"exact": simulator, **forms}.items():
            # The same whole sessions, so some pages more or less than asked.
            sessions = pages // 7
            counts = vtb.rollout(form, policy, sessions=sessions, seed=SEED, keep=False).summary
            row[name] = {
                "pages": counts.pages,
                "ctr": counts.ctr,
                "mean_session_length": counts.mean_session_length,
            }
        for name in forms:
            row[name]["relative_change_of_ctr"] = row[name]["ctr"] / row["exact"]["ctr"] - 1.0
        found[policy] = {**row, "logits": logits(simulator, forms, policy)}
    return found


def worst(found: dict[str, Any], form: str) -> dict[str, float]:
    """A form's worst figures over the policies, to be held to `CTR`, `RMS` and `MOST`."""
    return {
        "ctr": max(abs(row[form]["relative_change_of_ctr"]) for row in found.values()),
        **{key: max(row["logits"][form][key] for row in found.values()) for key in ("rms", "most")},
    }


def broken(found: dict[str, Any]) -> list[str]:
    """What is not as claimed of a simulator: bounds not kept, or kept by the guard."""
    bounds = {"ctr": CTR, "rms": RMS, "most": MOST}
    ours, guard = (worst(found, form) for form in FORMS)
    over = [f"{key} {ours[key]:.4f} > {bounds[key]}" for key in bounds if ours[key] > bounds[key]]
    kept = [f"the guard's {key} {guard[key]:.4f}" for key in bounds if guard[key] <= bounds[key]]
    return over + kept


def show(result: dict[str, Any]) -> None:
    """Prints a table."""
    table = Table(title=f"Reduced precision, about {result['pages']:,} pages a policy")
    columns = ("simulator", "policy", "exact CTR", "form", "CTR", "change", "logits' RMS", "99.9 %")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at in (0, 1, 3) else "right")
    for name, found in result["simulators"].items():
        for policy, row in found.items():
            for form in FORMS:
                ctr, change = row[form]["ctr"], row[form]["relative_change_of_ctr"]
                shares = [f"{row['logits'][form][key]:.2%}" for key in ("rms", "most")]
                figures = [f"{ctr:.6f}", f"{change:+.2%}", *shares]
                table.add_row(name, policy, f"{row['exact']['ctr']:.6f}", form, *figures)
    Console(width=120).print(table)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", help="directory of the published networks, to compare too")
    parser.add_argument("--pages", type=int, default=10_000_000, help="about, for each policy")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    simulators = [vtb.load_simulator()]
    if arguments.published:
        simulators.append(vtb.import_published(arguments.published))
    result = {
        "machine": machine(),
        "pages": arguments.pages,
        "bounds": {"ctr": CTR, "rms": RMS, "most": MOST},
        "simulators": {one.name: compare(one, arguments.pages) for one in simulators},
    }
    show(result)
    wrong = {name: broken(found) for name, found in result["simulators"].items()}
    if any(wrong.values()):
        raise SystemExit(f"expected every bound kept, and broken by the guard; got {wrong}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
