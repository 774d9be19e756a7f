"""Samplers of customers in ground-truth stores: Table 1 and Figure 3."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from virtualtb_fast._arguments import integer
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.evaluation import figures, metrics
from virtualtb_fast.evaluation.cells import Cell, mean_and_interval, run_cells
from virtualtb_fast.evaluation.reproduce.parts import WORLDS, Told, about, finish, markdown, row
from virtualtb_fast.published import import_published

__all__ = ["AIMS", "FIGURE3", "PUBLISHED", "TABLE1", "figure3", "table1"]

TABLE1: Final = (
    "fresh",
    "gan-sd",
    "gan-sd-fields",
    "gan-sd-paper",
    "gmm",
    "gan",
    "wgan",
    "lca",
    "ar",
    "independent",
)
FIGURE3: Final = ("fresh", "gan-sd", "gan-sd-paper", "gmm", "gan", "wgan", "independent")
PUBLISHED: Final = "published"
"""The row of the released generator, which is judged but fitted to nothing here."""
AIMS: Final = {
    "pairs": {
        "worst_kl": 0.001,
        "ratio_pair": 0.05,
        "ratio_triple": 0.15,
        "ratio_excess": 0.20,
        "auc": 0.56,
    },
    "fields": {"worst_kl": 0.001, "ratio_pair": 0.20, "auc": 0.62},
}
"""What samplers fitted to pairs of fields should reach at most, and GAN-SD without pairs."""


def customers_cell(
    world: int, sampler: str, size: int, released: str | None = None
) -> dict[str, Any]:
    """A sampler fitted to customers of a world: its figures, and the shares that it draws.

    Args:
        world: Run number of the store.
        sampler: A name out of `virtualtb_fast.evaluation.customer_table.SAMPLERS`, or `PUBLISHED`.
        size: Customers to fit to, and to generate.
        released: For `PUBLISHED`, the folder of the published networks.
    """
    from virtualtb_fast.customers import FITS, CustomerSampler
    from virtualtb_fast.evaluation.customer_data import GENERATED, store_customers
    from virtualtb_fast.evaluation.customer_table import cell

    data, kept = store_customers(world, size), []

    def fit(*words: Any, **options: Any) -> Any:
        if released is None:
            kept.append(FITS[sampler](*words, **options))
        else:
            kept.append(CustomerSampler.of(import_published(released)))
        return kept[-1]

    figures_ = cell(data, sampler, fit=fit)
    if released is not None:
        # Reading a file is no fit.
        del figures_["cpu_seconds"], figures_["wall_seconds"]
    codes = data.fresh if not kept else kept[0].sample(size, data.base(GENERATED))
    shares = [metrics.joint_table(codes, data.sizes, (n,)).tolist() for n in range(len(data.sizes))]
    assert data.truth is not None
    true = [metrics.joint_table(data.truth, data.sizes, (n,)).tolist() for n in range(len(shares))]
    names = [one.name for one in data.fields]
    return {**figures_, "world": world, "fields": names, "shares": shares, "true_shares": true}


def _customer_cells(
    out: Path,
    worlds: Sequence[int],
    samplers: Sequence[str],
    size: int,
    workers: int,
    told: Any,
    published: Path | None = None,
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
    if published is not None:
        # Another generator's figures are others; where its files are changes nothing.
        files = repr(import_published(published).provenance["files"])
        cells += [
            Cell(
                f"customers-{world}-{PUBLISHED}",
                customers_cell,
                {"world": world, "sampler": PUBLISHED, "size": size},
                files,
                {"released": str(published)},
            )
            for world in worlds
        ]
    return run_cells(out / "cells", cells, workers=workers, progress=told)


def table1(
    out: str | os.PathLike[str],
    *,
    worlds: Sequence[int] = WORLDS,
    samplers: Sequence[str] = TABLE1,
    size: int = 100_000,
    published: str | os.PathLike[str] | None = None,
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
        published: Folder of the three published files (`virtualtb_fast.import_published`): the row
            `PUBLISHED` is their generator, as it is. Without it the row is left out, and ``notes``
            say so.
        workers: Processes.
        progress: Called with (cell, cells done, cells).

    Returns:
        What ``table1.json`` holds: ``rows`` by sampler with (mean, half of its 95 % interval) of
        every figure, `AIMS`, ``notes`` in words, and ``cells``.

    Raises:
        InvalidArgumentError: an unknown sampler, or too few customers.
        OutputError: the system refused, or a published file is not there.
        FileFormatError: a published file is none.
        VirtualTBError: what a fit raised.
    """
    samplers = tuple(dict.fromkeys((*samplers, "independent")))
    folder = None if published is None else Path(published)
    cells = _customer_cells(Path(out), worlds, samplers, size, workers, progress, folder)
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
    shown = samplers if folder is None else (*samplers[:-1], PUBLISHED, samplers[-1])
    rows = {name: row([c for c in cells if c["sampler"] == name], keys) for name in shown}
    notes = [_note(cells, PUBLISHED in shown)]
    found: dict[str, Any] = {"format": "virtualtb_fast.table1", **about(worlds, size=size)}
    found |= {"aims": AIMS, "rows": rows, "notes": notes, "cells": cells}
    text = markdown(rows, _TABLE1) + "".join(f"\n{note}\n" for note in notes)
    return finish(Path(out), "table1", found, text, lambda held: (
        figures.table_bars(held["rows"], {key: _TABLE1[key] for key in ("ratio_pair", "auc")})
    ))  # fmt: skip


def _note(cells: Sequence[Mapping[str, Any]], published: bool) -> str:
    """What is to be said of the released generator."""
    if not published:
        return (
            "The row of the published generator is left out: no folder of the published networks "
            "was given."
        )
    own = [cell for cell in cells if cell["sampler"] == PUBLISHED]
    # Given the noise its fields are independent, so this bounds all that they say of one another.
    together = max(cell["noise_information"]["fields"] for cell in own)
    aims = AIMS["pairs"]
    best = {key: min(cell[key] for cell in own) for key in aims}
    met = [_TABLE1[key] for key, limit in aims.items() if best[key] <= limit]
    passed = f"meets {', '.join(met)} in some world" if met else "meets none of the aims"
    return (
        f"The published generator was trained on another shop's customers and {passed}; all that "
        f"its fields say of one another is {together:.2f} nat at most."
    )


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
    worlds: Sequence[int] = WORLDS,
    samplers: Sequence[str] = FIGURE3,
    size: int = 100_000,
    workers: int = 1,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Shares of all categories in the first world: the truth, and samplers; KL in all worlds.

    Arguments and errors are those of `table1`, whose cells in the same folder are used.

    Returns:
        What ``figure3.json`` holds: ``fields`` with the shares of their categories, and (mean, half
        of its 95 % interval) over worlds by sampler and field of KL(real || generated) in ``rows``,
        of KL(generated || real) in ``rows_back``, smoothed by half a customer a category.
    """
    samplers = tuple(dict.fromkeys(samplers))
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
    ways = {
        "rows": ("marginal_kl", "KL(real || generated)"),
        "rows_back": ("marginal_kl_back", "KL(generated || real)"),
    }
    found = {"format": "virtualtb_fast.figure3", **about(worlds, size=size), "fields": fields}
    text = []
    for place, (key, title) in ways.items():
        found[place] = {
            sampler: {
                name: mean_and_interval(
                    [cell[key][number] for cell in cells if cell["sampler"] == sampler]
                )
                for number, name in enumerate(names)
            }
            for sampler in samplers
        }
        table = markdown(found[place], {name: name for name in names})
        text.append(f"{title} by field, nat\n\n{table}")
    return finish(Path(out), "figure3", found, "\n".join(text), figures.marginals)
