"""What the tables and figures share: what they say of themselves, tables, files."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from virtualtb_fast import __version__
from virtualtb_fast._training import write_atomically
from virtualtb_fast.evaluation import figures
from virtualtb_fast.evaluation.cells import mean_and_interval
from virtualtb_fast.evaluation.machine import commit, machine

__all__ = ["WORLDS", "Told", "about", "finish", "learning", "markdown", "origin", "row"]

WORLDS: Final = (100, 101, 102, 103, 104)
"""Worlds that results are reported on."""

Told = Callable[[str, int, int], None]
"""Progress: (cell, cells done, cells)."""


def learning() -> str:
    """The defaults that fits to logs have, as text."""
    from virtualtb_fast.customers import PRESETS
    from virtualtb_fast.imitation.cloning import CLICKS
    from virtualtb_fast.imitation.linear import LINEAR
    from virtualtb_fast.imitation.mail_config import MailConfig

    return repr((PRESETS, CLICKS, LINEAR, MailConfig()))


def row(
    cells: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> dict[str, tuple[float, float | None]]:
    """Mean over cells and half its 95 % interval, of the figures that all of them have."""
    return {
        key: mean_and_interval([cell[key] for cell in cells])
        for key in keys
        if all(key in cell for cell in cells)
    }


def about(worlds: Sequence[int], **settings: Any) -> dict[str, Any]:
    """What a result says of how it came about.

    Commit, machine and versions are those of the run that put it together: cells that it found may
    be older.
    """
    return {"version": 1, "worlds": list(worlds), "settings": settings, **origin()}


def origin() -> dict[str, Any]:
    """The code and the machine that a result was made with."""
    versions = {
        "virtualtb_fast": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for name in ("torch", "scikit-learn"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"commit": commit(), "machine": machine(), "versions": versions}


def markdown(
    rows: Mapping[str, Mapping[str, tuple[float, float | None]]],
    titles: Mapping[str, str],
    digits: int = 4,
) -> str:
    """A table in Markdown: a line a row, mean and half of the 95 % interval, if it has one."""
    lines = [["", *titles.values()], ["---"] * (len(titles) + 1)]
    for name, figures_ in rows.items():
        values = [figures_.get(key) for key in titles]
        lines.append([name, *(_shown(value, digits) for value in values)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(value: tuple[float, float | None] | None, digits: int) -> str:
    """A mean and half of its interval; nothing for what a row, or a single run, does not have."""
    if value is None:
        return ""
    mean, half = value
    shown = f"{mean:.{digits}f}"
    return shown if half is None else f"{shown} ± {half:.{digits}f}"


def finish(
    out: Path, name: str, found: dict[str, Any], table: str, draw: Callable[[Any], Any]
) -> dict[str, Any]:
    """Writes table, figure and, last, the JSON that both are made from."""
    figures.needs_matplotlib()
    text = json.dumps(found, indent=1, allow_nan=False)
    held: dict[str, Any] = json.loads(text)
    files = {"md": table.encode(), "png": figures.image(draw(held)), "json": text.encode()}
    for ending, data in files.items():
        with write_atomically(out / f"{name}.{ending}") as file:
            file.write(data)
    return held
