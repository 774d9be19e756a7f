"""Samplers fitted to people's own customers: what their cells come to, for README.

    python -m virtualtb_fast.evaluation.customer_table FOLDER --real DATA
    python -m benches.customers --cells FOLDER --json FILE

The first command, hours of it, fits and judges samplers on the users of KuaiRand-Pure and on
customers with the field counts of VirtualTB-v0's data set; the second puts down the figures of the
cells that are there. Neither data nor anything fitted to them gets into the file.

| figure | what |
|---|---|
| ``auc`` | of a classifier between held-out and generated customers |
| ``ratio_pair`` | KL of all pairs of fields, summed, over the independent sampler's |
| ``field_kl``, ``field_kl_back`` | KL(real || generated) of the worst field, and the other way |
| ``mean_field_kl`` | the first of these, mean over fields |
| ``novel_rows`` | share of generated customers that are not among the training ones |
| ``cpu_seconds`` | of the fit, all threads together |
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtualtb_fast._training import write_atomically
from virtualtb_fast.evaluation.cells import mean_and_interval
from virtualtb_fast.evaluation.reproduce.parts import origin

ORDER = ("fresh", "rows", "gan-sd", "lca", "ar", "gmm", "gan", "wgan", "independent")
KEYS = (
    "auc",
    "ratio_pair",
    "field_kl",
    "field_kl_back",
    "mean_field_kl",
    "novel_rows",
    "cpu_seconds",
)


def collect(folder: Path) -> dict[str, Any]:
    """Tables of customers by name: their size, and samplers' figures, mean and by seed."""
    held: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text())
        table = cell["data"].removesuffix(f"-{cell['seed']}")
        held.setdefault(table, {}).setdefault(cell["sampler"], {})[cell["seed"]] = cell
    return {table: _table(samplers) for table, samplers in sorted(held.items())}


def _table(samplers: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    guards = samplers.get("independent", {})
    rows: dict[str, Any] = {}
    for name in sorted(samplers, key=lambda one: (*ORDER, one).index(one)):
        seeds = {seed: _figures(cell, guards.get(seed)) for seed, cell in samplers[name].items()}
        rows[name] = {"seeds": sorted(seeds)}
        for key in KEYS:
            own = {str(seed): seeds[seed][key] for seed in sorted(seeds) if key in seeds[seed]}
            if own:
                rows[name][key] = mean_and_interval(list(own.values()))
                rows[name].setdefault("by_seed", {})[key] = own
    some = next(iter(guards.values()), None) or next(iter(next(iter(samplers.values())).values()))
    size = {"fields": len(some["marginal_kl"]), "train": some["train"]}
    judged = {name: next(iter(cells.values()))["generated"] for name, cells in samplers.items()}
    return {**size, "generated": judged, "rows": rows}


def _figures(cell: Mapping[str, Any], guard: Mapping[str, Any] | None) -> dict[str, float]:
    forth, back = cell["marginal_kl"], cell["marginal_kl_back"]
    found = {"field_kl": max(forth), "field_kl_back": max(back)}
    found["mean_field_kl"] = sum(forth) / len(forth)
    found |= {key: cell[key] for key in ("auc", "novel_rows", "cpu_seconds") if key in cell}
    if guard is not None:
        found["ratio_pair"] = cell["pair_kl"] / guard["pair_kl"]
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", type=Path, required=True, help="folder of customer_table")
    parser.add_argument("--json", type=Path, required=True, help="file of the figures")
    options = parser.parse_args()
    tables = collect(options.cells)
    if not tables:
        raise SystemExit(f"--cells: expected cells of customer_table, got none in {options.cells}")
    found = {"format": "virtualtb_fast.real", "version": 1, **origin(), "tables": tables}
    with write_atomically(options.json) as file:
        file.write((json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    for name, table in tables.items():
        for sampler, row in table["rows"].items():
            print(f"{name:<20}{sampler:<14}seeds {row['seeds']}  AUC {row['auc'][0]:.3f}")


if __name__ == "__main__":
    main()
