"""What reduced precision does to the click-through rate, over ten million pages a policy.

``python -m benches.reduced [--published DIR] [--pages N] [--json FILE]``

The same sessions are played by the exact form and by the reduced one. How much faster it is,
`virtualtb-fast bench` measures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import virtualtb_fast as vtb
from virtualtb_fast.evaluation.machine import machine

POLICIES = ("random", "zero", "gaussian:0.1", "gaussian:0.006")
SEED = 100 << 32


def compare(simulator: vtb.Simulator, pages: int) -> dict[str, Any]:
    """Both forms' click-through rates and session lengths, by policy."""
    found = {}
    for policy in POLICIES:
        forms = {}
        for name, form in (("exact", simulator), ("reduced", simulator.reduced())):
            # The same whole sessions, so some pages more or less than asked.
            sessions = pages // 7
            played = vtb.rollout(form, policy, sessions=sessions, seed=SEED, keep=False).summary
            forms[name] = {
                "pages": played.pages,
                "ctr": played.ctr,
                "mean_session_length": played.mean_session_length,
            }
        change = forms["reduced"]["ctr"] / forms["exact"]["ctr"] - 1.0
        found[policy] = {**forms, "relative_change_of_ctr": change}
    return found


def show(result: dict[str, Any]) -> None:
    """Prints a table."""
    table = Table(title=f"CTR at reduced precision, about {result['pages']:,} pages a policy")
    for column in ("simulator", "policy", "exact", "reduced", "change"):
        table.add_column(column, justify="left" if column in ("simulator", "policy") else "right")
    for name, found in result["simulators"].items():
        for policy, row in found.items():
            rates = [f"{row[form]['ctr']:.6f}" for form in ("exact", "reduced")]
            table.add_row(name, policy, *rates, f"{row['relative_change_of_ctr']:+.2%}")
    Console().print(table)


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
        "simulators": {one.name: compare(one, arguments.pages) for one in simulators},
    }
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
