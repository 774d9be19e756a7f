"""Samplers of customers in ground-truth stores: Table 1 and Figure 3."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from virtualtb_fast._arguments import integer
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.evaluation import figures, metrics
from virtualtb_fast.evaluation.cells import Cell, mean_and_interval, run_cells
from virtualtb_fast.evaluation.reproduce.parts import WORLDS, Told, about, finish, markdown, row

__all__ = ["FIGURE3", "TABLE1", "figure3", "table1"]

TABLE1: Final = (
    "fresh",
    "gan-sd",
    "gan-sd-paper",
    "gmm",
    "gan",
    "wgan",
    "lca",
    "ar",
    "independent",
)
FIGURE3: Final = ("gan-sd", "gmm", "gan", "wgan")


def customers_cell(world: int, sampler: str, size: int) -> dict[str, Any]:
    """A sampler fitted to customers of a world: its figures, and the shares that it draws."""
    from virtualtb_fast.customers import FITS
    from virtualtb_fast.evaluation.customer_data import GENERATED, store_customers
    from virtualtb_fast.evaluation.customer_table import cell

    data, kept = store_customers(world, size), []

    def fit(*words: Any, **options: Any) -> Any:
        kept.append(FITS[sampler](*words, **options))
        return kept[-1]

    figures_ = cell(data, sampler, fit=fit)
    codes = data.fresh if not kept else kept[0].sample(size, data.base(GENERATED))
    shares = [metrics.joint_table(codes, data.sizes, (n,)).tolist() for n in range(len(data.sizes))]
    assert data.truth is not None
    true = [metrics.joint_table(data.truth, data.sizes, (n,)).tolist() for n in range(len(shares))]
    names = [one.name for one in data.fields]
    return {**figures_, "world": world, "fields": names, "shares": shares, "true_shares": true}


def _customer_cells(
    out: Path, worlds: Sequence[int], samplers: Sequence[str], size: int, workers: int, told: Any
) -> list[dict[str, Any]]:
    from virtualtb_fast.evaluation.customer_table import SAMPLERS

    unknown = [name for name in samplers if name not in SAMPLERS]
    if unknown:
        raise InvalidArgumentError(f"samplers: expected {', '.join(SAMPLERS)}, got {unknown}")
    integer("size", size, 200, 10**7)
    cells = [
        Cell(
            f"customers-{world}-{sampler}",
            customers_cell,
            {"world": world, "sampler": sampler, "size": size},
        )
        for world in worlds
        for sampler in samplers
    ]
    return run_cells(out / "cells", cells, workers=workers, progress=told)


def table1(
    out: str | os.PathLike[str],
    *,
    worlds: Sequence[int] = WORLDS,
    samplers: Sequence[str] = TABLE1,
    size: int = 100_000,
    workers: int = 1,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Samplers of customers side by side.

    Args:
        out: Folder; what of it is there is not done again, by `figure3` neither.
        worlds: Run numbers of stores.
        samplers: Names out of `virtualtb_fast.evaluation.customer_table.SAMPLERS`;
            ``independent``, the void guard, is always among them.
        size: Customers to fit to, and to generate.
        workers: Processes.
        progress: Called with (cell, cells done, cells).

    Returns:
        What ``table1.json`` holds: ``rows`` by sampler with (mean, half of its 95 % interval) of
        every figure, and ``cells``.

    Raises:
        InvalidArgumentError: an unknown sampler, or too few customers.
        OutputError: the system refused.
        VirtualTBError: what a fit raised.
    """
    samplers = tuple(dict.fromkeys((*samplers, "independent")))
    cells = _customer_cells(Path(out), worlds, samplers, size, workers, progress)
    guards = {cell["world"]: cell for cell in cells if cell["sampler"] == "independent"}
    for cell in cells:
        guard = guards[cell["world"]]
        cell["worst_kl"] = max(cell["marginal_kl"])
        for name in ("pair", "triple"):
            cell[f"ratio_{name}"] = cell[f"{name}_kl"] / guard[f"{name}_kl"]
        cell["ratio_excess"] = cell["excess"] / guard["excess"]
        for name in ("shares", "true_shares", "report"):
            cell.pop(name, None)
    keys = (*_TABLE1, "cpu_seconds")
    rows = {name: row([c for c in cells if c["sampler"] == name], keys) for name in samplers}
    found = {"format": "virtualtb_fast.table1", **about(worlds, size=size), "rows": rows}
    found["cells"] = cells
    return finish(Path(out), "table1", found, markdown(found["rows"], _TABLE1), lambda held: (
        figures.table_bars(held["rows"], {key: _TABLE1[key] for key in ("ratio_pair", "auc")})
    ))  # fmt: skip


_TABLE1: Final = {
    "worst_kl": "worst field KL",
    "ratio_pair": "pairs missed / independent's",
    "ratio_triple": "triples",
    "ratio_excess": "excess",
    "auc": "classifier AUC",
    "novel_rows": "new rows",
}


def figure3(
    out: str | os.PathLike[str],
    *,
    worlds: Sequence[int] = WORLDS[:1],
    samplers: Sequence[str] = FIGURE3,
    size: int = 100_000,
    workers: int = 1,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Shares of all categories in the first world: the truth, and samplers; KL in all worlds.

    Arguments and errors are those of `table1`, whose cells in the same folder are used.
    """
    cells = _customer_cells(Path(out), worlds, samplers, size, workers, progress)
    first = [cell for cell in cells if cell["world"] == worlds[0]]
    fields = [
        {
            "name": name,
            "size": len(first[0]["true_shares"][number]),
            "shares": {"real": first[0]["true_shares"][number]}
            | {cell["sampler"]: cell["shares"][number] for cell in first},
        }
        for number, name in enumerate(first[0]["fields"])
    ]
    names = [field["name"] for field in fields]
    rows = {}
    for sampler in samplers:
        own = [cell["marginal_kl"] for cell in cells if cell["sampler"] == sampler]
        rows[sampler] = {
            name: mean_and_interval([one[number] for one in own])
            for number, name in enumerate(names)
        }
    found = {"format": "virtualtb_fast.figure3", **about(worlds, size=size)}
    found |= {"fields": fields, "rows": rows}
    text = "KL(real || generated) by field, nat\n\n" + markdown(
        rows, {name: name for name in names}
    )
    return finish(Path(out), "figure3", found, text, figures.marginals)
