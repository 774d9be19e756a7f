"""Samplers of customers side by side: the paper's Table 1, with what that table cannot see.

A cell is one sampler fitted to 100,000 customers of one table: of a ground-truth store, whose
density is known, or of people's own, of which a fifth is held out. It is written to a JSON file of
its own as soon as it is there, and a run skips the cells that are there already.

    python -m virtualtb_fast.evaluation.customer_table OUT --seeds 100 101 --samplers gan-sd gmm

| figure | what |
|---|---|
| ``marginal_kl`` | KL(real || generated) of each field; ``marginal_kl_back`` the other way |
| ``pair_kl``, ``triple_kl`` | the same of all pairs and of 100 triples of fields, summed |
| ``excess`` | E_generated[-log p] - H(p), in nat: how unlikely its customers truly are |
| ``auc`` | of a classifier between 20,000 real and 20,000 generated, with the band of chance |
| ``novel_unique``, ``novel_rows`` | shares that are not among the training customers |
| ``noise_information`` | of generators: a lower bound of I(z; x), and its sum over single fields |
| ``cpu_seconds`` | of the fit, all threads together |

``ratio_pair``, ``ratio_triple`` and ``ratio_excess`` are shares of the independent sampler's, whose
cell of the same run is the void guard of everything here; ``fresh`` is what real customers get.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._arguments import parsed
from virtualtb_fast._training import write_atomically
from virtualtb_fast.customers import FITS, CustomerSampler
from virtualtb_fast.customers.sampler import mixture_log_density
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError
from virtualtb_fast.evaluation import metrics
from virtualtb_fast.evaluation.customer_data import (
    FRESH,
    GENERATED,
    KUAIRAND,
    REAL_USERS,
    TRAIN,
    CustomerData,
    kuairand_customers,
    published_counts,
    store_customers,
)
from virtualtb_fast.published import import_published

__all__ = ["SAMPLERS", "cell", "customer_table", "evaluate"]

SAMPLERS: Final = ("fresh", *FITS)
"""Rows of the table: ``fresh`` are real customers that no sampler was fitted to."""

_JUDGED: Final = 20_000
"""Real and as many generated customers for the classifier."""
_NEEDED: Final = ("data", "sampler", "pair_kl", "triple_kl")
"""What ratios are made from."""
_NOISE: Final = 20_000
"""Draws of the noise for its information."""


def evaluate(data: CustomerData, generated: NDArray[np.uint8]) -> dict[str, Any]:
    """The figures of generated customers (n, F); see the module."""
    sizes = data.sizes
    truth = data.held_out if data.truth is None else data.truth
    forth, back = metrics.marginal_kl(truth, generated, sizes)
    many = min(_JUDGED, len(data.held_out), len(generated))
    judged = metrics.classifier_two_sample(
        data.held_out[:many], generated[:many], seed=data.base(FRESH)
    )
    unique, rows = metrics.novelty(generated, data.train)
    fields = len(sizes)
    figures = {
        "marginal_kl": forth.tolist(),
        "marginal_kl_back": back.tolist(),
        "pair_kl": metrics.joint_divergence(truth, generated, sizes, metrics.pairs(fields)),
        "triple_kl": metrics.joint_divergence(
            truth, generated, sizes, metrics.triples(fields, 100, data.seed)
        ),
        "auc": judged.auc,
        "auc_null": list(judged.null),
        "judged_on": judged.held_out,
        "novel_unique": unique,
        "novel_rows": rows,
    }
    if data.truth is not None:
        columns = (data.truth.shares, data.truth.columns)
        mean = -mixture_log_density(generated, data.fields, *columns).mean()
        figures["excess"] = float(mean) - data.entropy
    return figures


def cell(
    data: CustomerData,
    name: str,
    *,
    fit: Callable[..., CustomerSampler] | None = None,
    size: int | None = None,
    progress: Callable[[str, int, int, Mapping[str, float]], None] | None = None,
) -> dict[str, Any]:
    """One row of the table: fits a sampler, draws as many customers as it saw, and judges them."""
    size = len(data.train) if size is None else size
    figures: dict[str, Any] = {"sampler": name, "data": data.name, "seed": data.seed}
    figures |= {"train": len(data.train), "generated": size}
    if name == "fresh":
        if data.truth is None:
            data = replace(data, held_out=data.held_out[: len(data.held_out) // 2])
        return {**figures, "generated": len(data.fresh), **evaluate(data, data.fresh)}
    started, wall = time.process_time(), time.perf_counter()
    make = FITS[name] if fit is None else fit
    sampler = make(data.train, data.fields, seed=data.base(TRAIN), progress=progress)
    figures["cpu_seconds"] = time.process_time() - started
    figures["wall_seconds"] = time.perf_counter() - wall
    report = {key: value for key, value in sampler.report.items() if key != "history"}
    figures |= {"kind": sampler.config.kind, "report": report}
    figures |= evaluate(data, sampler.sample(size, data.base(GENERATED)))
    if sampler.config.kind == "mlp":
        noise = sampler.field_probabilities(_NOISE, data.base(GENERATED))
        bound, alone = metrics.noise_information(noise, data.sizes)
        figures["noise_information"] = {"bound": bound, "fields": float(alone.sum())}
    return figures


def customer_table(
    out: str | os.PathLike[str],
    data: Sequence[CustomerData | int],
    samplers: Sequence[str] = SAMPLERS,
    *,
    fits: Mapping[str, Callable[..., CustomerSampler]] | None = None,
    progress: Callable[[str, int, int, Mapping[str, float]], None] | None = None,
    size: int = 100_000,
) -> list[dict[str, Any]]:
    """Fits and judges every sampler on every table of customers; what is there is not done again.

    Args:
        out: Folder of the cells' files, ``<data>-<sampler>.json``.
        data: Tables, or run numbers of ground-truth stores.
        samplers: Names out of `SAMPLERS` or ``fits``; ``independent`` is always among them.
        fits: Further samplers, by name: functions like those of `FITS`.
        progress: Called with (cell, steps done, steps in all, losses) while a sampler is fitted.
        size: Customers of a store to fit to.

    Returns:
        All cells, with ratios to the independent sampler's.

    Raises:
        InvalidArgumentError: an unknown sampler.
        FileFormatError: a cell that is there is none.
        OutputError: a cell could not be read or written.
    """
    own = dict(fits or {})
    unknown = [name for name in samplers if name not in SAMPLERS and name not in own]
    if unknown:
        expected = ", ".join((*SAMPLERS, *own))
        raise InvalidArgumentError(f"samplers: expected {expected}, got {unknown}")
    names = list(dict.fromkeys(("independent", *samplers)))
    folder = Path(out)
    rows = []
    for one in data:
        label = f"store-{one}" if isinstance(one, int) else one.name
        table: CustomerData | None = None if isinstance(one, int) else one
        cells = []
        for name in names:
            path = folder / f"{label}-{name}.json"
            if path.exists():
                cells.append(read_cell(path))
                continue
            if table is None:
                assert isinstance(one, int)
                table = store_customers(one, size)
            title = f"{label} {name}"

            def told(
                _: str, done: int, steps: int, losses: Mapping[str, float], title: str = title
            ) -> None:
                if progress is not None:
                    progress(title, done, steps, losses)

            cells.append(cell(table, name, fit=own.get(name), progress=told))
            _write(path, cells[-1])
        rows += _with_ratios(cells)
    return rows


def _with_ratios(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    guard = next(one for one in cells if one["sampler"] == "independent")
    for one in cells:
        for name in ("pair", "triple"):
            whole = guard[f"{name}_kl"]
            # Customers of two fields have no triples.
            one[f"ratio_{name}"] = one[f"{name}_kl"] / whole if whole else 0.0
        if "excess" in one:
            one["ratio_excess"] = one["excess"] / guard["excess"]
    return cells


def read_cell(path: Path) -> dict[str, Any]:
    """The result of a cell that was done before, by `customer_table`.

    Raises:
        FileFormatError: it holds something else.
        OutputError: the operating system could not read it.
    """
    remedy = "(remove it to do it again)"
    try:
        held = parsed(str(path), path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path)) from error
    except InvalidArgumentError as error:
        raise FileFormatError(f"{error} {remedy}") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: expected JSON, got {error} {remedy}") from error
    expected = f"expected the result of a cell (JSON) with {', '.join(_NEEDED)}"
    if not isinstance(held, dict):
        raise FileFormatError(f"{path}: {expected}, got a {type(held).__name__} {remedy}")
    lacking = [key for key in _NEEDED if key not in held]
    if lacking:
        raise FileFormatError(f"{path}: {expected}, got one without {lacking} {remedy}")
    return held


def _write(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path.parent)) from error
    with write_atomically(path) as file:
        file.write(text.encode())


def main() -> None:
    """The command: see the module."""
    parser = argparse.ArgumentParser(description="Samplers of customers side by side")
    parser.add_argument("out", help="folder of the cells' JSON files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103, 104])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--published", help="folder of the published networks, another row")
    parser.add_argument("--real", help="folder of real data, whose tables are taken instead")
    arguments = parser.parse_args()
    data: list[CustomerData | int] = list(arguments.seeds)
    if arguments.real:
        data = []
        for seed in arguments.seeds:
            data.append(kuairand_customers(Path(arguments.real) / KUAIRAND, seed))
            data.append(published_counts(Path(arguments.real) / REAL_USERS, seed))

    fits: dict[str, Callable[..., CustomerSampler]] = {}
    if arguments.published:
        released = CustomerSampler.of(import_published(arguments.published))
        fits["published"] = lambda *_, **__: released

    def progress(title: str, done: int, steps: int, losses: Mapping[str, float]) -> None:
        if done % 500 == 0 or done == steps:
            figures = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
            print(f"{title}: {done:,} of {steps:,}  {figures}", flush=True)

    rows = customer_table(
        arguments.out, data, [*arguments.samplers, *fits], fits=fits, progress=progress
    )
    head = ("data", "sampler", "worst KL", "pair", "triple", "excess", "AUC", "novel", "CPU s")
    print(("{:<12}{:<15}" + "{:>10}" * 7).format(*head))
    for row in rows:
        figures = (
            max(row["marginal_kl"]),
            row["ratio_pair"],
            row["ratio_triple"],
            row.get("ratio_excess", float("nan")),
            row["auc"],
            row["novel_rows"],
            row.get("cpu_seconds", 0.0),
        )
        text = "".join(f"{value:>10.4f}" for value in figures)
        print(f"{row['data']:<12}{row['sampler']:<15}{text}")


if __name__ == "__main__":
    main()
