"""Simulators fitted to logs of ground-truth stores: Figures 4 and 5."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from virtualtb_fast._arguments import flag
from virtualtb_fast._fit_settings import WARM
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.evaluation import figures
from virtualtb_fast.evaluation.cells import Cell, mean_and_interval, run_cells
from virtualtb_fast.evaluation.comparisons import compare_features, compare_hours
from virtualtb_fast.evaluation.fidelity import play
from virtualtb_fast.evaluation.reproduce.parts import (
    WORLDS,
    Told,
    about,
    finish,
    learning,
    markdown,
)
from virtualtb_fast.evaluation.sides import SLICES, Side, blocks_of
from virtualtb_fast.policies import Policy
from virtualtb_fast.records.source import pyarrow
from virtualtb_fast.rollout import rollout
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import LOGGED_SD, GroundTruthStore

__all__ = ["figure4", "figure5"]

_LOG, _FRESH, _OTHER, _PLAYED, _FIT = range(1, 6)
"""Purposes of draws: run r of purpose p has the base seed ``(r << 32) | (p << 24)``."""
_CHUNK: Final = 20_000
"""Sessions that are logged at once."""


def features_cell(
    world: int, customers: str, responses: str, sessions: int, effort: float
) -> dict[str, Any]:
    """A simulator fitted to a world's log: R2P by feature, beside fresh sessions of the world."""
    store = GroundTruthStore(world << 32)
    with tempfile.TemporaryDirectory(prefix="virtualtb-figure4-") as folder:
        path = Path(folder) / "log.parquet"
        rollout(store, "logger", sessions=sessions, seed=_seed(world, _LOG), out=path)
        simulator, seconds = _fitted(path, world, customers, responses, effort)
    sides = {
        "real": _true(store, sessions, _seed(world, _FRESH)),
        "fresh": _true(store, sessions, _seed(world, _OTHER)),
        "simulator": play(simulator, _logger(), sessions, 20, _seed(world, _PLAYED)),
    }
    found = compare_features(sides, store.schema, 1)
    totals = {name: side.answers / side.pages for name, side in sides.items()}
    return {"world": world, "features": found, "r2p": totals, "fit_seconds": seconds}


def figure4(
    out: str | os.PathLike[str],
    *,
    worlds: Sequence[int] = WORLDS,
    customers: str = "gan-sd",
    responses: str = "bc+mail",
    sessions: int = 200_000,
    effort: float = 1.0,
    workers: int = 1,
    progress: Told | None = None,
) -> dict[str, Any]:
    """R2P by category of each field with enough pages, real against simulated.

    Args:
        out: Folder; what of it is there is not done again.
        worlds: Run numbers of stores.
        customers: Sampler of customers, as `virtualtb_fast.fit` has it.
        responses: How responses are learned, likewise.
        sessions: Logged, and played of each side.
        effort: Multiplies the steps of every training.
        workers: Processes.
        progress: Called with (cell, cells done, cells).

    Returns:
        What ``figure4.json`` holds: ``rows`` with weighted error and rank correlation of the
        simulator, of fresh true sessions and of the guard, which is blind to features.

    Raises:
        InvalidArgumentError, TrainingDivergedError: what `virtualtb_fast.fit` raises.
        OutputError: the system refused.
    """
    settings: dict[str, Any] = {"customers": customers, "responses": responses}
    settings |= {"sessions": sessions, "effort": effort}
    cells = run_cells(
        Path(out) / "cells",
        [
            Cell(f"features-{world}-{customers}-{responses}", features_cell,
                 {"world": world, **settings}, learning())
            for world in worlds
        ],
        workers=workers,
        progress=progress,
    )  # fmt: skip
    rows = {
        name: {
            key: mean_and_interval([cell["features"][key][name] for cell in cells])
            for key in ("error", "spearman")
        }
        for name in ("simulator", "fresh", "blind")
    }
    found = {"format": "virtualtb_fast.figure4", **about(worlds, **settings), "rows": rows}
    found |= {"cells": cells, "rate": {"name": "R2P"}}
    text = markdown(rows, {"error": "weighted mean error of R2P", "spearman": "rank correlation"})
    return finish(Path(out), "figure4", found, text, lambda held: figures.features(
        {"rate": held["rate"], "features": held["cells"][0]["features"]}
    ))  # fmt: skip


def part_cell(
    world: int, part: int | None, customers: str, responses: str, sessions: int, effort: float
) -> dict[str, Any]:
    """A simulator of one part of a day (None: of sessions of all parts), and its R2P.

    The one of all parts is played twelve times.
    """
    _, found = _part(world, part, customers, responses, sessions, effort)
    return found


def warm_cell(
    world: int,
    part: int,
    start: str | None,
    customers: str,
    responses: str,
    sessions: int,
    effort: float,
    folder: str,
) -> dict[str, Any]:
    """As `part_cell`, but that the fit starts from the simulator of the part before.

    Args:
        world: Run number of the store.
        part: Of the day.
        start: Digest of the simulator of the part before; None for the first part.
        customers: Sampler of customers.
        responses: How responses are learned.
        sessions: Of the part.
        effort: Multiplies the steps of every training.
        folder: Where that simulator is, and where this part's goes.
    """
    before = None if start is None else Simulator.load(_kept(folder, world, part - 1, start))
    simulator, found = _part(world, part, customers, responses, sessions, effort, before)
    simulator.save(_kept(folder, world, part, simulator.digest))
    return {**found, "digest": simulator.digest}


def _part(
    world: int,
    part: int | None,
    customers: str,
    responses: str,
    sessions: int,
    effort: float,
    start: Simulator | None = None,
) -> tuple[Simulator, dict[str, Any]]:
    store = GroundTruthStore(world << 32, hour="uniform")
    with tempfile.TemporaryDirectory(prefix="virtualtb-figure5-") as folder:
        path = Path(folder) / "log.parquet"
        _day(store, world, part, sessions, path)
        simulator, seconds = _fitted(path, world, customers, responses, effort, start)
    seeds = [_seed(world, _PLAYED) + n for n in (range(SLICES) if part is None else (part,))]
    sides = [play(simulator, _logger(), sessions, 20, seed) for seed in seeds]
    rates = [side.answers / side.pages for side in sides]
    return simulator, {"world": world, "part": part, "r2p": rates, "fit_seconds": seconds}


def day_cell(world: int, sessions: int) -> dict[str, Any]:
    """Pages and answers of the store's day by part, twice: no session of these was learned from."""
    store = GroundTruthStore(world << 32, hour="uniform")
    found: dict[str, Any] = {"world": world}
    for name, purpose in (("real", _FRESH), ("fresh", _OTHER)):
        side = _true(store, sessions * SLICES, _seed(world, purpose))
        found[name] = side.by_slice.tolist()
    return found


def figure5(
    out: str | os.PathLike[str],
    *,
    worlds: Sequence[int] = WORLDS[:1],
    customers: str = "gan-sd",
    responses: str = "bc+mail",
    sessions: int = 100_000,
    effort: float = 1.0,
    warm: bool = False,
    workers: int = 1,
    progress: Told | None = None,
) -> dict[str, Any]:
    """R2P over twelve parts of a day, each with a simulator of its own, under the logger.

    Args:
        out: Folder; what of it is there is not done again.
        worlds: Run numbers of stores.
        customers: Sampler of customers, as `virtualtb_fast.fit` has it.
        responses: How responses are learned, likewise.
        sessions: For each part.
        effort: Multiplies the steps of every training.
        warm: Whether the responses of each part start from those of the part before, as its
            simulator in ``OUT/cells`` has them; the paper fits every part by itself. Parts are
            fitted one after another then, and worlds side by side; the files are
            ``figure5-warm``, so that one folder may hold both.
        workers: Processes.
        progress: Called with (cell, cells done, cells).

    Returns:
        What ``figure5.json`` holds: ``rows`` with the correlation over the parts and the largest
        error, of the twelve simulators, of fresh true sessions, and of the guard ``pooled``: one
        simulator of the whole day. What they are held against are sessions that no simulator
        learned from.

    Raises:
        InvalidArgumentError, TrainingDivergedError: what `virtualtb_fast.fit` raises.
        FileFormatError: a simulator in ``OUT/cells`` was altered; without it, it is made again.
        OutputError: the system refused.
    """
    settings: dict[str, Any] = {"customers": customers, "responses": responses}
    settings |= {"sessions": sessions, "effort": effort}
    if flag("warm", warm) and responses not in WARM:
        expected = ", ".join(map(repr, WARM))
        raise InvalidArgumentError(f"warm: expected responses out of {expected}, got {responses!r}")
    parts: list[int | None] = [None] if warm else [None, *range(SLICES)]
    every = len(worlds) * (SLICES + 2)
    asked = [
        Cell(f"part-{world}-{'day' if part is None else part}-{customers}-{responses}",
             part_cell, {"world": world, "part": part, **settings}, learning())
        for world in worlds
        for part in parts
    ]  # fmt: skip
    asked += [
        Cell(f"day-{world}", day_cell, {"world": world, "sessions": sessions}) for world in worlds
    ]
    told = _counted(progress, 0, every)
    cells = run_cells(Path(out) / "cells", asked, workers=workers, progress=told)
    fits, truths = cells[: -len(worlds)], cells[-len(worlds) :]
    if warm:
        for part in range(SLICES):
            before = fits[-len(worlds) :] if part else ()
            told = _counted(progress, len(cells) + part * len(worlds), every)
            fits += _warm(Path(out), worlds, part, before, settings, workers, told)
    days: list[dict[str, Any]] = []
    for world, truth in zip(worlds, truths, strict=True):
        own = {cell["part"]: cell for cell in fits if cell["world"] == world}
        simulated = np.array([own[part]["r2p"][0] for part in range(SLICES)])
        real, fresh = np.array(truth["real"]), np.array(truth["fresh"])
        hours = compare_hours(real, fresh, simulated, 1, np.array(own[None]["r2p"]))
        days.append({"world": world, "hours": {**hours, "by_slice": True}})
    rows = {
        name: {
            key: mean_and_interval([day["hours"][key][name] for day in days])
            for key in ("pearson", "largest_error")
        }
        for name in ("simulator", "fresh", "pooled")
    }
    told_of = about(worlds, **settings, warm=warm)
    found = {"format": "virtualtb_fast.figure5", **told_of, "rows": rows}
    found |= {"days": days, "rate": {"name": "R2P"}}
    text = markdown(rows, {"pearson": "correlation", "largest_error": "largest error of R2P"})
    name = "figure5-warm" if warm else "figure5"
    return finish(Path(out), name, found, text, lambda held: figures.hours(
        {"rate": held["rate"], "hours": held["days"][0]["hours"]}
    ))  # fmt: skip


def _warm(
    out: Path,
    worlds: Sequence[int],
    part: int,
    before: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    workers: int,
    progress: Told | None,
) -> list[dict[str, Any]]:
    """One part of all worlds; ``before`` are the results of the part before, if there was one."""
    folder = out / "cells"
    starts = {one["world"]: one["digest"] for one in before}
    cells = [
        Cell(f"warm-{world}-{part}-{settings['customers']}-{settings['responses']}", warm_cell,
             {"world": world, "part": part, "start": starts.get(world), **settings}, learning(),
             {"folder": str(folder)})
        for world in worlds
    ]  # fmt: skip
    found = run_cells(folder, cells, workers=workers, progress=progress)
    lost = [
        cell
        for cell, one in zip(cells, found, strict=True)
        if not _kept(folder, one["world"], part, one["digest"]).exists()
    ]
    if lost:
        # Their figures are there, but not what the next part starts from.
        for cell in lost:
            (folder / f"{cell.name}.json").unlink(missing_ok=True)
        found = run_cells(folder, cells, workers=workers, progress=progress)
    return found


def _counted(progress: Told | None, before: int, every: int) -> Told | None:
    """Progress of some cells out of more."""
    if progress is None:
        return None
    return lambda name, done, _: progress(name, before + done, every)


def _kept(folder: str | Path, world: int, part: int, digest: str) -> Path:
    """Simulators are known by their content: one of other settings is another file."""
    return Path(folder) / f"warm-{world}-{part}-{digest[:16]}.safetensors"


def _day(store: GroundTruthStore, world: int, part: int | None, sessions: int, path: Path) -> None:
    """The log of a day as Parquet: sessions of one part, or every twelfth of all of them."""
    arrow = pyarrow("figure5")
    writer, before = None, 0
    for seed, many in _pieces(sessions * SLICES, _seed(world, _LOG)):
        log = rollout(store, "logger", sessions=many, seed=seed).log
        if part is None:
            chosen = log["session"] % SLICES == 0
        else:
            chosen = (log["hour"] * (SLICES / 24)).astype(np.int64) == part
        table = arrow.table(log)
        number = arrow.array(log["session"] + before)
        place = table.schema.get_field_index("session")
        table = table.set_column(place, table.schema.field(place), number)
        table = table.filter(arrow.array(chosen))
        if writer is None:
            writer = arrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
        before += many
    assert writer is not None
    writer.close()


def _seed(world: int, purpose: int) -> int:
    return (world << 32) | (purpose << 24)


def _logger() -> Policy:
    return Policy.parse(f"gaussian:{LOGGED_SD}")


def _pieces(sessions: int, seed: int) -> list[tuple[int, int]]:
    """(seed, sessions) of pieces that memory holds."""
    starts = range(0, sessions, _CHUNK)
    return [(seed + n, min(_CHUNK, sessions - first)) for n, first in enumerate(starts)]


def _true(store: GroundTruthStore, sessions: int, seed: int) -> Side:
    """Counts of a store's sessions under its logger."""
    side = Side(store.schema, 20, (seed,))
    for piece, many in _pieces(sessions, seed):
        for block in blocks_of(rollout(store, "logger", sessions=many, seed=piece).log):
            side.add(block)
    return side


def _fitted(
    log: Path,
    world: int,
    customers: str,
    responses: str,
    effort: float,
    start: Simulator | None = None,
) -> tuple[Simulator, float]:
    from virtualtb_fast.fit import fit

    began = time.perf_counter()
    simulator = fit(
        log,
        customers=customers,
        responses=responses,
        effort=effort,
        seed=_seed(world, _FIT),
        warm_start=start,
    )
    return simulator, time.perf_counter() - began
