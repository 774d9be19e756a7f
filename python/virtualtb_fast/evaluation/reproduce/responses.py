"""Ways to learn how customers answer, side by side in ground-truth stores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from virtualtb_fast._arguments import integer
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.evaluation import figures
from virtualtb_fast.evaluation.cells import Cell, run_cells
from virtualtb_fast.evaluation.reproduce.parts import (
    WORLDS,
    Told,
    about,
    finish,
    learning,
    markdown,
    row,
)

__all__ = ["AIMS", "RESPONSES", "responses"]

RESPONSES: Final = ("bc", "linear", "bc+mail", "mail", "mail-paper")
AIMS: Final = {
    "effect": (0.30, 1.0),
    "excess": (-1.0, 0.007),
    "logger": (-0.002, 0.002),
    "distance": (0.0, 0.03),
    "shifted": (0.0, 0.06),
    "auc": (0.0, 0.58),
    "engine": (0.0, 0.1),
    "length": (0.95, 1.05),
}
"""Least and most that figures of learned answers should have."""

_TITLES: Final = {
    "effect": "effect of actions, correlation",
    "excess": "excess nat a page",
    "logger": "R2P gap, logger",
    "zero": "R2P gap, zero action",
    "distance": "sessions, logger",
    "shifted": "sessions, shifted",
    "auc": "classifier AUC",
    "engine": "engine, sd",
    "length": "length ratio",
    "cpu_seconds": "CPU seconds",
}


def response_cell(world: int, method: str, train: int, iterations: int | None) -> dict[str, Any]:
    """One method fitted in one world, and measured: `virtualtb_fast.evaluation.imitation.cell`."""
    from virtualtb_fast.evaluation.imitation import Sizes, cell

    few = min(train, 20_000)
    pages = min(train, 200_000)
    return cell(world, method, Sizes(train, 2 * train, few, pages, few, iterations))


def responses(
    out: str | os.PathLike[str],
    *,
    worlds: Sequence[int] = WORLDS,
    methods: Sequence[str] = RESPONSES,
    sessions: int = 200_000,
    iterations: int | None = None,
    workers: int = 1,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Learned customers and engines against the store that they were learned from.

    Args:
        out: Folder; what of it is there is not done again.
        worlds: Run numbers of stores.
        methods: Out of `RESPONSES`.
        sessions: Logged.
        iterations: Most of MAIL, if not its default.
        workers: Processes.
        progress: Called with (cell, cells done, cells).

    Returns:
        What ``responses.json`` holds: `AIMS`, and ``rows`` by method with (mean, half of its 95 %
        interval) of every figure of `virtualtb_fast.evaluation.responses`; ``guard`` has what
        something wrong gets (blind to actions; constant answers; customers biased to buy, or to
        leave; a table that is blind to features, under shifted actions one of constant answers;
        customers with independent fields; an engine that was not trained), ``feature_blind`` the
        distances of that table under either policy, ``fresh`` those of other sessions of the store.

    Raises:
        InvalidArgumentError: an unknown method, or too few sessions.
        OutputError: the system refused.
        VirtualTBError: what a fit raised.
    """
    methods = tuple(dict.fromkeys(methods))
    if not methods or any(name not in RESPONSES for name in methods):
        raise InvalidArgumentError(f"methods: expected {', '.join(RESPONSES)}, got {methods}")
    integer("sessions", sessions, 200, 10**7)
    if iterations is not None:
        integer("iterations", iterations, 1, 10**6)
    given = {"train": sessions, "iterations": iterations}
    cells = run_cells(
        Path(out) / "cells",
        [
            Cell(f"responses-{world}-{method}", response_cell,
                 {"world": world, "method": method, **given}, learning())
            for world in worlds
            for method in methods
        ],
        workers=workers,
        progress=progress,
    )  # fmt: skip
    rows = {
        name: row([_figures(cell) for cell in cells if cell["method"] == name], list(_TITLES))
        for name in methods
    }
    first = [cell for cell in cells if cell["method"] == methods[0]]
    rows["guard"] = row([_guards(cell) for cell in first], list(_TITLES))
    rows["feature_blind"] = row([_feature_blind(cell) for cell in first], list(_TITLES))
    rows["fresh"] = row([_fresh(cell) for cell in first], list(_TITLES))
    found = {"format": "virtualtb_fast.responses", **about(worlds, **given)}
    found |= {"aims": AIMS, "rows": rows, "cells": cells}
    drawn = ("effect", "excess", "distance", "auc")
    return finish(Path(out), "responses", found, markdown(rows, _TITLES), lambda held: (
        figures.table_bars(
            # Of what is drawn, the guards' row has the same.
            {name: held["rows"][name] for name in rows if name != "feature_blind"},
            {key: _TITLES[key] for key in drawn},
        )
    ))  # fmt: skip


def _figures(cell: Mapping[str, Any]) -> dict[str, float]:
    r2p = cell["r2p"]
    return {
        "effect": cell["action_effect"]["learned"],
        "excess": cell["excess_likelihood"]["learned"],
        **{name: r2p[name]["simulator"] - r2p[name]["truth"] for name in ("logger", "zero")},
        "distance": cell["distance"]["logger"]["distance"],
        "shifted": cell["distance"]["shifted"]["distance"],
        "auc": cell["telling_apart"]["auc"],
        "engine": cell["engine"]["learned"],
        "length": cell["length"]["ratio"],
        "cpu_seconds": cell["fit"]["cpu_seconds"],
    }


def _guards(cell: Mapping[str, Any]) -> dict[str, float]:
    found = {
        "effect": cell["action_effect"]["action_blind"],
        "excess": cell["excess_likelihood"]["constant"],
        "distance": cell["distance"]["logger"]["feature_blind"],
        "shifted": cell["distance"]["shifted"]["constant"],
        "auc": cell["telling_apart"]["independent_fields"],
        "engine": cell["engine"]["untrained"],
    }
    # Cells of earlier versions have no biased customers.
    logger = cell["r2p"]["logger"]
    if "biased" in logger:
        found["logger"] = logger["biased"] - logger["truth"]
    if "biased_ratio" in cell["length"]:
        found["length"] = cell["length"]["biased_ratio"]
    return found


def _feature_blind(cell: Mapping[str, Any]) -> dict[str, float]:
    return {
        "distance": cell["distance"]["logger"]["feature_blind"],
        "shifted": cell["distance"]["shifted"]["feature_blind"],
    }


def _fresh(cell: Mapping[str, Any]) -> dict[str, float]:
    return {
        "distance": cell["distance"]["logger"]["fresh_truth"],
        "shifted": cell["distance"]["shifted"]["fresh_truth"],
    }
